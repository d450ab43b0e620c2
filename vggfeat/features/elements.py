"""What :class:`~vggfeat.features.transformer.VGGFeatures` takes as images, of whatever library."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from torch import Tensor

from vggfeat._io.remote import address_of
from vggfeat.data.image import Crop, ImageLike, ImageRef
from vggfeat.data.imageset import ImageSet
from vggfeat.data.sources.remote import RemoteImage
from vggfeat.errors import ImageError, ParameterError

CHANNELS = (1, 3, 4)  # grey, RGB, RGBA
# Images of a data set or a generator that are held at a time: they are in no list already.
HELD = 1024
_ONE = (str, bytes, bytearray, os.PathLike, Image.Image, Crop, ImageRef)
_TAKEN = (
    "an image is a path, an address, bytes of a file, a PIL image, an array, a tensor or a tuple "
    "(image, label)"
)


class Element(NamedTuple):
    """An image of X, and where it is there; no image where a column has no value."""

    place: str
    image: ImageLike | None


def iter_blocks(X: Any) -> Iterator[list[Element]]:
    """Go through the images of X, all of a list at once, some of a data set or a generator.

    Raises
    ------
    ParameterError
        If X is no sequence of images, or an element of it is none.
    ImageError
        If an array may be one image or many.

    Examples
    --------
    >>> [[first, second]] = iter_blocks([Path("a.jpg"), (np.zeros((2, 3)), "label")])
    >>> first.place, second.place, second.image.shape
    ('element 0, a.jpg', 'element 1', (2, 3))
    """
    elements = _elements(X)
    size = max(1, len(elements)) if isinstance(elements, list) else HELD
    numbered = enumerate(elements)
    while block := [_read(element, number) for number, element in islice(numbered, size)]:
        yield block


def _elements(X: Any) -> Iterable[Any]:
    """List the elements of X, or go through them where they are made one by one."""
    if isinstance(X, ImageSet):
        return list(X.images)
    if isinstance(X, Tensor | np.ndarray):
        return _of_array(X)
    if isinstance(X, (*_ONE, Mapping)):
        raise _no_sequence(X)
    shape = getattr(X, "shape", ())
    if isinstance(shape, tuple) and len(shape) == 2:
        X = _column(X, shape)
    if hasattr(X, "to_pylist"):  # Arrow, whose own elements are scalars
        return list(X.to_pylist())
    if hasattr(X, "__iter__"):
        held = isinstance(X, list | tuple) or hasattr(X, "dtype")  # or a column of a data frame
        return list(X) if held else X
    if hasattr(X, "__getitem__") and hasattr(X, "__len__"):  # a data set of torch
        return (X[number] for number in range(len(X)))
    raise _no_sequence(X)


def _of_array(X: Any) -> list[Any]:
    """List the images of an array, whose channels are last, or of a tensor, whose are first."""
    if isinstance(X, np.ndarray) and X.dtype.kind not in "buif":  # of paths, or of objects
        if X.ndim == 2 and X.shape[1] == 1:
            X = X[:, 0]
        if X.ndim != 1:
            raise ParameterError.of("X", "VGGFeatures", "an array of one column", X.shape)
        return list(X)
    if isinstance(X, Tensor) and X.ndim == 3 and X.shape[0] in CHANNELS:
        return [X]
    if X.ndim in (2, 3):
        many = "(N, C, H, W)" if isinstance(X, Tensor) else "(N, H, W, C)"
        raise ImageError(
            f"X of shape {tuple(X.shape)} may be one image or many. Pass {many}, [X] for one "
            "image, or list(X) for many."
        )
    return list(X)


def _column(X: Any, shape: tuple[int, int]) -> Any:
    """Return the one column of a data frame, of pandas, polars or Arrow."""
    if shape[1] != 1:
        raise ParameterError.of("X", "VGGFeatures", "a data frame of one column", shape)
    if hasattr(X, "iloc"):
        return X.iloc[:, 0]
    for method in ("to_series", "column"):
        if hasattr(X, method):
            return getattr(X, method)(0)
    raise _no_sequence(X)


def _read(element: Any, number: int) -> Element:
    """Return an element as what is decoded, without its label."""
    place = f"element {number}"
    if isinstance(element, tuple | list) and len(element) == 1:
        element = element[0]
    elif isinstance(element, tuple) and element:
        element = element[0]  # without its label
    if hasattr(element, "as_py"):  # one of Arrow's own
        element = element.as_py()
    if isinstance(element, Tensor):
        return Element(place, _channels_last(element, place))
    if isinstance(element, bytes | bytearray | memoryview):
        return Element(place, bytes(element))
    if isinstance(element, Image.Image | np.ndarray):
        return Element(place, element)
    if isinstance(element, str | PurePath) and (address := address_of(element)):
        file = address.removeprefix("file://")
        element = RemoteImage(address) if file == address else file
    if isinstance(element, str | Crop | ImageRef):
        image = str(element) if isinstance(element, str) else element  # numpy's own texts as well
        where = f"{element.path} {element.box}" if isinstance(element, Crop) else str(element)
        return Element(f"{place}, {where}", image)
    if isinstance(element, os.PathLike):
        return Element(f"{place}, {os.fspath(element)}", Path(element))
    if _is_missing(element):
        return Element(place, None)
    raise ParameterError(f"In X, {place} is a {_kind(element)}; {_TAKEN}.")


def _channels_last(tensor: Tensor, place: str) -> np.ndarray[Any, Any]:
    values = tensor.detach().cpu()
    if values.is_floating_point():
        values = values.float()  # numpy has no bfloat16
    if values.ndim == 2:
        return values.numpy()
    if values.ndim == 3 and values.shape[0] in CHANNELS:
        return values.permute(1, 2, 0).numpy()
    last = values.ndim == 3 and values.shape[2] in CHANNELS
    raise ParameterError(
        f"In X, {place} is a tensor of shape {tuple(values.shape)}; (H, W), or (C, H, W) with 1, 3 "
        "or 4 channels, is an image." + " Put its channels first by permute(2, 0, 1)." * last
    )


def _is_missing(element: Any) -> bool:
    """Tell what stands for no value in a list or a column: None, NaN, or what pandas has for it."""
    if isinstance(element, float | np.floating):
        return bool(np.isnan(element))
    return element is None or type(element).__name__ in ("NAType", "NaTType")


def _kind(element: Any) -> str:
    kind = type(element).__name__
    return f"{kind} of {len(element)}" if isinstance(element, list | tuple) else kind


def _no_sequence(X: Any) -> ParameterError:
    one = " Of one image, pass [X]." if isinstance(X, _ONE) else ""
    return ParameterError(
        f"X must be a sequence of images: a list, an array, a column or a data set. Got one "
        f"{type(X).__name__}.{one}"
    )
