"""Damage to a store is found, whatever it is, and named."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator

import h5py
import numpy as np
import pytest
from storing import NAMES, ONE, STATS, fill, filled

from vggfeat.errors import StoreDamaged
from vggfeat.features.check import verify
from vggfeat.features.store import FeatureStore


def flipped(sound: bytes) -> Iterator[bytearray]:
    """Change one bit, forty times another."""
    dice = random.Random(2)
    for _ in range(40):
        broken = bytearray(sound)
        broken[dice.randrange(len(sound))] ^= 1 << dice.randrange(8)
        yield broken


def test_flipped_bits_of_a_shard_are_found(tmp_path):
    """Verify names the shard whichever bit of it changes."""
    filled(tmp_path)
    shard = min((tmp_path / "shards").iterdir())
    sound = shard.read_bytes()
    for broken in flipped(sound):
        shard.write_bytes(broken)
        [problem, *_] = verify(tmp_path)
        assert shard.name in problem
    shard.write_bytes(sound)
    assert verify(tmp_path) == []


def test_read_can_check_digests(tmp_path):
    """A number that changed on disk is refused with the shard's name if digests are checked."""
    filled(tmp_path)
    shard = min((tmp_path / "shards").iterdir())
    with h5py.File(shard, "r+") as file:
        file["D/Q256"][0, 0] += 1
    store = FeatureStore.open(tmp_path)
    with pytest.raises(StoreDamaged, match=f"{shard.name}.*vggfeat store repair"):
        store.read(verify=True)


def test_truncated_shard(tmp_path):
    """A cut shard is named, and once it is deleted only its pictures are computed again."""
    filled(tmp_path)
    shard = min((tmp_path / "shards").iterdir())
    with h5py.File(shard) as file:
        lost = len(file["names"])
    shard.write_bytes(shard.read_bytes()[:1000])
    with pytest.raises(StoreDamaged, match=shard.name):
        FeatureStore(tmp_path, ONE, NAMES, stats=STATS)
    shard.unlink()
    assert verify(tmp_path) == [
        f"/D/Q256 of features.h5 needs the shard {shard.name}, which is missing"
    ]
    store = FeatureStore(tmp_path, ONE, NAMES, stats=STATS)
    assert fill(store, [256]) == lost
    store.finish()
    assert verify(tmp_path) == []


def test_shard_that_vanishes_while_it_is_read(tmp_path):
    """A shard deleted by someone else is reported by its name."""
    store = filled(tmp_path)
    shard = min((tmp_path / "shards").iterdir())
    shard.unlink()
    with pytest.raises(StoreDamaged, match=shard.name):
        store.read()


def _swap_names(file):
    file["names"][:2] = file["names"][:2][::-1]


def _change_stat(file):
    file["stat"][7] = (0, 0)


def _drop_a_name(file):
    names = file["names"][:-1]
    del file["names"]
    file["names"] = names


def _drop_a_row(file):
    for item in ("names", "stat"):
        kept = file[item][:-1]
        del file[item]
        file[item] = kept


def _put_nan(file):
    file["D/Q256"][1, 2] = np.nan


def reseal(path):
    """Give a view that was changed the digest of its new bytes."""
    content = path.read_bytes()
    path.write_bytes(content + f"\nsha256 {hashlib.sha256(content).hexdigest()}\n".encode())


@pytest.mark.parametrize(
    ("harm", "expected"),
    [
        (_swap_names, "does not agree with the shard"),
        (_change_stat, "does not agree with the shard"),
        (_drop_a_name, "11 names and 12 stats"),
        (_drop_a_row, "11 names, but /D/Q256 12 rows"),
    ],
)
def test_view_that_disagrees_is_found(tmp_path, harm, expected):
    """Verify compares each row of the view with the shard that it shows."""
    filled(tmp_path)
    path = tmp_path / "features.h5"
    with h5py.File(path, "r+") as file:
        harm(file)
    reseal(path)
    problems = verify(tmp_path)
    assert any(expected in problem for problem in problems), problems


def test_flipped_bits_of_the_view_are_found(tmp_path):
    """A damaged view is refused before HDF5 sees it, which may crash on it."""
    filled(tmp_path)
    path = tmp_path / "features.h5"
    sound = path.read_bytes()
    for broken in flipped(sound):
        path.write_bytes(broken)
        with pytest.raises(StoreDamaged, match="written anew"):
            FeatureStore.open(tmp_path)
        assert any("features.h5 is damaged" in problem for problem in verify(tmp_path))
    FeatureStore(tmp_path, ONE, NAMES, stats=STATS).finish()
    assert verify(tmp_path) == []


def test_shard_that_was_made_wrong_is_found(tmp_path):
    """Verify looks inside a shard whose digest is right, for what no writer may write."""
    filled(tmp_path)
    shard = min((tmp_path / "shards").iterdir())
    with h5py.File(shard, "r+") as file:
        _put_nan(file)
    digest = hashlib.sha256(shard.read_bytes()).hexdigest()
    shard.rename(shard.with_name(f"{digest}.h5"))
    assert f"shard {digest}.h5: /D/Q256 has numbers that are not finite" in verify(tmp_path)
