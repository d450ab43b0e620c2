"""How much of a run is gone when it is killed: a part that is bounded in pictures and in time."""

from __future__ import annotations

import os
import signal
from functools import partial
from pathlib import Path

import pytest
from helpers.extraction import draw_small, extract_sums
from helpers.killing import ended, forked
from helpers.seams import round_size, shard_rows

from vggfeat.features import extract as extracting
from vggfeat.features.check import verify
from vggfeat.features.extract import Summary
from vggfeat.features.store import FeatureStore

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
ROUND = 4


def die(done: Summary) -> None:
    """End at once, in the ninth round of four pictures."""
    if done.computed > 8 * ROUND:
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("seconds", "rows", "kept"),
    [
        (0.0, extracting.ROWS_PER_SHARD, 32),  # every round is late: all before the last is there
        (1e9, 12, 24),  # none is: of eight whole rounds two shards of three
        (1e9, 10, 24),  # a shard ends with a round
    ],
)
def test_what_a_kill_can_lose(tmp_path: Path, seconds: float, rows: int, kept: int) -> None:
    """A shard is there after so many seconds, or so many pictures; only what came later is lost."""
    assert (extracting.ROWS_PER_SHARD, extracting.SECONDS_PER_SHARD) == (256, 30.0)  # as promised
    images, out = draw_small(tmp_path / "images", bad=0), tmp_path / "out"
    with shard_rows(rows, seconds), round_size(ROUND):
        killed = forked(partial(extract_sums, images, out, progress=die))
        assert ended(killed) == -signal.SIGKILL
    assert verify(out) == []
    store = FeatureStore.open(out)
    assert sum(len(header.names) for header in store.files.headers()) == kept
    assert extract_sums(images, out).present == kept
