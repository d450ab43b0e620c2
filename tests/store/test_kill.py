"""However many write at once, and whatever stops a writer, the store stays whole."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from vggfeat.features.check import verify
from vggfeat.features.store import FeatureStore
from vggfeat.settings import Extraction
from vggfeat.store.column import Descriptor

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals and limits")

NAMES = [f"{number:03}.jpg" for number in range(120)]
STATS = [(number, number) for number in range(120)]
EXTRACTION = Extraction("D", "ab12", ("fc7",))
PARTS = EXTRACTION.parts([256, 384])

# A run of its own process: descriptors depend on nothing but the picture's number and Q.
WRITER = """
import sys
import numpy as np
from vggfeat.settings import Extraction
from vggfeat.features.store import FeatureStore

folder, first, last, size = sys.argv[1], *map(int, sys.argv[2:5])
names = [f"{number:03}.jpg" for number in range(first, last)]
extraction = Extraction("D", "ab12", ("fc7",))
store = FeatureStore(
    folder, extraction, names, stats=[(n, n) for n in range(first, last)], cache=True
)
print("open", flush=True)
missing = store.missing([256, 384])
for start in range(0, len(missing), size):
    rows = [row for row, scales in missing[start : start + size]]
    numbers = np.array(rows)[:, None] + first
    descriptors = {
        part: (numbers * 1000 + part.Q + np.arange(64)).astype(np.float32)
        for part in extraction.parts([256, 384])
    }
    store.write(rows, descriptors)
store.finish()
"""


def expected(part: Descriptor) -> np.ndarray:
    """Return what WRITER computes, in the order of NAMES."""
    return np.array([[n * 1000 + part.Q + d for d in range(64)] for n in range(120)], np.float32)


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
    store = FeatureStore.open(folder)
    assert store.names == NAMES
    for part, values in store.read(verify=True).items():
        np.testing.assert_array_equal(values, expected(part))


def assert_sound_so_far(folder: Path) -> int:
    """Check a store whose writer was killed; return how many pictures it has."""
    assert [problem for problem in verify(folder) if "left over" not in problem] == []
    store = FeatureStore(folder, EXTRACTION, NAMES, stats=STATS)
    missing = {row for row, _ in store.missing([256, 384])}
    present = [row for row in range(120) if row not in missing]
    if present:
        read = store.read([256, 384], [NAMES[row] for row in present])
        for part, values in read.items():
            np.testing.assert_array_equal(values, expected(part)[present])
    return len(present)


def test_two_processes_write_at_once(tmp_path):
    """Writers of overlapping lists share a store, and a run over all has nothing to compute."""
    both = [writer(tmp_path, 0, 80), writer(tmp_path, 40, 120)]
    for process in both:
        finish(process)
    store = FeatureStore(tmp_path, EXTRACTION, NAMES, stats=STATS)
    assert store.missing([256, 384]) == []
    store.finish()
    assert_same_as_uninterrupted(tmp_path)


def test_same_shard_by_two_processes(tmp_path):
    """Writers of the same pictures in the same blocks make one and the same file of each."""
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
    store = FeatureStore(tmp_path, EXTRACTION, NAMES, stats=STATS)

    def interrupt(self: Path, target: Path) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        store.write(range(120), {part: expected(part) for part in PARTS})
    assert list((tmp_path / "shards").iterdir()) == []
