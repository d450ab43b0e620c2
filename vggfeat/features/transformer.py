"""VGGFeatures: the one path as a scikit-learn transformer."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager, nullcontext
from functools import lru_cache
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from sklearn.base import BaseEstimator, TransformerMixin
from torch import Tensor

from vggfeat._io.atomic import explain_os_errors, file_lock
from vggfeat._io.text import counted
from vggfeat.data.image import Crop, ImageLike, ImageRef, decode
from vggfeat.data.imageset import ImageSet
from vggfeat.data.places import absolute, tracked
from vggfeat.errors import ImageError, ParameterError, StoreError
from vggfeat.features.aggregate import Aggregation, Matrix
from vggfeat.features.elements import Element, iter_blocks
from vggfeat.features.extractor import DenseExtractor
from vggfeat.features.pipeline import extract
from vggfeat.features.pooling import resolve_pooling
from vggfeat.features.summary import Progress, Summary, image_bar
from vggfeat.nets.config import Layer, layers_of, resolve_layer
from vggfeat.nets.weights import Weights
from vggfeat.settings import Decoding, net_name
from vggfeat.store.store import FeatureStore

ON_BAD_IMAGE = ("error", "nan")
NAMED = 10  # bad images that a warning names


class VGGFeatures(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # sklearn is untyped
    """Turn images into the paper's descriptors (Appendix B).

    Stateless: nothing is learned from the images, so that it may be used before or without
    :meth:`fit`.

    Parameters
    ----------
    net : str, default="D"
        Configuration of Table 1; ``vgg16`` is D, ``vgg19`` E.
    layer : str or sequence of str, default="fc7"
        Layer, or layers to be stacked.
    Q : int or sequence of int, default=(256,)
        Test scales: smallest side of the rescaled image, in pixels.
    aggregate : {"average", "max", "stack"}, default="average"
        How scales are combined.
    weights : str or Weights, default="auto"
        A named source, a file, or loaded weights.
    flip : bool, default=True
        Whether descriptors are averaged with those of the mirror image.
    normalize : {"descriptor", "locations", "none"}, default="descriptor"
        What is L2-normalised; see :func:`~vggfeat.features.aggregate.aggregate`.
    pool : str, default="average"
        How a dense map becomes a descriptor, or several joined by +: "average", the paper's, or
        another of :mod:`vggfeat.features.pooling` that makes no posteriors.
    power : float or None, default=None
        Signed power before normalisation.
    exif : bool, default=True
        Whether a recorded orientation is applied.
    cache : path or None, default=None
        Folder of stores, one for all columns that may lie in one
        (:attr:`DenseExtractor.cache_key`). Descriptors found there are not computed again, so that
        a search over Q, poolings, aggregation and classifiers extracts every image once for each
        column, in however many processes.
    device, precision : str, default="auto"
        Where, and in which arithmetic, the network runs.
    n_jobs : int or None, default=None
        Threads that decode images; one for each core by default.
    deterministic : bool, default=False
        Whether an image's descriptor has the same bits on the same machine, whatever is described
        with it; slower.
    verbose : bool, default=False
        Whether the bar of the command line shows how far it is.
    on_bad_image : {"error", "nan"}, default="error"
        Stop at an image that cannot be read, is missing, or whose numbers overflow; or give it a
        row of NaN, and warn of it by name.

    Notes
    -----
    Arrays have their channels last, tensors first, as numpy and torch have them. A tensor (C, H, W)
    of 1, 3 or 4 channels is one image. An array (H, W) or (H, W, 3) may be one image or many, and
    is refused: pass ``[image]``, or ``list(images)``. A generator is consumed once.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.svm import LinearSVC
    >>> import numpy as np
    >>> dark, light = np.zeros((40, 60, 3)), np.ones((40, 60, 3))
    >>> features = VGGFeatures(layer="pool3", Q=32, weights="embedded")
    >>> model = make_pipeline(features, LinearSVC()).fit([dark, light], ["dark", "light"])
    >>> model.predict([dark])
    array(['dark'], dtype='<U5')
    """

    def __init__(
        self,
        net: str = "D",
        layer: str | Sequence[str] = "fc7",
        Q: int | Sequence[int] = (256,),
        aggregate: str = "average",
        weights: Any = "auto",
        flip: bool = True,
        normalize: str = "descriptor",
        pool: str = "average",
        power: float | None = None,
        exif: bool = True,
        cache: str | Path | None = None,
        device: str = "auto",
        precision: str = "auto",
        n_jobs: int | None = None,
        deterministic: bool = False,
        verbose: bool = False,
        on_bad_image: str = "error",
    ) -> None:
        self.net = net
        self.layer = layer
        self.Q = Q
        self.aggregate = aggregate
        self.weights = weights
        self.flip = flip
        self.normalize = normalize
        self.pool = pool
        self.power = power
        self.exif = exif
        self.cache = cache
        self.device = device
        self.precision = precision
        self.n_jobs = n_jobs
        self.deterministic = deterministic
        self.verbose = verbose
        self.on_bad_image = on_bad_image

    def fit(self, X: Any = None, y: Any = None) -> VGGFeatures:
        """Check the settings; nothing is learned.

        Raises
        ------
        ParameterError
            For a setting out of its range.
        """
        self._aggregation()
        self._layers()
        if self.on_bad_image not in ON_BAD_IMAGE:
            raise ParameterError.not_one_of(
                "on_bad_image", "VGGFeatures", ON_BAD_IMAGE, self.on_bad_image
            )
        return self

    def transform(self, X: Any) -> npt.NDArray[np.float32]:
        """Describe images.

        Parameters
        ----------
        X : sequence of images
            Paths, the bytes of files, PIL images, arrays (H, W), (H, W, 3) or (H, W, 4), tensors
            (C, H, W), ``(image, label)`` tuples, whose labels are left out, or a mixture of them:
            in a list, a generator, a column of pandas, polars or Arrow, a data set of torch, an
            :class:`~vggfeat.data.imageset.ImageSet`, one array (N, H, W, C), or one tensor
            (N, C, H, W). Numbers are uint8, or floats in [0, 1].

        Returns
        -------
        ndarray (N, D) of float32

        Raises
        ------
        ImageError
            With ``on_bad_image="error"``, for an image that cannot be read, or whose numbers
            overflow: a transformer has a row for every image.
        ParameterError
            For an element that is no image.

        Warns
        -----
        UserWarning
            With ``on_bad_image="nan"``, of the images whose rows are NaN.
        """
        self.fit()
        total = len(X) if isinstance(X, Sized) and not isinstance(X, Tensor) else 0
        done = Summary(0)
        parts: list[Matrix] = []
        bad: dict[str, str] = {}
        with image_bar("describe") if self.verbose else nullcontext() as progress:
            for block in iter_blocks(X):
                done.images = max(total, done.images + len(block))
                rows, reasons, summary = self._describe(block, done.onto(progress))
                done = done.plus(summary)
                parts.append(rows)
                bad |= reasons
        if bad:
            warnings.warn(_explain_rows(bad), stacklevel=3)
        return np.concatenate(parts) if parts else self._empty_rows(0)

    def get_feature_names_out(self, input_features: Any = None) -> npt.NDArray[np.object_]:
        """Name every column by net, layer, pooling where there are two, scale and channel.

        Examples
        --------
        >>> VGGFeatures(layer="pool5", Q=(256, 384)).get_feature_names_out()[-1]
        'vgg_d_pool5_511'
        """
        layers: Iterable[Layer] = layers_of(net_name(self.net))
        if {"fc8", "prob"} & set(self._layers()):  # the weights say how many classes there are
            layers = self._extractor().net.layers
        outputs = {layer.name: layer.outputs for layer in layers}
        pools = self.pool.split("+")
        poolings = [(f"_{pool}" * (len(pools) > 1), resolve_pooling(pool).parts) for pool in pools]
        scales = [f"_q{Q}" for Q in _list_scales(self.Q)] if self.aggregate == "stack" else [""]
        names = [
            f"vgg_{net_name(self.net).lower()}_{layer}{pool}{scale}{part}_{channel}"
            for layer in self._layers()
            for pool, parts in poolings
            for scale in scales
            for part in parts
            for channel in range(outputs[layer.removesuffix("_pre")])
        ]
        return np.array(names, object)

    def _describe(
        self, block: Sequence[Element], progress: Progress | None
    ) -> tuple[Matrix, dict[str, str], Summary]:
        """Return the rows of images, NaN for bad ones, and where these are and why."""
        extractor, scales = self._extractor(), _list_scales(self.Q)
        names, bad = self._name(block)
        pairs = list(zip(names, block, strict=True))
        images = {name: tracked(e.image) for name, e in pairs if name and e.image is not None}
        folder = None if self.cache is None else Path(self.cache) / extractor.cache_key
        with nullcontext() if folder is None else _lock(folder):
            store = FeatureStore(folder, "a")
            try:
                summary = extract(
                    ImageSet(tuple(images), tuple(images.values())),
                    extractor,
                    scales,
                    store,
                    on_bad_image="error" if self.on_bad_image == "error" else "skip",
                    workers=self.n_jobs,
                    progress=progress,
                )
            except ImageError as error:
                place = next((e.place for name, e in pairs if name == error.name), "")
                raise (ImageError.of(place, error.reason) if place else error) from None
            failed = store.failed
        bad |= {element.place: failed[name] for name, element in pairs if name in failed}
        good = [row for row, element in enumerate(block) if element.place not in bad]
        if not good:
            return self._empty_rows(len(block)), bad, summary
        described = store.read(extractor.descriptors(scales), [names[row] for row in good])
        rows = self._aggregation().rows(described)
        if bad:
            whole = self._empty_rows(len(block))
            whole[good] = rows
            return whole, bad, summary
        return rows, bad, summary

    def _name(self, block: Sequence[Element]) -> tuple[list[str], dict[str, str]]:
        """Return a name for each image, empty for one that has none, and where and why that is."""
        decoding = Decoding(exif=self.exif)
        names: list[str] = []
        bad: dict[str, str] = {}
        for element in block:
            try:
                names.append(_name_image(element.image, decoding))
            except ImageError as error:
                if self.on_bad_image == "error":
                    raise ImageError.of(element.place, str(error)) from error
                names.append("")
                bad[element.place] = str(error)
        return names, bad

    def _empty_rows(self, count: int) -> Matrix:
        return np.full((count, len(self.get_feature_names_out())), np.nan, np.float32)

    def _extractor(self) -> DenseExtractor:
        weights = _WeightsKey(self.weights)
        names = ("flip", "pool", "exif", "device", "precision", "deterministic")
        settings = [(name, getattr(self, name)) for name in names]
        settings.append(("locations", self._aggregation().locations))
        return _open(net_name(self.net), tuple(self._layers()), weights, tuple(settings))

    def _aggregation(self) -> Aggregation:
        return Aggregation(self.aggregate, self.normalize, self.power)

    def _layers(self) -> list[str]:
        named = [self.layer] if isinstance(self.layer, str) else self.layer
        return list(dict.fromkeys(resolve_layer(net_name(self.net), name) for name in named))

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        tags.no_validation = True
        return tags


class _WeightsKey:
    """Weights as they are now: a file that was replaced under its name is another."""

    def __init__(self, weights: Any) -> None:
        self.weights = weights
        self.key: tuple[Any, ...] = (weights,)
        if isinstance(weights, Weights):
            self.key = (weights.net, weights.sha256, weights.pixels)
        elif (path := Path(weights).expanduser()).is_file():
            stat = path.stat()
            times = stat.st_mtime_ns, stat.st_ctime_ns
            self.key = (path.resolve(), stat.st_size, stat.st_ino, *times)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _WeightsKey) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


# A search calls transform for every fold and setting: a network of half a gigabyte is built once.
# Held outside of the transformer, it is neither cloned nor pickled with it.
@lru_cache(maxsize=2)
def _open(
    net: str, layers: tuple[str, ...], key: _WeightsKey, settings: tuple[tuple[str, Any], ...]
) -> DenseExtractor:
    return DenseExtractor(net, layers, weights=key.weights, **dict(settings))


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Let one process at a time describe images: the next finds what the first has done."""
    with explain_os_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
    lock = file_lock(folder)
    try:
        lock.acquire()
    except OSError as error:
        raise StoreError(
            f"The cache {folder.parent} cannot be used, since {lock.lock_file} cannot be locked: "
            f"{error.strerror}. Allow that file to be written, or name another cache."
        ) from error
    try:
        yield
    finally:
        lock.release()


def _list_scales(Q: Any) -> tuple[Any, ...]:
    """List scales, of which a grid made by numpy has its own ints; others are refused later."""
    scales = (Q,) if isinstance(Q, Integral) or not isinstance(Q, Iterable) else Q
    return tuple(int(scale) if isinstance(scale, Integral) else scale for scale in scales)


def _name_image(image: ImageLike | None, decoding: Decoding) -> str:
    """Name an image for the store: where it is, or by a digest of its file or its pixels."""
    if image is None:
        raise ImageError("it is missing: there is no value")
    image = absolute(image)  # a cache may be used from another folder
    if isinstance(image, Crop):
        return f"{image.path} {image.box}"
    if isinstance(image, Path | ImageRef):
        return str(image)
    if isinstance(image, bytes):
        return f"file-{hashlib.sha256(image).hexdigest()}"
    values = np.asarray(decode(image, decoding) if isinstance(image, Image.Image) else image)
    digest = hashlib.sha256(f"{values.dtype} {values.shape}".encode())
    digest.update(np.ascontiguousarray(values).tobytes())
    return f"pixels-{digest.hexdigest()}"


def _explain_rows(bad: Mapping[str, str]) -> str:
    """Say which rows are NaN, and why."""
    shown = "; ".join(f"{place}: {reason}" for place, reason in list(bad.items())[:NAMED])
    more = f"; and {len(bad) - NAMED} more" if len(bad) > NAMED else ""
    return f"{counted(len(bad), 'row')} of NaN, as an image could not be used. {shown}{more}"
