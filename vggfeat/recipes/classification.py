"""Tables 3 to 7: classification errors of whole networks on ILSVRC."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from vggfeat.recipes.networks import ErrorPair, TrainedNet, Use, check_uses
from vggfeat.settings import Mode, Settings


class ClassificationRow(Settings):
    """One line of a table of classification errors.

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
    mode: Mode = "dense"
    paper: ErrorPair | None = None


class ClassificationRecipe(Settings):
    """Classification errors of whole networks on ILSVRC-2012's validation images.

    Parameters
    ----------
    protocol : {"classification"}
        Which kind of recipe this is.
    name : str
        The file's name, without its suffix.
    title : str
        What it reproduces.
    nets : mapping of str to TrainedNet
        By the names of their training runs.
    rows : tuple of ClassificationRow
    """

    protocol: Literal["classification"]
    name: str = ""
    title: str = ""
    nets: dict[str, TrainedNet]
    rows: tuple[ClassificationRow, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _nets_are_there(self) -> Self:
        for row in self.rows:
            check_uses(row.name, row.uses, self.nets)
        return self
