"""Options that several commands share, each said once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Net = Annotated[
    str,
    typer.Option("--net", help="Configuration of Table 1: A, B, D, E; A-LRN, C with own weights."),
]
Layers = Annotated[
    list[str],
    typer.Option(
        "--layer", help="conv1_1 … pool5, fc6, fc7, fc8, or torchvision's name; repeat for several."
    ),
]
Scales = Annotated[
    list[int],
    typer.Option("--Q", "-Q", help="Test scale: smallest side in pixels; repeat for several."),
]
WeightsSource = Annotated[
    str,
    typer.Option("--weights", help="auto, authors, torchvision, embedded, or a weights file."),
]
Flip = Annotated[
    bool, typer.Option("--flip/--no-flip", help="Average with the mirror image (Appendix B).")
]
Pool = Annotated[
    str, typer.Option("--pool", help="Over locations: average (the paper's), max, or both.")
]
Exif = Annotated[
    bool, typer.Option("--exif/--ignore-exif", help="Apply the orientation a camera recorded.")
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
    str, typer.Option("--aggregate", help="Across scales: average, max or stack.")
]
Normalize = Annotated[
    str,
    typer.Option(
        "--normalize", help="L2 of each descriptor, also at all locations before pooling, or none."
    ),
]
Power = Annotated[
    float | None, typer.Option("--power", help="Signed power before L2; 0.5 is the square root.")
]
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder of the store.")]
