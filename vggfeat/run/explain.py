"""Which parts of an image a class score comes from.

Average pooling and a linear SVM are both linear, so that a score w·x + b is a sum over the
locations of the dense maps: channel k of one location gives w_k·m_k / (n·norms), n being the
number of locations of all mirror images, and the norms those L2 norms of this very image by
which its descriptors and its row were divided.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from vggfeat.data.image import ImageLike, decode, rescaled_size
from vggfeat.errors import DataError
from vggfeat.features.aggregate import Aggregation, aggregate
from vggfeat.features.extractor import DenseExtractor
from vggfeat.features.pooling import resolve_pooling
from vggfeat.learn.model import SavedModel, refuse_boxes
from vggfeat.learn.solvers import Floats
from vggfeat.run.explanation import Explanation, Share, rows_of
from vggfeat.run.locations import located
from vggfeat.store.column import Descriptor

CELL = 8  # pixels of the image at the largest Q to a step of the grid: pool5's stride is 32


def explain(
    model: SavedModel,
    image: ImageLike,
    extractors: Sequence[DenseExtractor],
    classes: Sequence[str] | None = None,
) -> Explanation:
    """Share the class scores of an image out over its locations.

    Parameters
    ----------
    model : SavedModel
        A linear SVM on whole images.
    image : path, PIL image or array
        See :func:`~vggfeat.data.image.decode`.
    extractors : sequence of DenseExtractor
        As from :func:`~vggfeat.run.predict.model_extractors`.
    classes : sequence of str, optional
        Classes to explain; all by default.

    Returns
    -------
    Explanation

    Raises
    ------
    ImageError
        If the image cannot be read.
    ParameterError
        For a class that the model does not know.
    DataError
        If the model looks at given boxes, or its extractors are others than it was trained with.

    Notes
    -----
    Each location's gift is spread evenly over its pixels (see
    :func:`~vggfeat.run.spans.spans_of`); mirror images are turned back. The maps of one scale
    are held at a time.

    Examples
    --------
    >>> extractor = DenseExtractor("D", "pool2", weights="embedded", precision="fp32")
    >>> columns = tuple(extractor.columns([32]))
    >>> coef, bias = np.linspace(-1, 1, 256).reshape(2, 128), np.array([0.5, -0.5])
    >>> how, sources = Aggregation().to_dict(), ("embedded",)
    >>> model = SavedModel(coef, bias, ("cat", "dog"), (1.0,), columns, sources, how)
    >>> found = explain(model, np.eye(40), [extractor])
    >>> found.exact, found.evidence.shape, np.allclose(found.sums + found.bias, found.scores)
    (True, (2, 4, 4), True)
    """
    refuse_boxes(model)
    how = Aggregation(**model.aggregation)
    rows = rows_of(classes, model.classes)
    decoded = [decode(image, one.extraction) for one in extractors]
    shape = grid_shape(decoded[0].size, max(model.scales))
    evidence = np.zeros((len(rows), *shape))
    raw: dict[Descriptor, Floats] = {}
    prepared: dict[Descriptor, Floats] = {}
    shares: list[Share] = []
    places = _places(model, extractors, how)
    for extractor, pixels in zip(extractors, decoded, strict=True):
        extractor.check_scales(model.scales)
        counts = _counts(extractor, pixels, model.scales, how)
        for one in located(extractor, pixels, model.scales, how):
            weights = model.coef[rows, places[one.descriptor]] * counts[one.descriptor]
            drawn = one.drawn(weights, shape)
            evidence += drawn.sum(axis=0)
            shares.append(Share(one.descriptor, one.norm, drawn.sum(axis=(2, 3))))
            raw[one.descriptor], prepared[one.descriptor] = one.raw[None], one.prepared[None]
    row = aggregate({name: prepared[name] for name in places}, how.how, normalize="none")
    norm = 1.0 if how.normalize == "none" else float(np.linalg.norm(row)) or 1.0
    return Explanation(
        classes=tuple(model.classes[c] for c in rows),
        scores=model.scores(how.rows({name: raw[name] for name in places}))[0, rows],
        bias=model.intercept[rows],
        evidence=evidence / norm,
        shares=tuple(one._replace(totals=one.totals / norm) for one in shares),
        row_norm=norm,
        why=not_linear(model),
        size=decoded[0].size,
    )


def not_linear(model: SavedModel) -> str:
    """Say why the maps of a model are not exact; nothing if they are.

    Examples
    --------
    >>> how = {"how": "stack", "power": 0.5}
    >>> model = SavedModel(np.eye(2), np.zeros(2), ("cat", "dog"), (1.0,), (), (), how)
    >>> not_linear(model)
    'power 0.5 is not linear: the shares are a convention'
    """
    power = model.aggregation["power"]
    pools = dict.fromkeys(column.descriptor.pool for column in model.columns)
    reasons = [why for pool in pools if (why := resolve_pooling(pool).inexact)]
    if model.aggregation["how"] == "max":
        reasons.append(
            "a maximum across scales is not linear: it is given to the scale that has it"
        )
    if power not in (None, 1):
        reasons.append(f"power {power:g} is not linear: the shares are a convention")
    return "; ".join(reasons)


def grid_shape(size: tuple[int, int], Q: int) -> tuple[int, int]:
    """Rows and columns of the grid over an image of this width and height.

    Examples
    --------
    >>> grid_shape((500, 375), 256)
    (32, 43)
    """
    width, height = rescaled_size(*size, Q)
    return -(-height // CELL), -(-width // CELL)


def _places(
    model: SavedModel, extractors: Sequence[DenseExtractor], how: Aggregation
) -> dict[Descriptor, slice]:
    """Lay descriptors out in the row as :func:`aggregate` does: which numbers each goes into."""
    ours = [column.descriptor for column in model.columns]
    given = [name for extractor in extractors for name in extractor.descriptors(model.scales)]
    if set(given) != set(ours):
        raise DataError(
            f"This model scores {', '.join(name.path for name in ours)}; the nets given make "
            f"{', '.join(name.path for name in given)}. Open those it was trained with: "
            "model_extractors(model)."
        )
    taken: dict[tuple[object, ...], slice] = {}
    start = 0
    for column in model.columns:
        block = _block(column.descriptor, how)
        if block not in taken:
            taken[block] = slice(start, start + column.width)
            start += column.width
    return {name: taken[_block(name, how)] for name in ours}


def _block(descriptor: Descriptor, how: Aggregation) -> tuple[object, ...]:
    """Tell apart what has numbers of its own in the row; scales have where they are stacked."""
    return tuple(descriptor) if how.how == "stack" else descriptor[:3]


def _counts(
    extractor: DenseExtractor, image: Image.Image, scales: Sequence[int], how: Aggregation
) -> dict[Descriptor, Floats | float]:
    """Tell for how much each channel of a descriptor counts where scales are combined."""
    descriptors = extractor.descriptors(scales)
    if how.how != "max":
        return dict.fromkeys(descriptors, 1.0 if how.how == "stack" else 1 / len(scales))
    # Which scale has the maximum is known only after all of them: hence once more, in advance.
    prepared = {one.descriptor: one.prepared for one in located(extractor, image, scales, how)}
    counts: dict[Descriptor, Floats | float] = {}
    for descriptor in descriptors:
        across = [prepared[descriptor._replace(Q=Q)] for Q in scales]
        highest = np.argmax(across, axis=0)
        counts[descriptor] = (highest == scales.index(descriptor.Q)).astype(np.float64)
    return counts
