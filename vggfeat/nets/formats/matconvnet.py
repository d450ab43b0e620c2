"""MatConvNet's ``.mat``: a cell of layer structs with filters (height, width, in, out)."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vggfeat.errors import WeightsError
from vggfeat.nets.formats import Format, register
from vggfeat.nets.formats.parameters import Contents, Pair, Parameter
from vggfeat.nets.preprocessing import CAFFE, PixelConvention

MATLAB = (b"MATLAB 5.0", b"MATLAB 7.3")
OURS = re.compile(r"conv[1-5]_[1-4]|fc[678]")
# Its models were made from Caffe's with the channels reversed: RGB, and pools that round up.
USUAL = replace(CAFFE, channels="RGB", mean=CAFFE.mean[::-1])


def _sniff(_: Path, head: bytes) -> bool:
    return head.startswith(MATLAB)


def _read(path: Path) -> Contents:
    """Read a SimpleNN model."""
    from scipy.io import loadmat  # which takes as long to load as all the rest

    try:
        file = loadmat(path, struct_as_record=False)
    except NotImplementedError as error:
        raise WeightsError(
            "it was saved by Matlab with -v7.3. Save it again with -v7, or use the original "
            "imagenet-vgg-verydeep-16.mat"
        ) from error
    layers = _cells(file.get("layers"))
    if not layers or "params" in file:
        kind = "a DagNN model" if "params" in file else "no model of MatConvNet"
        raise WeightsError(
            f"it is {kind}: it has no cell 'layers'. The files that are read are SimpleNN "
            "models such as imagenet-vgg-verydeep-16.mat"
        )
    pairs, ignored = {}, []
    for layer in layers:
        name, blobs = str(_first(_field(layer, "name"))), _blobs(layer)
        if len(blobs) == 2 and OURS.fullmatch(name):
            pairs[name] = Pair(_filters(blobs[0]), _parameter(blobs[1], blobs[1].shape))
        elif blobs:
            ignored.append(name)
    return Contents(pairs, ignored, USUAL, _pixels(file))


def _blobs(layer: Any) -> list[np.ndarray]:
    """List filters and biases: newer files have them in one cell, older ones as two fields."""
    together = _cells(_field(layer, "weights"))
    blobs = together or [_field(layer, "filters"), _field(layer, "biases")]
    return [blob for blob in blobs if _holds_numbers(blob)]


def _filters(blob: np.ndarray) -> Parameter:
    """Return filters (out, in, k, k); Matlab drops the last sides where they are 1."""
    return _parameter(blob, (*blob.shape, *(1,) * (4 - blob.ndim))).permuted(3, 2, 0, 1)


def _parameter(blob: np.ndarray, shape: tuple[int, ...]) -> Parameter:
    return Parameter(shape, blob.dtype.name, lambda: torch.from_numpy(blob).reshape(shape))


def _pixels(file: dict[str, Any]) -> PixelConvention | None:
    stated = _field(file.get("meta"), "normalization")
    image = _field(file.get("normalization") if stated is None else stated, "averageImage")
    if not _holds_numbers(image) or image.size % 3:
        return None
    # One colour, (1, 1, 3) or (3, 1), or a whole average image (224, 224, 3)
    colours = image.reshape(-1, 3, order="F").astype(np.float64)
    red, green, blue = colours.mean(axis=0).tolist()
    return replace(USUAL, mean=(red, green, blue))


def _cells(value: Any) -> list[Any]:
    return list(value.flat) if isinstance(value, np.ndarray) and value.dtype == object else []


def _field(struct: Any, name: str) -> Any:
    return getattr(_first(struct), name, None)


def _first(value: Any) -> Any:
    return value.flat[0] if isinstance(value, np.ndarray) and value.size else value


def _holds_numbers(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.size > 0 and value.dtype.kind in "fiu"


register(Format("MatConvNet", (".mat",), _sniff, _read))
