"""What rows are described by: whole pictures, or the boxes of persons in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from vggfeat.data.images import Crop, Picture
from vggfeat.data.imagesets import ImageSet
from vggfeat.errors import DataError


class View(NamedTuple):
    """What rows are described by.

    Parameters
    ----------
    images : ImageSet
        Pictures to describe, each once.
    names : tuple of str
        For every row the name of its picture there.
    """

    images: ImageSet
    names: tuple[str, ...]


def whole(images: ImageSet) -> View:
    """Look at whole pictures, each once, however many of its persons are rows.

    Examples
    --------
    >>> people = ImageSet(("a#1", "a#2"), ("a.jpg", "a.jpg"), boxes=((1, 1, 5, 9), (4, 1, 8, 9)))
    >>> whole(people).images.names, whole(people).names
    (('a',), ('a', 'a'))
    """
    if not images.boxes:
        return View(images, images.names)
    names = tuple(name.rpartition("#")[0] for name in images.names)
    unique = dict(zip(names, images.pictures, strict=True))
    return View(ImageSet(tuple(unique), tuple(unique.values())), names)


def boxed(images: ImageSet) -> View:
    """Look at the given box of every row (Appendix B, VOC action classification).

    Raises
    ------
    DataError
        If there are no boxes.

    Examples
    --------
    >>> people = ImageSet(("a#1", "a#2"), ("a.jpg", "a.jpg"), boxes=((1, 1, 5, 9), (4, 1, 8, 9)))
    >>> boxed(people).images.pictures[1]
    Crop(path=...Path('a.jpg'), box=(4, 1, 8, 9))
    """
    if not images.boxes:
        raise DataError(
            "There are no given boxes to look at; only rows of the action task have one. Describe "
            "whole pictures, as --view image does."
        )
    crops: tuple[Picture, ...] = tuple(
        Crop(Path(str(picture)), box)
        for picture, box in zip(images.pictures, images.boxes, strict=True)
    )
    return View(ImageSet(images.names, crops), images.names)


VIEWS: Mapping[str, Callable[[ImageSet], View]] = {"image": whole, "box": boxed}
"""What a row may be described by; several are stacked."""
