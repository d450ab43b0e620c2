"""Options that several commands share, each said once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Nets = Annotated[
    list[str] | None,
    typer.Option(
        "--net",
        help="Configuration of Table 1: A, B, D, E; A-LRN, C with own weights. Repeat to stack "
        "several: --net D --net E is the paper's fusion.",
    ),
]
Layers = Annotated[
    list[str] | None,
    typer.Option(
        "--layer", help="conv1_1 … pool5, fc6, fc7, fc8, or torchvision's name; repeat for several."
    ),
]
Scales = Annotated[
    list[int] | None,
    typer.Option("--Q", "-Q", help="Test scale: smallest side in pixels; repeat for several."),
]
WeightsSource = Annotated[
    list[str] | None,
    typer.Option(
        "--weights",
        help="auto, authors, torchvision, embedded, or a file; for one of several nets: NET=FILE.",
    ),
]
Quality = Annotated[
    str | None,
    typer.Option(
        "--quality",
        help="best: what goes furthest with the weights on this machine; fast: the opposite. "
        "Other options go over it.",
    ),
]
Flip = Annotated[
    bool | None,
    typer.Option("--flip/--no-flip", help="Average with the mirror image (Appendix B)."),
]
Pool = Annotated[
    str | None,
    typer.Option(
        "--pool",
        help="Over locations: average (the paper's), max, cells (four quarters), or several: "
        "average+max.",
    ),
]
Exif = Annotated[
    bool | None,
    typer.Option("--exif/--ignore-exif", help="Apply the orientation a camera recorded."),
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1 … or mps.")]
Precision = Annotated[
    str,
    typer.Option("--precision", help="auto (bf16 where the hardware has it), fp32, bf16, fp16."),
]
OnBadImage = Annotated[
    str,
    typer.Option("--on-bad-image", help="skip: leave it out, with its reason; or error: stop."),
]
Workers = Annotated[
    int | None, typer.Option("--workers", min=1, help="Decoding threads; one for each core.")
]
Aggregate = Annotated[
    str | None, typer.Option("--aggregate", help="Across scales: average, max or stack.")
]
Normalize = Annotated[
    str | None,
    typer.Option(
        "--normalize", help="L2 of each descriptor, also at all locations before pooling, or none."
    ),
]
Power = Annotated[
    float | None,
    typer.Option(
        "--power", help="Signed power before L2; 0.5 is the square root, 1 turns a card's off."
    ),
]
View = Annotated[
    list[str] | None,
    typer.Option(
        "--view", help="image, or the given box of an action; both are stacked. Repeat for both."
    ),
]
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder of the store.")]
Root = Annotated[
    Path | None, typer.Option("--root", help="Where a data set lies: its tree, or its archives.")
]
AllowPartial = Annotated[
    bool, typer.Option("--allow-partial", help="Use data that are not all there, and say so.")
]
FeatureFolder = Annotated[
    Path | None,
    typer.Option(
        "--features",
        help="A store, also one of `vggfeat extract`; made if absent. In VGGFEAT_HOME by default.",
    ),
]
Report = Annotated[
    Path | None,
    typer.Option(
        "--report",
        help="Write a page, such as report.html; its figures as JSON and CSV go to report/.",
    ),
]
Save = Annotated[Path | None, typer.Option("--save", help="Write a model for `vggfeat predict`.")]
Submission = Annotated[
    Path | None,
    typer.Option(
        "--submission", help="Write what VOC's evaluation server takes, where it has the labels."
    ),
]
Jobs = Annotated[int, typer.Option("--jobs", help="Processes that train; -1 for all cores.")]
JobsBackend = Annotated[
    str | None,
    typer.Option("--jobs-backend", help="A backend of joblib: loky, multiprocessing, dask, ray …"),
]
Evidence = Annotated[
    bool,
    typer.Option(
        "--evidence/--no-evidence", help="In a report, draw where the score of a picture is from."
    ),
]
Pointing = Annotated[
    int,
    typer.Option(
        "--pointing",
        min=0,
        help="VOC, with a report: on so many test pictures, whether the strongest evidence lies in "
        "a box of the class; 0 for none.",
    ),
]
