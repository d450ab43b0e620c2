"""VGGFeatures: the one path as a scikit-learn transformer."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, TransformerMixin

from vggfeat.errors import ParameterError
from vggfeat.features.pooling import resolve_pooling
from vggfeat.nets.config import Layer, layers_of, layers_until, resolve_layer, smallest_side
from vggfeat.recipes.quality import choose_quality
from vggfeat.settings import Features, Hardware
from vggfeat.validation import check_each, is_count

if TYPE_CHECKING:
    from vggfeat.features.rows import RowMaker

_ARGUMENTS = {
    "nets": "net",
    "layers": "layer",
    **{name: name for name in ("Q", "weights", "pixels", "pool", "flip")},
    **{name: name for name in ("aggregate", "normalize", "power")},
}
"""The argument for each of the settings that a quality has."""


class VGGFeatures(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # sklearn is untyped
    """Turn images into the paper's descriptors (Appendix B).

    Stateless: nothing is learned from the images, so that it may be used before or without
    :meth:`fit`.

    What is left at None is that of `quality`.

    Parameters
    ----------
    net : str, optional
        Configuration of Table 1; ``vgg16`` is D, ``vgg19`` E.
    layer : str or sequence of str, optional
        Layer, or layers to be stacked.
    Q : int or sequence of int, optional
        Test scales: smallest side of the rescaled image, in pixels.
    aggregate : {"average", "max", "stack"}, optional
        How scales are combined.
    weights : str, path or Weights, optional
        A named source, a file, or loaded weights.
    flip : bool, optional
        Whether descriptors are averaged with those of the mirror image.
    normalize : {"descriptor", "locations", "none"}, optional
        What is L2-normalised; see :func:`~vggfeat.features.aggregate.aggregate`.
    pool : str, optional
        How a dense map becomes a descriptor, or several joined by +: "average", the paper's, or
        another of :mod:`vggfeat.features.pooling` that makes no posteriors.
    power : float, optional
        Signed power before normalisation; 1 turns that of a quality off.
    exif : bool, default=True
        Whether a recorded orientation is applied.
    pixels : {"caffe", "torchvision"} or None, default=None
        What pixels the weights take, where their file does not say it.
    cache : path or None, default=None
        Folder of stores, one for all columns that may lie in one
        (:attr:`DenseExtractor.cache_key`). Descriptors found there are not computed again, so that
        a search over Q, poolings, aggregation and classifiers extracts every image once for each
        column, in however many processes.
    device, precision : str, default="auto"
        Where, and in which arithmetic, the network runs.
    n_jobs : int or None, default=None
        Threads that decode images; None or -1 is one for each core.
    deterministic : bool, default=False
        Whether an image's descriptor has the same bits on the same machine, whatever is described
        with it; slower.
    verbose : bool, default=False
        Whether the bar of the command line shows how far it is.
    on_bad_image : {"error", "nan"}, default="error"
        Stop at an image that cannot be read, is missing, or whose numbers overflow; or give it a
        row of NaN, and warn of it by name.
    quality : {"fast", "standard", "best", "paper"}, optional
        All settings in one word: what the shipped weights do at three costs, or the paper's
        descriptor, net D, fc7. By default standard; paper, where a net, layer or weights are named.

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
        net: str | None = None,
        layer: str | Sequence[str] | None = None,
        Q: int | Sequence[int] | None = None,
        aggregate: str | None = None,
        weights: Any = None,
        flip: bool | None = None,
        normalize: str | None = None,
        pool: str | None = None,
        power: float | None = None,
        exif: bool = True,
        pixels: str | None = None,
        cache: str | Path | None = None,
        device: str = "auto",
        precision: str = "auto",
        n_jobs: int | None = None,
        deterministic: bool = False,
        verbose: bool = False,
        on_bad_image: str = "error",
        quality: str | None = None,
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
        self.pixels = pixels
        self.cache = cache
        self.device = device
        self.precision = precision
        self.n_jobs = n_jobs
        self.deterministic = deterministic
        self.verbose = verbose
        self.on_bad_image = on_bad_image
        self.quality = quality

    def fit(self, X: Any = None, y: Any = None) -> VGGFeatures:
        """Check the settings; nothing is learned.

        Raises
        ------
        ParameterError
            For a setting out of its range.
        """
        self._row_maker()
        return self

    def transform(self, X: Any) -> npt.NDArray[np.float32]:
        """Describe images.

        Parameters
        ----------
        X : sequence of images
            Paths, addresses, the bytes of files, PIL images, arrays (H, W), (H, W, 3) or
            (H, W, 4), tensors (C, H, W), ``(image, label)`` tuples, whose labels are left out, or
            a mixture of them: in a list, a generator, a column of pandas, polars or Arrow, a data
            set of torch, an :class:`~vggfeat.data.imageset.ImageSet`, one array (N, H, W, C), or
            one tensor (N, C, H, W). Numbers are uint8, or floats in [0, 1].

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
        return self._row_maker().rows(X)

    def get_feature_names_out(self, input_features: Any = None) -> npt.NDArray[np.object_]:
        """Name every column by net, layer, pooling where there are two, scale and channel.

        Examples
        --------
        >>> VGGFeatures(layer="pool5", Q=(256, 384)).get_feature_names_out()[-1]
        'vgg_d_pool5_511'
        """
        features = self._features()
        [net], own = features.nets, features.layers
        layers: Iterable[Layer] = layers_of(net)
        if {"fc8", "prob"} & set(own):  # the weights say how many classes there are
            layers = self._row_maker().extractor.net.layers
        outputs = {layer.name: layer.outputs for layer in layers}
        poolings = [
            (f"_{pool}" * (len(features.pools) > 1), resolve_pooling(pool).parts)
            for pool in features.pools
        ]
        scales = [f"_q{Q}" for Q in features.Q] if features.aggregate == "stack" else [""]
        names = [
            f"vgg_{net.lower()}_{layer}{pool}{scale}{part}_{channel}"
            for layer in own
            for pool, parts in poolings
            for scale in scales
            for part in parts
            for channel in range(outputs[layer.removesuffix("_pre")])
        ]
        return np.array(names, object)

    def _features(self) -> Features:
        """Put what is named over the quality, with layers by our names."""
        given = {name: getattr(self, own) for name, own in _ARGUMENTS.items()}
        given = {name: value for name, value in given.items() if value is not None}
        if "Q" in given:
            given["Q"] = _list_scales(self.Q)
        if isinstance(self.layer, Iterable) and not isinstance(self.layer, str):
            given["layers"] = tuple(dict.fromkeys(given["layers"]))
        if "weights" in given:  # what is loaded already goes to the extractor
            is_name = isinstance(self.weights, str | os.PathLike)
            given["weights"] = os.fspath(self.weights) if is_name else "auto"
        check_each(Features, given, _ARGUMENTS)
        features = choose_quality(self.quality, given).but(**given)
        if len(features.nets) > 1:
            raise ParameterError.of("net", "VGGFeatures", "one configuration", self.net)
        layers = dict.fromkeys(resolve_layer(features.nets[0], name) for name in features.layers)
        return features.but(layers=tuple(layers))

    def _row_maker(self) -> RowMaker:
        # Torch takes longer to import than all else here, and is not needed before.
        from vggfeat.features.aggregate import Aggregation
        from vggfeat.features.rows import RowMaker

        features = self._features()
        _check_smallest(features)
        extraction = features.of(features.nets[0]).but(exif=self.exif, precision=self.precision)
        is_loaded = not isinstance(self.weights, str | os.PathLike | None)
        return RowMaker(
            extraction,
            Hardware().but(device=self.device, deterministic=self.deterministic),
            self.weights if is_loaded else extraction.weights,
            features.Q,
            Aggregation(features.aggregate, features.normalize, features.power),
            self.cache,
            _count_threads(self.n_jobs),
            self.on_bad_image,
            self.verbose,
            lambda: len(self.get_feature_names_out()),
        )

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        tags.no_validation = True
        return tags


def _list_scales(Q: Any) -> tuple[int, ...]:
    """List scales as Python's ints, of which a grid made by numpy has its own."""
    scales = tuple(Q) if isinstance(Q, Iterable) and not isinstance(Q, str) else (Q,)
    if not scales or not all(map(is_count, scales)):
        raise ParameterError.of("Q", "VGGFeatures", "an int from 1 on, or several of them", Q)
    return tuple(map(int, scales))


def _check_smallest(features: Features) -> None:
    """Refuse a scale at which no weights have a location, before any are looked for."""
    [net], smallest = features.nets, min(features.Q)
    layers = layers_until(net, features.layers)
    if smallest < smallest_side(layers, "ceil"):
        expected = f"an int of at least {smallest_side(layers)} for {layers[-1].name} of net {net}"
        raise ParameterError.of("Q", "VGGFeatures", expected, smallest)


def _count_threads(n_jobs: Any) -> int | None:
    """Return how many threads decode, None for one for each core."""
    if n_jobs is None or (isinstance(n_jobs, Integral) and n_jobs == -1):
        return None
    if not is_count(n_jobs):
        expected = "an int from 1 on, or -1 or None for all cores"
        raise ParameterError.of("n_jobs", "VGGFeatures", expected, n_jobs)
    return int(n_jobs)
