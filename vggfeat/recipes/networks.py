"""Trained networks that a table needs: where their weights are, or how to train them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator

from vggfeat.errors import WeightsNotFound
from vggfeat.nets.config import TABLE_1
from vggfeat.settings import Settings

BEST = "best.safetensors"
"""The file of a training run with the weights of its best epoch."""
Percent = Annotated[float, Field(ge=0, le=100)]
ErrorPair = tuple[Percent, Percent]
"""Top-1 and top-5 error in validation, in percent."""


class TrainedNet(Settings):
    """A trained net that a table needs.

    Parameters
    ----------
    net : str
        Configuration of Table 1.
    S : int or (int, int)
        Its training scale.
    chain : str
        The recipe that trains it, of which the net's name is a link; none for a net without one.
    weights : str
        What stands in where it was not trained here; nothing by default.
    """

    net: str
    S: int | tuple[int, int]
    chain: str = ""
    weights: str = ""

    @field_validator("net")
    @classmethod
    def _of_table_1(cls, net: str) -> str:
        if net not in TABLE_1:
            raise ValueError(f"{net!r} is none of {', '.join(TABLE_1)}")
        return net

    def training_command(self, name: str, runs: Path) -> str:
        """Write the command that trains it into its folder of `runs`."""
        if self.chain:
            return f"vggfeat run {self.chain} --out {runs} --data ILSVRC_ROOT"
        scales = " ".join(f"--S {S}" for S in ([self.S] if isinstance(self.S, int) else self.S))
        return f"vggfeat train --net {self.net} {scales} --out {runs / name} --data ILSVRC_ROOT"


def find_weights(
    nets: Mapping[str, TrainedNet], name: str, runs: Path, given: Mapping[str, str]
) -> str:
    """Find the weights of a recipe's net: those given, those trained here, or what stands in.

    Parameters
    ----------
    nets : mapping of str to TrainedNet
        The recipe's.
    name : str
        One of them.
    runs : Path
        Where trained nets lie, as ``vggfeat run train-… --out`` leaves them.
    given : mapping
        Sources or files by the net's name.

    Raises
    ------
    WeightsNotFound
        Saying how to train it.
    """
    if name in given:
        return given[name]
    best = runs / name / BEST
    if best.is_file():
        return str(best)
    if nets[name].weights:
        return nets[name].weights
    raise WeightsNotFound(
        f"{name} is not trained: there is no {best}, and nobody has published it. Train it: "
        f"{nets[name].training_command(name, runs)}"
    )


class Use(Settings):
    """A trained net at some test scales."""

    net: str
    Q: tuple[int, ...] = Field(min_length=1)


def check_uses(row: str, uses: Sequence[Use], nets: Mapping[str, TrainedNet]) -> None:
    """Refuse a row that uses a net which its recipe lacks."""
    for use in uses:
        if use.net not in nets:
            raise ValueError(f"{row!r} uses {use.net!r}, which is none of the nets")
