"""Recipes of Tables 3 to 7: which nets are tested at which scales, and what the paper measured."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from vggfeat.errors import WeightsNotFound
from vggfeat.nets.config import TABLE_1
from vggfeat.train.checkpoint import BEST

Percent = Annotated[float, Field(ge=0, le=100)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Trained(_Frozen):
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
    def _known(cls, net: str) -> str:
        if net not in TABLE_1:
            raise ValueError(f"{net!r} is none of {', '.join(TABLE_1)}")
        return net


class Use(_Frozen):
    """A trained net at some test scales."""

    net: str
    Q: tuple[int, ...] = Field(min_length=1)


class TableRow(_Frozen):
    """One line of a table.

    Parameters
    ----------
    name : str
        As the paper has it.
    uses : tuple of Use
        The nets whose posteriors are averaged.
    mode : {"dense", "multicrop", "both"}
        How each is evaluated.
    paper : (float, float), optional
        Its top-1 and top-5 error in validation, in percent.
    """

    name: str
    uses: tuple[Use, ...] = Field(min_length=1)
    mode: Literal["dense", "multicrop", "both"] = "dense"
    paper: tuple[Percent, Percent] | None = None


class Classification(_Frozen):
    """A table of classification errors on ILSVRC-2012's validation images.

    Parameters
    ----------
    protocol : {"classification"}
        Which kind of recipe this is.
    name : str
        The file's name, without its suffix.
    title : str
        What it reproduces.
    nets : mapping of str to Trained
        By the names of their training runs.
    rows : tuple of TableRow
    """

    protocol: Literal["classification"]
    name: str = ""
    title: str = ""
    nets: dict[str, Trained]
    rows: tuple[TableRow, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _holds(self) -> Self:
        for row in self.rows:
            for use in row.uses:
                if use.net not in self.nets:
                    raise ValueError(f"{row.name!r} uses {use.net!r}, which is none of the nets")
        return self

    def trained(self, name: str, runs: Path) -> Path:
        """Say where the weights of a net are once it is trained."""
        return runs / name / BEST

    def weights_of(self, name: str, runs: Path, given: Mapping[str, str]) -> str:
        """Find the weights of a net: those given, those trained here, or what stands in.

        Parameters
        ----------
        name : str
            One of ``nets``.
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
        best = self.trained(name, runs)
        if best.is_file():
            return str(best)
        wanted = self.nets[name]
        if wanted.weights:
            return wanted.weights
        how = f"run {wanted.chain} --out {runs}"
        if not wanted.chain:
            how = f"train --net {wanted.net} {_typed(wanted.S)} --out {best.parent}"
        raise WeightsNotFound(
            f"{name} is not trained: there is no {best}, and nobody has published it. Train it: "
            f"vggfeat {how} --data ILSVRC_ROOT"
        )


def _typed(S: int | tuple[int, int]) -> str:
    """Write a training scale as it is typed."""
    return " ".join(f"--S {one}" for one in ([S] if isinstance(S, int) else S))
