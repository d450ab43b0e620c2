"""Six operations on names: a folder, an address and memory answer alike."""

from __future__ import annotations

import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from helpers.mistakes import refuses
from storing import FC7, NAMES, POOL5, check, column, fill, make_store

from vggfeat._io import remote
from vggfeat.errors import StoreDamaged, StoreError
from vggfeat.store import storage as storages
from vggfeat.store.storage import LocalStorage, MemoryStorage, RemoteStorage, Storage
from vggfeat.store.store import FeatureStore


@pytest.fixture(params=["memory", "s3", "local"])
def address(request: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """Three kinds of addresses: without a server, a bucket, and one where files grow."""
    monkeypatch.setattr(remote, "BACKOFF", 0.01)
    if request.param == "s3":
        request.getfixturevalue("s3")
        return "s3://pics/features"
    if request.param == "local":
        return f"file://{tmp_path}/features/"
    fsspec.filesystem("memory").rm("/", recursive=True)
    return "memory://at/features"


def test_all_answer_alike(address: str, tmp_path: Path) -> None:
    """Every operation answers the same, from the empty storage to the removed file."""

    def answers(storage: Storage) -> list[object]:
        some: list[object] = [storage.list(), storage.read("manifest.json"), storage.list("shards")]
        some += [storage.write_new("manifest.json", b"first")]
        some += [storage.write_new("manifest.json", b"x"), storage.write_new("shards/a.h5", b"123")]
        storage.write("manifest.json", b"second")
        storage.write("shards/b.h5", b"4")
        some += [storage.read("manifest.json"), storage.list(), storage.list("shards")]
        storage.remove("shards/a.h5")
        storage.remove("shards/a.h5")
        return [*some, storage.list("shards"), storage.read("shards/a.h5")]

    told = [answers(s) for s in (RemoteStorage(address), LocalStorage(tmp_path / "l"))]
    told.append(answers(MemoryStorage()))
    assert told[0] == told[1] == told[2]
    assert {"manifest.json": 6} in told[0]


def test_a_store_at_an_address(address: str) -> None:
    """Another process, which gets the storage by pickle, reads the store and adds to it."""
    make_store(address, names=NAMES[:7])
    store = FeatureStore(address)
    check(store, [FC7], NAMES[:7])
    copy = pickle.loads(pickle.dumps(store.storage))
    assert copy.list("shards") == store.storage.list("shards")
    before = store.nbytes
    assert fill(FeatureStore(address, "a"), [FC7, POOL5]) == 12
    check(FeatureStore(address), [FC7, POOL5], NAMES)
    assert FeatureStore(address).nbytes > before


def test_damaged_and_absent_shards_are_never_read(address: str) -> None:
    """Bytes that are not those that the name promises are refused when they arrive."""
    make_store(address, size=12)
    storage = RemoteStorage(address)
    [name] = storage.list("shards")
    content = storage.read(f"shards/{name}")
    assert content
    storage.write(f"shards/{name}", content[:-1] + bytes([content[-1] ^ 1]))
    refuses(lambda: FeatureStore(address), StoreDamaged, [name, "store repair"])
    store_without = RemoteStorage(address)
    store_without.remove(f"shards/{name}")
    with pytest.raises(StoreDamaged), store_without.open(f"shards/{name}"):
        pass


def test_what_is_kept_of_shards_is_bounded(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second look at a shard fetches nothing; old ones make room for new ones."""
    make_store(address, size=3)
    storage = RemoteStorage(address)
    keys = [f"shards/{name}" for name in storage.list("shards")]
    size = max(storage.list("shards").values())
    monkeypatch.setattr(storages, "KEPT", 2 * size + size // 2)
    fetched: list[str] = []
    read = RemoteStorage.read
    monkeypatch.setattr(
        RemoteStorage, "read", lambda self, name: fetched.append(name) or read(self, name)
    )
    for place in (0, 0, 1, 0, 2, 0, 1):
        with storage.open(keys[place]):
            pass
    assert [keys.index(name) for name in fetched] == [0, 1, 2, 1]


def test_opening_costs_few_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store of a hundred shards and three columns is opened by 4 listings and 7 GETs."""
    fsspec.filesystem("memory").rm("/", recursive=True)
    columns = [FC7, POOL5, column("pool4")]
    names = [f"{number:03}" for number in range(100)]
    make_store("memory://at/features", columns, names, size=1, failed={"100": "it is empty"})
    requests: Counter[str] = Counter()
    filesystem = type(fsspec.filesystem("memory"))
    for operation in ("ls", "cat_file", "exists", "info"):
        real = getattr(filesystem, operation)

        def counted(*args: Any, real: Any = real, of: str = operation, **more: Any) -> Any:
            requests[of] += 1
            return real(*args, **more)

        monkeypatch.setattr(filesystem, operation, counted)
    store = FeatureStore("memory://at/features")
    assert store.names == names
    # manifest, index, view, three columns, and what failed
    assert store.failed == {"100": "it is empty"}
    assert requests["cat_file"] == 7
    assert requests["ls"] <= 4


def test_refusals_say_what_to_do(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A web server is not written to; an absent bucket is named, without keys."""
    monkeypatch.setattr(remote, "BACKOFF", 0.01)
    web = RemoteStorage("https://me:SECRET@host/features?sig=SECRET")
    assert str(web) == "https://host/features"
    refuses(lambda: web.write("a", b""), StoreError, ["https://host/features", "s3://"])
    absent = RemoteStorage("s3://nobucket/f")
    refuses(lambda: absent.write("a", b"x"), StoreError, ["s3://nobucket/f/a"])


def test_local_files_never_go_through_fsspec(tmp_path: Path) -> None:
    """A folder is read and written without it, and without torch."""
    import subprocess
    import sys

    code = (
        "import sys\nsys.modules['torch'] = sys.modules['fsspec'] = None\n"
        "from storing import check, make_store, FC7, NAMES\n"
        "make_store(sys.argv[1]); from vggfeat.store.store import FeatureStore\n"
        "check(FeatureStore(sys.argv[1]), [FC7], NAMES)"
    )
    path = [str(Path(__file__).parents[1]), *sys.path]
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "s")],
        env={"PYTHONPATH": ":".join(path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_rows_of_shards_in_any_order() -> None:
    """Few and bounded reads give each row its own numbers, near ones in one read."""
    import io

    import h5py

    from vggfeat.store.shard import read_rows

    values = np.random.default_rng(0).random((300, 4))
    with h5py.File(io.BytesIO(), "w") as file:
        array = file.create_dataset("x", data=values)
        for rows in ([5, 3, 4], [0, 299, 17, 18, 40], [7], [], [2, 2, 2]):
            np.testing.assert_array_equal(read_rows(array, np.array(rows, int)), values[rows])
        with pytest.raises(ValueError, match="300 rows"):
            read_rows(array, np.array([300]))
