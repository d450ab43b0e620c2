"""What a saved model says of new pictures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from vggfeat.data.imagesets import ImageSet
from vggfeat.errors import DeviceError, StoreError, WeightsNotFound
from vggfeat.features.aggregate import Aggregation, Matrix
from vggfeat.features.dense import DenseExtractor
from vggfeat.features.device import resolve_device, resolve_precision
from vggfeat.features.extract import Progress, Summary, extract
from vggfeat.features.extraction import Extraction
from vggfeat.features.store import FeatureStore
from vggfeat.learn.model import SavedModel
from vggfeat.nets.weights import load

# Pictures that a prediction describes at a time: bounded memory, however large the folder.
AT_ONCE = 1024


def model_extractor(model: SavedModel, device: str = "auto", weights: Any = None) -> DenseExtractor:
    """Open the network that a model's descriptors were made with.

    Parameters
    ----------
    model : SavedModel
        As loaded.
    device : str
        Where it runs. The model's precision is used where the hardware has it, else fp32.
    weights : str or Weights, optional
        Where the weights lie now, if they have moved.

    Raises
    ------
    StoreError
        If the weights are not those of the model.
    """
    made = Extraction.from_dict(model.extraction)
    try:
        found = load(weights or model.weights_source, made.net, made.layers)
    except WeightsNotFound as error:
        raise WeightsNotFound(
            f"{error} The model needs the weights {model.weights_sha256[:12]}: say where they are "
            "with --weights."
        ) from error
    if found.sha256 != model.weights_sha256:
        raise StoreError(
            f"The model was trained on descriptors of the weights {model.weights_sha256[:12]} "
            f"({model.weights_source}); these are {found.sha256[:12]} ({found.source}). "
            "Name the right ones with --weights."
        )
    on = resolve_device(device)
    try:
        precision = resolve_precision(made.precision, on)
    except DeviceError:
        precision = "fp32"
    return DenseExtractor(
        made.net,
        made.layers,
        weights=found,
        flip=made.flip,
        pool=made.pool,
        locations=made.locations,
        exif=made.exif,
        device=str(on),
        precision=precision,
    )


@dataclass(frozen=True)
class Prediction:
    """A picture's name and its score for every class, or why it has none."""

    name: str
    scores: Matrix | None
    reason: str = ""


def predict(
    model: SavedModel,
    images: ImageSet,
    extractor: DenseExtractor,
    *,
    workers: int | None = None,
    on_bad_image: str = "skip",
    progress: Progress | None = None,
) -> Iterator[Prediction]:
    """Score new pictures, in their order and in bounded memory.

    Parameters
    ----------
    model : SavedModel
        As loaded.
    images : ImageSet
        The pictures.
    extractor : DenseExtractor
        As from :func:`model_extractor`.
    workers, on_bad_image, progress
        As for :func:`~vggfeat.features.extract.extract`.

    Yields
    ------
    Prediction
        One for every picture, bad ones with their reason.
    """
    aggregation = Aggregation(**model.aggregation)
    total = Summary(len(images))
    for first in range(0, len(images), AT_ONCE):
        some = _part(images, slice(first, first + AT_ONCE))
        store = FeatureStore(None, extractor.extraction, some.names)
        done = extract(
            some,
            extractor,
            model.scales,
            store,
            workers=workers,
            on_bad_image=on_bad_image,
            progress=_added(total, progress),
        )
        total = _sum(total, done)
        names = store.view_names(model.scales)
        rows = aggregation.rows(store.read(model.scales, names)) if names else None
        scores = {} if rows is None else dict(zip(names, model.scores(rows), strict=True))
        for name in some.names:
            yield Prediction(name, scores.get(name), store.failed.get(name, ""))


def _part(images: ImageSet, rows: slice) -> ImageSet:
    return ImageSet(images.names[rows], images.pictures[rows])


def _sum(total: Summary, done: Summary) -> Summary:
    return Summary(
        total.pictures,
        computed=total.computed + done.computed,
        failed=total.failed + done.failed,
        seconds=total.seconds + done.seconds,
    )


def _added(total: Summary, progress: Progress | None) -> Progress | None:
    if progress is None:
        return None
    return lambda done: progress(_sum(total, done))
