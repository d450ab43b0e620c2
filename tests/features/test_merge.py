"""Stores become one, with every picture once, whatever stops the work or disagrees."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from vggfeat._io.checksums import append_checksum_to
from vggfeat.errors import FingerprintMismatch, ParameterError, StoreError
from vggfeat.features import united, view
from vggfeat.features.check import verify
from vggfeat.features.export import pack
from vggfeat.features.extraction import Extraction
from vggfeat.features.merge import merge
from vggfeat.features.sharding import WHOLE, Shard
from vggfeat.features.store import FeatureStore

ONE = Extraction("D", "ab12", ("fc7",))
# As folders are searched: the files of a folder before the folders in it.
NAMES = ["b.jpg", "z.jpg", "a/1.jpg", "a/2.jpg", "a-b/1.jpg", *(f"c/{n:02}.jpg" for n in range(20))]
NAMES = sorted(NAMES, key=lambda name: (name.count("/"), name.split("/")))
STATS = [(100 + number, 10**18 + number) for number in range(len(NAMES))]


def numbers(rows: Sequence[int], Q: int, width: int = 5) -> np.ndarray:
    """Descriptors that depend on the picture and the scale alone, and are exact in float16."""
    return np.array(rows)[:, None] * 2.0 + Q / 256 + np.arange(width) / 8


def part(
    folder: Path,
    rows: Sequence[int],
    scales: Sequence[int] = (256,),
    extraction: Extraction = ONE,
    **options: Any,
) -> Path:
    """Make a finished store of some of the pictures, in shards of four."""
    names, stats = [NAMES[row] for row in rows], [STATS[row] for row in rows]
    store = FeatureStore(folder, extraction, names, **{"stats": stats, **options})
    for first in range(0, len(rows), 4):
        some = list(range(first, min(first + 4, len(rows))))
        arrays = {
            one: numbers([rows[row] for row in some], one.Q) for one in extraction.parts(scales)
        }
        store.write(some, arrays)
    store.finish()
    return folder


def assert_whole(folder: Path, scales: Sequence[int] = (256,)) -> None:
    """All pictures are there, in the order of one run, with the numbers of one run."""
    assert verify(folder) == []
    store = FeatureStore.open(folder)
    assert store.names == NAMES
    for one, values in store.read(scales).items():
        np.testing.assert_array_equal(values, numbers(range(len(NAMES)), one.Q))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_shards_in_their_own_folders_make_one_run(tmp_path: Path, dtype: str) -> None:
    """Parts of any form are joined into the store that one run would have made."""
    shards = [Shard(number, 3) for number in (1, 2, 3)]
    dealt = [shard.rows(len(NAMES)).tolist() for shard in shards]
    parts: list[Path] = [
        part(tmp_path / str(shard.part), rows, shard=shard, dtype=dtype)
        for shard, rows in zip(shards, dealt, strict=True)
    ]
    pack(parts[2], tmp_path / "3.h5")
    done = merge([parts[1], tmp_path / "3.h5", parts[0]], tmp_path / "all")
    assert (done.pictures, done.twice, done.copied, done.shards) == (len(NAMES), 0, len(NAMES), 1)
    assert_whole(tmp_path / "all")
    assert FeatureStore.open(tmp_path / "all").manifest.dtype == dtype
    # A run over all of them finds nothing to do.
    again = FeatureStore(tmp_path / "all", ONE, NAMES, stats=STATS, dtype=dtype)
    assert again.missing([256]) == []


def test_shards_in_one_folder(tmp_path: Path) -> None:
    """Writers of one folder have no view; the whole's run, or a merge, makes one of all."""
    for number in (1, 2, 3, 4):
        shard = Shard(number, 4)
        part(tmp_path / "s", shard.rows(len(NAMES)).tolist(), shard=shard)
    assert not (tmp_path / "s" / "features.h5").exists()
    merge([tmp_path / "s"], tmp_path / "few")
    assert_whole(tmp_path / "few")
    whole = FeatureStore(tmp_path / "s", ONE, NAMES, stats=STATS)
    assert whole.missing([256]) == []
    whole.finish()
    assert_whole(tmp_path / "s")


def test_pictures_given_twice_are_kept_once(tmp_path: Path) -> None:
    """Overlapping parts, of which one rounds otherwise and one has another scale, lose nothing."""
    part(tmp_path / "a", range(15))
    part(tmp_path / "b", range(10, 25))
    part(tmp_path / "c", range(25), scales=(384,))
    done = merge([tmp_path / name for name in "abc"], tmp_path / "all")
    assert (done.pictures, done.twice, done.copied) == (25, 25, 50)
    assert_whole(tmp_path / "all", (256, 384))


def test_a_second_merge_copies_what_is_new(tmp_path: Path) -> None:
    """What was merged before stays in the view, and is not written again."""
    merge([part(tmp_path / "a", range(12))], tmp_path / "all")
    before = set((tmp_path / "all" / "shards").iterdir())
    done = merge([part(tmp_path / "b", range(12, 25))], tmp_path / "all")
    assert (done.pictures, done.copied) == (25, 13)
    assert before < set((tmp_path / "all" / "shards").iterdir())
    assert_whole(tmp_path / "all")


def test_an_interrupted_merge_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A merge that stopped after two shards of seven writes the other five."""
    parts = [part(tmp_path / "a", range(12)), part(tmp_path / "b", range(12, 25))]
    monkeypatch.setattr(united, "SHARD_BYTES", 4 * 5 * 4)  # four rows

    def stop(done: int, total: int) -> None:
        assert total == 25
        if done == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        merge(parts, tmp_path / "all", progress=stop)
    assert merge(parts, tmp_path / "all").shards == 5
    assert len(list((tmp_path / "all" / "shards").iterdir())) == 7
    assert_whole(tmp_path / "all")


def test_failed_pictures_go_along(tmp_path: Path) -> None:
    """What no part could read is told with its reason; what another part could, is not."""
    for number, good in ((1, range(12)), (2, range(13, 25))):
        folder = part(tmp_path / str(number), good, shard=Shard(number, 2))
        bad = [12, 0] if number == 2 else [12]
        names, stats = zip(*((NAMES[row], STATS[row]) for row in (*good, *bad)), strict=True)
        store = FeatureStore(folder, ONE, names, stats=stats, shard=Shard(number, 2))
        for row, name in enumerate(names[len(good) :]):
            store.fail(len(good) + row, f"torn {name}")
        store.finish()
        assert (folder / f"failed-{number}-of-2.csv").exists()
    merge([tmp_path / "1", tmp_path / "2"], tmp_path / "all")
    assert FeatureStore.open(tmp_path / "all").failed == {NAMES[12]: f"torn {NAMES[12]}"}
    assert len(FeatureStore.open(tmp_path / "all").names) == 24


def test_two_nets(tmp_path: Path) -> None:
    """Each net of each part is joined with its own."""
    E = Extraction("E", "cd34", ("fc7",))
    for folder, rows in (("a", range(12)), ("b", range(12, 25))):
        part(tmp_path / folder, rows)
        part(tmp_path / folder, rows, extraction=E)
    merge([tmp_path / "a", tmp_path / "b"], tmp_path / "all")
    assert verify(tmp_path / "all") == []
    for store in FeatureStore.open_all(tmp_path / "all").values():
        [values] = store.read([256]).values()
        np.testing.assert_array_equal(values, numbers(range(25), 256))


def other_settings(root: Path) -> None:
    part(root / "b", range(3), extraction=Extraction("D", "ab12", ("fc7",), flip=False))


def other_type(root: Path) -> None:
    part(root / "b", range(3), dtype="float16")


def other_file(root: Path) -> None:
    part(root / "b", range(3), stats=[(7, 7)] * 3)


def other_numbers(root: Path) -> None:
    store = FeatureStore(root / "b", ONE, NAMES[:3], stats=STATS[:3])
    [one] = ONE.parts([256])
    store.write(range(3), {one: numbers(range(3), 256) + np.array([[0.001], [0.2], [0.001]])})


@pytest.mark.parametrize(
    ("harm", "error", "expected"),
    [
        (other_settings, FingerprintMismatch, "flip: .*a True → .*b False"),
        (other_type, StoreError, "a holds float32 and .*b float16"),
        (other_file, StoreError, "'b.jpg' is one picture in .*a and another in"),
        (other_numbers, StoreError, "'z.jpg' has other descriptors /D/Q256 in .*b than in .*a"),
    ],
)
def test_parts_that_do_not_fit(tmp_path: Path, harm: Any, error: Any, expected: str) -> None:
    """Both parts are named with what differs, and nothing is written."""
    part(tmp_path / "a", range(10))
    harm(tmp_path)
    with pytest.raises(error, match=expected):
        merge([tmp_path / "a", tmp_path / "b"], tmp_path / "all")
    assert not (tmp_path / "all").exists()


def test_what_cannot_be_merged(tmp_path: Path) -> None:
    """No parts, parts without features, and a part as its own target are refused."""
    a = part(tmp_path / "a", range(3))
    FeatureStore(tmp_path / "none", ONE, NAMES)
    with pytest.raises(ParameterError, match="a list of stores"):
        merge(str(a), tmp_path / "all")
    with pytest.raises(StoreError, match="is one of the parts"):
        merge([a], tmp_path / "x" / ".." / "a")
    with pytest.raises(StoreError, match="hold no features"):
        merge([tmp_path / "none"], tmp_path / "all")


def test_catalogue_is_only_a_shortcut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Old, torn, lying or lost, ``index.npz`` changes nothing of what is read; lies are found."""
    monkeypatch.setattr("vggfeat.features.shards.CATALOGUED", 3)
    part(tmp_path / "s", range(14))
    catalogue = tmp_path / "s" / "index.npz"
    old = catalogue.read_bytes()
    part(tmp_path / "s", range(25))
    with monkeypatch.context() as patch:
        patch.delattr("vggfeat.features.shards.FolderShards.header")  # no shard is asked
        quick = FeatureStore.open(tmp_path / "s")
    np.testing.assert_array_equal(*quick.read([256]).values(), numbers(range(25), 256))
    for content in (old, old[:-9], b"", None):
        catalogue.unlink()
        if content is not None:
            catalogue.write_bytes(content)
        [values] = FeatureStore.open(tmp_path / "s").read([256]).values()
        np.testing.assert_array_equal(values, numbers(range(25), 256))
    part(tmp_path / "s", range(25))
    with np.load(catalogue) as truth:
        lie = {**truth, "stats": np.zeros_like(truth["stats"])}
    np.savez(catalogue, **lie)
    assert "index.npz is not what was written" in verify(tmp_path / "s")[0]
    append_checksum_to(catalogue)
    assert "index.npz is wrong about the shard" in verify(tmp_path / "s")[0]


def test_views_never_read_as_nan_for_want_of_handles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A view over more shards than may be open has no arrays and says why; merged, it has all."""
    monkeypatch.setattr(view, "OPEN", 3)
    part(tmp_path / "s", range(25))
    with h5py.File(tmp_path / "s" / "features.h5") as file:
        assert sorted(file) == ["names", "stat"]
        assert "over 7 shards" in file.attrs["note"]
        assert f"vggfeat store merge {tmp_path / 's'} --out" in file.attrs["note"]
    assert_whole(tmp_path / "s")
    merge([tmp_path / "s"], tmp_path / "few")
    with h5py.File(tmp_path / "few" / "features.h5") as file:
        np.testing.assert_array_equal(file["D/Q256"][:], numbers(range(25), 256))


RUN = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_merge import NAMES, part
from vggfeat.features.sharding import Shard, shard_of
shard = shard_of(sys.argv[3])
print("open", flush=True)
sys.stdin.readline()
part(Path(sys.argv[2]), shard.rows(len(NAMES)).tolist(), shard=shard)
"""


@pytest.mark.parametrize("shards", [["1/4", "2/4", "3/4", "4/4"], ["1/1", "1/1"]])
def test_processes_that_begin_at_once(tmp_path: Path, shards: list[str]) -> None:
    """Four shares, or twice the whole, written into a new store at once: one store of all."""
    command = [sys.executable, "-c", RUN, str(Path(__file__).parent), str(tmp_path / "s")]
    runs = [
        subprocess.Popen([*command, shard], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for shard in shards
    ]
    for run in runs:
        assert run.stdout is not None
        run.stdout.readline()
    for run in runs:
        run.communicate(b"\n", timeout=60)
        assert run.returncode == 0
    assert merge([tmp_path / "s"], tmp_path / "all").copied == len(NAMES)
    assert_whole(tmp_path / "all")


def test_other_settings_at_the_same_moment(tmp_path: Path) -> None:
    """Of two runs that begin at once with different settings, one is refused before it writes."""
    first = FeatureStore(tmp_path, ONE, NAMES, stats=STATS, shard=WHOLE)
    other = Extraction("D", "ab12", ("fc7",), precision="bf16")
    second = FeatureStore(tmp_path, other, NAMES, stats=STATS)
    [one] = ONE.parts([256])
    with pytest.raises(FingerprintMismatch, match="precision: stored bf16 → asked fp32"):
        first.write([0], {one: numbers([0], 256)})
    second.write([0], {one: numbers([0], 256)})
    assert verify(tmp_path) == []
