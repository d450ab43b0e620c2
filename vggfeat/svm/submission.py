"""Files that the VOC evaluation server takes, where test labels are not public."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vggfeat._io.atomic import make_folder, write_atomic
from vggfeat.errors import DataError


def write_scores(
    folder: Path,
    file: str,
    classes: Sequence[str],
    rows: Sequence[str],
    scores: NDArray[Any],
) -> list[Path]:
    r"""Write a file of confidences for each class.

    Parameters
    ----------
    folder : Path
        Where to; made if absent. The server wants ``results/VOC2012/Main`` in its archive, and
        ``results/VOC2012/Action`` for actions.
    file : str
        The files' name, with ``{class}`` in it: ``comp2_cls_test_{class}.txt``.
    classes : sequence of str
        The C classes; of actions the ten that are scored, without the distractor ``other``.
    rows : sequence of str
        The N ids of the test images, such as ``2008_000001``; of a person also the number among
        the image's objects, from 1 on: ``2010_000001 2``.
    scores : array, shape (N, C)
        Confidences, finite.

    Returns
    -------
    list of Path
        The files, one for each class, of lines ``row confidence``.

    Raises
    ------
    DataError
        If numbers do not agree, a row is none of these, or a score is not finite.
    StoreError
        If the disk is full or the folder may not be written.

    Examples
    --------
    >>> import tempfile
    >>> name, scores = "comp2_cls_test_{class}.txt", np.array([[0.25]])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     [path] = write_scores(Path(folder), name, ["cat"], ["2008_000001"], scores)
    ...     path.name, path.read_text()
    ('comp2_cls_test_cat.txt', '2008_000001 0.250000000\n')
    """
    if scores.shape != (len(rows), len(classes)):
        raise DataError(
            f"{len(rows)} rows and {len(classes)} classes need scores of shape "
            f"({len(rows)}, {len(classes)}). Got {scores.shape}."
        )
    for row in rows:
        image, *number = row.split(" ")
        if not image.strip() or len(image.split()) > 1 or len(number) > 1 or "0" in number:
            raise DataError(
                f"{row!r} is no row of the server's files: an image's id without spaces, and of a "
                "person a number from 1 on."
            )
    for name, column in zip(classes, scores.T, strict=True):
        if not np.isfinite(column).all():
            raise DataError(
                f"The server takes a finite confidence for every image; {name} has none, as a "
                "class that could not be trained. Train on the whole of trainval."
            )
    make_folder(folder)
    written = []
    for name, column in zip(classes, scores.T, strict=True):
        lines = [f"{row} {score:.9f}\n" for row, score in zip(rows, column, strict=True)]
        written.append(folder / file.format(**{"class": name}))
        write_atomic(written[-1], "".join(lines).encode())
    return written
