"""Boxes as arrays: how much two overlap, and what they are in the frame of a crop or window.

A box is (left, top, right, bottom): the edges of what it covers, in pixels of its image, from 0
at the image's own left and upper edge. Annotations of VOC and ILSVRC count pixels from 1 on and
name the first and the last one, so that ``xmin, ymin, xmax, ymax`` has the edges ``xmin − 1,
ymin − 1, xmax, ymax`` and is ``xmax − xmin + 1`` pixels wide, as VOC's development kit reckons.

The frame, which the paper does not give (Appendix A), is ours: the network's 224×224 crop is the
unit square, and a box in it is (centre x, centre y, width, height). What reaches out of the crop
has a centre outside of [0, 1] or a side of more than 1; nothing is cut off. In a mirrored crop the
centre is at 1 − x.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torchvision.ops import box_iou

from vggfeat.data.image import Box, rescaled_size
from vggfeat.nets.config import STRIDE
from vggfeat.train.augment import SIDE, Place

Floats = NDArray[np.float64]
Size = tuple[int, int]
"""Width and height of an image, in pixels."""


def edges(boxes: ArrayLike) -> Floats:
    """Edges (N, 4) of boxes as annotations have them.

    Examples
    --------
    >>> edges([(1, 1, 10, 5)]).tolist()
    [[0.0, 0.0, 10.0, 5.0]]
    """
    return np.asarray(boxes, dtype=np.float64).reshape(-1, 4) - (1, 1, 0, 0)


def as_annotated(box: ArrayLike) -> Box:
    """Write the edges (4,) of a box as annotations have it.

    A box narrower than a pixel, which no first and last pixel can state, becomes the pixel that
    its middle lies in.

    Examples
    --------
    >>> as_annotated([0.0, 0.0, 10.0, 5.0]), as_annotated([0.1, 0.0, 0.9, 5.0])
    ((1.0, 1.0, 10.0, 5.0), (1.0, 1.0, 1.0, 5.0))
    """
    left, top, right, bottom = np.asarray(box, dtype=np.float64).tolist()
    (xmin, xmax), (ymin, ymax) = _pixels(left, right), _pixels(top, bottom)
    return xmin, ymin, xmax, ymax


def _pixels(low: float, high: float) -> tuple[float, float]:
    """Name the first and the last pixel between two edges, counted from 1 on."""
    if high - low >= 1:
        return low + 1, high
    middle = max(1.0, float(np.ceil((low + high) / 2)))
    return middle, middle


def area(boxes: Floats) -> Floats:
    """Areas of boxes (…, 4); 0 of one that is inside out.

    Examples
    --------
    >>> area(np.array([[0.0, 0.0, 4.0, 3.0], [4.0, 0.0, 0.0, 3.0]])).tolist()
    [12.0, 0.0]
    """
    areas: Floats = np.maximum(boxes[..., 2:] - boxes[..., :2], 0).prod(axis=-1)
    return areas


def overlap(a: Floats, b: Floats) -> Floats:
    """Areas (N, M) of the intersections of boxes (N, 4) and (M, 4).

    Examples
    --------
    >>> overlap(np.array([[0.0, 0, 4, 4]]), np.array([[2.0, 2, 9, 9]])).tolist()
    [[4.0]]
    """
    low, high = np.maximum(a[:, None, :2], b[:, :2]), np.minimum(a[:, None, 2:], b[:, 2:])
    return area(np.concatenate([low, high], axis=2))


def iou(a: Floats, b: Floats) -> Floats:
    """Intersection over union of boxes, for each pair.

    Parameters
    ----------
    a, b : array, shape (N, 4) and (M, 4)
        Edges.

    Returns
    -------
    array, shape (N, M)
        From 0 to 1; 0 of two boxes without area.

    Examples
    --------
    >>> boxes = edges([(1, 1, 4, 4), (3, 1, 6, 4)])
    >>> iou(boxes, boxes).round(3).tolist()
    [[1.0, 0.333], [0.333, 1.0]]
    """
    shares = box_iou(torch.from_numpy(a), torch.from_numpy(b)).numpy()
    pairs: Floats = np.nan_to_num(shares)
    return pairs


def to_frame(boxes: Floats, size: Size, place: Place, *, flip: bool = False) -> Floats:
    """Write boxes of an image in the frame of a crop.

    Parameters
    ----------
    boxes : array, shape (N, 4)
        Edges in the image.
    size : (int, int)
        Width and height of the image.
    place : Place
        Where the crop lies, as from :func:`vggfeat.train.augment.crop_of`.
    flip : bool
        Whether the crop is mirrored.

    Returns
    -------
    array, shape (N, 4)
        Centre x, centre y, width, height; the crop's side is 1.

    Examples
    --------
    >>> place = Place(size=(448, 336), offset=(56, 0))
    >>> to_frame(np.array([[0.0, 0.0, 250.0, 250.0]]), (500, 375), place).tolist()
    [[0.25, 0.5, 1.0, 1.0]]
    """
    per_pixel = np.array(place.size) / size
    low, high = (boxes[:, part] * per_pixel - place.offset for part in (slice(2), slice(2, 4)))
    framed = np.concatenate([(low + high) / 2, high - low], axis=1) / SIDE
    if flip:
        framed[:, 0] = 1 - framed[:, 0]
    return framed


def from_frame(framed: Floats, size: Size, place: Place) -> Floats:
    """Write boxes in the frame of a crop or window as boxes of the image.

    Parameters
    ----------
    framed : array, shape (N, 4)
        Centre x, centre y, width, height; a width below 0 is one of 0.
    size, place
        As of :func:`to_frame`; the crop is not mirrored.

    Returns
    -------
    array, shape (N, 4)
        Edges in the image; they may lie outside of it.
    """
    return _placed(framed, size, place.size, np.array([place.offset], dtype=np.float64))


def window_boxes(dense_map: NDArray[np.float32], size: Size, Q: int) -> Floats:
    """Read the boxes that all locations of a dense map predict.

    Parameters
    ----------
    dense_map : array, shape (4 K, h, w)
        Of fc8: K boxes a location.
    size : (int, int)
        Width and height of the image.
    Q : int
        Its smallest side when the map was made.

    Returns
    -------
    array, shape (h·w, K, 4)
        Edges in the image, location by location, row by row.

    Notes
    -----
    Location (i, j) looks at the 224×224 window whose corner is at (32 j, 32 i) of the rescaled
    image. Two things differ from the crop that the network was trained on. Its convolutions pad
    with zeros at the edge of the image only: inside, a window also sees a little of what is
    beside it. And where max-pools round up (the authors' weights), the last window of a side that
    32 does not divide reaches past the image's edge, by 31 pixels at most.

    Examples
    --------
    >>> whole = np.array([0.5, 0.5, 1.0, 1.0], np.float32).reshape(4, 1, 1)
    >>> window_boxes(whole.repeat(2, 2), (512, 448), 224).round(2).tolist()
    [[[0.0, 0.0, 448.0, 448.0]], [[64.0, 0.0, 512.0, 448.0]]]
    """
    outputs, h, w = dense_map.shape
    framed = dense_map.reshape(outputs // 4, 4, h * w).transpose(2, 0, 1).astype(np.float64)
    rows, columns = np.divmod(np.arange(h * w), w)
    corners = STRIDE * np.stack([columns, rows], axis=1).astype(np.float64)
    return _placed(framed, size, rescaled_size(*size, Q), corners[:, None])


def clip(boxes: Floats, size: Size) -> Floats:
    """Cut off what lies outside of the image; true boxes lie within, so no IoU falls by that.

    Examples
    --------
    >>> clip(np.array([[-3.0, 2.0, 9.0, 8.0]]), (6, 7)).tolist()
    [[0.0, 2.0, 6.0, 7.0]]
    """
    within: Floats = np.clip(boxes, 0, np.tile(np.array(size, dtype=np.float64), 2))
    return within


def visible_share(boxes: Floats, size: Size, place: Place) -> Floats:
    """Share (N,) of each box of an image that lies within a crop.

    Examples
    --------
    >>> place = Place(size=(448, 336), offset=(0, 0))
    >>> visible_share(np.array([[0.0, 0.0, 448.0, 100.0]]), (448, 336), place).tolist()
    [0.5]
    """
    low = np.array(place.offset) * size / place.size
    high = (np.array(place.offset) + SIDE) * size / place.size
    whole, within = area(boxes), area(np.clip(boxes, np.tile(low, 2), np.tile(high, 2)))
    share: Floats = np.divide(within, whole, out=np.zeros_like(whole), where=whole > 0)
    return share


def _placed(framed: Floats, size: Size, rescaled: Size, corners: Floats) -> Floats:
    centre, sides = framed[..., :2], np.maximum(framed[..., 2:], 0)
    per_pixel = np.array(size) / rescaled
    low = (corners + SIDE * (centre - sides / 2)) * per_pixel
    high = (corners + SIDE * (centre + sides / 2)) * per_pixel
    placed: Floats = np.concatenate([low, high], axis=-1)
    return placed
