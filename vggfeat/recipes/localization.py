"""Tables 8 to 10: localisation errors of whole networks on ILSVRC (Appendix A)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from vggfeat.recipes.networks import BEST, Percent, TrainedNet, Use, check_uses
from vggfeat.settings import UPRIGHT, Decoding, Merging, Mode, Regression, Settings


class BoxNet(TrainedNet):
    """A net that predicts boxes (Appendix A).

    Parameters
    ----------
    init : str
        The net of the recipe's that it begins from.
    regression : {"pcr", "scr"}
        A box for each class, or one for all.
    freeze : {"none", "conv"}
        Whether all layers are fine-tuned, or the fully connected ones alone.
    """

    init: str
    regression: Regression = "pcr"
    freeze: Literal["none", "conv"] = "none"

    def training_command(self, name: str, runs: Path) -> str:
        """Write the command that trains it into its folder of `runs`."""
        words = f"--init {runs / self.init / BEST} --S {self.S}"
        words += " --regression scr" if self.regression == "scr" else ""
        words += " --freeze conv" if self.freeze == "conv" else ""
        # ILSVRC states the sizes of files as they lie there.
        words += f" --out {runs / name} --data ILSVRC_ROOT --ignore-exif"
        return f"vggfeat localize train {words}"


class Labels(Settings):
    """The classification system of a table of localisation errors.

    Parameters
    ----------
    uses : tuple of Use
        Nets whose posteriors are averaged: the likeliest classes are an image's labels.
    mode : {"dense", "multicrop", "both"}
        How each is evaluated.
    windows : str
        The net that scores windows.
    """

    uses: tuple[Use, ...] = Field(min_length=1)
    mode: Mode = "dense"
    windows: str


class LocalizationRow(Settings):
    """One line of a table of localisation errors.

    Parameters
    ----------
    name : str
        As the paper has it.
    uses : tuple of Use
        The nets whose boxes are united.
    paper : float, optional
        Its error in validation, in percent.
    """

    name: str
    uses: tuple[Use, ...] = Field(min_length=1)
    paper: Percent | None = None


class OtherSystem(Settings):
    """A line of a table that is another system's, with its error in percent.

    ``unlike`` says why no difference from it means anything, as where it is of test images.
    """

    name: str
    paper: Percent
    unlike: str = ""


class LocalizationRecipe(Settings):
    """Localisation errors on ILSVRC-2012's validation images.

    Parameters
    ----------
    protocol : {"localization"}
        Which kind of recipe this is.
    name : str
        The file's name, without its suffix.
    title : str
        What it reproduces.
    nets : mapping of str to TrainedNet
        Classification nets, by the names of their training runs.
    boxes : mapping of str to BoxNet
        Nets that predict boxes, likewise.
    labels : Labels, optional
        The classification system of protocol 2, whose top-5 error is measured; without one the
        class is given, and the box from the central crop is judged (protocol 1).
    merging : Merging
        How the boxes of windows become one.
    decoding : Decoding
        How images become the pixels that boxes are in. Labels are of upright images, since their
        scores are those of Tables 3 to 7.
    rows : tuple of LocalizationRow
    others : tuple of OtherSystem
        What the paper compares them with.
    """

    protocol: Literal["localization"]
    name: str = ""
    title: str = ""
    nets: dict[str, TrainedNet]
    boxes: dict[str, BoxNet]
    labels: Labels | None = None
    merging: Merging = Merging()
    decoding: Decoding = UPRIGHT
    rows: tuple[LocalizationRow, ...] = Field(min_length=1)
    others: tuple[OtherSystem, ...] = ()

    @property
    def measure(self) -> str:
        """The error of its rows: ``top5`` of protocol 2, or ``central`` of protocol 1."""
        return "top5" if self.labels else "central"

    @model_validator(mode="after")
    def _nets_are_there(self) -> Self:
        for row in self.rows:
            check_uses(row.name, row.uses, self.boxes)
        for name, net in self.boxes.items():
            if net.init not in self.nets:
                raise ValueError(f"{name!r} begins from {net.init!r}, which is none of the nets")
        if self.labels:
            windows = Use(net=self.labels.windows, Q=(1,))
            check_uses("labels", (*self.labels.uses, windows), self.nets)
        return self
