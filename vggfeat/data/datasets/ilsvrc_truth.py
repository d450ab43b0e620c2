"""The classes of ILSVRC's validation images that lie in one folder, from one of three lists.

The development kit's ``ILSVRC2012_validation_ground_truth.txt`` has a number for each image, in the
order of their names; ``meta.mat`` beside it says which synset the number means. Those numbers are
*not* the order of the classes by synset, which the authors' models and this project have: reading
them as such is the classical mistake. Caffe's ``val.txt`` has lines of a name and the number of its
class from 0 on, in the order of ``synsets.txt``, or sorted. Kaggle's ``LOC_val_solution.csv`` names
the synset of each box.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, cast

import numpy as np

from vggfeat.data.sources.tar import DAMAGED
from vggfeat.errors import DataError, DataNotFound

KIT = "ILSVRC2012_devkit_t12"
TRUTH = "ILSVRC2012_validation_ground_truth.txt"
META = "meta.mat"
CAFFE = "val.txt"
KAGGLE = "LOC_val_solution.csv"
VAL_NAME = "ILSVRC2012_val_{:08d}.JPEG"


def find_truth(places: Sequence[Path]) -> Path:
    """Find the lists of the classes of flat validation images, in folders, the likeliest first.

    It is the folder of the kit's two files (a place itself, ``data`` or
    ``ILSVRC2012_devkit_t12/data`` in it), ``ILSVRC2012_devkit_t12.tar.gz``, Caffe's ``val.txt``, or
    Kaggle's ``LOC_val_solution.csv``.

    Raises
    ------
    DataNotFound
        If there is none.
    """
    for place in places:
        for folder in (place, place / "data", place / KIT / "data"):
            if (folder / TRUTH).is_file() and (folder / META).is_file():
                return folder
        for file in (place / f"{KIT}.tar.gz", place / CAFFE, place / KAGGLE):
            if file.is_file():
                return file
    looked = ", ".join(str(place) for place in dict.fromkeys(places))
    raise DataNotFound(
        "The validation images lie in no class folders, and no list of their classes was found "
        f"in {looked}. Put {KIT}.tar.gz (or its {TRUTH} and {META}), Caffe's {CAFFE} or Kaggle's "
        f"{KAGGLE} there, or move the images into a folder for each class, val/n01440764/…."
    )


def read_truth(path: Path, classes: Sequence[str]) -> dict[str, str]:
    """Read the synset (wnid) of each validation image, by name, from what :func:`find_truth` finds.

    `classes` are what the numbers of a ``val.txt`` mean where no ``synsets.txt`` is beside it.

    Raises
    ------
    DataError
        If a list cannot be read.
    """
    if path.name == KAGGLE:
        return _from_kaggle(path)
    return _from_caffe(path, classes) if path.name == CAFFE else _from_kit(path)


def read_synsets(content: bytes, path: Path) -> dict[int, str]:
    """Read which synset each ILSVRC2012_ID of ``meta.mat`` means; `path` is for its DataError."""
    from scipy.io import loadmat  # which takes as long to load as all the rest

    try:
        synsets = np.atleast_1d(loadmat(io.BytesIO(content), squeeze_me=True)["synsets"])
        return {int(synset["ILSVRC2012_ID"]): str(synset["WNID"]) for synset in synsets}
    # Of a damaged file scipy raises errors of a dozen classes.
    except Exception as error:
        raise DataError(
            f"{path} cannot be used: {type(error).__name__}: {error}. Restore it from {KIT}.tar.gz."
        ) from error


def _from_kit(path: Path) -> dict[str, str]:
    truth, meta = _kit_files(path)
    wnids = read_synsets(meta, path / META)
    classes: dict[str, str] = {}
    for line, words in _lines(truth):
        number = int(words[0]) if len(words) == 1 and words[0].isdecimal() else -1
        if number not in wnids:
            raise DataError(
                f"{path / TRUTH}, line {line}: {' '.join(words)!r} is no ILSVRC2012_ID of {META}."
                f" Restore both from {KIT}.tar.gz."
            )
        classes[VAL_NAME.format(line)] = wnids[number]
    return classes


def _kit_files(path: Path) -> tuple[bytes, bytes]:
    """Read the kit's two files, from their folder or from the kit as it is distributed."""
    if path.is_dir():
        return (path / TRUTH).read_bytes(), (path / META).read_bytes()
    try:
        with tarfile.open(path) as kit:
            files = [kit.extractfile(f"{KIT}/data/{name}") for name in (TRUTH, META)]
            truth, meta = (cast("Any", file).read() for file in files)
    except (*DAMAGED, KeyError, AttributeError) as error:
        raise DataError(
            f"{path} cannot be used: {error}. Fetch it anew; it holds {KIT}/data/{TRUTH} and "
            f"{META}."
        ) from error
    return truth, meta


def _from_caffe(path: Path, classes: Sequence[str]) -> dict[str, str]:
    listed = path.with_name("synsets.txt")
    names = list(classes)
    if listed.is_file():
        names = [words[0] for _, words in _lines(listed.read_bytes())]
    truth: dict[str, str] = {}
    for line, words in _lines(path.read_bytes()):
        number = int(words[1]) if len(words) == 2 and words[1].isdecimal() else len(names)
        if number >= len(names):
            raise DataError(
                f"{path}, line {line}: {' '.join(words)!r} is not an image's name and the number "
                f"of its class, from 0 to {len(names) - 1}. Put Caffe's synsets.txt beside it, if "
                "the training images are only a part of ILSVRC."
            )
        image = PurePosixPath(words[0].replace("\\", "/")).name
        if truth.setdefault(image, names[number]) != names[number]:
            raise DataError(
                f"{path}, line {line}: {image} is of {names[number]}, and of {truth[image]} in a "
                "line before. An image has one class: remove one of the lines."
            )
    return truth


def _from_kaggle(path: Path) -> dict[str, str]:
    """Read lines ``image,synset x y x y synset x y x y``, of which all synsets are the same."""
    truth: dict[str, str] = {}
    for line, words in _lines(path.read_bytes()):
        image, comma, first = words[0].partition(",")
        if line == 1 and not first.startswith("n"):
            continue  # the header
        synsets = {first, *words[5::5]}
        if not comma or len(words) % 5 or len(synsets) > 1:
            raise DataError(
                f"{path}, line {line}: {' '.join(words)!r} is not an image and its boxes, each "
                "with the synset of its class. Fetch it anew from Kaggle."
            )
        truth[f"{image}.JPEG"] = first
    return truth


def _lines(content: bytes) -> Iterator[tuple[int, list[str]]]:
    """Go through the words of each line that has any, with its number from 1 on."""
    for number, line in enumerate(content.decode("utf-8-sig", "replace").splitlines(), 1):
        if words := line.split():
            yield number, words
