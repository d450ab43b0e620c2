"""Options: those of settings, made from their models, and others that several commands share."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from pydantic.fields import FieldInfo

from vggfeat.features.pooling import list_features
from vggfeat.settings import (
    SVM,
    BoxTraining,
    Decoding,
    Execution,
    Features,
    Localization,
    Merging,
    NetEvaluation,
    Settings,
    Training,
)
from vggfeat.validation import check_each, checked

# Headings under which a command's help lists its options.
DATA, FEATURES, CLASSIFIER = "Data", "Features", "Classifier"
OUTPUT, WORK = "Output", "Where and how it runs"
TRAINING = "Training"
NETWORK = ("device", "precision")
DESCRIBING = (*NETWORK, "on_bad_image", "workers", "deterministic")
CLUSTER = ("engine", "address")
"""Settings of an execution that are options of commands which open a network, describe images
with it, and do so on a cluster as well."""
PANELS = {
    Decoding: DATA,
    Features: FEATURES,
    SVM: CLASSIFIER,
    Execution: WORK,
    Training: "The paper's recipe (Section 3.1)",
    BoxTraining: (APPENDIX_A := "The paper's recipe (Appendix A)"),
    Localization: APPENDIX_A,
    Merging: "Merging (Appendix A)",
    NetEvaluation: (EVALUATION := "Evaluation (Section 3.2)"),
}


@dataclass(frozen=True)
class OptionGroup:
    """The settings of a model that are options of a command.

    Parameters
    ----------
    model : type
    names : tuple of str
        Its settings, in the order in which help lists them.
    typed_only : bool
        Whether they stand over those of a data set, a store or a recipe: the command is given what
        was typed, by name, and help shows no defaults. Otherwise it is given the model.
    own : mapping
        What the option of a setting has of its own in this command: ``help``, ``panel``.
    """

    model: type[Settings]
    names: tuple[str, ...]
    typed_only: bool = False
    own: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @property
    def flags(self) -> dict[str, str]:
        """What is typed for each setting."""
        return {name: _flags(name, self.model.model_fields[name])[0] for name in self.names}

    def take(self, context: typer.Context, given: dict[str, Any]) -> Any:
        """Take the settings out of all that a command is given, and check those that were typed."""
        values = {name: given.pop(name) for name in self.names}
        typed = {name: value for name, value in values.items() if is_typed(context, name)}
        check_each(self.model, typed, self.flags)
        return typed if self.typed_only else checked(self.model, **typed)


def typed_options(
    model: type[Settings],
    *names: str,
    without: Collection[str] = (),
    **own: Mapping[str, str],
) -> OptionGroup:
    """Make options whose settings a command is given as they were typed, to put over others."""
    return OptionGroup(model, names or _names(model, without), typed_only=True, own=own)


def model_options(
    model: type[Settings],
    *names: str,
    without: Collection[str] = (),
    **own: Mapping[str, str],
) -> OptionGroup:
    """Make options of which a command is given the model: of all settings, or of those named."""
    return OptionGroup(model, names or _names(model, without), own=own)


def _names(model: type[Settings], without: Collection[str]) -> tuple[str, ...]:
    """List the settings of a model, before those that it has from others."""
    bases = [base.__annotations__ for base in model.__mro__ if issubclass(base, Settings)]
    every = dict.fromkeys(name for base in bases for name in base if name in model.model_fields)
    return tuple(name for name in every if name not in without)


def with_options(**groups: OptionGroup) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command an option for each setting of some models, where it takes the parameter.

    Name, type, default and help of an option are those of the setting; the flag as well, where it
    is another word.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(command, eval_str=True).parameters.values()
        told = any(parameter.annotation is typer.Context for parameter in own)
        parameters = [] if told else [_parameter("context", typer.Context)]
        for parameter in own:
            group = groups.get(parameter.name)
            keyword = parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            parameters += _options(group) if group else [keyword]

        def run(context: typer.Context, **given: Any) -> None:
            for name, group in groups.items():
                given[name] = group.take(context, given)
            command(**given, **({"context": context} if told else {}))

        run.__name__, run.__doc__ = command.__name__, command.__doc__
        run.__module__ = command.__module__
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {one.name: one.annotation for one in parameters}
        return run

    return decorate


def is_typed(context: typer.Context, name: str) -> bool:
    """Tell whether a parameter was given, rather than left at its default."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _options(group: OptionGroup) -> list[inspect.Parameter]:
    """Make the parameters of a group."""
    made = []
    for name in group.names:
        setting = group.model.model_fields[name]
        kind, own = _kind(setting.annotation), group.own.get(name, {})
        flags = list(_flags(name, setting))
        if kind is bool and setting.default is not False:
            flags[0] += f"/{_extra(setting).get('opposite', f'--no-{flags[0][2:]}')}"
        option = typer.Option(
            *flags,
            help=own.get("help") or (setting.description or "").format(poolings=list_features()),
            rich_help_panel=own.get("panel", PANELS[group.model]) or None,
        )
        adaptive = kind not in (bool, int, float, str) or _extra(setting).get("adaptive")
        default = None if group.typed_only or adaptive else setting.default
        annotation = Annotated[kind | None if default is None else kind, option]  # type: ignore[valid-type]
        made.append(_parameter(name, annotation, default))
    return made


def _parameter(name: str, annotation: Any, default: Any = inspect.Parameter.empty) -> Any:
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
    )


def _extra(setting: FieldInfo) -> dict[str, Any]:
    extra = setting.json_schema_extra
    return extra if isinstance(extra, dict) else {}


def _flags(name: str, setting: FieldInfo) -> list[str]:
    return _extra(setting).get("flags") or ["--" + name.replace("_", "-")]


def _kind(annotation: Any) -> Any:
    """Say what is typed for a setting: several of a tuple, a word of a choice, else the value."""
    arguments = [one for one in get_args(annotation) if one not in (type(None), Ellipsis)]
    origin = get_origin(annotation)
    if origin is tuple:
        return list[_kind(arguments[0])]  # type: ignore[misc]
    if origin in (types.UnionType, Union):  # of one value or several, several may be typed
        several: list[Any] = [one for one in arguments if get_args(one)[1:]]
        return _kind((several or arguments)[0])
    if origin is Annotated:
        return _kind(arguments[0])
    return str if origin is Literal else annotation


Typed = Mapping[str, Any]
"""Settings that were typed, by name."""
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
PathColumn = Annotated[
    str | None,
    typer.Option(
        "--path-column",
        help="Column of a CSV or Parquet file that has the paths; path by default.",
        rich_help_panel=DATA,
    ),
]
LabelColumn = Annotated[
    str | None,
    typer.Option(
        "--label-column",
        help="Column of a CSV or Parquet file that has the labels; label by default, or labels.",
        rich_help_panel=DATA,
    ),
]
Quality = Annotated[
    str | None,
    typer.Option(
        "--quality",
        help="fast, standard or best: what the shipped weights do at three costs; paper: net D, "
        "fc7, as in Appendix B. Other options go over it.",
        rich_help_panel=FEATURES,
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
Out = Annotated[
    str, typer.Option("--out", "-o", help="Folder of the store.", rich_help_panel=OUTPUT)
]
Force = Annotated[
    bool,
    typer.Option("--force", help="Replace a file that is there.", rich_help_panel=OUTPUT),
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
Evidence = Annotated[
    bool,
    typer.Option(
        "--evidence/--no-evidence",
        help="In a report, draw where the score of an image is from.",
        rich_help_panel=OUTPUT,
    ),
]
IMAGES = typer.Argument(metavar="IMAGES", help="What `vggfeat extract` takes.")
Images = Annotated[list[str], IMAGES]
LABELLED = (
    "ILSVRC's folder (its tar files, or unpacked), a folder with train/ and val/, a folder of "
    "class folders, or a CSV or Parquet file with path, label and split."
)
Boxes = Annotated[
    list[Path] | None,
    typer.Option(
        "--boxes",
        help="Folder or tar file of ILSVRC's XML files, if they lie elsewhere.",
        rich_help_panel=DATA,
    ),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on where the run stopped.")]
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
OnlyClasses = Annotated[
    list[str] | None,
    typer.Option("--class", help="Only this class; repeat for several.", rich_help_panel=DATA),
]
Models = Annotated[
    list[str],
    typer.Option(
        "--model",
        help="A run of `vggfeat localize train`, or its best.safetensors; MODEL@352,384 for test "
        "scales of its own. Repeat it: the boxes of several nets are united.",
    ),
]
ClassifierSource = Annotated[
    str | None,
    typer.Option(
        "--classifier",
        help="The classification system: what `vggfeat svm --save` wrote, a run of `vggfeat "
        "train`, or weights with fc8 (a file, authors, torchvision).",
    ),
]
