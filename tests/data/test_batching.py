"""Batches: nothing lost, nothing padded, bounded, in order."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from vggfeat.data import batching as module
from vggfeat.data.batching import DecodedImage, Job, Wanted, decode_ahead, make_batches
from vggfeat.data.identity import Id
from vggfeat.errors import ImageError

sizes = st.tuples(st.integers(1, 12), st.integers(1, 12))


@settings(max_examples=60, deadline=None)
@given(st.lists(sizes, max_size=40), st.integers(1, 400))
def test_every_image_comes_out_once_with_its_own_pixels(
    shapes: list[tuple[int, int]], budget: int
) -> None:
    """Whatever the shapes and budget, each image is in one batch, unpadded, within budget."""
    images = [
        DecodedImage(row, {7: np.full((*shape, 3), row, np.uint8)})
        for row, shape in enumerate(shapes)
    ]
    seen: Counter[int] = Counter()
    for batch in make_batches(images, budget):
        count, _, height, width = batch.pixels.shape
        assert count == 1 or count * height * width <= budget
        assert list(batch.rows) == sorted(batch.rows)
        for row, pixels in zip(batch.rows, batch.pixels, strict=True):
            seen[row] += 1
            assert (height, width) == shapes[row]
            assert (pixels == row).all()
    assert seen == Counter(range(len(shapes)))


def test_images_that_lack_different_columns_share_no_batch() -> None:
    """Also where the same is wanted of them at a scale: they end in different shards."""
    pixels = np.zeros((4, 4, 3), np.uint8)
    lacking = [{4: "a"}, {4: "a", 8: "b"}, {4: "a"}, {4: "a", 8: "b"}]
    given = [
        DecodedImage(row, dict.fromkeys(wanted, pixels), wanted=wanted)
        for row, wanted in enumerate(lacking)
    ]
    found = [(batch.Q, batch.rows, batch.wanted) for batch in make_batches(given, 10**9)]
    assert sorted(found) == [(4, (0, 2), "a"), (4, (1, 3), "a"), (8, (1, 3), "b")]


def test_what_waits_is_bounded(monkeypatch) -> None:
    """Of images that are all of different shapes, no more wait than the bound allows."""
    monkeypatch.setattr(module, "HELD_PIXELS", 1000)
    given_out = 0

    def stream():
        nonlocal given_out
        for row in range(100):
            given_out += 10 * (row + 1)
            yield DecodedImage(row, {10: np.zeros((10, row + 1, 3), np.uint8)})

    taken_in = 0
    for batch in make_batches(stream(), 10**9):
        taken_in += batch.pixels.shape[0] * batch.pixels.shape[2] * batch.pixels.shape[3]
        assert given_out - taken_in <= 1000 + 10 * 100


def all_at_4(row: int, image: Id) -> Wanted:
    """Want every image at Q = 4."""
    return {4: ("all",)}


def test_decoding_ahead_keeps_order_and_reasons() -> None:
    """Threads give images back in order; a bad one is an error in its own place."""
    images = [np.full((4, 4), row % 200, np.uint8) for row in range(50)]
    images[17] = np.zeros((1, 1, 1, 1))
    jobs = [Job(row, all_at_4) for row in range(50)]
    decoded = list(decode_ahead(images, jobs, workers=3))
    assert [one.row for one in decoded] == list(range(50))
    assert [one.row for one in decoded if isinstance(one.error, ImageError)] == [17]
    assert all((one.pixels[4] == one.row % 200).all() for one in decoded if one.row != 17)


def test_an_abandoned_stream_stops_its_threads() -> None:
    """Closing the stream early ends decoding: what was not asked for is never decoded."""
    asked = []

    def jobs():
        for row in range(1000):
            asked.append(row)
            yield Job(row, all_at_4)

    stream = decode_ahead([np.zeros((4, 4), np.uint8)] * 1000, jobs(), workers=2)
    next(stream)
    stream.close()
    assert len(asked) <= 2 * module.AHEAD + 2
