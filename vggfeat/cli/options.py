"""Options that several commands share, each said once."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic.fields import FieldInfo

from vggfeat.features.pooling import list_features
from vggfeat.settings import Dense

# Headings under which a command's help lists its options.
DATA, FEATURES, CLASSIFIER = "Data", "Features", "Classifier"
OUTPUT, WORK = "Output", "Where and how it runs"
TRAINING = "Training"


def is_typed(context: typer.Context, name: str) -> bool:
    """Tell whether a parameter was given, rather than left at its default."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def of_extraction(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command an option for each setting of an extraction, where it takes `typed`.

    Its name, default and help are those of the settings; layers and poolings, which registries
    know, have options of their own. The command is given what was typed by name, None for the rest.
    """
    fields = {name: f for name, f in Dense.model_fields.items() if name not in ("layers", "pool")}

    def run(**given: Any) -> None:
        typed = {name: given.pop(name) for name in fields}
        command(**given, typed=typed)

    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        own = parameter.name != "typed"
        parameters += [parameter] if own else [_option(*field) for field in fields.items()]
    run.__name__, run.__doc__, run.__module__ = (
        command.__name__,
        command.__doc__,
        command.__module__,
    )
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _option(name: str, field: FieldInfo) -> inspect.Parameter:
    """Make an option of a setting: of a truth value with its opposite, of a choice as a word."""
    flag = "--" + name.replace("_", "-")
    if field.annotation is bool:
        opposite = (field.json_schema_extra or {}).get("opposite", f"--no-{flag[2:]}")  # type: ignore[union-attr]
        flag += f"/{opposite}"
    kind = field.annotation if field.annotation in (bool, int, float) else str
    option = typer.Option(flag, help=field.description, rich_help_panel=FEATURES)
    annotation = Annotated[kind | None, option]  # type: ignore[valid-type]
    either = inspect.Parameter.POSITIONAL_OR_KEYWORD
    return inspect.Parameter(name, either, default=None, annotation=annotation)


RelativeTo = Annotated[
    Path | None,
    typer.Option(
        "--relative-to",
        metavar="DIR",
        help="Name images by their paths from this folder, where two would have one name. By "
        "default a name is the path as typed, or of a folder photos/ and the path below it.",
        rich_help_panel=DATA,
    ),
]
Nets = Annotated[
    list[str] | None,
    typer.Option(
        "--net",
        help="Configuration of Table 1: A, B, D, E; A-LRN, C with own weights. Repeat to stack "
        "several: --net D --net E is the paper's fusion.",
        rich_help_panel=FEATURES,
    ),
]
Layers = Annotated[
    list[str] | None,
    typer.Option(
        "--layer",
        help="conv1_1 … pool5, fc6, fc7, fc8, or torchvision's name; repeat for several.",
        rich_help_panel=FEATURES,
    ),
]
Scales = Annotated[
    list[int] | None,
    typer.Option(
        "--Q",
        "-Q",
        help="Test scale: smallest side in pixels; repeat for several.",
        rich_help_panel=FEATURES,
    ),
]
WeightsSource = Annotated[
    list[str] | None,
    typer.Option(
        "--weights",
        help="auto, authors, torchvision, embedded, or a file; for one of several nets: NET=FILE.",
        rich_help_panel=FEATURES,
    ),
]
Quality = Annotated[
    str | None,
    typer.Option(
        "--quality",
        help="best: what goes furthest with the weights on this machine; fast: the opposite. "
        "Other options go over it.",
        rich_help_panel=FEATURES,
    ),
]
Pool = Annotated[
    str | None,
    typer.Option(
        "--pool",
        help=f"Over locations: {list_features()}, or several: average+max.",
        rich_help_panel=FEATURES,
    ),
]
Device = Annotated[
    str, typer.Option("--device", help="auto, cpu, cuda, cuda:1 … or mps.", rich_help_panel=WORK)
]
Precision = Annotated[
    str,
    typer.Option(
        "--precision",
        help="auto (bf16 where the hardware has it), fp32, bf16, fp16.",
        rich_help_panel=WORK,
    ),
]
OnBadImage = Annotated[
    str,
    typer.Option(
        "--on-bad-image",
        help="skip: leave it out, with its reason; or error: stop.",
        rich_help_panel=WORK,
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers", min=1, help="Decoding threads; one for each core.", rich_help_panel=WORK
    ),
]
Deterministic = Annotated[
    bool,
    typer.Option(
        "--deterministic",
        help="The same bits again on this machine, whatever is described beside an image, resumed "
        "or in shares: each goes through the network on its own, which takes longer.",
        rich_help_panel=WORK,
    ),
]
Shard = Annotated[
    str | None,
    typer.Option(
        "--shard",
        help="Do one share of the images, as 3/16: processes or machines do one each, into one "
        "--out or several. auto: that of a SLURM array's task, or of torchrun.",
        rich_help_panel=WORK,
    ),
]
Aggregate = Annotated[
    str | None,
    typer.Option(
        "--aggregate", help="Across scales: average, max or stack.", rich_help_panel=FEATURES
    ),
]
Normalize = Annotated[
    str | None,
    typer.Option(
        "--normalize",
        help="L2 of each descriptor, also at all locations before pooling, or none.",
        rich_help_panel=FEATURES,
    ),
]
Power = Annotated[
    float | None,
    typer.Option(
        "--power",
        help="Signed power before L2; 0.5 is the square root, 1 turns a card's off.",
        rich_help_panel=FEATURES,
    ),
]
View = Annotated[
    list[str] | None,
    typer.Option(
        "--view",
        help="image, or the given box of an action; both are stacked. Repeat for both.",
        rich_help_panel=FEATURES,
    ),
]
Out = Annotated[
    str, typer.Option("--out", "-o", help="Folder of the store.", rich_help_panel=OUTPUT)
]
Root = Annotated[
    Path | None,
    typer.Option(
        "--root", help="Where a data set lies: its tree, or its archives.", rich_help_panel=DATA
    ),
]
AllowPartial = Annotated[
    bool,
    typer.Option(
        "--allow-partial", help="Use data that are not all there, and say so.", rich_help_panel=DATA
    ),
]
FeatureFolder = Annotated[
    Path | None,
    typer.Option(
        "--features",
        help="A store, also one of `vggfeat extract`; made if absent. In VGGFEAT_HOME by default.",
        rich_help_panel=FEATURES,
    ),
]
Report = Annotated[
    Path | None,
    typer.Option(
        "--report",
        help="Write a page, such as report.html; its figures as JSON and CSV go to report/ "
        "beside it.",
        rich_help_panel=OUTPUT,
    ),
]
Save = Annotated[
    Path | None,
    typer.Option("--save", help="Write a model for `vggfeat predict`.", rich_help_panel=OUTPUT),
]
Submission = Annotated[
    Path | None,
    typer.Option(
        "--submission",
        help="Write what VOC's evaluation server takes, where it has the labels.",
        rich_help_panel=OUTPUT,
    ),
]
Jobs = Annotated[
    int,
    typer.Option("--jobs", help="Processes that train; -1 for all cores.", rich_help_panel=WORK),
]
JobsBackend = Annotated[
    str | None,
    typer.Option(
        "--jobs-backend",
        help="Where they run, by joblib: loky, here; ray, at --address; or dask, at "
        "DASK_SCHEDULER_ADDRESS.",
        rich_help_panel=WORK,
    ),
]
Engine = Annotated[
    str,
    typer.Option(
        "--engine",
        help="local: this process describes images; or ray: a cluster does.",
        rich_help_panel=WORK,
    ),
]
Address = Annotated[
    str | None,
    typer.Option(
        "--address",
        help="Of the Ray cluster: auto, or HOST:6379. By default RAY_ADDRESS, that of this "
        "machine, or a new one.",
        rich_help_panel=WORK,
    ),
]
Evidence = Annotated[
    bool,
    typer.Option(
        "--evidence/--no-evidence",
        help="In a report, draw where the score of an image is from.",
        rich_help_panel=OUTPUT,
    ),
]
IMAGES = (
    "ILSVRC's folder (its tar files, or unpacked), a folder with train/ and val/, a folder of "
    "class folders, or a CSV file with path, label and split."
)
MOMENTUM = "Share of each update that the next one keeps."
WEIGHT_DECAY = "L2 penalty on all parameters."
DROPOUT = "Ratio of fc6's and fc7's outputs that are dropped."
COLOUR_SHIFT = "Shift the colours of each crop along their principal components."
SEED = "Of the order, the crops, the shifts, dropout and what is drawn at the start."
DecodingProcesses = Annotated[
    int,
    typer.Option("--workers", min=0, help="Decoding processes.", rich_help_panel=WORK),
]
Val = Annotated[
    Path | None,
    typer.Option(
        "--val", help="Validation images, if they lie elsewhere.", rich_help_panel=TRAINING
    ),
]
ValFraction = Annotated[
    float | None,
    typer.Option(
        "--val-fraction", help="Share of the images drawn to validate.", rich_help_panel=TRAINING
    ),
]
Micro = Annotated[
    int | None,
    typer.Option(
        "--micro",
        min=1,
        help="Images computed at a time, if memory is short.",
        rich_help_panel=TRAINING,
    ),
]
Compile = Annotated[
    bool, typer.Option("--compile", help="Use torch.compile.", rich_help_panel=TRAINING)
]
TensorBoard = Annotated[
    bool,
    typer.Option(
        "--tensorboard",
        help="Write for TensorBoard too, in the run's folder tensorboard/.",
        rich_help_panel=TRAINING,
    ),
]
