"""Files that the VOC evaluation server takes, where test labels are not public."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vggfeat._io.atomic import make_folder, write_atomic
from vggfeat.errors import DataError


def write_comp2(
    folder: Path, class_names: Sequence[str], image_ids: Sequence[str], scores: NDArray[Any]
) -> list[Path]:
    r"""Write ``comp2_cls_test_<class>.txt``: classification, trained on any data.

    Parameters
    ----------
    folder : Path
        Where to; made if absent. The server wants ``results/VOC2012/Main`` in its archive.
    class_names : sequence of str
        The C classes.
    image_ids : sequence of str
        The N ids of the test images, such as ``2008_000001``.
    scores : array, shape (N, C)
        Confidences, finite.

    Returns
    -------
    list of Path
        The files, one for each class, of lines ``imageid confidence``.

    Raises
    ------
    DataError
        If numbers do not agree, an id has a space, or a score is not finite.
    StoreError
        If the disk is full or the folder may not be written.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = write_comp2(Path(folder), ["cat"], ["2008_000001"], np.array([[0.25]]))[0]
    ...     path.name, path.read_text()
    ('comp2_cls_test_cat.txt', '2008_000001 0.250000000\n')
    """
    _check_ids(image_ids)
    return _write(folder, "comp2_cls_test", class_names, image_ids, scores)


def write_comp10(
    folder: Path,
    actions: Sequence[str],
    image_ids: Sequence[str],
    objects: Sequence[int],
    scores: NDArray[Any],
) -> list[Path]:
    r"""Write ``comp10_action_test_<action>.txt``: actions, trained on any data.

    Parameters
    ----------
    folder : Path
        Where to; made if absent. The server wants ``results/VOC2012/Action`` in its archive.
    actions : sequence of str
        The ten scored actions, without the distractor ``other``.
    image_ids : sequence of str
        The image of each of the N persons.
    objects : sequence of int
        The number of each person among its image's objects, from 1 on.
    scores : array, shape (N, C)
        Confidences, finite.

    Returns
    -------
    list of Path
        The files, one for each action, of lines ``imageid objectindex confidence``.

    Raises
    ------
    DataError
        As :func:`write_comp2`, or if an object's number is below 1.
    StoreError
        If the disk is full or the folder may not be written.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     scores = np.array([[-1.5]])
    ...     write_comp10(Path(folder), ["running"], ["2010_1"], [2], scores)[0].read_text()
    '2010_1 2 -1.500000000\n'
    """
    if len(image_ids) != len(objects) or any(number < 1 for number in objects):
        raise DataError("Every person needs an image's id and an object's number, from 1 on.")
    _check_ids(image_ids)
    rows = [f"{image} {number}" for image, number in zip(image_ids, objects, strict=True)]
    return _write(folder, "comp10_action_test", actions, rows, scores)


def _write(
    folder: Path,
    stem: str,
    class_names: Sequence[str],
    rows: Sequence[str],
    scores: NDArray[Any],
) -> list[Path]:
    if scores.shape != (len(rows), len(class_names)):
        raise DataError(
            f"{len(rows)} rows and {len(class_names)} classes need scores of shape "
            f"({len(rows)}, {len(class_names)}). Got {scores.shape}."
        )
    for name, column in zip(class_names, scores.T, strict=True):
        if not np.isfinite(column).all():
            raise DataError(
                f"The server takes a finite confidence for every image; {name} has none, as a "
                "class that could not be trained. Train on the whole of trainval."
            )
    make_folder(folder)
    written = []
    for name, column in zip(class_names, scores.T, strict=True):
        lines = [f"{row} {score:.9f}\n" for row, score in zip(rows, column, strict=True)]
        written.append(folder / f"{stem}_{name}.txt")
        write_atomic(written[-1], "".join(lines).encode())
    return written


def _check_ids(images: Sequence[str]) -> None:
    for image in images:
        if not image or any(c.isspace() for c in image):
            raise DataError(f"{image!r} is not an image's id: it is empty or has a space.")
