"""Stores at addresses: the same store as in a folder, also when it is read from elsewhere."""

from __future__ import annotations

import hashlib
import pickle
from typing import Any

import fsspec
import numpy as np
import pytest
from packing import jpeg
from servers import web_server

from vggfeat.data import patience
from vggfeat.data.imagesets import find_pictures
from vggfeat.errors import StoreDamaged, StoreError
from vggfeat.features.dense import DenseExtractor
from vggfeat.features.extract import extract
from vggfeat.features.extraction import Extraction
from vggfeat.features.files import TEMPORARY
from vggfeat.features.place import Folder
from vggfeat.features.remote import RemotePlace
from vggfeat.features.shards import Block, FolderShards
from vggfeat.features.store import FeatureStore

EXTRACTION = Extraction("D", "ab12", ("fc7",))


def block(first: int, n: int = 3) -> Block:
    """Make descriptors whose numbers say which pictures they are of."""
    names = [f"{row}.jpg".encode() for row in range(first, first + n)]
    [part] = EXTRACTION.parts([384])
    values = np.arange(first, first + n, dtype=np.float32)[:, None] + np.zeros((1, 4), np.float32)
    stats = np.arange(2 * n, dtype=np.int64).reshape(n, 2)
    return Block("D", EXTRACTION.to_dict(), {}, names, stats, {EXTRACTION.path(part): values})


@pytest.fixture(params=["memory", "s3", "local"])
def place(request: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> RemotePlace:
    """Three kinds of places: without a server, a bucket, and one where files grow."""
    monkeypatch.setattr(patience, "BACKOFF", 0.01)
    if request.param == "s3":
        request.getfixturevalue("s3")
        return RemotePlace("s3://pics/features")
    if request.param == "local":
        return RemotePlace(f"file://{tmp_path}/features/")
    fsspec.filesystem("memory").rm("/", recursive=True)
    return RemotePlace("memory://at/features")


def test_a_place_keeps_files_as_a_folder_does(place: RemotePlace, tmp_path: Any) -> None:
    """Every operation answers as the folder's does, from the empty place to the removed file."""
    folder = Folder(tmp_path / "same")
    told = []
    for one in (place, folder):
        answers: list[object] = [one.names(), one.read("manifest.json"), one.names("shards")]
        one.create()
        one.write("manifest.json", b"first")
        answers += [one.write_new("manifest.json", b"x"), one.write_new("shards/a.h5", b"123")]
        one.write("manifest.json", b"second")
        answers += [one.read("manifest.json"), sorted(one.names()), one.names("shards")]
        answers += [one.nbytes(["manifest.json", "shards/a.h5", "none", "no/such"])]
        answers += [one.sha256("shards/a.h5"), one.leftovers()]
        one.remove("shards/a.h5")
        one.remove("shards/a.h5")
        answers += [one.names("shards"), one.read("shards/a.h5")]
        told.append(answers)
    assert told[0] == told[1]
    assert told[0][-4] == hashlib.sha256(b"123").hexdigest()


def test_shards_are_read_as_they_were_written(place: RemotePlace) -> None:
    """Another reader, in another process, finds the same rows by the same names."""
    place.create()
    shards = FolderShards(place)
    keys = [shards.add(block(first)) for first in (0, 3)]
    other = FolderShards(pickle.loads(pickle.dumps(place)))
    assert other.keys() == sorted(keys)
    headers = {header.key: header for header in other.headers()}
    assert [bytes(n) for n in headers[keys[1]].names] == [b"3.jpg", b"4.jpg", b"5.jpg"]
    [part] = EXTRACTION.parts([384])
    path = EXTRACTION.path(part)
    found = other.read(keys[1], {path: np.array([2, 0])}, verify=True)
    assert found[path][:, 0].tolist() == [5.0, 3.0]
    assert other.nbytes == sum(len(place.read(f"shards/{key}")) for key in keys)


def test_damaged_and_absent_shards_are_never_read(place: RemotePlace) -> None:
    """Bytes that are not those that the name promises are refused when they arrive."""
    place.create()
    shards = FolderShards(place)
    key = shards.add(block(0))
    image = place.read(f"shards/{key}")
    place.write(f"shards/{key}", image[:-1] + bytes([image[-1] ^ 1]))
    with pytest.raises(StoreDamaged, match="not those that were written"):
        shards.header(key)
    assert not shards.sound(key)
    place.remove(f"shards/{key}")
    with pytest.raises(StoreDamaged, match="no such file"):
        shards.header(key)


def test_what_is_kept_of_shards_is_bounded(
    place: RemotePlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second look at a shard fetches nothing; old ones make room for new ones."""
    place.create()
    shards = FolderShards(place)
    keys = [shards.add(block(first, 50)) for first in range(0, 200, 50)]
    size = len(place.read(f"shards/{keys[0]}"))
    monkeypatch.setattr("vggfeat.features.remote.KEPT", 2 * size + size // 2)
    fetched: list[str] = []
    real = RemotePlace._fetched
    monkeypatch.setattr(
        RemotePlace, "_fetched", lambda self, name: fetched.append(name) or real(self, name)
    )
    for n in (0, 0, 1, 0, 2, 0, 1):
        shards.header(keys[n])
    assert [keys.index(name.removeprefix("shards/")) for name in fetched] == [0, 1, 2, 1]


def test_a_writer_that_died_leaves_nothing_for_long(tmp_path: Any) -> None:
    """Where files grow under a temporary name, old ones are named so that they are removed."""
    import os

    place = RemotePlace(f"file://{tmp_path}")
    for name, hours in {TEMPORARY + "old": 30, TEMPORARY + "new": 1, "manifest.json": 90}.items():
        (tmp_path / name).write_bytes(b"")
        then = (tmp_path / name).stat().st_mtime - hours * 3600
        os.utime(tmp_path / name, (then, then))
    assert place.leftovers() == [TEMPORARY + "old"]


def test_a_run_over_a_web_server_goes_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """A picture that cannot be fetched is left out and tried again; the rest equals a folder's."""
    pytest.importorskip("aiohttp")
    monkeypatch.delenv("VGGFEAT_OFFLINE")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(patience, "BACKOFF", 0.01)
    files = {f"p/{n}.png": jpeg(n, "PNG") for n in range(4)}
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    extractor = DenseExtractor("D", "pool1", weights="embedded")
    with web_server(files) as web:
        web.failures["p/2.png"] = [503] * patience.ATTEMPTS
        told = []
        for _ in range(2):
            images = find_pictures([web.url("p")])
            store = FeatureStore(
                tmp_path / "f", extractor.extraction, images.names, stats=images.stats()
            )
            done = extract(images, extractor, [20], store, workers=2)
            told.append((done.present, done.computed, store.failed))
    assert told == [(0, 3, {"p/2.png": "HTTP status 503"}), (3, 1, {})]
    images = find_pictures([tmp_path / "p"])
    local = FeatureStore(None, extractor.extraction, images.names)
    extract(images, extractor, [20], local, workers=2)
    assert images.names == tuple(store.names)
    for part, values in local.read().items():
        assert np.array_equal(values, store.read()[part])


def test_refusals_say_what_to_do(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A web server is not written to; an absent bucket is named, without keys."""
    monkeypatch.setattr(patience, "BACKOFF", 0.01)
    with pytest.raises(StoreError, match="can be read and not written"):
        RemotePlace("https://me:SECRET@host/features").create()
    with pytest.raises(StoreError, match=r"s3://nobucket/f/a could not be written") as caught:
        RemotePlace("s3://nobucket/f").write("a", b"x")
    assert "SECRET" not in str(caught.value)
    assert str(RemotePlace("https://me:SECRET@host/f?sig=SECRET")) == "https://host/f"
