"""A data set's card: its classes, counts, protocol, archives, and the paper's figures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from vggfeat._io.assets import read_toml, shared
from vggfeat.data.imageset import ImageSet
from vggfeat.data.sources.lists import MANIFESTS
from vggfeat.errors import DataNotFound
from vggfeat.result import Published
from vggfeat.settings import Features
from vggfeat.validation import data_error

FILES = (*MANIFESTS, ".tar")
EVERY = "all"
"""Name of the split that is the whole of a data set without splits of its own."""


def _within(path: str) -> str:
    """Refuse a path that leads out of the folder it is below."""
    if (
        PurePosixPath(path).is_absolute()
        or ".." in path.split("/")
        or {"\\", ":", "\0"} & set(path)
    ):
        raise ValueError(f"{path!r} leads out of its folder")
    return path


Below = Annotated[str, AfterValidator(_within)]


class CardModel(BaseModel):
    """A table of a card: it does not change, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class File(CardModel):
    """A file that is published, and its checksums as far as they are known."""

    file: Annotated[Below, Field(pattern=r"^[^/]+$")]
    urls: tuple[str, ...] = ()  # tried in order; none where an account is asked for
    bytes: int | None = Field(default=None, gt=0)
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    md5: str | None = Field(default=None, pattern="^[0-9a-f]{32}$")


class Wrapper(File):
    """A file in which an archive is published."""

    member: str


class Archive(File):
    """An archive of the data set as its authors publish it, with a checksum at least."""

    file: str = Field(pattern=r"^[^/\\]+\.(tar|tar\.gz|tgz)$")
    needed_for: tuple[str, ...]  # splits of the data set that it holds
    proof: Below = ""  # what exists in the tree once it is unpacked; the tree itself if empty
    wrapper: Wrapper | None = None

    @property
    def published(self) -> File:
        """The file that is fetched: this, or the one that it is in."""
        return self.wrapper or self

    @model_validator(mode="after")
    def _verifiable(self) -> Self:
        if not (self.sha256 or self.md5):
            raise ValueError(f"{self.file} needs a sha256 or an md5")
        return self


class PaperFigure(CardModel):
    """A figure of the paper for this data set (Tables 11 and 12).

    Examples
    --------
    >>> print(PaperFigure(table=11, nets=("D", "E"), value=92.7, spread=0.5))
    D & E: 92.7 ± 0.5 %
    """

    table: int | None = None
    nets: tuple[str, ...] = ()
    method: str = ""
    note: str = ""
    value: float
    spread: float | None = None
    unit: Literal["%"] = "%"

    @property
    def name(self) -> str:
        """Whose figure it is, and where it stands: ``"net D & E (Table 11)"``."""
        who = self.method or f"net {' & '.join(self.nets)}"
        note = f", {self.note}" if self.note else ""
        return f"{who}{note}" + (f" (Table {self.table})" if self.table else "")

    def as_published(self, unlike: str = "") -> Published:
        """Return it as a share from 0 to 1; `unlike` says why a result does not compare with it."""
        spread = None if self.spread is None else self.spread / 100
        return Published(self.name, self.value / 100, spread, unlike)

    def __str__(self) -> str:
        name = " & ".join(self.nets) or self.method
        note = f" ({self.note})" if self.note else ""
        spread = "" if self.spread is None else f" ± {self.spread:g}"
        return f"{name}{note}: {self.value:g}{spread} {self.unit}"


class DatasetCard(CardModel):
    """A data set: its classes, counts, protocol, files, licence and the paper's figures.

    Examples
    --------
    >>> DatasetCard(name="mine", reader="folders").required
    ('all',)
    """

    name: str
    title: str = ""
    # What reads the layout of its files: one of READERS; manifest where `folder` is a CSV file.
    reader: str
    folder: Below = ""  # path of its tree or file inside the archives, and below a root
    asset: Below | None = None  # where it lies among the files that travel with vggfeat
    composed: int | None = None  # version of sample_voc that makes it
    root: str = ""  # where its data lie, from the card's own folder on; once opened, where they are
    # What a manifest calls its columns; by default path, and label or labels.
    path_column: str | None = None
    label_column: str | None = None
    images: int | None = None  # in all
    classes: tuple[str, ...] = ()  # in the order of the columns of ImageSet.targets
    counts: dict[str, int] = {}  # rows of each split: images, or persons of the action task
    # Of each class in each split, in the order of classes; the split "all" is the whole of a data
    # set without splits.
    positives: dict[str, tuple[int, ...]] = {}
    strays: tuple[str, ...] = ()  # files and folders in the archives that are none of its images
    archives: tuple[Archive, ...] = ()
    licence: str = ""
    citation: str = ""
    source: str = ""
    # How it is tested: what svm.protocols has for its `kind`; by default multi-label for a manifest
    # with a column `labels`, random splits for all others.
    protocol: dict[str, Any] = {}
    needs: tuple[str, ...] = ()  # splits that a run needs, and that are fetched; the reader's if ()
    defaults: Features | None = None  # what describes its images; without, the standard quality
    paper: tuple[PaperFigure, ...] = ()
    # Once opened: whether the data are not all that the card promises, what is missing or extra,
    # and classes without a single positive to train with.
    partial: bool = False
    differences: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _of_a_file(cls, given: Any) -> Any:
        """Take the reader of manifests for a file."""
        file = str(given.get("folder", "")).lower()
        return {"reader": "manifest", **given} if file.endswith(FILES) else given

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("a class is named twice")
        for split, numbers in self.positives.items():
            if len(numbers) != len(self.classes):
                raise ValueError(
                    f"positives.{split} has {len(numbers)} numbers for {len(self.classes)} classes"
                )
        if self.reader not in READERS:
            raise ValueError(f"reader should be one of {', '.join(sorted(READERS))}")
        reader = READERS[self.reader]
        if (reader.needs_classes or self.archives) and not (self.classes and self.folder):
            what = "a card of archives" if self.archives else f"the reader {self.reader}"
            raise ValueError(f"{what} needs classes and folder, the path of the tree in archives")
        return self

    @property
    def kind(self) -> str:
        """Its protocol's; empty of a manifest that is not opened, whose columns tell.

        Examples
        --------
        >>> DatasetCard(name="mine", reader="folders").kind
        'splits'
        >>> DatasetCard(name="mine", folder="labels.csv").kind
        ''
        """
        return str(self.protocol.get("kind", "" if self.reader == "manifest" else "splits"))

    @property
    def is_published(self) -> bool:
        """Whether it is known what lies beside its images, since its authors put it there."""
        return bool(self.asset or self.archives or self.composed)

    @property
    def required(self) -> tuple[str, ...]:
        """Splits that a run cannot do without, and that are fetched."""
        return self.needs or READERS[self.reader].needs


class Reader(ABC):
    """How the files of one layout are found and read.

    A module of this folder adds one by :func:`register`; a card names it as its ``reader``.
    """

    needs: ClassVar[tuple[str, ...]] = (EVERY,)
    """Splits that a run needs where the card does not say."""
    needs_classes: ClassVar[bool] = False
    """Whether a card has to give classes, and the folder of the tree."""
    in_place: ClassVar[bool] = False
    """Whether the files lie where the card says, rather than in a tree that is looked for."""
    expects_each_class: ClassVar[bool] = False
    """Whether a class without an image is a difference where a card counts no positives."""

    def is_tree(self, card: DatasetCard, folder: Path) -> bool:
        """Tell the folder of the data set from others."""
        return any((folder / name).is_dir() for name in card.classes)

    def folders(self, card: DatasetCard, tree: Path) -> tuple[Path, ...]:
        """Return the folders that make up a tree: itself, or several that archives lie in apart."""
        return (tree,)

    @abstractmethod
    def read(self, card: DatasetCard, tree: Path) -> ImageSet:
        """Read the images, with targets in the order of the card's classes, or with labels."""


READERS: dict[str, Reader] = {}


def register(name: str) -> Callable[[type[Reader]], type[Reader]]:
    """Register a reader under the name that cards call it by."""

    def add(reader: type[Reader]) -> type[Reader]:
        READERS[name] = reader()
        return reader

    return add


def card_names() -> list[str]:
    """Names of the shipped cards.

    Examples
    --------
    >>> "sample" in card_names()
    True
    """
    return sorted(path.stem for path in shared("datasets").glob("*.toml"))


def load_card(name: str) -> DatasetCard:
    """Read a shipped card by its name, or one of your own by the path of its ``.toml`` file.

    Raises
    ------
    DataNotFound
        If there is none of that name.
    DataError
        If it does not hold what a card holds.

    Examples
    --------
    >>> card = load_card("caltech101")
    >>> len(card.classes), card.protocol["train_per_class"]
    (102, 30)
    >>> print(card.paper[2])
    D & E: 92.7 ± 0.5 %
    """
    path = Path(name) if is_own(name) else shared("datasets") / f"{name}.toml"
    if not is_own(name) and name not in card_names():
        raise DataNotFound(
            f"There is no data set {name!r}, and no folder or CSV file of that name. "
            f"Shipped: {', '.join(card_names())}. Or name a folder that holds a folder for each "
            "class, a CSV file with the columns path and label, or a card of your own (.toml)."
        )
    try:
        card = DatasetCard(**read_toml(path))
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise data_error(f"{path} is not a data set card", error, DatasetCard) from error
    if card.root:
        card = card.model_copy(update={"root": str(path.resolve().parent / card.root)})
    return card


def is_own(name: str) -> bool:
    """Tell a card of one's own, by its path, from a shipped one."""
    return name.endswith(".toml") and Path(name).is_file()


def is_card(name: str) -> bool:
    """Tell the name of a card from that of a folder or file."""
    return is_own(name) or name in card_names()
