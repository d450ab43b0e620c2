"""One file of features in place of a store: what is in it, and what it replaces."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers.cli import run
from helpers.colours import two_classes

from vggfeat.data.imageset import find_images
from vggfeat.features.aggregate import aggregate
from vggfeat.store.store import FeatureStore

FEATURES = ("--layer", "pool1", "--layer", "pool2", "--Q", "32", "--weights", "embedded", "-q")
NAMES = [f"set/{label}/{number}.png" for label in ("dark", "light") for number in range(2)]
LABELS = ["dark", "dark", "light", "light"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give two classes of two images, a broken one beside them, and their store."""
    two_classes(tmp_path / "set", 2)
    (tmp_path / "set" / "dark" / "broken.png").write_bytes(b"no image")
    run("extract", "set", *FEATURES, "--out", "store", cwd=tmp_path)
    return tmp_path


def read(path: Path) -> tuple[list[str], list[str], Any]:
    """Read names, labels and rows with what others have for such a file."""
    if path.suffix == ".npz":
        held = np.load(path)
        assert [*held["columns"]] == [f"/D/pool{k}/average/Q32" for k in (1, 2)]
        return [*held["names"]], [*held["labels"]], held["X"]
    if path.suffix == ".npy":
        table = pd.read_csv(path.with_suffix(".names.csv"))
        return [*table["name"]], [*table["label"]], np.load(path)
    if path.suffix == ".parquet":
        table = pd.read_parquet(path)
        return [*table["name"]], [*table["label"]], np.stack(table["X"])
    table = pd.read_csv(path)
    return [*table["name"]], [*table["label"]], table.filter(regex=r"^x\d+$").to_numpy(np.float32)


@pytest.mark.parametrize("ending", ["csv", "parquet", "npz", "npy"])
@pytest.mark.parametrize("command", ["extract", "store export"])
def test_a_file_has_names_labels_and_the_rows_of_an_svm(
    folder: Path, ending: str, command: str
) -> None:
    """Whichever command writes it; nothing else is left but the reasons of what failed."""
    if ending == "parquet":
        pytest.importorskip("pyarrow", reason="the extra parquet is not installed")
    file = folder / f"x.{ending}"
    words = ("set", *FEATURES, "--out") if command == "extract" else ("store", "-q")
    run(*command.split(), *words, file.name, cwd=folder)
    names, labels, X = read(file)
    assert (names, labels) == (NAMES, LABELS)
    rows = aggregate(FeatureStore(folder / "store").read(names=NAMES))
    np.testing.assert_allclose(X, rows, atol=1e-6)
    others = {"x.names.csv"} if ending == "npy" else set()
    others |= {"x.failed.csv"} if command == "extract" else set()
    assert {path.name for path in folder.glob("x.*")} == {file.name, *others}


def test_labels_are_what_a_list_says(folder: Path) -> None:
    """With splits, and several labels joined; an image of no label has none."""
    lines = ["path,labels,split", f"{NAMES[0]},cat|dog,train", f"{NAMES[2]},,test"]
    (folder / "list.csv").write_text("\n".join(lines))
    run("extract", "list.csv", *FEATURES, "--out", "x.csv", cwd=folder)
    table = pd.read_csv(folder / "x.csv", keep_default_na=False)
    assert table[["name", "label", "split"]].to_numpy().tolist() == [
        [NAMES[0], "cat|dog", "train"],
        [NAMES[2], "", "test"],
    ]


def test_shares_and_parts_of_a_store_keep_their_labels(folder: Path) -> None:
    """Those of two shares are joined, and go into a merged store."""
    for share in ("1/2", "2/2"):
        run("extract", "set", *FEATURES, "--out", "shares", "--shard", share, cwd=folder)
    run("store", "merge", "shares", "-q", "--out", "merged", cwd=folder)
    run("store", "export", "merged", "merged.csv", cwd=folder)
    assert sorted(pd.read_csv(folder / "merged.csv")["label"]) == LABELS


def test_a_file_is_replaced_by_force_alone(folder: Path) -> None:
    """It is refused before anything is computed, and stays as it was."""
    (folder / "x.csv").write_text("mine")
    for words in (("extract", "set", *FEATURES, "--out"), ("store", "export", "store")):
        assert "--force" in run(*words, "x.csv", cwd=folder, status=5).err
        assert (folder / "x.csv").read_text() == "mine"
    run("extract", "set", *FEATURES, "--out", "x.csv", "--force", cwd=folder)
    assert read(folder / "x.csv")[0] == NAMES
    for other in ("y.names.csv", "y.failed.csv"):
        (folder / other).write_text("mine")
        assert other in run("extract", "set", *FEATURES, "--out", "y.npy", cwd=folder, status=5).err
        (folder / other).unlink()
    (folder / "y.names.csv").write_text("mine")
    assert "y.names.csv" in run("store", "export", "store", "y.npy", cwd=folder, status=5).err
    share = run("extract", "set", "--out", "y.csv", "--shard", "1/2", cwd=folder, status=2)
    assert "store export" in share.err


@pytest.mark.parametrize("ending", ["xlsx", "TSV", "json", "h5", "csv.gz"])
def test_a_file_of_another_kind_is_refused(folder: Path, ending: str) -> None:
    """It makes no folder of that name; a store that has such a name already is used."""
    out = f"x.{ending}"
    said = run("extract", "set", *FEATURES, "--out", out, cwd=folder, status=2).err
    assert all(named in said for named in (out, ".csv", ".parquet", ".npz", ".npy"))
    assert not (folder / out).exists()
    (folder / "store").rename(folder / out)
    assert run("extract", "set", *FEATURES, "--out", out, "--json", cwd=folder).json["present"] == 4


def test_a_run_of_one_file_goes_on_where_it_stopped(folder: Path) -> None:
    """What was complete lies beside the file until it is whole."""
    (folder / "x.csv.partial").mkdir()
    run("extract", *NAMES[:3], *FEATURES, "--out", "x.csv.partial", cwd=folder)
    ran = run("extract", "set", *FEATURES, "--out", "x.csv", "--json", cwd=folder).json
    assert (ran["present"], ran["computed"], ran["file"], ran["store"]) == (3, 1, "x.csv", None)
    assert len(find_images([str(folder / "set")])) == 5
