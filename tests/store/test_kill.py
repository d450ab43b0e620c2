"""However many write at once, and whatever stops a writer, the store stays whole."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from vggfeat.store.column import Column, Descriptor
from vggfeat.store.maintenance import verify
from vggfeat.store.store import FeatureStore

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals and limits")

NAMES = [f"{number:03}.jpg" for number in range(120)]
COLUMNS = [
    Column(Descriptor("D", "fc7", "average", Q), {"weights": "ab12"}, 64) for Q in (256, 384)
]
WANTED = [column.descriptor for column in COLUMNS]

# A run of its own process: descriptors depend on nothing but the image's number and Q.
WRITER = """
import sys
import numpy as np
from vggfeat.store.column import Column, Descriptor
from vggfeat.store.store import FeatureStore

folder, first, last, size = sys.argv[1], *map(int, sys.argv[2:5])
wanted = [Descriptor("D", "fc7", "average", Q) for Q in (256, 384)]
columns = [Column(descriptor, {"weights": "ab12"}, 64) for descriptor in wanted]
numbers = np.arange(first, last)
names = [f"{number:03}.jpg" for number in numbers]
ids = np.stack([numbers + 1, numbers + 1], axis=1)
store = FeatureStore(folder, "a")
store.add_columns(columns)
print("open", flush=True)
lacking = np.flatnonzero(~store.has(wanted, names, ids).all(axis=1))
for start in range(0, len(lacking), size):
    rows = lacking[start : start + size]
    descriptors = {
        column: (numbers[rows, None] * 1000 + column.Q + np.arange(64)).astype(np.float32)
        for column in wanted
    }
    store.write([names[row] for row in rows], ids[rows], ids[rows], descriptors)
store.finish(names, {}, None if last - first == 120 else (first + 1, 120))
"""


def expected(column: Descriptor) -> np.ndarray:
    """Return what WRITER computes, in the order of NAMES."""
    return np.add.outer(np.arange(120) * 1000 + column.Q, np.arange(64)).astype(np.float32)


def writer(folder: Path, first: int = 0, last: int = 120, size: int = 3) -> subprocess.Popen:
    """Start a writer, and wait until it has opened its store."""
    command = [sys.executable, "-c", WRITER, str(folder), str(first), str(last), str(size)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout
    process.stdout.readline()
    return process


def finish(process: subprocess.Popen) -> None:
    """Wait for a writer, and show what went wrong."""
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors.decode()


def assert_same_as_uninterrupted(folder: Path) -> None:
    """Compare every number with what was to be computed."""
    assert verify(folder) == []
    store = FeatureStore(folder)
    assert store.names == NAMES
    for column, values in store.read(verify=True).items():
        np.testing.assert_array_equal(values, expected(column))


def assert_sound_so_far(folder: Path) -> int:
    """Check a store whose writer was stopped; return how many images it has."""
    assert [problem for problem in verify(folder) if "left over" not in problem] == []
    store = FeatureStore(folder)
    present = [NAMES.index(name) for name in store.complete(WANTED)]
    for column, values in store.read(WANTED, [NAMES[row] for row in present]).items():
        np.testing.assert_array_equal(values, expected(column)[present])
    return len(present)


def test_two_processes_write_at_once(tmp_path):
    """Writers of overlapping lists share a store, and a run over all has nothing to compute."""
    both = [writer(tmp_path, 0, 80), writer(tmp_path, 40, 120)]
    for process in both:
        finish(process)
    store = FeatureStore(tmp_path, "a")
    assert store.has(WANTED, NAMES).all()
    store.finish(NAMES, {})
    assert_same_as_uninterrupted(tmp_path)


def test_same_shard_by_two_processes(tmp_path):
    """Writers of the same images in the same blocks make one and the same file of each."""
    for process in [writer(tmp_path), writer(tmp_path)]:
        finish(process)
    assert len(list((tmp_path / "shards").iterdir())) == 40
    assert_same_as_uninterrupted(tmp_path)


@pytest.mark.parametrize("limit", [3000, 100])
def test_file_that_may_not_grow(tmp_path, limit):
    """When the system refuses to grow a file, the error advises, and what was written stays."""
    finish(writer(tmp_path, 0, 10))
    limited = (
        f"import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n{WRITER}"
    )
    command = [sys.executable, "-B", "-c", limited, str(tmp_path), "0", "120", "3"]
    process = subprocess.run(command, capture_output=True, check=False)
    assert b"(ulimit -f unlimited)" in process.stderr
    assert b"run the same command again" in process.stderr
    assert not list(tmp_path.rglob(".tmp-*"))
    assert assert_sound_so_far(tmp_path) >= 10
    finish(writer(tmp_path))
    assert_same_as_uninterrupted(tmp_path)


def test_interrupt_leaves_no_temporary_file(tmp_path, monkeypatch):
    """Ctrl-C in the middle of a write removes the half-written file."""
    store = FeatureStore(tmp_path, "a")
    store.add_columns(COLUMNS)
    ids = np.ones((120, 2), np.int64)

    def interrupt(self: Path, target: Path) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        store.write(NAMES, ids, ids, {column: expected(column) for column in WANTED})
    assert list((tmp_path / "shards").iterdir()) == []
