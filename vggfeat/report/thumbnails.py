"""The images on the page of an SVM: thumbnails as data addresses."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from functools import cache
from typing import NamedTuple

from PIL import Image

from vggfeat.data.image import ImageLike, decode
from vggfeat.errors import ImageError
from vggfeat.report.images import data_address
from vggfeat.report.wanted import Evidence

SIDE = 176  # pixels: shown at half that, so that it is crisp on dense screens
Thumbnail = Callable[[str], str | None]


class Shown(NamedTuple):
    """A thumbnail with what is said about it; ``kind`` is how it is framed."""

    name: str
    image: str | None
    true: str
    predicted: str
    kind: str
    figure: str


class EvidenceShown(NamedTuple):
    """An evidence map with what is said about it; ``truth`` where the image is a mistake."""

    name: str
    image: str
    truth: str
    told: str


def evidence_shown(evidence: Evidence, label: str) -> list[EvidenceShown]:
    """List the maps of a class, in their order."""
    return [
        EvidenceShown(name, data_address(one.jpeg), one.truth, one.told)
        for (name, of), one in evidence.items()
        if of == label
    ]


def thumbnails(images: Mapping[str, ImageLike]) -> Thumbnail:
    """Make a function from an image's name to its thumbnail, made once and only if shown.

    The thumbnail is a JPEG in a ``data:`` address, or None if there is no such image or it
    cannot be read.
    """

    @cache
    def thumbnail(name: str) -> str | None:
        if name not in images:
            return None
        try:
            image = decode(images[name])
        except ImageError:
            return None
        image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=80, optimize=True)
        return data_address(buffer.getvalue())

    return thumbnail
