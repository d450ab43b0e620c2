"""Heat maps of a result: what in an image the score of a class comes from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from vggfeat.attribution import explain
from vggfeat.data.image import ImageLike, decode
from vggfeat.errors import ImageError
from vggfeat.features.extractor import DenseExtractor
from vggfeat.report.images import (
    describe_exactness,
    describe_sum,
    draw_map,
    strength,
    write_jpeg,
)
from vggfeat.result import Gallery, GalleryImage, Strip
from vggfeat.svm.model import SavedModel
from vggfeat.svm.protocols import Example

WIDTH = 440  # pixels of a map: shown at half that, so that it is crisp on dense screens
MOST = 24


def draw_heat_maps(
    model: SavedModel,
    examples: Sequence[Example],
    images: Mapping[str, ImageLike],
    extractors: Sequence[DenseExtractor],
    progress: Callable[[int, int], None] | None = None,
) -> Gallery:
    """Explain the examples of a result, by class.

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
    tiles: dict[str, list[GalleryImage]] = {}
    exactness = ""
    for done, example in enumerate(examples[:MOST], 1):
        with suppress(ImageError):  # the page shows a lost image by its name
            image = decode(images[example.image], extractors[0].extraction)
            explanation = explain(model, image, extractors, [example.label])
            exactness = describe_exactness(explanation)
            caption = (
                f"{describe_sum(explanation, 0)}; colours to ±{strength(explanation, 0):.2g} for "
                "each 1 % of the image"
            )
            if example.truth:
                caption = f"A mistake, it shows {example.truth}. {caption}"
            jpeg = write_jpeg(draw_map(image, explanation, 0, WIDTH))
            tile = GalleryImage(example.image, caption, "wrong" if example.truth else "", jpeg=jpeg)
            tiles.setdefault(example.label, []).append(tile)
        if progress is not None:
            progress(done, len(examples[:MOST]))
    return Gallery(
        "heat_maps",
        "What scores come from",
        tuple(Strip(label, tuple(of_class)) for label, of_class in tiles.items()),
        "Red speaks for the class, blue against it; the ring is where most speaks for it. "
        f"{exactness}",
        size=WIDTH // 2,
    )
