"""The pictures that localisation is tested on, where those of training need not be there."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vggfeat._io.download import Progress
from vggfeat._io.text import and_more
from vggfeat.data.datasets import load_card
from vggfeat.data.datasets.folders import read_manifest
from vggfeat.data.datasets.ilsvrc import read_tar
from vggfeat.errors import DataError
from vggfeat.train.devkit import ground_truth
from vggfeat.train.pictures import FilePictures, Part
from vggfeat.train.trainset import VAL_TAR, open_trainset

CARD = "ilsvrc2012"


class LabelledPart(NamedTuple):
    """Test pictures and their classes.

    Parameters
    ----------
    classes : tuple of str
        All that the pictures may be of.
    part : Part
        Pictures, and their classes by their places in these.
    where : str
        Where they are, in words.
    """

    classes: tuple[str, ...]
    part: Part
    where: str


def open_tested(
    root: Path, classes: Sequence[str] = (), progress: Progress | None = None
) -> LabelledPart:
    """Find validation pictures, which stand for test pictures, and their classes.

    Parameters
    ----------
    root : Path
        ILSVRC's folder, with ``val`` (class folders, or flat) or ``ILSVRC2012_img_val.tar`` in
        it, or a CSV manifest whose split ``val`` is taken. Of a set without such parts, those
        pictures that training would draw to validate with.
    classes : sequence of str
        Of the net that is tested: what the numbers of Caffe's ``val.txt`` mean, if they are not
        ILSVRC's.
    progress : callable, optional
        Called with bytes while a tar file of pictures is indexed.

    Raises
    ------
    DataNotFound
        If there are no pictures, or nothing says their classes.
    DataError
        If a list or a tar file is damaged, or does not know a picture.
    """
    base = root if root.is_dir() else root.parent
    manifest = root.suffix.lower() == ".csv"
    if manifest and "val" in (images := read_manifest(root)).splits:
        return _opened(root, sorted(set(images.labels)))
    if not manifest and (base / "val").is_dir():
        return _opened(base, _folders(base / "val") or _known(classes))
    if not manifest and (base / VAL_TAR).is_file():
        return _packed(base / VAL_TAR, _known(classes), progress)
    drawn = open_trainset(root, progress=progress)
    return LabelledPart(drawn.classes, drawn.val, drawn.source)


def _opened(root: Path, every: Sequence[str]) -> LabelledPart:
    from vggfeat.ilsvrc.classes import named  # which imports what imports this
    from vggfeat.ilsvrc.validation import open_validation

    found = open_validation(root, named(every))
    manifest = root.suffix.lower() == ".csv"
    if manifest:
        names = [os.fsencode(str(picture)) for picture in found.images.images]
    else:
        names = [os.fsencode(name) for name in found.images.names]
    pictures = FilePictures(Path() if manifest else found.where, np.array(names, np.bytes_))
    return LabelledPart(tuple(every), Part(pictures, found.labels), str(found.where))


def _packed(tar: Path, every: Sequence[str], progress: Progress | None) -> LabelledPart:
    pictures = read_tar(tar, progress)
    truth = ground_truth([tar.parent], every)
    names = [pictures.name(row) for row in range(len(pictures))]
    if unknown := [name for name in names if name not in truth]:
        raise DataError(
            f"{tar}: the lists of ILSVRC's validation pictures do not know "
            f"{and_more(unknown, 'picture')}. Fetch it anew."
        )
    place = {key: number for number, key in enumerate(every)}
    kept = [row for row, name in enumerate(names) if truth[name] in place]
    labels = np.array([place[truth[names[row]]] for row in kept], np.int64)
    return LabelledPart(tuple(every), Part(pictures.take(kept), labels), str(tar))


def _folders(val: Path) -> list[str]:
    """List its class folders; none of a flat one."""
    return sorted(one.name for one in val.iterdir() if one.is_dir() and one.name[0] != ".")


def _known(classes: Sequence[str]) -> list[str]:
    """Take ILSVRC's classes, if those of the net are among them, or else the net's."""
    every = list(load_card(CARD).classes)
    return every if set(classes) <= set(every) else list(classes)
