"""Heat maps of a result: what in an image the score of a class comes from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from PIL import Image

from vggfeat._io.text import shorten, signed
from vggfeat.attribution import Explanation, explain
from vggfeat.data.image import ImageLike, decode
from vggfeat.errors import ImageError
from vggfeat.features.extractor import DenseExtractor
from vggfeat.report.images import (
    describe_exactness,
    draw_map,
    draw_scale,
    strength,
    write_jpeg,
)
from vggfeat.result import Gallery, GalleryImage, Strip
from vggfeat.svm.model import SavedModel
from vggfeat.svm.protocols import Example

WIDTH = 440  # pixels of an image, and of its map beside it: shown at half that, to be crisp
GAP = 8  # between the two
SCALE = 40  # height of the scale of colours
MOST = 24


class _Explained(NamedTuple):
    """An example, its image no larger than it is drawn, and what explains its score."""

    example: Example
    image: Image.Image
    explanation: Explanation


def draw_heat_maps(
    model: SavedModel,
    examples: Sequence[Example],
    images: Mapping[str, ImageLike],
    extractors: Sequence[DenseExtractor],
    progress: Callable[[int, int], None] | None = None,
) -> Gallery:
    """Explain the examples of a result, by class: each image and its map, all in one scale.

    Parameters
    ----------
    model : SavedModel
        The classifier that was tested.
    examples : sequence of Example
        The first ``MOST`` are drawn.
    images : mapping of name to image
        Where they lie; one that is gone has no map.
    extractors : sequence of DenseExtractor
        As from :func:`~vggfeat.experiments.predict.model_extractors`.
    progress : callable, optional
        Called with maps done and all maps.
    """
    explained = []
    for done, example in enumerate(examples[:MOST], 1):
        with suppress(ImageError):  # the page shows a lost image by its name
            image = decode(images[example.image], extractors[0].extraction)
            explanation = explain(model, image, extractors, [example.label])
            size = (WIDTH, max(1, round(image.height * WIDTH / image.width)))
            small = image.resize(size, Image.Resampling.LANCZOS)
            explained.append(_Explained(example, small, explanation))
        if progress is not None:
            progress(done, len(examples[:MOST]))
    drawn = [each.explanation for each in explained if each.explanation.evidence[0].any()]
    limit = max((strength(explanation, 0) for explanation in drawn), default=1.0)
    tiles: dict[str, list[GalleryImage]] = {}
    for each in explained:
        tiles.setdefault(each.example.label, []).append(_tile(each, limit))
    exactness = describe_exactness(explained[-1].explanation) if explained else ""
    return Gallery(
        "heat_maps",
        "What scores come from",
        (*_scale(limit), *(Strip(label, tuple(of)) for label, of in tiles.items())),
        "Beside each image, what in it speaks for the class (red) and against it (blue); the ring "
        f"is where most speaks for it. All maps have one scale of colours. {exactness}",
        size=WIDTH,
    )


def _tile(explained: _Explained, limit: float) -> GalleryImage:
    """Put an image and its map side by side, with the sum in words."""
    example, image, explanation = explained
    drawn = Image.new("RGB", (2 * WIDTH + GAP, image.height), "white")
    drawn.paste(image, (0, 0))
    drawn.paste(draw_map(image, explanation, 0, WIDTH, limit), (WIDTH + GAP, 0))
    score, total, bias = (
        signed(float(values[0]), 2)
        for values in (explanation.scores, explanation.sums, explanation.bias)
    )
    caption = (
        f"Score for {example.label} {score}: what is in the image adds up to {total}, and {bias} "
        "is the same for every image."
    )
    if example.truth:
        caption = f"A mistake, it shows {example.truth}. {caption}"
    jpeg = write_jpeg(drawn)
    return GalleryImage(example.image, caption, "wrong" if example.truth else "", jpeg=jpeg)


def _scale(limit: float) -> list[Strip]:
    """Show the colours of all maps, and what they stand for."""
    ends = f"from −{shorten(limit, 2)} (left) to +{shorten(limit, 2)} (right)"
    caption = f"Part of the score that 1 % of the image gives, {ends}"
    drawn = write_jpeg(draw_scale(2 * WIDTH + GAP, SCALE), quality=95)
    return [Strip("Scale of all maps", (GalleryImage("scale of colours", caption, jpeg=drawn),))]
