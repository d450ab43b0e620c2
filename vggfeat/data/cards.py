"""Data set cards: what a data set is, and how it is tested, as one TOML file each."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vggfeat.data.imagesets import ImageSet, read_folders, read_manifest
from vggfeat.errors import DataError, DataNotFound
from vggfeat.resources import asset, shared


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Protocol(_Frozen):
    """How a data set is tested: random splits of every class, and the metric over them.

    Examples
    --------
    >>> Protocol().splits
    3
    """

    metric: Literal["mean class recall"] = "mean class recall"
    splits: int = Field(default=3, ge=1)
    train_fraction: float = Field(default=0.5, gt=0, lt=1)
    train_per_class: int = Field(default=30, ge=1)
    seed: int = Field(default=0, ge=0)


class Defaults(_Frozen):
    """Settings of an extraction that suit a data set, where the user names none."""

    net: str = "D"
    weights: str = "auto"
    layers: tuple[str, ...] = ("fc7",)
    Q: tuple[int, ...] = (256,)
    aggregate: Literal["average", "max", "stack"] = "average"
    power: float | None = Field(default=None, gt=0, le=1)


class DatasetCard(_Frozen):
    """A data set: its classes, protocol, licence, and where its pictures lie.

    Examples
    --------
    >>> load_card("sample").protocol.train_per_class
    30
    """

    name: str
    title: str = ""
    reader: Literal["folders", "manifest"]
    asset: str | None = None
    pictures: int | None = None
    classes: tuple[str, ...] = ()
    licence: str = ""
    source: str = ""
    protocol: Protocol = Protocol()
    defaults: Defaults = Defaults()


def card_names() -> list[str]:
    """Names of the shipped cards.

    Examples
    --------
    >>> "sample" in card_names()
    True
    """
    return sorted(path.stem for path in shared("datasets").glob("*.toml"))


def load_card(name: str) -> DatasetCard:
    """Read a shipped card.

    Raises
    ------
    DataNotFound
        If there is none of that name.
    DataError
        If it does not hold what a card holds.
    """
    path = shared("datasets") / f"{name}.toml"
    if name not in card_names():
        raise DataNotFound(
            f"There is no data set {name!r}, and no folder or CSV file of that name. "
            f"Shipped: {', '.join(card_names())}. Or name a folder that holds a folder for each "
            "class, or a CSV file with the columns path and label."
        )
    try:
        return DatasetCard(**tomllib.loads(path.read_text(encoding="utf-8")))
    except (tomllib.TOMLDecodeError, ValidationError) as error:
        raise DataError(f"{path} is not a data set card: {error}") from error


def open_dataset(name: str) -> tuple[DatasetCard, ImageSet]:
    """Open a data set by the name of its card, a folder of class folders, or a labelled CSV.

    Parameters
    ----------
    name : str
        A shipped card wins over a folder of the same name; write ``./sample`` for the folder.

    Returns
    -------
    DatasetCard, ImageSet

    Raises
    ------
    DataNotFound
        If it is none of the three.
    DataError
        If it has fewer than two classes, or not what its card promises.

    Examples
    --------
    >>> card, images = open_dataset("sample")
    >>> len(images), len(card.classes)
    (300, 10)
    """
    path = Path(name)
    if name not in card_names() and path.exists():
        reader: Literal["folders", "manifest"] = "folders" if path.is_dir() else "manifest"
        stem = path.resolve().name if path.is_dir() else path.stem
        card = DatasetCard(name=stem, title=stem, reader=reader, source=str(path.resolve()))
    else:
        card = load_card(name)
        path = asset(card.asset) if card.asset else path
    images = read_folders(path) if card.reader == "folders" else read_manifest(path)
    if len(images.classes) < 2:
        raise DataError(f"{name} has one class, {images.classes[0]!r}; at least two are needed.")
    if card.classes and (
        tuple(images.classes) != tuple(sorted(card.classes)) or len(images) != card.pictures
    ):
        raise DataError(
            f"{path} holds {len(images)} pictures in {len(images.classes)} classes; its card "
            f"promises {card.pictures} in {len(card.classes)}. Restore it, or test it as a "
            f"folder: --dataset {path}/"
        )
    return card.model_copy(update={"classes": tuple(images.classes)}), images
