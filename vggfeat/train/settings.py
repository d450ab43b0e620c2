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
from vggfeat.train.schedule import EPOCHS, Plateau, Schedule, Step

CROP = 224  # side of what is cut out of a rescaled image


def _range(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _as_large_as_a_crop(S: int | tuple[int, int]) -> int | tuple[int, int]:
    low, high = (S, S) if isinstance(S, int) else S
    if not CROP <= low <= high:
        raise ValueError(f"must be an integer from {CROP} on, or two of them, S_min ≤ S_max")
    return S


class Training(BaseModel):
    """Settings of a training run; the defaults are those of Section 3.1.

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
        Of :class:`~vggfeat.train.optimiser.Momentum`.
    dropout : float
        Ratio after fc6 and fc7.
    init : {"glorot", "paper", "kaiming"}
        How layers that are not taken from other weights are drawn;
        :func:`~vggfeat.train.start.start` says why Glorot's is the default.
    schedule : {"plateau", "step"}
        The rate is divided by 10 when validation accuracy stops improving, or after given epochs.
    patience, threshold, drops : int, float, int
        Of :class:`~vggfeat.train.schedule.Plateau`.
    steps : tuple of int
        Epochs of :class:`~vggfeat.train.schedule.Step`.
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
    schedule: Literal["plateau", "step"] = "plateau"
    patience: int = Field(default=3, ge=1)
    threshold: float = Field(default=1e-3, ge=0, lt=1)
    drops: int = Field(default=3, ge=0)
    steps: tuple[int, ...] = ()
    epochs: int = Field(default=EPOCHS, ge=1)
    freeze: Literal["none", "conv"] = "none"
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    colour_shift: bool = True
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _known(self) -> Self:
        if self.net not in TABLE_1:
            raise ValueError(f"net {self.net!r} is none of {', '.join(TABLE_1)}")
        return self

    def new_schedule(self) -> Schedule:
        """Begin the schedule."""
        if self.schedule == "step":
            return Step(self.learning_rate, epochs=self.steps, max_epochs=self.epochs)
        return Plateau(
            self.learning_rate,
            patience=self.patience,
            threshold=self.threshold,
            drops=self.drops,
            max_epochs=self.epochs,
        )
