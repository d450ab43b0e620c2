"""What fails its digest goes aside, what is sound stays, and the same command completes it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.cli import run
from helpers.mistakes import refuses

from vggfeat.errors import StoreDamaged, StoreError
from vggfeat.features.check import ALTERED, verify
from vggfeat.features.export import export, pack
from vggfeat.features.merge import merge
from vggfeat.features.repair import Repaired, repair
from vggfeat.features.shards import Block
from vggfeat.features.store import FeatureStore
from vggfeat.settings import Extraction

NEXT = (
    "Move each shard that was left to a place outside the store yourself, unless its line says "
    "what else to do, then run the same command again."
)
EXTRACTION = Extraction("D", "ab12", ("pool5",), flip=False, pool="max", precision="bf16")
NAMES = [f"{number}.jpg" for number in range(6)]


def numbers(rows: list[int], Q: int) -> np.ndarray:
    return np.add.outer(np.array(rows) * 100.0 + Q, np.arange(5)).astype(np.float32)


def filled(folder: Path, *, finish: bool = True) -> list[Path]:
    """Make a store of three shards of two pictures each; return their files in that order."""
    stats = [(number, number) for number in range(6)]
    store = FeatureStore(folder, EXTRACTION, NAMES, stats=stats, dtype="float16")
    for first in (0, 2, 4):
        rows = [first, first + 1]
        store.write(rows, {part: numbers(rows, part.Q) for part in EXTRACTION.parts([256, 384])})
    if finish:
        store.finish()
    return [folder / "shards" / key for key in store.index.keys]


def flip(path: Path) -> None:
    """Flip a bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def test_sound_store_is_not_touched(tmp_path: Path) -> None:
    """Of a store without damage nothing changes, not even a time."""
    filled(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    done = repair(tmp_path)
    assert done == Repaired()
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_damaged_shard_goes_and_the_others_stay(tmp_path: Path) -> None:
    """The two pictures of the bad shard are gone; the four others read."""
    bad = filled(tmp_path)[1]
    flip(bad)
    done = repair(tmp_path)
    assert done.aside == {f"shards/{bad.name}.damaged": ALTERED}
    assert done.left == {}
    assert verify(tmp_path) == []
    store = FeatureStore.open(tmp_path)
    assert store.names == ["0.jpg", "1.jpg", "4.jpg", "5.jpg"]
    for part, values in store.read(verify=True).items():
        np.testing.assert_array_equal(values, numbers([0, 1, 4, 5], part.Q).astype(np.float16))


def test_what_another_shard_has_too_stays(tmp_path: Path) -> None:
    """Where a picture is in two shards, the loss of one costs nothing."""
    store = FeatureStore(tmp_path, EXTRACTION, NAMES, stats=[(n, n) for n in range(6)])
    for rows in ([0, 1, 2, 3, 4, 5], [2, 3]):
        store.write(rows, {part: numbers(rows, part.Q) for part in EXTRACTION.parts([256])})
    store.finish()
    flip(tmp_path / "shards" / store.index.keys[1])
    repair(tmp_path)
    assert verify(tmp_path) == []
    assert FeatureStore.open(tmp_path).view_names([256]) == NAMES


def test_unfinished_store(tmp_path: Path) -> None:
    """A store without a view gets none."""
    flip(filled(tmp_path, finish=False)[0])
    assert len(repair(tmp_path).aside) == 1
    assert not (tmp_path / "features.h5").exists()
    assert verify(tmp_path) == []


@pytest.mark.parametrize("error", [AttributeError, TypeError, ValueError, RuntimeError, OSError])
def test_a_shard_whose_digest_is_right_is_never_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    """Where h5py cannot read it, that is said, and it is not called damaged.

    A shard beside it that is damaged goes aside all the same.
    """
    shards = filled(tmp_path)
    flip(shards[0])

    def fail(*_: object) -> None:
        raise error("module 'h5py' has no attribute 'h9'")

    with monkeypatch.context() as patch:
        patch.setattr("vggfeat.features.shards.held", fail)
        problems = [one for one in verify(tmp_path) if shards[1].name in one]
        done = repair(tmp_path)
        refuses(
            lambda: FeatureStore.open(tmp_path),
            StoreError,
            ["no attribute 'h9'", "version of h5py"],
        )
    assert list(done.aside) == [f"shards/{shards[0].name}.damaged"]
    assert done.left.keys() == {shards[1].name, shards[2].name}
    for told in (*problems, *done.left.values()):
        assert "no attribute 'h9'" in told
        assert "is damaged" not in told
    assert {path.name for path in (tmp_path / "shards").glob("*.h5")} == done.left.keys()
    assert repair(tmp_path).rebuilt == ("features.h5",)
    assert FeatureStore.open(tmp_path).names == NAMES[2:]


def test_a_shard_that_does_not_fit_is_left_and_named(tmp_path: Path) -> None:
    """A sound shard of other settings, put there by hand, is not moved, and told by its name."""
    filled(tmp_path / "a")
    other = FeatureStore(tmp_path / "b", replace(EXTRACTION, exif=False), NAMES, dtype="float16")
    other.write([0], {part: numbers([0], part.Q) for part in EXTRACTION.parts([256])})
    [shard] = other.index.keys
    shutil.copy(tmp_path / "b" / "shards" / shard, tmp_path / "a" / "shards")
    done = repair(tmp_path / "a")
    assert (done.aside, done.rebuilt) == ({}, ())
    assert "other settings" in done.left[shard]
    assert (tmp_path / "a" / "shards" / shard).exists()
    said = run("store", "repair", tmp_path / "a", "--quiet", status=5).out
    assert NEXT in " ".join(said.split())


def test_a_shard_of_numbers_that_are_not_finite_is_left_with_a_next_step(tmp_path: Path) -> None:
    """Another shard that is damaged is set aside, and no run is called that would be refused."""
    bad, *_ = filled(tmp_path)
    store = FeatureStore.open(tmp_path)
    [part] = EXTRACTION.parts([256])
    block = Block(
        "D",
        EXTRACTION.to_dict(),
        {},
        [b"nan.jpg"],
        np.zeros((1, 2), np.int64),
        {EXTRACTION.path(part): np.full((1, store.dimensions[part]), np.nan, np.float16)},
    )
    store.files.add(block)
    flip(bad)
    said = " ".join(run("store", "repair", tmp_path, "--quiet", status=5).out.split())
    assert "not finite" in said
    assert "1 file set aside." in said
    assert said.endswith(NEXT)
    assert said.count("un the same command again") == 1


def test_a_manifest_of_another_version_is_not_moved(tmp_path: Path) -> None:
    """What is whole and of a newer vggfeat is no damage."""
    filled(tmp_path)
    path = tmp_path / "manifest.json"
    text = json.dumps({"format": "vggfeat features", "version": 99})
    path.write_text(text)
    refuses(lambda: repair(tmp_path), StoreError, ["newer vggfeat"])
    assert path.read_text() == text


def test_damaged_manifest_is_rebuilt(tmp_path: Path) -> None:
    """The shards say enough for a manifest of the same settings."""
    filled(tmp_path)
    before = json.loads((tmp_path / "manifest.json").read_text())
    flip(tmp_path / "manifest.json")
    assert len(verify(tmp_path)) == 1
    done = repair(tmp_path)
    assert list(done.aside) == ["manifest.json.damaged"]
    assert json.loads((tmp_path / "manifest.json").read_text())["nets"] == before["nets"]
    assert verify(tmp_path) == []


def test_nothing_left(tmp_path: Path) -> None:
    """Where every file is damaged, an empty folder for the next run is what remains."""
    for path in [*filled(tmp_path), tmp_path / "manifest.json"]:
        flip(path)
    done = repair(tmp_path)
    assert len(done.aside) == 4
    assert filled(tmp_path)
    assert verify(tmp_path) == []


@pytest.mark.parametrize("harm", ["shards", "manifest", "both", "view too"])
@pytest.mark.parametrize("catalogued", [2, 64])
def test_the_same_run_goes_on_whatever_is_left(
    tmp_path: Path, harm: str, catalogued: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where no shard is, the store's own command finds a store to go on with."""
    monkeypatch.setattr("vggfeat.features.shards.CATALOGUED", catalogued)
    shards = filled(tmp_path)
    for shard in shards if harm != "manifest" else []:
        shard.write_bytes(b"")
    if harm != "shards":
        (tmp_path / "manifest.json").write_bytes(b"")
    if harm == "view too":
        (tmp_path / "features.h5").write_bytes(b"")
    done = repair(tmp_path)
    assert all((tmp_path / name).exists() for name in done.rebuilt)
    filled(tmp_path)
    assert verify(tmp_path) == []
    assert FeatureStore.open(tmp_path).names == NAMES


def test_store_of_bad_pictures_alone(tmp_path: Path) -> None:
    """One that holds nothing but reasons is one, though its manifest is damaged."""
    store = FeatureStore(tmp_path, EXTRACTION, ["0.jpg"])
    store.fail(0, "truncated")
    store.finish()
    flip(tmp_path / "manifest.json")
    repair(tmp_path)
    filled(tmp_path)
    assert FeatureStore.open(tmp_path).names == NAMES


def test_files_of_others_are_not_taken_for_a_store(tmp_path: Path) -> None:
    """Names alone make no store: these would be replaced."""
    for name in ("features.h5", "failed.csv"):
        (tmp_path / name).write_text("mine")
    with pytest.raises(StoreError, match="not empty"):
        filled(tmp_path)


def test_a_view_of_a_deleted_shard_is_made_anew(tmp_path: Path) -> None:
    """The view tells that it is missing, until it is made anew without."""
    filled(tmp_path)[1].unlink()
    [told, _] = verify(tmp_path)
    assert "which is missing" in told
    done = repair(tmp_path)
    assert (done.aside, done.rebuilt) == ({}, ("features.h5",))
    assert verify(tmp_path) == []


def test_a_damaged_shard_is_not_called_missing(tmp_path: Path) -> None:
    """It is named once, for what it is."""
    bad = filled(tmp_path)[1]
    flip(bad)
    [told] = verify(tmp_path)
    assert bad.name in told


@pytest.mark.parametrize("use", ["merge", "pack", "npz", "csv"])
@pytest.mark.parametrize("packed", [False, True])
def test_damage_is_not_passed_on(tmp_path: Path, use: str, packed: bool) -> None:
    """What gets new digests, or goes to others, is compared with its own first."""
    bad = source = tmp_path / "store"
    [bad, *_] = filled(source)
    if packed:
        pack(source, tmp_path / "packed.h5")
        bad = source = tmp_path / "packed.h5"
    content = bytearray(bad.read_bytes())
    at = content.index(np.float16(numbers([1], 256)[0]).tobytes())
    content[at] ^= 1
    bad.write_bytes(content)
    out = tmp_path / f"out.{use}"
    with pytest.raises(StoreDamaged, match="not those that were written"):
        {"merge": lambda: merge([source], out), "pack": lambda: pack(source, out)}.get(
            use, lambda: export(source, out)
        )()
    assert not out.exists()


def test_refuses_what_is_no_store(tmp_path: Path) -> None:
    """An empty folder, and a packed file, are answered with what to do."""
    with pytest.raises(StoreError, match="no feature store"):
        repair(tmp_path / "none")
    filled(tmp_path / "f")
    pack(tmp_path / "f", tmp_path / "one.h5")
    with pytest.raises(StoreError, match="Pack it anew"):
        repair(tmp_path / "one.h5")


def test_command(tmp_path: Path) -> None:
    """``vggfeat store repair`` says what it did and what comes next, without a command to paste."""
    bad = filled(tmp_path)[2]
    flip(bad)
    text = run("store", "repair", tmp_path, "--quiet").out
    assert f"{bad.name}.damaged was set aside" in text
    assert "1 file set aside." in text
    assert "Run the same command again: it computes what is missing, and nothing else." in text
    assert "vggfeat" not in text.replace(str(tmp_path), "")
    again = run("store", "repair", tmp_path, "--quiet", "--json").json
    assert again == {"store": str(tmp_path), "aside": {}, "left": {}, "rebuilt": []}


def test_command_with_a_shard_that_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be used and is not damaged is named, and the exit status is that of stores."""
    shard = filled(tmp_path)[0]
    monkeypatch.setattr("vggfeat.features.shards.held", lambda *_: None)
    told = run("store", "repair", tmp_path, "--quiet", status=5).out
    assert shard.name in told
    assert "left where it is" in told
    assert "Run the same command" not in told
