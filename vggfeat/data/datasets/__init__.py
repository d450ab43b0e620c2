"""Open a data set by its card: what it is, how it is tested, and its images."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

from vggfeat._io.assets import asset
from vggfeat._io.download import Progress
from vggfeat._io.remote import is_address, redact
from vggfeat.data.datasets.card import (
    EVERY,
    READERS,
    DatasetCard,
    card_names,
    is_card,
    is_own,
    load_card,
)
from vggfeat.data.datasets.check import Check, absent, check
from vggfeat.data.datasets.fetch import data_folder, find_tree, locate, provide
from vggfeat.data.datasets.folders import read_labelled
from vggfeat.data.datasets.parts import has_images, list_folders
from vggfeat.data.datasets.sample_voc import compose
from vggfeat.data.datasets.voc import classes_in, find_own_tree, read_voc
from vggfeat.data.imageset import ImageSet, multi_hot, name_columns, one_hot
from vggfeat.data.sources import is_beyond_path
from vggfeat.errors import DataError, DataNotFound, ParameterError

__all__ = [
    "DatasetCard",
    "card_names",
    "check_dataset",
    "fetch_dataset",
    "load_card",
    "open_dataset",
]

for _module in iter_modules(__path__):  # each reader registers itself
    import_module(f"{__name__}.{_module.name}")

_SHOWN = 3  # differences that an error names; `vggfeat datasets check` names all


def open_dataset(
    name: str,
    root: str | Path | None = None,
    *,
    splits: Sequence[str] | None = None,
    allow_partial: bool = False,
    path_column: str | None = None,
    label_column: str | None = None,
    fetch: bool = True,
    progress: Progress | None = None,
) -> tuple[DatasetCard, ImageSet]:
    """Open a data set by the name of its card, a folder of class folders, or a labelled CSV.

    Parameters
    ----------
    name : str
        A shipped card, which wins over a folder of the same name (write ``./sample`` for the
        folder); a card of your own (``my.toml``); a folder; a CSV or Parquet
        manifest; tars (``train-{00..09}.tar``); or an address of any of these. A folder may also
        be a tree of VOC's layout that is none of its years.
    root : path, optional
        Where the data lie; by default where the card says, else ``VGGFEAT_DATA``, else ``./data``,
        else beside a card of your own. It may be the tree of the data set, a folder above it, or
        hold the original archives.
    splits : sequence of str, optional
        Splits that must be there; those that a run needs by default.
    allow_partial : bool
        Whether data that are not all that the card promises will do. They are never fetched then,
        and the card that is returned is marked.
    path_column, label_column : str, optional
        What a manifest calls these columns, where it is not ``path`` and ``label`` (or ``labels``).
    fetch : bool
        Whether what is not here is downloaded; never with ``VGGFEAT_OFFLINE``.
    progress : callable, optional
        Called with the bytes so far and in all of each download.

    Returns
    -------
    DatasetCard
        With ``root``, ``partial``, ``differences`` and ``absent`` as they were found.
    ImageSet
        With targets in the order of the card's classes, and splits where the data set has them.

    Raises
    ------
    ParameterError
        If there is a root, and no card; if columns are named, and there is no manifest.
    DataNotFound
        If it is not here, and may not or cannot be downloaded.
    DataError
        If it has fewer than two classes, is damaged, or is not what its card promises.
    DownloadError
        If a download fails.

    Examples
    --------
    >>> card, images = open_dataset("sample")
    >>> len(images), len(card.classes), images.targets.shape
    (300, 10, (300, 10))
    """
    if not is_card(name) and (Path(name).exists() or is_beyond_path(name)):
        if root is not None:
            raise ParameterError.ignored(
                "root",
                f"{redact(name)}, which is where its name says",
                f"cards, such as {', '.join(card_names()[:2])}",
            )
        return _unnamed(name, path_column, label_column)
    card = _with_columns(load_card(name), path_column, label_column)
    needs = _needs(card, splits)
    tree = _tree(
        card,
        _base(name, card, root),
        lambda base: provide(
            card, base, needs, fetch=fetch, allow_partial=allow_partial, progress=progress
        ),
    )
    card, images, checked = _read(card, tree, needs)
    if not (checked.complete or allow_partial):
        raise DataError(_incomplete(name, card, checked))
    state = {
        "root": str(tree.resolve()),
        "partial": not checked.complete,
        "differences": tuple(map(str, checked.differences)),
        "absent": absent(card, images),
    }
    return card.model_copy(update=state), images


def check_dataset(
    name: str, root: str | Path | None = None, splits: Sequence[str] | None = None
) -> Check:
    """Compare the data set that is here with its card, changing and fetching nothing.

    Raises
    ------
    DataNotFound
        If nothing of it is here.
    DataError
        If it is damaged.

    Examples
    --------
    >>> check_dataset("sample").complete
    True
    """
    card = load_card(name)
    needs = _needs(card, splits)
    tree = _tree(card, _base(name, card, root), lambda base: locate(card, base, needs))
    return _read(card, tree, needs)[2]


def fetch_dataset(
    name: str,
    root: str | Path | None = None,
    splits: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> Path:
    """Fetch, verify and unpack the archives that are not here yet; return where the tree is.

    Raises
    ------
    DataNotFound, DataError, DownloadError
        As for :func:`open_dataset`.
    """
    card = load_card(name)
    needs = _needs(card, splits)
    if root is not None and card.archives:
        try:
            Path(root).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(
                f"The folder {root} cannot be made: {error.strerror}. Name another --root."
            ) from error
    base = _base(name, card, root)
    return _tree(card, base, lambda base: provide(card, base, needs, progress=progress))


def _needs(card: DatasetCard, splits: Sequence[str] | None) -> tuple[str, ...]:
    """Return the splits that must be there: those asked for, if the card knows them.

    Where the card counts nothing, its CSV says which there are, once it is read.
    """
    if splits is None:
        return card.required
    if card.counts or not _plain(card):
        _refuse_unknown(card, splits)
    return tuple(splits)


def _refuse_unknown(card: DatasetCard, splits: Sequence[str], there: Iterable[str] = ()) -> None:
    """Refuse splits of which neither the card nor the data say anything."""
    archived = (split for archive in card.archives for split in archive.needed_for)
    known = sorted({EVERY, *card.counts, *card.required, *archived, *there})
    if unknown := [split for split in splits if split not in known]:
        raise DataError(f"{card.name} has no split {unknown[0]!r}; it has {', '.join(known)}.")


def _base(name: str, card: DatasetCard, root: str | Path | None) -> Path:
    """Return the folder to look in; that of a card of one's own where there is nothing else."""
    base = data_folder(root or card.root or None)
    if root is not None and not (card.asset or card.composed or base.is_dir()):
        raise DataNotFound(
            f"There is no folder {base}. Point --root at a folder that holds "
            f"{card.folder or 'the data'}, or make it: `vggfeat datasets fetch {card.name} "
            f"--root {base}` does."
        )
    beside = Path(name).parent
    if root or card.root or not is_own(name) or _is_in(card, base):
        return base
    if _plain(card) and not _is_in(card, beside):
        raise DataNotFound(
            f"There is no {card.folder} in {base}{os.sep}, nor beside the card {name}. Put it "
            "there, or point --root at the folder that holds it."
        )
    return beside if _is_in(card, beside) else base


def _is_in(card: DatasetCard, base: Path) -> bool:
    if _plain(card):
        return (base / card.folder).exists()
    return base.is_dir() and find_tree(card, base) is not None


def _tree(card: DatasetCard, base: Path, look: Callable[[Path], Path]) -> Path:
    """Return where a data set ships, was composed, or is found by `look` from a folder on."""
    if card.asset:
        return asset(card.asset)
    if card.composed:
        return compose(card.composed) / card.folder
    return base / card.folder if _plain(card) else look(base)


def _plain(card: DatasetCard) -> bool:
    """Tell whether a card says where its data are, and of no archive that holds them."""
    return READERS[card.reader].in_place and not card.archives


def _read(
    card: DatasetCard, tree: Path, needs: Sequence[str]
) -> tuple[DatasetCard, ImageSet, Check]:
    images = READERS[card.reader].read(card, tree)
    if not card.kind:
        protocol = {"kind": _kind_of(images), **card.protocol}
        card = card.model_copy(update={"protocol": protocol})
    if images.targets is None:
        card, images = _with_targets(card, images, tree)
    _refuse_unknown(card, needs, images.splits)
    return card, images, check(card, images, tree, needs)


def _kind_of(images: ImageSet) -> str:
    return "multi-label" if images.label_sets else "splits"


def _with_targets(
    card: DatasetCard, images: ImageSet, tree: Path | str
) -> tuple[DatasetCard, ImageSet]:
    if len(images.classes) < 2 and not images.label_sets:
        only = Path(tree) / images.classes[0]
        hint = f" Name {only}, which has class folders." * any(map(has_images, list_folders(only)))
        raise DataError(f"{tree} has one class, {only.name!r}; at least two are needed.{hint}")
    classes = card.classes or tuple(images.classes)
    if unknown := sorted(set(images.classes) - set(classes)):
        raise DataError(
            f"{tree} has a class {unknown[0]!r} that its card does not know. Remove it, or test "
            f"the folder without the card: --dataset {tree}/"
        )
    several, single = images.label_sets, images.labels
    targets = multi_hot(several, classes) if several else one_hot(single, classes)
    return card.model_copy(update={"classes": classes}), replace(images, targets=targets)


def _with_columns(
    card: DatasetCard, path_column: str | None, label_column: str | None
) -> DatasetCard:
    """Name the columns of a card's manifest; ParameterError if it has none."""
    name_columns([card.folder or card.name], path_column, label_column)
    named = {"path_column": path_column, "label_column": label_column}
    return card.model_copy(update={key: column for key, column in named.items() if column})


def _unnamed(
    name: str, path_column: str | None, label_column: str | None
) -> tuple[DatasetCard, ImageSet]:
    """Make a card for a folder of classes, a manifest, tars or an address, which have none."""
    path = Path(name)
    if folders := find_own_tree(path):
        name_columns([name], path_column, label_column)
        return _own_tree(path, folders)
    source = redact(name) if is_address(name) else str(path.resolve())
    stem = Path(source).name if path.is_dir() else Path(source).stem
    reader = "folders" if path.is_dir() else "manifest"
    images = read_labelled(name, path_column=path_column, label_column=label_column)
    protocol = {"kind": _kind_of(images)}
    card = DatasetCard(
        name=stem,
        title=stem,
        reader=reader,
        source=source,
        root=source,
        protocol=protocol,
        path_column=path_column,
        label_column=label_column,
    )
    return _with_targets(card, images, source)


def _own_tree(path: Path, folders: tuple[Path, ...]) -> tuple[DatasetCard, ImageSet]:
    """Make a card for a tree of VOC's layout that is none of its years."""
    place, classes = path.resolve(), tuple(classes_in(folders))
    card = DatasetCard(
        name=place.name,
        title=place.name,
        reader="voc",
        folder=place.name,
        source=str(place),
        root=str(place),
        classes=classes,
        protocol={"kind": "multi-label"},
    )
    return card, read_voc(folders, classes)


def _incomplete(name: str, card: DatasetCard, checked: Check) -> str:
    first = "; ".join(map(str, checked.differences[:_SHOWN]))
    more = len(checked.differences) - _SHOWN
    rest = f"; and {more} more differences" if more > 0 else ""
    if card.asset or card.composed:
        mend = "Remove that folder, and it is made anew" if card.composed else "Restore it"
        return (
            f"{checked.root} is not what its card promises: {first}{rest}. {mend}, or use it as it "
            "is with --allow-partial."
        )
    return (
        f"{card.title or card.name} in {checked.root} is not whole: {first}{rest}. See all of them "
        f"with `vggfeat datasets check {name} --root {checked.root}`; restore it, or use it "
        "as it is with --allow-partial."
    )
