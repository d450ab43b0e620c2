"""What a training run is: all settings that change the weights that come out."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)

from vggfeat.nets.config import TABLE_1

CROP = 224  # side of what is cut out of a rescaled image
EPOCHS = 74  # of the paper: 370,000 iterations of 256 images


def _range(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _as_large_as_a_crop(S: int | tuple[int, int]) -> int | tuple[int, int]:
    low, high = (S, S) if isinstance(S, int) else S
    if not CROP <= low <= high:
        raise ValueError(f"must be an integer from {CROP} on, or two of them, S_min ≤ S_max")
    return S


class Training(BaseModel):
    """Settings of a training run; the defaults are those of Section 3.1.

    The default of a setting that comes later is what was done before: so a run that does not know
    it goes on.

    Parameters
    ----------
    net : str
        Configuration of Table 1.
    S : int or (int, int)
        Training scale, the smallest side of a rescaled image; or the range [S_min; S_max] from
        which that of each image is drawn.
    batch : int
        Images of a step, over all processes.
    learning_rate, momentum, weight_decay : float
        Of the first epoch; of Krizhevsky's updates; of the L2 penalty on all parameters.
    dropout : float
        Ratio after fc6 and fc7.
    init : {"glorot", "paper", "kaiming"}
        How layers that are not taken from other weights are drawn;
        :func:`~vggfeat.train.init.start` says why Glorot's is the default.
    schedule : {"plateau", "step", "cosine"}
        The rate is divided by 10 when validation accuracy stops improving, as in the paper, or
        after the epochs listed in `steps`; or it falls along half a cosine.
    patience, threshold, drops : int, float, int
        Of the plateau: epochs in a row whose accuracy is no more than `threshold`, in [0, 1],
        above the best one make the rate drop; after `drops` drops the next ends the run.
    steps : tuple of int
        Epochs, ascending, after which the rate drops.
    warmup : int
        Epochs in which the rate rises to the first of the cosine.
    epochs : int
        Most epochs.
    freeze : {"none", "conv"}
        What is left as it begins.
    label_smoothing : float
        Share of a target that is spread over all classes; 0 in the paper.
    colour_shift : bool
        Whether colours are shifted along the principal components.
    seed : int
        Of the order, the crops, the shifts, dropout and the initialisation.

    Examples
    --------
    >>> Training(net="A", S=[256, 512]).S
    (256, 512)
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    net: str = "A"
    S: Annotated[
        int | tuple[int, int], BeforeValidator(_range), AfterValidator(_as_large_as_a_crop)
    ] = 256
    batch: int = Field(default=256, ge=1)
    learning_rate: float = Field(default=1e-2, gt=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=5e-4, ge=0)
    dropout: float = Field(default=0.5, ge=0, lt=1)
    init: Literal["glorot", "paper", "kaiming"] = "glorot"
    schedule: Literal["plateau", "step", "cosine"] = "plateau"
    patience: int = Field(default=3, ge=1)
    threshold: float = Field(default=1e-3, ge=0, lt=1)
    drops: int = Field(default=3, ge=0)
    steps: tuple[int, ...] = ()
    warmup: int = Field(default=0, ge=0)
    epochs: int = Field(default=EPOCHS, ge=1)
    freeze: Literal["none", "conv"] = "none"
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    colour_shift: bool = True
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _known(self) -> Self:
        if self.net not in TABLE_1:
            raise ValueError(f"net {self.net!r} is none of {', '.join(TABLE_1)}")
        if list(self.steps) != sorted({step for step in self.steps if 0 < step < self.epochs}):
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
