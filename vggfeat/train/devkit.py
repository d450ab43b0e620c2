"""The classes of ILSVRC's validation pictures, which lie in one flat folder or tar file.

Two lists tell them. The development kit's ``ILSVRC2012_validation_ground_truth.txt`` has a number
for each picture, in the order of their names; ``meta.mat`` beside it says which synset the number
means. Those numbers are *not* the order of the classes by synset, which the authors' models and
this project have: reading them as such is the classical mistake. Caffe's ``val.txt`` has lines of
a name and the number of its class from 0 on, in the order of ``synsets.txt``, or sorted.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from vggfeat.data.sources import tarring
from vggfeat.errors import DataError, DataNotFound, WeightsError
from vggfeat.nets.formats.matlab import Numbers, Value, variables

KIT = "ILSVRC2012_devkit_t12"
TRUTH = "ILSVRC2012_validation_ground_truth.txt"
META = "meta.mat"
CAFFE = "val.txt"
PICTURE = "ILSVRC2012_val_{:08d}.JPEG"


def ground_truth(places: Sequence[Path], classes: Sequence[str]) -> dict[str, str]:
    """Find the lists, and give the class of each validation picture.

    Parameters
    ----------
    places : sequence of Path
        Folders to look in, the likeliest first: for the kit's two files (there, in ``data``, or
        in ``ILSVRC2012_devkit_t12/data``), for ``ILSVRC2012_devkit_t12.tar.gz``, for ``val.txt``.
    classes : sequence of str
        Those of the training pictures, sorted: what the numbers of a ``val.txt`` mean where no
        ``synsets.txt`` is beside it.

    Returns
    -------
    dict
        The synset (wnid) for each name of a picture.

    Raises
    ------
    DataNotFound
        If there is no list.
    DataError
        If a list cannot be read.
    """
    found = find_truth(places)
    if found.name == CAFFE:
        return _from_caffe(found, classes)
    if found.is_dir():
        return _from_kit(found)
    with _unpacked(found) as folder:
        return _from_kit(folder)


def find_truth(places: Sequence[Path]) -> Path:
    """Find the lists: the folder of the kit's two files, the packed kit, or Caffe's ``val.txt``.

    Parameters
    ----------
    places : sequence of Path
        As of :func:`ground_truth`.

    Raises
    ------
    DataNotFound
        If there is none.
    """
    for place in places:
        for folder in (place, place / "data", place / KIT / "data"):
            if (folder / TRUTH).is_file() and (folder / META).is_file():
                return folder
        for file in (place / f"{KIT}.tar.gz", place / CAFFE):
            if file.is_file():
                return file
    looked = ", ".join(str(place) for place in dict.fromkeys(places))
    raise DataNotFound(
        "The validation pictures lie in no class folders, and no list of their classes was found "
        f"in {looked}. Put {KIT}.tar.gz (or its {TRUTH} and {META}) or Caffe's val.txt there, or "
        "move the pictures into a folder for each class, val/n01440764/…."
    )


def synsets(path: Path) -> dict[int, str]:
    """Read which synset each ILSVRC2012_ID of ``meta.mat`` means.

    Raises
    ------
    DataError
        If it is damaged, or no ``meta.mat`` of ILSVRC-2012.
    """
    try:
        records = variables(path).get("synsets")
        if not isinstance(records, list):
            raise WeightsError("it has no array of structs 'synsets'")
        return dict(map(_synset, records))
    except WeightsError as error:
        raise DataError(f"{path} cannot be used: {error}. Restore it from {KIT}.tar.gz.") from error


def _synset(record: Value) -> tuple[int, str]:
    fields = record if isinstance(record, dict) else {}
    number, wnid = fields.get("ILSVRC2012_ID"), fields.get("WNID")
    if not isinstance(number, Numbers) or not isinstance(wnid, str) or number.shape != (1, 1):
        raise WeightsError("a synset in it has no ILSVRC2012_ID or no WNID")
    return int(number.array().item()), wnid


def _from_kit(folder: Path) -> dict[str, str]:
    wnids = synsets(folder / META)
    truth: dict[str, str] = {}
    for line, words in _lines(folder / TRUTH):
        number = int(words[0]) if len(words) == 1 and words[0].isdecimal() else -1
        if number not in wnids:
            raise DataError(
                f"{folder / TRUTH}, line {line}: {' '.join(words)!r} is no ILSVRC2012_ID of {META}."
                f" Restore both from {KIT}.tar.gz."
            )
        truth[PICTURE.format(line)] = wnids[number]
    return truth


def _from_caffe(path: Path, classes: Sequence[str]) -> dict[str, str]:
    listed = path.with_name("synsets.txt")
    names = [words[0] for _, words in _lines(listed)] if listed.is_file() else list(classes)
    truth: dict[str, str] = {}
    for line, words in _lines(path):
        number = int(words[1]) if len(words) == 2 and words[1].isdecimal() else len(names)
        if number >= len(names):
            raise DataError(
                f"{path}, line {line}: {' '.join(words)!r} is not a picture's name and the number "
                f"of its class, from 0 to {len(names) - 1}. Put Caffe's synsets.txt beside it, if "
                "the training pictures are only a part of ILSVRC."
            )
        truth[PurePosixPath(words[0]).name] = names[number]
    return truth


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Go through the words of each line that has any, with its number from 1 on."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines, 1):
        if words := line.split():
            yield number, words


@contextmanager
def _unpacked(kit: Path) -> Iterator[Path]:
    """Take the two files out of the kit, to a folder that goes again."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        try:
            with kit.open("rb") as file, tarring.opened(file, packed=True) as archive:
                for wanted in (TRUTH, META):
                    member = archive.extractfile(f"{KIT}/data/{wanted}")
                    if member is None:
                        raise KeyError(wanted)
                    with (folder / wanted).open("wb") as out:
                        shutil.copyfileobj(member, out)
        except (*tarring.DAMAGED, KeyError) as error:
            raise DataError(
                f"{kit} cannot be used: {error}. Fetch it anew; it holds {KIT}/data/{TRUTH} and "
                f"{META}."
            ) from error
        yield folder
