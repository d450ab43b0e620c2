"""Whatever of a store is damaged: `repair` and the same run later it is as it was."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest
from campaigns import Campaign, times
from helpers.cli import run
from helpers.colours import write_colours
from helpers.extraction import content, draw_small
from helpers.seams import index_from, shard_rows
from test_flips import damages

from vggfeat.store.maintenance import repair, verify

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


@pytest.mark.parametrize("indexed", [3, 64])
def test_repairs(tmp_path: Path, tiny: str, indexed: int) -> None:
    """What fails its digest is set aside, the rest verifies, and the same command completes it."""
    images, whole, store = draw_small(tmp_path / "images"), tmp_path / "whole", tmp_path / "store"
    weights = write_colours(tmp_path / "colours.safetensors", tiny)  # exact in any precision
    words = ["--net", tiny, "--layer", "pool3", "--Q", "8", "--Q", "10", "--weights", weights]
    rng = random.Random(0)
    name = f"repairs of a store {'with' if indexed == 3 else 'without'} index.npz"
    with shard_rows(4), index_from(indexed), Campaign(name) as counted:
        run("extract", images, "--out", whole, *words, "--quiet")
        expected = content(whole)
        for number in range(times(2, 0.2)):
            shutil.copytree(whole, store)
            bad = damage(store, rng)
            with counted.trial(number):
                done = repair(store)
                assert verify(store) == []
                aside = {path.name for path in store.rglob("*.damaged")}
                assert aside == {Path(path).name for path in done.aside}
                assert {f"{key}.damaged" for key in bad} <= aside
                assert done.left == {}
                again = run("extract", images, "--out", store, *words, "--quiet", "--json").json
                assert again["computed"] == 4 * len(bad)
                assert verify(store) == []
                assert content(store) == expected
                assert repair(store).aside == {}
            shutil.rmtree(store)
