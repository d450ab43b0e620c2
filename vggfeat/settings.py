"""Settings: the default and the help text of each, once."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)

from vggfeat.validation import checked

Aggregate = Literal["average", "max", "stack"]
Normalize = Literal["descriptor", "locations", "none"]
OnBadImage = Literal["skip", "error"]
Locations = Literal["raw", "l2"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
Engine = Literal["local", "ray"]
Regression = Literal["pcr", "scr"]
CSplit = Literal["train-val", "cv3"]
Mode = Literal["dense", "multicrop", "both"]

CROP = 224  # side of what is cut out of a rescaled image to train with
Runtime = Literal["auto", "torch", "packed", "openvino", "winograd"]

GRID = (
    0.001,
    0.0031622776601683794,
    0.01,
    0.03162277660168379,
    0.1,
    0.31622776601683794,
    1.0,
    3.1622776601683795,
    10.0,
    31.622776601683793,
    100.0,
    316.2277660168379,
    1000.0,
)
"""C from 0.001 to 1000 in half decades. Descriptors have length 1 whatever the net, layer and
scale, so margins and losses are of order 1 and one grid around 1 serves them all."""
IN_A_NAME = {"net", "weights", "pixels", "layers", "pool"}
"""Settings of an extraction that a column has in its name, or by its weights' digest and pixels."""
OF_FORMAT_2 = ("flip", "locations", "exif", "precision")
"""Settings that every column has."""
OTHER_NAMES = {"vgg11": "A", "vgg13": "B", "vgg16": "D", "vgg19": "E"}
"""Nets of Table 1 by their number of layers with weights, as most software calls them."""
_OF_A_NET = re.compile(r"[A-E](-[A-Za-z0-9]+)?=")


def _as_tuple(value: Any) -> Any:
    """Take one name or number for a tuple of one."""
    return (value,) if isinstance(value, str | int | float) else value


def net_name(name: str) -> str:
    """Return the configuration of Table 1 that others call VGG-11, VGG-13, VGG-16 or VGG-19.

    Examples
    --------
    >>> net_name("vgg16"), net_name("VGG-19"), net_name("A-LRN")
    ('D', 'E', 'A-LRN')
    """
    return OTHER_NAMES.get(name.lower().replace("-", "").replace("_", ""), name)


def _owner_name(weights: str) -> str:
    """Give the net in NET=FILE its name of Table 1."""
    net, equals, file = weights.partition("=")
    return f"{net_name(net)}={file}" if equals else weights


Names = Annotated[tuple[str, ...], BeforeValidator(_as_tuple)]
Net = Annotated[str, AfterValidator(net_name)]


class Settings(BaseModel):
    """What all settings share: they do not change; unknown and infinite ones are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def but(self, **given: Any) -> Self:
        """Return these settings with others where they are given, that is, not None.

        Raises
        ------
        ParameterError
            If a setting is none of its choices, or there is none of that name.

        Examples
        --------
        >>> Features(Q=(256, 384)).but(aggregate="stack", power=None).aggregate
        'stack'
        """
        known = {name: value for name, value in given.items() if value is not None}
        return checked(type(self), **{**self.model_dump(exclude_unset=True), **known})


PRECISION: Any = Field(
    default="auto", description="auto (bf16 where the hardware has it), fp32, bf16, fp16."
)


class Decoding(Settings):
    """How an image becomes pixels.

    Examples
    --------
    >>> Decoding(exif=False)
    Decoding(exif=False)
    """

    exif: bool = Field(
        default=True,
        description="Apply the orientation a camera recorded.",
        json_schema_extra={"opposite": "--ignore-exif"},
    )


UPRIGHT = Decoding()


class Dense(Decoding):
    """How one net describes images densely, whatever becomes of the descriptors."""

    layers: Names = Field(
        default=("fc7",),
        min_length=1,
        description="conv1_1 … pool5, fc6, fc7, fc8, or torchvision's name; repeat for several.",
        json_schema_extra={"flags": ["--layer"]},
    )
    pool: str = Field(
        default="average",
        description="Over locations: {poolings}, or several: average+max.",
    )
    flip: bool = Field(default=True, description="Average with the mirror image (Appendix B).")
    pixels: Literal["caffe", "torchvision"] | None = Field(
        default=None,
        description="Pixels of a weights file that does not state its own: caffe (BGR, 0 to 255, "
        "minus the mean) or torchvision (RGB, 0 to 1, mean and standard deviation).",
    )

    @property
    def pools(self) -> tuple[str, ...]:
        """The poolings, each of which makes a column of its own."""
        return tuple(self.pool.split("+"))


class Features(Dense):
    """What images are described by: nets, layers, scales, and how descriptors become one row.

    Examples
    --------
    >>> Features(nets=("D", "E"), Q=(256, 384, 512)).aggregate
    'average'
    """

    nets: Annotated[tuple[Net, ...], BeforeValidator(_as_tuple)] = Field(
        default=("D",),
        min_length=1,
        description="Configuration of Table 1: A, B, D, E, or vgg11, vgg13, vgg16, vgg19; A-LRN, "
        "C with own weights. Repeat to stack several: --net D --net E is the paper's fusion.",
        json_schema_extra={"flags": ["--net"]},
    )
    Q: Annotated[tuple[Annotated[int, Field(ge=1)], ...], BeforeValidator(_as_tuple)] = Field(
        default=(256,),
        min_length=1,
        description="Test scale: smallest side in pixels; repeat for several.",
        json_schema_extra={"flags": ["--Q", "-Q"]},
    )
    weights: Annotated[
        tuple[Annotated[str, AfterValidator(_owner_name)], ...], BeforeValidator(_as_tuple)
    ] = Field(
        default=("auto",),
        description="auto, authors, torchvision, embedded, or a file; for one of several nets: "
        "NET=FILE.",
    )
    aggregate: Aggregate = Field(
        default="average", description="Across scales: average, max or stack."
    )
    normalize: Normalize = Field(
        default="descriptor",
        description="L2 of each descriptor, also at all locations before pooling, or none.",
    )
    power: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Signed power before L2; 0.5 is the square root, 1 turns a card's off.",
    )
    views: Annotated[tuple[Literal["image", "box"], ...], BeforeValidator(_as_tuple)] = Field(
        default=("image",),
        min_length=1,
        description="image, or the given box of an action; both are stacked. Repeat for both.",
        json_schema_extra={"flags": ["--view"]},
    )

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        for name in ("nets", "layers", "Q", "views"):
            given = getattr(self, name)
            if len(set(given)) < len(given):
                raise ValueError(f"{name} names {given} with one of them twice")
        for net in self.nets:
            self.weights_of(net)
        return self

    def weights_of(self, net: str) -> str:
        """Name the source or file of a net's weights.

        Examples
        --------
        >>> Features(nets=("D", "E"), weights=("authors", "E=mine.pth")).weights_of("E")
        'mine.pth'
        """
        own = [name.removeprefix(f"{net}=") for name in self.weights if name.startswith(f"{net}=")]
        general = [name for name in self.weights if not _OF_A_NET.match(name)]
        if len(own) > 1 or (not own and len(general) != 1):
            raise ValueError(
                f"weights {self.weights} name not one source or file of net {net}; write one for "
                "all nets, or NET=FILE for each"
            )
        return (own or general)[0]

    def of(self, net: str) -> Extraction:
        """Return what one net is to compute.

        Examples
        --------
        >>> Features(nets=("D", "E"), layers=("pool5",), normalize="locations").of("E")
        Extraction(exif=True, layers=('pool5',), pool='average', flip=True, pixels=None, net='E',
                   weights='auto', locations='l2', precision='auto')
        """
        shared = {name: getattr(self, name) for name in Dense.model_fields}
        locations: Locations = "l2" if self.normalize == "locations" else "raw"
        return Extraction(net=net, weights=self.weights_of(net), locations=locations, **shared)


class Extraction(Dense):
    """What one net computes of an image: all settings that change a descriptor's numbers.

    Names of nets, layers, poolings and weights are checked where an extractor is made.

    Examples
    --------
    >>> Extraction(layers="fc8", pool="softmax+crops5").pools
    ('softmax', 'crops5')
    """

    net: Net = Field(default="D", description="Configuration of Table 1.")
    weights: str = Field(
        default="auto", description="A source (auto, authors, torchvision, embedded) or a file."
    )
    locations: Locations = Field(
        default="raw", description="l2: L2-normalise every location before pooling."
    )
    precision: Precision = PRECISION

    @property
    def numbers(self) -> dict[str, Any]:
        """The settings that change a column's numbers, beside its name, weights and pooling.

        One that is younger than the store's format is left out where it has its default, the
        value that the software had before: columns made then are still the same.
        """
        defaults = {name: field.default for name, field in type(self).model_fields.items()}
        return {
            name: value
            for name, value in self.model_dump(exclude=IN_A_NAME).items()
            if name in OF_FORMAT_2 or value != defaults[name]
        }

    @classmethod
    def of_column(cls, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Inverse of :attr:`numbers`: take them out of all settings of a column.

        Examples
        --------
        >>> Extraction.of_column({"weights": "ab12", "flip": False})["flip"]
        False
        """
        fields = {name: field for name, field in cls.model_fields.items() if name not in IN_A_NAME}
        return {name: settings.get(name, field.default) for name, field in fields.items()}


class Hardware(Settings):
    """What computes: it changes no descriptor beyond rounding.

    Examples
    --------
    >>> Hardware(device="cpu").runtime
    'auto'
    """

    device: str = Field(
        default="auto", description="auto (CUDA, else MPS, else CPU), cpu, cuda, cuda:1 or mps."
    )
    runtime: Runtime = Field(
        default="auto", description="What computes on a CPU; auto takes the fastest."
    )
    deterministic: bool = Field(
        default=False,
        description="The same bits again on this machine, whatever is described beside an image, "
        "resumed or in shares: each goes through the network on its own, which takes longer.",
    )


def _some_or_all(jobs: int) -> int:
    if jobs < 1 and jobs != -1:
        raise ValueError("must be an int from 1 on, or -1 for all cores")
    return jobs


class Execution(Hardware):
    """How a command works: nothing of it changes a result, but precision and bad images.

    Examples
    --------
    >>> Execution(engine="ray", jobs=2).on_bad_image
    'skip'
    """

    precision: Precision = PRECISION
    on_bad_image: OnBadImage = Field(
        default="skip", description="skip: leave it out, with its reason; or error: stop."
    )
    workers: int | None = Field(
        default=None, ge=1, description="Decoding threads, from 1 on; one for each core."
    )
    engine: Engine = Field(
        default="local", description="local: this process describes images; or ray: a cluster does."
    )
    address: str | None = Field(
        default=None,
        description="Of the Ray cluster: auto, or HOST:6379. By default RAY_ADDRESS, that of this "
        "machine, or a new one.",
    )
    jobs: Annotated[int, AfterValidator(_some_or_all)] = Field(
        default=-1, description="Processes that train; -1 for all cores."
    )


def _ascending(values: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(sorted(set(values)))


class SVM(Settings):
    """The linear SVM; what is None is left to the protocol of the data set's card.

    Examples
    --------
    >>> SVM(C=(1, 0.1)).C
    (0.1, 1.0)
    """

    loss: Literal["auto", "hinge", "squared_hinge"] = Field(
        default="auto",
        description="hinge or squared_hinge; auto is the hinge, and the squared one where rows are "
        "beyond memory.",
    )
    solver: Literal["auto", "gram", "primal", "stream"] = Field(
        default="auto", description="auto, gram, primal or stream; see LinearSVM."
    )
    C: Annotated[
        tuple[Annotated[float, Field(gt=0)], ...],
        BeforeValidator(_as_tuple),
        AfterValidator(_ascending),
    ] = Field(
        default=GRID,
        min_length=1,
        description="Value that is tried; repeat for several. 0.001 … 1000 in half decades by "
        "default.",
    )
    class_weight: Literal["auto", "balanced", "none"] = Field(
        default="auto",
        description="balanced: let the positives of a class weigh as much as the rest; none; or "
        "auto: where one class of your own data has half as many images again as another, what is "
        "better in the choice of C.",
        json_schema_extra={"adaptive": True},
    )
    shared_C: bool | None = Field(  # noqa: N815  # C is written so
        default=None,
        description="VOC, or a CSV with labels: one C for all classes, instead of one for each.",
    )
    c_split: CSplit = Field(
        default="train-val",
        description="VOC, or a CSV with labels: choose C on val, trained on train (train-val), or "
        "in 3 folds of both (cv3).",
    )
    difficult: Literal["drop", "negative"] | None = Field(
        default=None,
        description="VOC: in training, drop difficult objects, or take as negative.",
    )

    @model_validator(mode="after")
    def _hinge_in_memory(self) -> Self:
        if self.loss == "hinge" and self.solver == "stream":
            raise ValueError(
                "the loss hinge needs all rows in memory, which the solver stream does not hold; "
                "use loss='auto', or another solver"
            )
        return self


def _range(value: Any) -> Any:
    """Read a scale, or S_min and S_max, as a list of one or two."""
    if not isinstance(value, list | tuple):
        return value
    if not 1 <= len(value) <= 2:
        raise ValueError("must be one scale, or S_min and S_max")
    return tuple(sorted(value)) if len(value) == 2 else value[0]


def _as_large_as_a_crop(S: int | tuple[int, int]) -> int | tuple[int, int]:
    low, high = (S, S) if isinstance(S, int) else S
    if not CROP <= low <= high:
        raise ValueError(f"must be an integer from {CROP} on, or two of them, S_min ≤ S_max")
    return S


STEPWISE = ("plateau", "step")
"""Schedules whose rate does not depend on how many epochs there are."""


class Training(Decoding):
    """A training run: all settings that change the weights that come out (Section 3.1).

    The default of a setting that comes later is what was done before: so a run that does not know
    it goes on.

    Examples
    --------
    >>> Training(net="A", S=[256, 512]).S
    (256, 512)
    >>> Training(steps=(30, 60)).schedule
    'step'
    """

    net: Net = Field(default="A", description="Configuration of Table 1.")
    S: Annotated[
        int | tuple[int, int], BeforeValidator(_range), AfterValidator(_as_large_as_a_crop)
    ] = Field(
        default=256,
        description="Training scale; twice for a range: --S 256 --S 512.",
        json_schema_extra={"adaptive": True},
    )
    init: Literal["glorot", "paper", "kaiming"] = Field(
        default="glorot", description="How layers that are not taken from other weights are drawn."
    )
    batch: int = Field(
        default=256,
        ge=1,
        description="Images of an update, over all processes: 256, or an eighth of fewer than "
        "2048.",
        json_schema_extra={"adaptive": True},
    )
    learning_rate: float = Field(
        default=1e-2,
        gt=0,
        description="0.01; 0.001 where the network begins from weights of its own configuration, "
        "as in the paper at another S.",
        json_schema_extra={"flags": ["--learning-rate", "--lr"], "adaptive": True},
    )
    momentum: float = Field(
        default=0.9, ge=0, lt=1, description="Share of each update that the next one keeps."
    )
    weight_decay: float = Field(default=5e-4, ge=0, description="L2 penalty on all parameters.")
    dropout: float = Field(
        default=0.5, ge=0, lt=1, description="Ratio of fc6's and fc7's outputs that are dropped."
    )
    epochs: int = Field(default=74, ge=1, description="At most.")  # 370,000 updates of 256 images
    schedule: Literal["plateau", "step", "cosine"] = Field(
        default="plateau",
        description="plateau: the rate drops tenfold when validation stops improving; step: after "
        "the epochs of --step; cosine: it falls along half a cosine.",
    )
    patience: int = Field(
        default=3,
        ge=1,
        description="Epochs without a better validation accuracy before the rate drops; 3 by "
        "default.",
        json_schema_extra={"adaptive": True},
    )
    threshold: float = Field(
        default=1e-3, ge=0, lt=1, description="By how much an accuracy must be better, of 1."
    )
    drops: int = Field(
        default=3, ge=0, description="Drops of the rate, with plateau; the next ends the run."
    )
    steps: Annotated[tuple[int, ...], BeforeValidator(_as_tuple)] = Field(
        default=(),
        description="Drop the rate after this epoch instead.",
        json_schema_extra={"flags": ["--step"]},
    )
    warmup: int = Field(
        default=0, ge=0, description="Epochs in which the rate rises to the first of the cosine."
    )
    freeze: Literal["none", "conv"] = Field(default="none", description="none, or conv.")
    label_smoothing: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Share of each target that is spread over all classes; 0 in the paper.",
    )
    colour_shift: bool = Field(
        default=True,
        description="Shift the colours of each crop along their principal components.",
    )
    seed: int = Field(
        default=0,
        ge=0,
        description="Of the order, the crops, the shifts, dropout and what is drawn at the start.",
    )

    @model_validator(mode="before")
    @classmethod
    def _stepping(cls, given: Any) -> Any:
        """Take steps for the schedule of that name, where none is named."""
        return {"schedule": "step", **given} if given.get("steps") else given

    @model_validator(mode="after")
    def _of_the_schedule(self) -> Self:
        if list(self.steps) != sorted({step for step in self.steps if 0 < step < self.epochs}):
            if self.epochs == 1:
                raise ValueError(
                    f"steps {list(self.steps)} are epochs after which the rate drops, and a run of "
                    "epochs = 1 ends with its first. Leave out steps, or train for 2 epochs or more"
                )
            raise ValueError(
                f"steps must be ascending epochs in 1…{self.epochs - 1}, not {list(self.steps)}"
            )
        if bool(self.steps) != (self.schedule == "step"):
            raise ValueError("the schedule 'step' needs steps, and no other schedule takes them")
        if self.warmup and self.schedule != "cosine":
            raise ValueError(f"the schedule {self.schedule!r} takes no warmup, only 'cosine' does")
        if self.warmup >= self.epochs:
            raise ValueError(f"warmup must be less than the {self.epochs} epochs of the run")
        return self


class BoxTraining(Training):
    """A training run of a net that predicts boxes (Appendix A).

    Examples
    --------
    >>> BoxTraining().learning_rate
    0.001
    """

    net: Net = Field(
        default="D",
        description="Configuration of a named source; D by default. A file says its own.",
        json_schema_extra={"adaptive": True},
    )
    S: int = Field(default=256, ge=CROP, description="Training scale.")
    batch: int = Field(
        default=256,
        ge=1,
        description="Images of an update: 256, or a fourth of fewer than 1024.",
        json_schema_extra={"adaptive": True},
    )
    learning_rate: float = Field(
        default=1e-3,
        gt=0,
        description="Of the first updates; it drops tenfold as validation says.",
        json_schema_extra={"flags": ["--learning-rate", "--lr"]},
    )
    epochs: int = Field(default=40, ge=1, description="At most.")
    patience: int = Field(
        default=5,
        ge=1,
        description="Epochs without a better mean IoU in validation before the rate drops: 5, or "
        "of a small set as many as make 50 updates.",
        json_schema_extra={"adaptive": True},
    )
    freeze: Literal["none", "conv"] = Field(
        default="none",
        description="none: all layers are fine-tuned; conv: fc6, fc7 and fc8 alone.",
    )


class Localization(Settings):
    """What a net that predicts boxes learns (Appendix A).

    Examples
    --------
    >>> Localization(regression="scr").visible
    0.5
    """

    regression: Regression = Field(
        default="pcr", description="pcr: a box for each class; scr: one for all."
    )
    visible: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="Crops that show less of the box than this share, 0 to 1, teach nothing.",
    )
    balanced: bool = Field(
        default=True,
        description="Scale the layers against each other, so that one rate suits any net.",
        json_schema_extra={"opposite": "--as-it-is"},
    )


class NetEvaluation(Settings):
    """How a whole network is tested (Section 3.2).

    Examples
    --------
    >>> NetEvaluation(mode="both", grid=3).locations
    'scores'
    """

    multi_scale: bool = Field(
        default=False, description="Test a net trained at a fixed S at S − 32, S and S + 32."
    )
    mode: Mode = Field(
        default="dense", description="dense; multicrop; or both, the mean of the two."
    )
    locations: Literal["scores", "posteriors"] = Field(
        default="scores",
        description="What of the dense map is averaged: scores, as in the paper, or posteriors.",
    )
    grid: int = Field(
        default=5, ge=1, le=99, description="Crops along each side, with multicrop; 5 in the paper."
    )


class Merging(Settings):
    """How the boxes of windows become one: see :func:`~vggfeat.localization.merging.merge`.

    Examples
    --------
    >>> Merging(threshold=0.3)
    Merging(match='iou', threshold=0.3, average='count')
    """

    match: Literal["iou", "overfeat"] = Field(
        default="iou",
        description="What matches best: iou; or overfeat, the score as OverFeat prints it.",
    )
    threshold: float | None = Field(
        default=None, gt=0, description="The worst match that is merged; 0.4 of iou."
    )
    average: Literal["count", "score", "pair"] = Field(
        default="count",
        description="Of coordinates: over all windows of a box (count), weighted by their class "
        "outputs (score), or of two boxes (pair).",
    )

    @model_validator(mode="after")
    def _can_be_met(self) -> Self:
        if self.match == "iou" and self.threshold is not None and not self.threshold <= 1:
            raise ValueError(f"the threshold of an IoU is at most 1, not {self.threshold}")
        return self
