"""Whatever of a store is damaged: `repair` and the same run later it is as it was."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest
from campaigns import Campaign, times
from stand_ins import content, draw, run
from test_flips import damages

from vggfeat.features import extract as extracting
from vggfeat.features import shards
from vggfeat.features.check import verify
from vggfeat.features.repair import repair

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def damage(store: Path, rng: random.Random) -> set[str]:
    """Damage some files of a store, shards or others; return the shards among them."""
    files = sorted(path for path in store.rglob("*") if path.is_file() and path.suffix != ".csv")
    chosen = rng.sample(files, rng.randint(1, 5))
    for path in chosen:
        image = path.read_bytes()
        [(_, harm)] = damages(len(image), rng, 1)
        path.write_bytes(harm(image))
    return {path.name for path in chosen if path.parent.name == "shards"}


@pytest.mark.parametrize("catalogued", [3, 64])
def test_repairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, catalogued: int) -> None:
    """What fails its digest is set aside, the rest verifies, and the same run completes it."""
    monkeypatch.setattr(extracting, "ROWS_PER_SHARD", 4)
    monkeypatch.setattr(extracting, "round_size", lambda *_: 4)
    monkeypatch.setattr(shards, "CATALOGUED", catalogued)
    pictures, whole, store = draw(tmp_path / "pictures"), tmp_path / "whole", tmp_path / "store"
    run(pictures, whole)
    expected = content(whole)
    rng = random.Random(0)
    name = f"repairs of a store {'with' if catalogued == 3 else 'without'} index.npz"
    with Campaign(name) as counted:
        for number in range(times(10, 0.2)):
            shutil.copytree(whole, store)
            bad = damage(store, rng)
            with counted.trial(number):
                done = repair(store)
                assert verify(store) == []
                aside = {path.name for path in store.rglob("*.damaged")}
                assert aside == {Path(path).name for path in done.aside}
                assert {f"{key}.damaged" for key in bad} <= aside
                assert done.left == {}
                assert run(pictures, store).computed == 4 * len(bad)
                assert verify(store) == []
                assert content(store) == expected
                assert repair(store).aside == {}
            shutil.rmtree(store)
