"""What the workers of a cluster do, without a cluster."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support import random_weights

from vggfeat.data.images import Crop
from vggfeat.data.imagesets import ImageSet, find_pictures
from vggfeat.errors import DeviceError, MissingExtra, ParameterError, StoreError
from vggfeat.features import stages
from vggfeat.features.dense import DenseExtractor
from vggfeat.features.extract import extract
from vggfeat.features.joining import connect
from vggfeat.features.stages import Asked, Describe, Target, absolute, decode, pack, unpack, write
from vggfeat.features.store import FeatureStore

WEIGHTS = random_weights("A", ["pool2"])


def small() -> DenseExtractor:
    return DenseExtractor("A", "pool2", weights=WEIGHTS, precision="fp32", device="cpu")


@pytest.fixture
def images(draw: Callable[..., Path]) -> ImageSet:
    for i in range(7):
        path = draw(f"pictures/{i}.png", 40 + 7 * (i % 3), 40, seed=i)
    (path.parent / "4.png").write_bytes(b"no picture")
    return find_pictures([str(path.parent)])


def opened(images: ImageSet, folder: Path) -> FeatureStore:
    return FeatureStore(folder, small().extraction, images.names, stats=images.stats())


def asked(images: ImageSet) -> list[Asked]:
    rows = zip(images.names, images.stats(), images.pictures, strict=True)
    return [Asked(row, *one, (32, 48)) for row, one in enumerate(rows)]


def target(store: FeatureStore) -> Target:
    return Target(store.files, store.extraction, "float32", {"made": "today"})


def through(images: ImageSet, store: FeatureStore) -> stages.Kept:
    """Take all pictures through the three stages, as one round."""
    actor = Describe(None, "float32")
    actor.extractor = small()
    found = [
        row
        for piece in decode(pack([asked(images)]), exif=True)
        for row in unpack(actor(piece))
    ]  # fmt: skip
    [kept] = unpack(write(pack(found), target=target(store)))
    return kept


def test_the_stages_keep_what_a_local_run_keeps(images: ImageSet, tmp_path: Path) -> None:
    """Decoded, described and written apart, a round has the local run's bits and failures."""
    local = opened(images, tmp_path / "local")
    extract(images, small(), (32, 48), local)
    store = opened(images, tmp_path / "stages")
    kept = through(images, store)
    assert [(one.asked.row, one.reason) for one in kept.failed] == [
        (4, local.failed["pictures/4.png"])
    ]
    assert kept.rows == [0, 1, 2, 3, 5, 6]
    again = opened(images, tmp_path / "stages")
    assert [row for row, _ in again.missing((32, 48))] == [4]
    found = again.read((32, 48))
    for part, values in local.read((32, 48)).items():
        np.testing.assert_array_equal(found[part], values)


def test_what_is_done_twice_is_one_file(images: ImageSet, tmp_path: Path) -> None:
    """A writer that Ray starts again leaves the very same shard, not a second one."""
    store = opened(images, tmp_path / "f")
    assert through(images, store).shards == through(images, store).shards
    assert len(store.files.keys()) == 1


def test_a_large_round_comes_in_pieces(images: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoded pictures that wait between two stages are bounded, whatever their size."""
    monkeypatch.setattr(stages, "HELD_PIXELS", 5_000)
    pieces = [piece for rows in decode(pack([asked(images)]), exif=True) for piece in unpack(rows)]
    sizes = [
        sum(pixels.size // 3 for _, decoded in piece for pixels in decoded.pixels.values())
        for _, piece in pieces
    ]
    assert len(pieces) > 2
    assert max(sizes) < 5_000 + 48 * 64 + 32 * 43
    assert [one.row for _, piece in pieces for one, _ in piece] == list(range(7))
    assert all(one.picture is None for _, piece in pieces for one, _ in piece)


def test_a_node_that_does_not_see_the_store_says_so(images: ImageSet, tmp_path: Path) -> None:
    """A writer in whose file system the store is absent, or another, writes nothing."""
    store = opened(images, tmp_path / "f")
    kept = target(store)
    kept.check()
    with pytest.raises(StoreError, match="does not see the store"):
        replace(kept, extraction=replace(kept.extraction, flip=False)).check()
    (tmp_path / "f" / "manifest.json").unlink()
    with pytest.raises(StoreError, match="does not see the store"):
        kept.check()


def test_pictures_are_named_from_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers run in other folders: paths and crops are absolute, arrays stay as they are."""
    monkeypatch.chdir(tmp_path)
    assert absolute("a/b.jpg") == tmp_path / "a" / "b.jpg"
    assert absolute(Crop(Path("c.jpg"), (1, 1, 2, 2))).path == tmp_path / "c.jpg"
    drawn = Image.new("RGB", (2, 2))
    assert absolute(drawn) is drawn


def test_without_ray_the_command_that_installs_it_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever asks for a cluster without the extra learns what to type."""
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtra, match=r"pip install 'vggfeat\[ray\]'"):
        connect()


def test_a_store_in_memory_is_refused(images: ImageSet) -> None:
    """What no node sees cannot be written by them."""
    from vggfeat.features.cluster import _shared
    from vggfeat.features.extract import Run

    store = FeatureStore(None, small().extraction, images.names)
    with pytest.raises(ParameterError, match="all its nodes see"):
        _shared(Run(images, small(), store, False, None))


def test_an_address_where_nothing_listens_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong address ends the run within seconds, with how a cluster is started."""
    ray = pytest.importorskip("ray", reason="the extra ray is not installed")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # taken, and not listening
        with pytest.raises(DeviceError, match="ray start --head"):
            connect(f"127.0.0.1:{bound.getsockname()[1]}")
