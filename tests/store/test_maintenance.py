"""Damage to a store is found and named; it goes aside, and the same command completes the store."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from helpers.cli import run
from helpers.mistakes import refuses
from storing import FC7, LARGE, NAMES, POOL5, check, column, fill, make_store

from vggfeat.errors import StoreDamaged, StoreError
from vggfeat.store.export import pack
from vggfeat.store.maintenance import ALTERED, RepairSummary, info, repair, verify
from vggfeat.store.storage import LocalStorage
from vggfeat.store.store import FeatureStore

FILE = "columns/D.fc7.average.Q256.json"
NEXT = "Run the same command again: it computes what is missing, and nothing else."


def shards_of(folder: Path) -> list[Path]:
    """List the shards of a store in the order in which they were written."""
    return [folder / header.key for header in FeatureStore(folder).index.headers]


def names_in(shard: Path) -> list[str]:
    """List the images of one shard."""
    with h5py.File(shard) as file:
        return file["names"].asstr()[:].tolist()


def flip(path: Path) -> None:
    """Flip a bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def rewrite(shard: Path, harm: Callable[[h5py.File], None]) -> Path:
    """Change a shard, and name it by what its bytes are then."""
    with h5py.File(shard, "r+") as file:
        harm(file)
    digest = hashlib.sha256(shard.read_bytes()).hexdigest()
    return shard.rename(shard.with_name(f"{digest}.h5"))


# info


def test_info(tmp_path: Path) -> None:
    """It says in plain JSON what the store holds, who made it, and how its last run went."""
    make_store(tmp_path, failed={"03.jpg": "torn"}, provenance={"device": "cpu"})
    make_store(tmp_path, [LARGE], NAMES[:6])
    told = json.loads(json.dumps(info(tmp_path)))
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert told == {
        "path": str(tmp_path),
        "dtype": "float32",
        "columns": {
            "/D/fc7/average/Q256": {
                "rows": 11,
                "D": 5,
                "settings": {"weights": "D-fc7", "flip": True},
                "digest": FC7.digest,
            },
            "/D/fc7/average/Q384": {
                "rows": 6,
                "D": 5,
                "settings": {"weights": "D-fc7", "flip": True},
                "digest": LARGE.digest,
            },
        },
        "nets": {"D": {"provenance": {}}},
        "absent": [],
        "images": 12,
        "asked": 6,
        "failed": 0,
        "finished": True,
        "shares": {},
        "missing": [],
        "view": True,
        "shards": 5,
        "leftovers": 0,
        "bytes": sum(path.stat().st_size for path in files),
    }


def test_info_of_a_run_that_goes_on(tmp_path: Path) -> None:
    """It is not finished, and what a dead writer left is counted."""
    store = FeatureStore(tmp_path, "a")
    store.begin(NAMES)
    fill(store, [FC7], NAMES[:5])
    (tmp_path / "shards" / ".tmp-elsewhere-1-ab").touch()
    (tmp_path / "shards" / ".tmp-elsewhere-1-ab").rename(tmp_path / "shards" / ".tmp-x")
    told = info(tmp_path)
    assert (told["images"], told["asked"], told["finished"]) == (5, 12, False)
    refuses(lambda: info(tmp_path / "nowhere"), StoreError, ["nowhere", "spelling"])


def test_info_of_shares(tmp_path: Path) -> None:
    """They are finished once all are; the whole run then writes the view, which they do not."""
    state = []

    def look() -> None:
        told, said = info(tmp_path), run("store", "info", tmp_path).out
        state.append((told["finished"], told["shares"], told["missing"]))
        assert ("not finished" in said) == (not all(told["shares"].values()))
        assert ("without --shard" in said) == (told["finished"] and not told["view"])
        assert "not finished" in said or all(share in said for share in told["missing"])

    half = len(NAMES) // 2
    for number, names in enumerate((NAMES[:half], NAMES[half:]), 1):
        store = FeatureStore(tmp_path, "a")
        store.add_columns([FC7])
        store.begin(names, share=(number, 2))
        fill(store, [FC7], names)
        look()
        store.finish(names, {}, (number, 2))
        look()
    assert state == [
        (False, {"1/2": False}, ["2/2"]),
        (False, {"1/2": True}, ["2/2"]),  # finished as a share
        (False, {"1/2": True, "2/2": False}, []),
        (True, {"1/2": True, "2/2": True}, []),
    ]
    assert info(tmp_path)["asked"] == len(NAMES)
    make_store(tmp_path)
    look()
    assert state[-1] == (True, {}, [])
    store = FeatureStore(tmp_path, "a")
    store.finish(NAMES[:half], {}, (1, 2))
    look()  # the other share of this run is still to come, whatever was finished before
    assert state[-1] == (False, {"1/2": True}, ["2/2"])


# verify


def test_read_can_check_digests(tmp_path: Path) -> None:
    """A number that changed on disk is refused with the shard's name if digests are checked."""
    make_store(tmp_path)
    shard = shards_of(tmp_path)[0]
    with h5py.File(shard, "r+") as file:
        file[FC7.descriptor.path][0, 0] += 1
    store = FeatureStore(tmp_path)
    refuses(lambda: store.read(verify=True), StoreDamaged, [shard.name, "vggfeat store repair"])


def test_a_deleted_shard_is_missed(tmp_path: Path) -> None:
    """The view tells; then only the shard's images are computed again."""
    make_store(tmp_path)
    shard = shards_of(tmp_path)[1]
    lost = names_in(shard)
    opened = FeatureStore(tmp_path)
    shard.unlink()
    refuses(opened.read, StoreDamaged, [shard.name])
    [told] = verify(tmp_path)
    assert "features.h5" in told
    assert shard.name in told
    assert fill(FeatureStore(tmp_path, "a")) == len(lost)
    make_store(tmp_path)
    assert verify(tmp_path) == []


def put_nan(file: h5py.File) -> None:
    file[FC7.descriptor.path][1, 2] = np.nan


def repeat_a_name(file: h5py.File) -> None:
    file["names"][1] = file["names"][0]


def drop_a_row(file: h5py.File) -> None:
    path = FC7.descriptor.path
    kept, about = file[path][:-1], dict(file[path].attrs)
    del file[path]
    file[path] = kept
    file[path].attrs.update(about)


def drop_an_id(file: h5py.File) -> None:
    kept = file["id"][:-1]
    del file["id"]
    file["id"] = kept


def change_a_setting(file: h5py.File) -> None:
    settings = json.dumps({**FC7.settings, "flip": False})
    file[FC7.descriptor.path].attrs["settings"] = settings


def change_the_type(file: h5py.File) -> None:
    path = FC7.descriptor.path
    kept, about = file[path][:].astype("float16"), dict(file[path].attrs)
    del file[path]
    file[path] = kept
    file[path].attrs.update(about)


@pytest.mark.parametrize(
    ("harm", "mentions"),
    [
        (put_nan, ["/D/fc7/average/Q256", "not finite"]),
        (repeat_a_name, ["a name comes twice"]),
        (drop_a_row, ["5 names", "4 rows"]),
        (drop_an_id, ["5 names"]),
        (change_a_setting, ["/D/fc7/average/Q256", "flip", "True", "False"]),
        (change_the_type, ["float16", "float32"]),
    ],
)
def test_a_shard_that_was_made_wrong(
    tmp_path: Path, harm: Callable[[h5py.File], None], mentions: list[str]
) -> None:
    """A shard whose digest is right is looked into; it is named, and never moved.

    A shard beside it that is damaged goes aside all the same.
    """
    make_store(tmp_path)
    first, second, third = shards_of(tmp_path)
    wrong = rewrite(first, harm)
    [problem] = [one for one in verify(tmp_path) if one.startswith(f"shards/{wrong.name}: ")]
    for mention in mentions:
        assert mention in problem
    flip(second)
    done = repair(tmp_path)
    assert list(done.aside) == [f"shards/{second.name}.damaged"]
    assert list(done.left) == [f"shards/{wrong.name}"]
    assert done.rebuilt == ()
    assert {path.name for path in (tmp_path / "shards").glob("*.h5")} == {wrong.name, third.name}


# repair


def test_a_sound_store_is_not_touched(tmp_path: Path) -> None:
    """Of a store without damage nothing changes, not even a time."""
    make_store(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert repair(tmp_path) == RepairSummary()
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_a_damaged_shard_goes_and_the_others_stay(tmp_path: Path) -> None:
    """The images of the bad shard are gone; the others read, and the same run completes it."""
    make_store(tmp_path, [FC7, LARGE])
    bad = shards_of(tmp_path)[1]
    lost = names_in(bad)
    flip(bad)
    done = repair(tmp_path)
    assert done == RepairSummary({f"shards/{bad.name}.damaged": ALTERED}, {}, ("features.h5",))
    assert verify(tmp_path) == []
    kept = [name for name in NAMES if name not in lost]
    assert FeatureStore(tmp_path).names == kept
    check(FeatureStore(tmp_path), [FC7, LARGE], kept)
    assert fill(FeatureStore(tmp_path, "a"), [FC7, LARGE]) == len(lost)
    assert repair(tmp_path).aside == {}


def test_what_another_shard_has_too_stays(tmp_path: Path) -> None:
    """Where an image is in two shards, the loss of one costs nothing."""
    first, second = (FeatureStore(tmp_path, "a") for _ in range(2))
    fill(first, [FC7], NAMES[:5])
    fill(second, [FC7], NAMES, size=12)
    second.finish(NAMES, {})
    [bad] = [path for path in shards_of(tmp_path) if len(names_in(path)) == 5]
    flip(bad)
    repair(tmp_path)
    assert verify(tmp_path) == []
    check(FeatureStore(tmp_path), [FC7], NAMES)


def test_an_unfinished_store(tmp_path: Path) -> None:
    """A store without a view gets none."""
    fill(FeatureStore(tmp_path, "a"))
    flip(shards_of(tmp_path)[0])
    assert len(repair(tmp_path).aside) == 1
    assert not (tmp_path / "features.h5").exists()
    assert verify(tmp_path) == []


@pytest.mark.parametrize("error", [AttributeError, TypeError, ValueError, RuntimeError, OSError])
def test_a_shard_whose_digest_is_right_is_never_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    """Where h5py cannot read it, that is said, and it is not called damaged."""
    make_store(tmp_path)
    shards = shards_of(tmp_path)
    flip(shards[0])

    def fail(*_: object) -> None:
        raise error("module 'h5py' has no attribute 'h9'")

    with monkeypatch.context() as patch:
        patch.setattr("vggfeat.store.maintenance.read_header", fail)
        problems = [one for one in verify(tmp_path) if shards[1].name in one]
        done = repair(tmp_path)
    assert list(done.aside) == [f"shards/{shards[0].name}.damaged"]
    assert done.left.keys() == {f"shards/{path.name}" for path in shards[1:]}
    for told in (*problems, *done.left.values()):
        assert "no attribute 'h9'" in told
        assert "is damaged" not in told
    assert set((tmp_path / "shards").glob("*.h5")) == set(shards[1:])
    assert repair(tmp_path).rebuilt == ("features.h5",)
    assert FeatureStore(tmp_path).names == NAMES[5:]


# The manifest and the files of columns


def test_what_cannot_be_read_now_is_not_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk or a network that fails once is an error, and no sound file is set aside."""
    make_store(tmp_path)
    real = LocalStorage.read

    def read(storage: LocalStorage, name: str) -> bytes | None:
        if name == "manifest.json":
            raise StoreError(f"{name} cannot be read: HTTP status 503.")
        return real(storage, name)

    with monkeypatch.context() as patch:
        patch.setattr(LocalStorage, "read", read)
        for check in (verify, repair):
            with pytest.raises(StoreError, match="503"):
                check(tmp_path)
    assert verify(tmp_path) == []


def test_a_manifest_of_another_version_is_not_moved(tmp_path: Path) -> None:
    """What is whole and of a newer vggfeat is no damage."""
    text = json.dumps({"format": "vggfeat features", "version": 99})
    (tmp_path / "manifest.json").write_text(text)
    for look in (repair, verify):
        refuses(lambda: look(tmp_path), StoreError, ["newer vggfeat"])  # noqa: B023
    (tmp_path / "manifest.json").write_text('{"name": "somebody else\'s"}')
    refuses(lambda: repair(tmp_path), StoreError, ["something else"])
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]


@pytest.mark.parametrize("lost", [False, True])
@pytest.mark.parametrize("name", ["manifest.json", FILE])
def test_a_damaged_or_lost_file_is_made_anew(tmp_path: Path, name: str, lost: bool) -> None:
    """The shards say enough for a manifest and the files of columns, byte for byte."""
    scores = replace(FC7, outputs=tuple("vwxyz"), S=(256, 512))
    make_store(tmp_path, [scores, POOL5], dtype="float16")
    before = (tmp_path / name).read_bytes()
    if lost:
        (tmp_path / name).unlink()
    else:
        flip(tmp_path / name)
    [problem] = verify(tmp_path)
    assert name in problem
    done = repair(tmp_path)
    assert done.aside == ({} if lost else {f"{name}.damaged": ALTERED})
    assert (done.left, done.rebuilt) == ({}, (name,))
    assert (tmp_path / name).read_bytes() == before
    assert verify(tmp_path) == []
    assert FeatureStore(tmp_path).columns[FC7.descriptor] == scores


def test_outputs_that_were_given_other_names_are_no_damage(tmp_path: Path) -> None:
    """The file of a column has the names given last, its shards those of their time."""
    for number, names in enumerate(("", "vwxyz", "VWXYZ")):
        make_store(tmp_path, [replace(FC7, outputs=tuple(names))], NAMES[: 4 * number + 4])
        assert verify(tmp_path) == []
    make_store(tmp_path, [replace(FC7, outputs=tuple("abcde"))])
    assert (verify(tmp_path), repair(tmp_path)) == ([], RepairSummary())
    assert FeatureStore(tmp_path).columns[FC7.descriptor].outputs == tuple("abcde")
    path = tmp_path / FILE
    path.write_text(path.read_text().replace('"c"', '"k"'))  # one bit
    assert any(FILE in problem for problem in verify(tmp_path))
    assert list(repair(tmp_path).aside) == [f"{FILE}.damaged"]
    assert FeatureStore(tmp_path).columns[FC7.descriptor].outputs == tuple("VWXYZ")


def test_two_settings_of_one_column_are_both_named(tmp_path: Path) -> None:
    """Where its file is lost, nobody can say which is right: nothing is touched."""
    make_store(tmp_path / "a", names=NAMES[:5])
    make_store(tmp_path / "b", [column(flip=False)], NAMES[5:10])
    shards = [*shards_of(tmp_path / "a"), *shards_of(tmp_path / "b")]
    shutil.copy(shards[1], tmp_path / "a" / "shards")
    [problem] = [one for one in verify(tmp_path / "a") if "shards/" in one]
    assert shards[1].name in problem  # the file of the column says which
    assert list(repair(tmp_path / "a").left) == [f"shards/{shards[1].name}"]
    (tmp_path / "a" / FILE).unlink()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    done = repair(tmp_path / "a")
    assert done.left.keys() == {f"shards/{path.name}" for path in shards}
    assert all("flip" in why for why in done.left.values())
    assert (done.aside, done.rebuilt) == ({}, ())
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


# Caches and the view


@pytest.mark.parametrize("harm", ["shards", "manifest", "columns", "both", "view too"])
@pytest.mark.parametrize("indexed", [2, 64])
def test_the_same_run_goes_on_whatever_is_left(
    tmp_path: Path, harm: str, indexed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where no shard is, the store's own command finds a store to go on with."""
    monkeypatch.setattr("vggfeat.store.store.INDEXED", indexed)
    make_store(tmp_path)
    for shard in shards_of(tmp_path) if harm not in ("manifest", "columns") else []:
        shard.write_bytes(b"")
    for name in {"shards": [], "columns": [FILE]}.get(harm, ["manifest.json"]):
        (tmp_path / name).write_bytes(b"")
    if harm == "view too":
        (tmp_path / "features.h5").write_bytes(b"")
    done = repair(tmp_path)
    assert all((tmp_path / name).exists() for name in done.rebuilt)
    make_store(tmp_path)
    assert verify(tmp_path) == []
    assert FeatureStore(tmp_path).names == NAMES


def test_nothing_left(tmp_path: Path) -> None:
    """Where every file is damaged, an empty folder for the next run is what remains."""
    make_store(tmp_path)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    for path in files:
        flip(path)
    done = repair(tmp_path)
    assert len(done.aside) == 6  # shards, the manifest, a column, run.json
    make_store(tmp_path)
    assert verify(tmp_path) == []


def test_a_store_of_bad_images_alone(tmp_path: Path) -> None:
    """One that holds nothing but reasons is one, though its manifest is damaged."""
    store = FeatureStore(tmp_path, "a")
    store.begin(["0.jpg"])
    store.finish(["0.jpg"], {"0.jpg": "truncated"})
    flip(tmp_path / "manifest.json")
    repair(tmp_path)
    make_store(tmp_path)
    assert FeatureStore(tmp_path).names == NAMES


def test_an_index_that_is_old_does_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it lacks is read from the shards; one that is damaged is made anew, byte for byte."""
    monkeypatch.setattr("vggfeat.store.store.INDEXED", 2)
    make_store(tmp_path, names=NAMES[:10])
    path = tmp_path / "index.npz"
    old = path.read_bytes()
    make_store(tmp_path)
    sound = path.read_bytes()
    path.write_bytes(old)
    assert verify(tmp_path) == []
    check(FeatureStore(tmp_path), [FC7], NAMES)
    path.write_bytes(sound)
    flip(path)
    assert repair(tmp_path).rebuilt == ("index.npz",)
    assert path.read_bytes() == sound


def test_records_that_are_broken(tmp_path: Path) -> None:
    """A run.json that is no JSON, and a failed.csv that is no such list, go aside."""
    make_store(tmp_path, failed={"03.jpg": "torn"})
    (tmp_path / "run.json").write_text("{")
    (tmp_path / "failed.csv").write_text("a,b\n1,2\n")
    assert verify(tmp_path) == [f"failed.csv: {ALTERED}", f"run.json: {ALTERED}"]
    assert sorted(repair(tmp_path).aside) == ["failed.csv.damaged", "run.json.damaged"]
    assert verify(tmp_path) == []
    assert (info(tmp_path)["finished"], info(tmp_path)["failed"]) == (True, 0)


# What is no store, and the commands


def test_refuses_what_is_no_store(tmp_path: Path) -> None:
    """An empty folder, and a packed file, are answered with what to do."""
    for look in (repair, verify):
        refuses(lambda: look(tmp_path / "none"), StoreError, ["none", "spelling"])  # noqa: B023
    make_store(tmp_path / "f")
    pack(tmp_path / "f", tmp_path / "one.h5")
    refuses(lambda: repair(tmp_path / "one.h5"), StoreError, ["Pack it anew"])


def test_the_view_names_its_store(tmp_path: Path) -> None:
    """features.h5 given instead of its folder is no packed file."""
    make_store(tmp_path)
    assert verify(tmp_path / "features.h5") == []
    assert repair(tmp_path / "features.h5") == RepairSummary()


def test_a_bucket(s3: Any) -> None:
    """A store in a bucket is verified and repaired like a folder."""
    where = "s3://pics/features"
    make_store(where)
    assert verify(where) == []
    [bad, *_] = [one for one in s3.ls("pics/features/shards") if one.endswith(".h5")]
    s3.pipe_file(bad, s3.cat_file(bad)[:-1])
    assert len(verify(where)) == 1
    done = repair(where)
    assert list(done.aside) == [f"{bad.removeprefix('pics/features/')}.damaged"]
    assert verify(where) == []
    assert fill(FeatureStore(where, "a")) > 0


def test_commands(tmp_path: Path) -> None:
    """Verify and repair say what is wrong, what was done and what is next, without a command."""
    make_store(tmp_path)
    bad = shards_of(tmp_path)[2]
    flip(bad)
    told = run("store", "verify", tmp_path, "--quiet", status=5).out
    assert bad.name in told
    text = run("store", "repair", tmp_path, "--quiet").out
    assert f"{bad.name}.damaged was set aside" in text
    assert "1 file set aside." in text
    assert NEXT in text
    assert "vggfeat" not in text.replace(str(tmp_path), "")
    again = run("store", "repair", tmp_path, "--quiet", "--json").json
    assert again == {"store": str(tmp_path), "aside": {}, "left": {}, "rebuilt": []}


def test_command_with_a_shard_that_is_left(tmp_path: Path) -> None:
    """What cannot be used and is not damaged is named, and the exit status is that of stores."""
    make_store(tmp_path)
    shard = rewrite(shards_of(tmp_path)[0], put_nan)
    told = " ".join(run("store", "repair", tmp_path, "--quiet", status=5).out.split())
    assert shard.name in told
    assert "left where it is" in told
    assert told.count("un the same command again") == 1
    assert NEXT not in told


def test_info_command(tmp_path: Path) -> None:
    """It names columns, images and the size; its JSON is what `info` returns."""
    about = {"device": "Xeon", "precision": "bf16"}
    make_store(tmp_path, failed={"03.jpg": "torn"}, provenance=about)
    told = run("store", "info", tmp_path).out
    for mention in ("11", "12", "1 failed", "/D/fc7/average/Q256", "(11, 5)", "bf16 on Xeon"):
        assert mention in told
    assert run("store", "info", tmp_path, "--json").json == info(tmp_path)
