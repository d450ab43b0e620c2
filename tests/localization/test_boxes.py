"""Boxes by hand: overlap, the frame of a crop, and back from a window."""

from __future__ import annotations

import numpy as np
import pytest

from vggfeat.localization.boxes import (
    as_annotated,
    clip,
    edges,
    from_frame,
    iou,
    to_frame,
    visible_share,
    window_boxes,
)
from vggfeat.train.augment import Place, crop_of, draw

SIZE = (500, 375)


def random_boxes(n: int, seed: int = 0, within: tuple[int, int] = SIZE) -> np.ndarray:
    """Boxes of whole pixels, as edges."""
    corners = np.random.default_rng(seed).integers(0, (*within, *within), (n, 4)).reshape(n, 2, 2)
    return np.concatenate([corners.min(1), corners.max(1) + 1], axis=1).astype(np.float64)


def test_iou_counts_pixels_from_one_on_ends_included() -> None:
    """Two 4×4 boxes that share a column of 4 pixels: 4 of 28, as VOC's development kit has it."""
    boxes = edges([(1, 1, 4, 4), (4, 1, 7, 4), (5, 1, 8, 4)])
    assert iou(boxes[:1], boxes[1:])[0] == pytest.approx([4 / 28, 0])
    empty = np.array([[5.0, 5.0, 5.0, 9.0], [9.0, 9, 1, 1]])  # neither 0 / 0 nor a negative share
    assert iou(empty, np.array([[5.0, 5.0, 5.0, 9.0], [0.0, 0, 10, 10]])).tolist() == [[0, 0]] * 2


def test_iou_equals_counted_pixels() -> None:
    """Painted pixel by pixel and counted."""
    boxes = random_boxes(12, within=(40, 30))
    painted = np.zeros((12, 31, 41), dtype=bool)
    for image, (left, top, right, bottom) in zip(painted, boxes.astype(int), strict=True):
        image[top:bottom, left:right] = True
    common = (painted[:, None] & painted[None]).sum((2, 3))
    union = (painted[:, None] | painted[None]).sum((2, 3))
    np.testing.assert_allclose(iou(boxes, boxes), common / union)


def test_a_box_in_the_frame_of_a_crop_by_hand() -> None:
    """500×375 at S = 256 is 341×256; a crop at (29, 10); pixels 101–300 and 76–225 by hand."""
    framed = to_frame(edges([(101, 76, 300, 225)]), SIZE, Place((341, 256), (29, 10)))[0]
    left, right = 100 * 341 / 500 - 29, 300 * 341 / 500 - 29  # 39.2, 175.6
    top, bottom = 75 * 256 / 375 - 10, 225 * 256 / 375 - 10  # 41.2, 143.6
    centre, sides = ((left + right) / 448, (top + bottom) / 448), (right - left, bottom - top)
    np.testing.assert_allclose(framed, [*centre, sides[0] / 224, sides[1] / 224])
    np.testing.assert_allclose(framed, [0.479464, 0.412500, 0.608929, 0.457143], atol=1e-6)


def test_mirrored_is_the_frame_of_the_mirror_image() -> None:
    """The box of the mirrored crop is that of mirrored pixels in a crop from the other side."""
    box, mirrored = np.array([[[50.0, 20, 170, 200]], [[500 - 170.0, 20, 500 - 50, 200]]])
    flipped = to_frame(box, SIZE, Place((448, 336), (30, 12)), flip=True)
    other = Place((448, 336), (448 - 224 - 30, 12))
    np.testing.assert_allclose(flipped, to_frame(mirrored, SIZE, other))


@pytest.mark.parametrize("seed", range(5))
def test_to_the_frame_and_back(seed: int) -> None:
    """Whatever the crop, what is written in its frame is read back as it was."""
    place = crop_of(*SIZE, (256, 512), draw(seed, 1, 2))
    boxes = random_boxes(20, seed)
    found = from_frame(to_frame(boxes, SIZE, place), SIZE, place)
    np.testing.assert_allclose(found, boxes, atol=1e-9)


def test_every_window_of_a_map_finds_the_same_box() -> None:
    """A box written in the frame of each window lies in one place of the image."""
    w, h = 320 * 500 // 375, 320
    box = np.array([[40.0, 60.0, 240.0, 330.0]])
    dense_map = np.empty((4, (h - 224) // 32 + 1, (w - 224) // 32 + 1), np.float32)
    for i, j in np.ndindex(*dense_map.shape[1:]):
        dense_map[:, i, j] = to_frame(box, SIZE, Place((w, h), (32 * j, 32 * i)))[0]
    found = window_boxes(dense_map, SIZE, 320)
    assert found.shape == (dense_map[0].size, 1, 4)
    np.testing.assert_allclose(found[:, 0], box.repeat(len(found), 0), atol=1e-4)


def test_boxes_of_several_classes_stay_apart() -> None:
    """Channels 4 k to 4 k + 3 are the box of class k; a negative side is none."""
    dense_map = np.arange(8, dtype=np.float32).reshape(8, 1, 1) / 8
    boxes = window_boxes(dense_map, (224, 224), 224)[0]
    for box, (cx, cy, w, h) in zip(boxes, dense_map.reshape(2, 4) * 224, strict=True):
        np.testing.assert_allclose(box, [cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2])
    inside_out = np.array([[0.5, 0.5, -0.2, 0.4]])
    left, top, right, bottom = from_frame(inside_out, (224, 224), Place((224, 224), (0, 0)))[0]
    assert left == right == 112
    assert top < bottom


def test_visible_share_by_hand() -> None:
    """Half of the box lies outside of the crop."""
    share = visible_share(np.array([[112.0, 0, 336, 100]]), (448, 224), Place((448, 224), (0, 0)))
    assert share == pytest.approx([0.5])


@pytest.mark.parametrize("size", [(1, 1), (2, 5), (448, 336)])
def test_written_boxes_lie_in_the_image_and_are_not_inside_out(size: tuple[int, int]) -> None:
    """Whatever a net predicts, of however small an image: first pixel, last pixel, from 1 on."""
    corners = np.random.default_rng(0).uniform(-0.5, 1.5, (200, 2, 2)) * size
    corners[:20, 1] = corners[:20, 0] + 0.3
    for box in clip(np.sort(corners, axis=1).reshape(-1, 4), size):
        xmin, ymin, xmax, ymax = as_annotated(box)
        assert 1 <= xmin <= xmax <= size[0]
        assert 1 <= ymin <= ymax <= size[1]
    assert as_annotated(edges([(90, 125, 337, 212)])[0]) == (90, 125, 337, 212)
    assert clip(np.array([[-1.0, -2, 600, 99]]), SIZE).tolist() == [[0, 0, 500, 99]]
