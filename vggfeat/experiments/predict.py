"""What a saved model says of new images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vggfeat.attribution import rows_of
from vggfeat.data.imageset import ImageSet
from vggfeat.errors import DeviceError, ParameterError, StoreError, WeightsNotFound
from vggfeat.features.aggregate import Aggregation, Matrix
from vggfeat.features.extractor import DenseExtractor
from vggfeat.features.pipeline import extract
from vggfeat.features.provenance import provenance
from vggfeat.features.summary import Progress, Summary
from vggfeat.nets.preprocessing import name_of_pixels
from vggfeat.nets.registry import NAMES
from vggfeat.nets.runtimes import (
    describe_device,
    missing_runtime,
    resolve_device,
    resolve_precision,
)
from vggfeat.nets.weights import Weights, load
from vggfeat.settings import Extraction
from vggfeat.store.column import Column, differences
from vggfeat.store.store import FeatureStore
from vggfeat.svm.model import SavedModel, refuse_boxes
from vggfeat.svm.model import load as load_model

# Images that a prediction describes at a time: bounded memory, however large the folder.
AT_ONCE = 1024


def open_model(
    path: Path,
    device: str = "auto",
    weights: Sequence[str] = (),
    *,
    classes: Sequence[str] | None = None,
    tell: Callable[[str], object],
) -> tuple[SavedModel, list[DenseExtractor]]:
    """Load a model for new images, and open its networks.

    Parameters
    ----------
    path : path
        What ``vggfeat svm --save`` wrote.
    device, weights
        As for :func:`model_extractors`.
    classes : sequence of str, optional
        Classes that it must know.
    tell : callable
        Is told, in words, what runs where.

    Raises
    ------
    StoreError
        If it is no model, or the weights are not those of the model.
    DataError
        If the model also looks at given boxes, which new images do not have.
    ParameterError
        If it does not know a class, or there are not as many weights as nets.
    """
    model = load_model(path)
    refuse_boxes(model)
    rows_of(classes, model.classes)
    return model, open_networks(model, device, weights, tell=tell)


def open_networks(
    model: SavedModel,
    device: str,
    weights: Sequence[str] = (),
    *,
    tell: Callable[[str], object],
) -> list[DenseExtractor]:
    """Open the networks of a model as :func:`model_extractors` does, and tell what runs where."""
    extractors = model_extractors(model, device, weights)
    for extractor in extractors:
        extraction = extractor.extraction
        tell(
            f"Net {extraction.net}, {', '.join(extraction.layers)}, "
            f"Q {', '.join(map(str, model.scales))}, "
            f"{extraction.precision} on {describe_device(extractor.device)}"
        )
    for advice in dict.fromkeys(filter(None, map(advise_runtime, extractors))):
        tell(advice)
    return extractors


def advise_runtime(extractor: DenseExtractor) -> str:
    """Say what would make a network faster on this machine, if something is not installed."""
    name = missing_runtime(extractor.runtime, extractor.device, extractor.extraction.precision)
    how = f"pip install 'vggfeat[{name}]'"
    return f"The runtime {name} would be faster on this CPU; it is an extra: {how}" if name else ""


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
    places = list(weights) or list(model.origins)
    if len(places) != len(model.nets):
        expected = f"one for each of {', '.join(model.nets)}"
        raise ParameterError.of("weights", "model_extractors", expected, places)
    return [
        _open_extractor(model.columns_of(net), place, device)
        for net, place in zip(model.nets, places, strict=True)
    ]


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


def describe_model(
    model: SavedModel, extractors: Sequence[DenseExtractor]
) -> dict[str, dict[str, Any]]:
    """Return the settings and the provenance behind a model's scores, as a result has them.

    Parameters
    ----------
    model : SavedModel
    extractors : sequence of DenseExtractor
        As from :func:`model_extractors`.

    Returns
    -------
    dict
        ``settings`` and ``provenance``, of plain JSON types.
    """
    names = [column.descriptor for column in model.columns]
    behind = {extractor.extraction.net: provenance(extractor) for extractor in extractors}
    settings = {
        "nets": list(model.nets),
        "weights": [
            f"{net}: {of['weights']['source']} ({of['weights']['sha256'][:12]})"
            for net, of in behind.items()
        ],
        "layers": list(dict.fromkeys(name.layer for name in names)),
        "pool": "+".join(dict.fromkeys(name.pool for name in names)),
        "views": list(model.views),
        "Q": list(model.scales),
        **model.aggregation,
        "dimensions": model.coef.shape[1],
        "device": [f"{of['device']}, {of['precision']}" for of in behind.values()],
        "classes": len(model.classes),
        "C": list(dict.fromkeys(model.C)),
    }
    columns = [column.to_dict() for column in model.columns]
    return {
        "settings": settings,
        "provenance": {"nets": behind, "columns": columns, "trained with": model.versions},
    }


def _open_extractor(columns: list[Column], place: str | Weights, device: str) -> DenseExtractor:
    """Open the network that computes the columns of one net."""
    names = zip(*(column.descriptor for column in columns), strict=True)
    [net], layers, pools, _ = (list(dict.fromkeys(each)) for each in names)
    settings, on = columns[-1].settings, resolve_device(device)
    is_file = not isinstance(place, Weights) and place not in NAMES
    try:
        found = load(
            place, net, layers, pixels=name_of_pixels(settings["pixels"]) if is_file else None
        )
    except WeightsNotFound as error:
        raise WeightsNotFound(
            *error.lines,
            f"The model needs the weights {settings['weights'][:12]}: say where they are with "
            "--weights.",
        ) from error
    try:
        precision = resolve_precision(settings["precision"], on)
    except DeviceError:
        precision = "fp32"
    extractor = DenseExtractor(
        net,
        layers,
        weights=found,
        pool="+".join(pools),
        device=str(on),
        **{**Extraction.of_column(settings), "precision": precision},
    )
    check_columns(extractor, columns)
    return extractor


def check_columns(extractor: DenseExtractor, columns: Sequence[Column]) -> None:
    """Refuse an extractor that does not compute these columns; its precision may be another.

    Raises
    ------
    StoreError
        Naming the settings that differ.
    """
    scales = dict.fromkeys(column.descriptor.Q for column in columns)
    here = {column.descriptor: column.settings for column in extractor.columns(scales)}
    for column in columns:
        own = dict(here.get(column.descriptor, {}))
        own["precision"] = column.settings.get("precision")
        if wrong := differences(column.settings, own, "trained with", "here"):
            raise StoreError(
                f"The model was trained on descriptors {column.descriptor.path} of other weights "
                "or settings:",
                *wrong.splitlines(),
                "Name the right weights with --weights.",
            )


@dataclass(frozen=True)
class Prediction:
    """An image's name and its score for every class, or why it has none."""

    name: str
    scores: Matrix | None
    reason: str = ""

    def best(self, model: SavedModel, top: int) -> dict[str, float]:
        """Return the classes of highest score, the highest first; none without scores."""
        if self.scores is None:
            return {}
        order = self.scores.argsort()[::-1][:top]
        return {model.classes[c]: float(self.scores[c]) for c in order}


def predict(
    model: SavedModel,
    images: ImageSet,
    extractors: Sequence[DenseExtractor],
    *,
    workers: int | None = None,
    on_bad_image: str = "skip",
    progress: Progress | None = None,
) -> Iterator[Prediction]:
    """Score new images, in their order and in bounded memory.

    Parameters
    ----------
    model : SavedModel
        As loaded.
    images : ImageSet
    extractors : sequence of DenseExtractor
        As from :func:`model_extractors`.
    workers, on_bad_image, progress
        As for :func:`~vggfeat.features.pipeline.extract`.

    Yields
    ------
    Prediction
        One for every image, bad ones with their reason.

    Raises
    ------
    DataError
        If the model also looks at given boxes, which new images do not have.
    """
    refuse_boxes(model)
    total = Summary(len(images) * len(extractors))
    for first in range(0, len(images), AT_ONCE):
        some = _part(images, slice(first, first + AT_ONCE))
        store, failed = FeatureStore(None, "a"), dict[str, str]()
        for extractor in extractors:
            done = extract(
                some,
                extractor,
                model.scales,
                store,
                workers=workers,
                on_bad_image=on_bad_image,
                progress=total.onto(progress),
            )
            total = total.plus(done)
            failed |= store.failed
        yield from _scores(model, some, store, failed)


def _scores(
    model: SavedModel, images: ImageSet, store: FeatureStore, failed: Mapping[str, str]
) -> Iterator[Prediction]:
    columns = [column.descriptor for column in model.columns]
    complete = set(store.complete(columns))
    names = [name for name in images.names if name in complete]
    scores: dict[str, Matrix] = {}
    if names:
        rows = aggregation_of(model).rows(store.read(columns, names))
        scores = dict(zip(names, model.scores(rows), strict=True))
    for name in images.names:
        yield Prediction(name, scores.get(name), failed.get(name, ""))


def _part(images: ImageSet, rows: slice) -> ImageSet:
    return ImageSet(images.names[rows], images.images[rows])
