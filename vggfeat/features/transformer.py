"""VGGFeatures: the one path as a scikit-learn transformer."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import lru_cache
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from sklearn.base import BaseEstimator, TransformerMixin

from vggfeat._io.atomic import explain_os_errors, file_lock
from vggfeat._io.remote import is_address
from vggfeat.data.image import Crop, ImageLike, ImageRef, decode
from vggfeat.data.imageset import ImageSet
from vggfeat.data.sources.tar import TarMember
from vggfeat.errors import ImageError, ParameterError, StoreError
from vggfeat.features.aggregate import Aggregation
from vggfeat.features.extractor import DenseExtractor
from vggfeat.features.pipeline import extract
from vggfeat.features.pooling import resolve_pooling
from vggfeat.nets.config import Layer, layers_of, resolve_layer
from vggfeat.nets.weights import Weights
from vggfeat.settings import Decoding, net_name
from vggfeat.store.column import Descriptor
from vggfeat.store.store import FeatureStore


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

    def fit(self, X: Any = None, y: Any = None) -> VGGFeatures:
        """Check the settings; nothing is learned.

        Raises
        ------
        ParameterError
            For a setting out of its range.
        """
        self._aggregation()
        self._layers()
        return self

    def transform(self, X: Any) -> npt.NDArray[np.float32]:
        """Describe images.

        Parameters
        ----------
        X : sequence of images
            Paths, PIL images, arrays (H, W) or (H, W, 3), a mixture of them, or one array
            (N, H, W, 3); uint8, or floats in [0, 1].

        Returns
        -------
        ndarray (N, D) of float32

        Raises
        ------
        ImageError
            For an image that cannot be read, or whose numbers overflow: a transformer has a row
            for every image.
        """
        self.fit()
        images = _list_images(X)
        if not images:
            return np.empty((0, len(self.get_feature_names_out())), np.float32)
        decoding = Decoding(exif=self.exif)
        names = [_name_image(image, decoding) for image in images]
        unique = dict(zip(names, images, strict=True))
        described = self._describe(ImageSet(tuple(unique), tuple(unique.values())), names)
        return self._aggregation().rows(described)

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
        self, images: ImageSet, names: list[str]
    ) -> dict[Descriptor, npt.NDArray[np.float32]]:
        extractor = self._extractor()
        scales = _list_scales(self.Q)
        folder = None if self.cache is None else Path(self.cache) / extractor.cache_key
        with nullcontext() if folder is None else _lock(folder):
            store = FeatureStore(folder, "a")
            extract(images, extractor, scales, store, on_bad_image="error", workers=self.n_jobs)
        return store.read(extractor.descriptors(scales), names)

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


def _list_images(X: Any) -> list[ImageLike]:
    if isinstance(X, str | Path | Image.Image):
        raise ParameterError.of("X", "VGGFeatures.transform", "a sequence of images", X)
    if isinstance(X, np.ndarray) and X.ndim in (2, 3) and X.dtype.kind in "uf":
        raise ImageError(
            f"an array of shape {X.shape} may be one image or many. "
            "Pass (N, H, W, 3), or a list of arrays."
        )
    return [str(image) if isinstance(image, np.str_) else image for image in _list_elements(X)]


def _list_elements(X: Any) -> list[Any]:
    """List the elements of X, of a data frame those of its one column."""
    if hasattr(X, "iloc") and getattr(X, "ndim", 1) == 2:
        if X.shape[1] != 1:
            raise ParameterError.of("X", "VGGFeatures", "a data frame of one column", X.shape)
        return list(X.iloc[:, 0])
    return list(X.ravel()) if isinstance(X, np.ndarray) and X.ndim == 2 else list(X)


def _name_image(image: ImageLike, decoding: Decoding) -> str:
    """Name an image for the store: where it is, or by a digest of its pixels."""
    # A cache may be used from another folder.
    if isinstance(image, str | Path):
        return str(Path(image).absolute())
    if isinstance(image, Crop):
        return f"{image.path.absolute()} {image.box}"
    if isinstance(image, TarMember) and not is_address(image.archive):
        image = replace(image, archive=str(Path(image.archive).absolute()))
    if isinstance(image, ImageRef):
        return str(image)
    values = np.asarray(decode(image, decoding) if isinstance(image, Image.Image) else image)
    digest = hashlib.sha256(f"{values.dtype} {values.shape}".encode())
    digest.update(np.ascontiguousarray(values).tobytes())
    return f"pixels-{digest.hexdigest()}"
