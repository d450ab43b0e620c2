"""Folders that are parts of a data set, such as train, Val and seg_test, and those of classes."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from vggfeat._io.text import and_more
from vggfeat.data.left_out import LeftOut
from vggfeat.data.names import is_hidden
from vggfeat.data.sources.files import is_image, walk
from vggfeat.errors import DataError, DataNotFound

PARTS = ("train", "val", "test")
_PART = re.compile(
    r"(?<![a-z])(train|val|test)(?:ing|id|idat(?:e|ion))?(?:set|data)?(?![a-z])", re.IGNORECASE
)
_CLASS_TAR = re.compile(r"n\d{8}\.tar")


def part_of(name: str) -> str:
    """Tell the part of a data set that a folder or a tar is named after; empty if none.

    Examples
    --------
    >>> [part_of(name) for name in ("Train", "validation", "seg_test", "trainset", "trainer")]
    ['train', 'val', 'test', 'train', '']
    """
    match = _PART.search(name)
    return match[1].lower() if match else ""


def find_parts(root: Path) -> dict[str, Path]:
    """Find the folders of a data set's parts; none where the folders are those of classes.

    A folder may be named as :func:`part_of` knows, and its class folders may lie in another of its
    own name (``seg_train/seg_train``). A class may be called train, too: folders are parts where
    that of training has class folders, or where there are no others.

    Raises
    ------
    DataError
        If two folders are the same part.
    """
    named: dict[str, list[Path]] = {}
    folders = [folder for folder in list_folders(root) if has_images(folder) or class_tars(folder)]
    for folder in folders:
        if part := part_of(folder.name):
            named.setdefault(part, []).append(folder)
    holds_classes = any(map(_holds_classes, named.get("train", ())))
    if not holds_classes and sum(map(len, named.values())) < len(folders):
        return {}
    if not holds_classes and any(len(some) > 1 for some in named.values()):
        return {}  # as of classes test_cats and test_dogs
    return {part: _unnested(_only(part, some, root)) for part, some in named.items()}


def class_folders(root: Path) -> list[Path]:
    """List the folders of a folder that are those of classes, be they empty.

    Raises
    ------
    DataNotFound
        If the folders are parts, and none to train with.
    DataError
        If classes lie there as tars, beside others or alone; if it is a tree of VOC, or has one.
    """
    folders = list_folders(root)
    if parts := find_parts(root):
        raise DataNotFound(
            f"{root} has {' and '.join(path.name for path in parts.values())}, but no train. Add "
            "it, or name the folder that holds the class folders."
        )
    if packed := [path.name for path in class_tars(root) if not (root / path.stem).is_dir()]:
        raise DataError(
            f"{root} has {and_more(packed, 'tar')} of a class that is not unpacked. Unpack each "
            "into a folder of its name, or name the tar that they are from, such as "
            "ILSVRC2012_img_train.tar."
        )
    for folder in (root, *folders, *root.glob("VOC*/VOC*"), *root.glob("VOC*/VOC*/VOC*")):
        lists = (folder / "ImageSets").is_dir() or (folder / "Annotations").is_dir()
        if lists and (folder / "JPEGImages").is_dir():
            known = f"voc2007 --root {root}" if folder.name.startswith("VOC") else folder
            raise DataError(
                f"{folder} is a tree of PASCAL VOC, whose images have several classes, and has no "
                f"class folders. Test it by `vggfeat svm --dataset {known}` or a card of your own, "
                "or train boxes on it by `vggfeat localize train`."
            )
    return folders


def refuse_parts(folders: Iterable[str], where: str) -> None:
    """Refuse what is not unpacked if its outermost folders are parts, each of them once."""
    names = sorted(set(folders) - {""})
    parts = [part_of(name) for name in names]
    if names and all(parts) and len(set(parts)) == len(parts):
        raise DataError(
            f"{where} has {' and '.join(map(repr, names))}, which are parts of a data set and no "
            "classes. Unpack it, and name the folder that holds them."
        )


def list_folders(root: Path) -> list[Path]:
    """List the folders in a folder, sorted, without hidden ones; none where there is no folder."""
    if not root.is_dir():
        return []
    return sorted(path for path in root.iterdir() if path.is_dir() and not is_hidden(path.name))


def note_beside(
    left_out: LeftOut, root: Path, part: Path, folders: Iterable[Path], labels: Collection[str]
) -> None:
    """Add what a part has beside its class folders, and which of these have no image.

    Names are paths from the root on; drawings of vggfeat's own are no images, and told already.
    """
    inside = {folder.name for folder in folders}
    for path in sorted(part.iterdir()):
        name = name_below(root, path)
        if path.name not in inside:
            if not is_hidden(path.name):
                (left_out.loose if is_image(path) else left_out.beside).append(name)
        elif path.name not in labels and not any(d.startswith(name) for d in left_out.drawings):
            left_out.empty.append(name.rstrip("/"))


def name_below(root: Path, path: Path) -> str:
    """Name a file or, with a ``/`` behind it, a folder by its path from a root on."""
    return path.relative_to(root).as_posix() + "/" * path.is_dir()


def check_classes(
    left_out: LeftOut, where: Path, names: Iterable[str], labels: Sequence[str]
) -> None:
    """Add what seems wrong with the classes of images, by the names of these.

    Raises
    ------
    DataError
        If this machine can decode no image of a class.
    """
    pairs = list(zip(names, labels, strict=True)) if left_out.undecodable else []
    decodable = {label for name, label in pairs if name not in left_out.undecodable}
    if lost := sorted({label for _, label in pairs} - decodable):
        name = next(name for name, label in pairs if label == lost[0])
        raise DataError(
            f"{where} has no image of {and_more(lost, 'class')} that can be decoded here. {name} "
            f"is {left_out.undecodable[name]}.",
            *left_out.warnings,
        )
    left_out.nested = shared_folders(names, labels)


def shared_folders(names: Iterable[str], labels: Iterable[str]) -> list[str]:
    """Name the folders that every class has, where no class has images of its own.

    These may be the classes, and what was taken for classes be parts of the data.

    Examples
    --------
    >>> names = ["one/cat/1.jpg", "one/dog/1.jpg", "two/cat/1.jpg", "two/dog/1.jpg"]
    >>> shared_folders(names, ["one", "one", "two", "two"])
    ['cat', 'dog']
    >>> shared_folders(["cat/1.jpg", "dog/1.jpg"], ["cat", "dog"])
    []
    """
    below: dict[str, set[str]] = {}
    for name, label in zip(names, labels, strict=True):
        folder, slash, _ = f"/{name}".partition(f"/{label}/")[2].partition("/")
        if not slash:
            return []
        below.setdefault(label, set()).add(folder)
    shared = set.intersection(*below.values()) if len(below) > 1 else set()
    return sorted(shared) if len(shared) > 1 else []


def has_images(folder: Path) -> bool:
    """Tell whether there are images at any depth."""
    return next(walk(folder), None) is not None


def class_tars(folder: Path) -> list[Path]:
    """List tars that are named after a synset, as those in ILSVRC's tar of training images are."""
    return sorted(path for path in folder.glob("*.tar") if _CLASS_TAR.fullmatch(path.name))


def _holds_classes(part: Path) -> bool:
    return bool(class_tars(part)) or any(map(has_images, list_folders(part)))


def _unnested(part: Path) -> Path:
    """Go into a folder of the same name, if there is nothing else."""
    folders = list_folders(part)
    return folders[0] if [folder.name for folder in folders] == [part.name] else part


def _only(part: str, folders: list[Path], root: Path) -> Path:
    exact = [folder for folder in folders if folder.name == part]
    if len(folders) > 1 and not exact:
        names = " and ".join(folder.name for folder in folders[:2])
        raise DataError(
            f"{root} has two folders of the part {part}: {names}. Name the one that is meant "
            f"{part}."
        )
    return (exact or folders)[0]
