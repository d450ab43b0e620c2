"""What a saved model says of new pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from vggfeat.data.imagesets import ImageSet
from vggfeat.errors import DeviceError, ParameterError, StoreError, WeightsNotFound
from vggfeat.features.aggregate import Aggregation, Matrix
from vggfeat.features.device import resolve_device, resolve_precision
from vggfeat.features.extract import Progress, Summary, extract
from vggfeat.features.extractor import DenseExtractor
from vggfeat.features.manifest import extraction_of
from vggfeat.features.store import FeatureStore
from vggfeat.learn.model import SavedModel, refuse_boxes
from vggfeat.nets.weights import Weights, load
from vggfeat.settings import Extraction

# Pictures that a prediction describes at a time: bounded memory, however large the folder.
AT_ONCE = 1024


def model_extractors(
    model: SavedModel, device: str = "auto", weights: Sequence[str | Weights] = ()
) -> list[DenseExtractor]:
    """Open the networks that a model's descriptors were made with.

    Parameters
    ----------
    model : SavedModel
        As loaded.
    device : str
        Where they run. The model's precision is used where the hardware has it, else fp32.
    weights : sequence of str or Weights
        Where the weights of each net lie now, if they have moved.

    Raises
    ------
    StoreError
        If the weights are not those of the model.
    ParameterError
        If there are not as many weights as nets.
    """
    places, made = list(weights) or list(model.origins), extractions_of(model)
    if len(places) != len(made):
        nets = ", ".join(one.net for one in made)
        raise ParameterError.of("weights", "model_extractors", f"one for each of {nets}", places)
    return [_opened(one, place, device) for one, place in zip(made, places, strict=True)]


def extractions_of(model: SavedModel) -> list[Extraction]:
    """Return the extractions that made a model's descriptors.

    Raises
    ------
    StoreError
        If the model does not say them as this vggfeat knows them.
    """
    return [extraction_of(settings, "The model") for settings in model.extractions]


def aggregation_of(model: SavedModel) -> Aggregation:
    """Return how a model's descriptors were combined.

    Raises
    ------
    StoreError
        If the model does not say it as this vggfeat knows it.
    """
    try:
        return Aggregation(**model.aggregation)
    except (TypeError, ValueError) as error:
        raise StoreError(
            f"The model combines descriptors in a way that is not known here ({error}). Update "
            "vggfeat, or train the model again."
        ) from error


def _opened(made: Extraction, place: str | Weights, device: str) -> DenseExtractor:
    on = resolve_device(device)
    try:
        found = load(place, made.net, made.layers)
    except WeightsNotFound as error:
        raise WeightsNotFound(
            *error.lines,
            f"The model needs the weights {made.weights_sha256[:12]}: say where they are with "
            "--weights.",
        ) from error
    if found.sha256 != made.weights_sha256:
        raise StoreError(
            f"The model was trained on descriptors of the weights {made.weights_sha256[:12]}; "
            f"these are {found.sha256[:12]} ({found.source}). Name the right ones with --weights."
        )
    if str(found.pixels) != made.pixels:
        raise StoreError(
            f"The model was trained on descriptors of pixels as {made.pixels}; the weights "
            f"{found.source} take them as {found.pixels}. Name the right ones with --weights."
        )
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
    extractors: Sequence[DenseExtractor],
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
    extractors : sequence of DenseExtractor
        As from :func:`model_extractors`.
    workers, on_bad_image, progress
        As for :func:`~vggfeat.features.extract.extract`.

    Yields
    ------
    Prediction
        One for every picture, bad ones with their reason.

    Raises
    ------
    DataError
        If the model also looks at given boxes, which new pictures do not have.
    """
    refuse_boxes(model)
    total = Summary(len(images) * len(extractors))
    for first in range(0, len(images), AT_ONCE):
        some = _part(images, slice(first, first + AT_ONCE))
        stores = []
        for extractor in extractors:
            stores.append(FeatureStore(None, extractor.extraction, some.names))
            done = extract(
                some,
                extractor,
                model.scales,
                stores[-1],
                workers=workers,
                on_bad_image=on_bad_image,
                progress=total.onto(progress),
            )
            total = total.plus(done)
        yield from _scored(model, some, stores)


def _scored(
    model: SavedModel, images: ImageSet, stores: Sequence[FeatureStore]
) -> Iterator[Prediction]:
    found = [set(store.view_names(model.scales)) for store in stores]
    names = [name for name in images.names if all(name in each for each in found)]
    scores: dict[str, Matrix] = {}
    if names:
        parts = [store.read(model.scales, names) for store in stores]
        rows = aggregation_of(model).rows(parts)
        scores = dict(zip(names, model.scores(rows), strict=True))
    for name in images.names:
        yield Prediction(name, scores.get(name), stores[0].failed.get(name, ""))


def _part(images: ImageSet, rows: slice) -> ImageSet:
    return ImageSet(images.names[rows], images.pictures[rows])
