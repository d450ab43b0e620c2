"""How much of a run is gone when it is killed: a part that is bounded in bytes and in time."""

from __future__ import annotations

import os
import signal
from functools import partial
from pathlib import Path

import pytest
from helpers.extraction import SCALES, draw_small, extract_sums
from helpers.killing import ended, forked
from helpers.networks import FakeExtractor, pixel_sums
from helpers.seams import round_size, shard_due

from vggfeat.features import pipeline
from vggfeat.features.pipeline import Summary
from vggfeat.store.maintenance import verify
from vggfeat.store.store import FeatureStore

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
ROUND = 4


def die(done: Summary) -> None:
    """End at once, in the ninth round of four images."""
    if done.computed > 8 * ROUND:
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("seconds", "images", "kept"),
    [
        (0.0, 10**6, 32),  # every round is late: all before the last is there
        (1e9, 12, 24),  # none is: of eight whole rounds two shards of three
        (1e9, 10, 24),  # a shard ends with a round
    ],
)
def test_what_a_kill_can_lose(tmp_path: Path, seconds: float, images: int, kept: int) -> None:
    """A shard is there after so many seconds, or bytes; only what came later is lost."""
    due = (pipeline.BYTES_PER_SHARD, pipeline.SECONDS_PER_SHARD)
    assert due == (64 << 20, 30.0)  # as promised
    folder, out = draw_small(tmp_path / "images", bad=0), tmp_path / "out"
    row = 4 * sum(column.width for column in FakeExtractor(pixel_sums).columns(SCALES))
    with shard_due(images * row, seconds), round_size(ROUND):
        killed = forked(partial(extract_sums, folder, out, progress=die))
        assert ended(killed) == -signal.SIGKILL
    assert verify(out) == []
    assert len(FeatureStore(out).names) == kept
    assert extract_sums(folder, out).present == kept
