"""A tree of VOC's layout that a labelling tool wrote: without lists of classes, in PNG."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from helpers.cli import run
from trees import draw_bands, one_class_each, write_voc

CLASSES = ("cat", "dog", "emu")
FAST = ("--layer", "pool2", "--Q", "32", "--weights", "embedded", "--jobs", "1", "--no-evidence")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    parts = one_class_each(CLASSES, {"train": 4, "val": 4, "test": 4})
    write_voc(tmp_path / "mine", CLASSES, parts, draw_bands)
    for path in (tmp_path / "mine" / "ImageSets" / "Main").glob("*_*.txt"):
        path.unlink()
    return tmp_path / "mine"


def test_svm_takes_it_by_its_folder(tree: Path) -> None:
    """By the splits that it gives, and by parts that are drawn where it gives less."""
    told = run("svm", "--dataset", "mine", *FAST, "--json", "-q", cwd=tree.parent).json
    assert told["dataset"]["classes"] == list(CLASSES)
    assert [told["settings"][f"images to {part}"] for part in ("train", "val", "test")] == [12] * 3
    assert told["measures"]["mAP"]["value"] > 0.9
    for part in ("train", "val"):
        (tree / "ImageSets" / "Main" / f"{part}.txt").unlink()
    told = run("svm", "--dataset", "mine/", *FAST, "--json", "-q", cwd=tree.parent).json
    assert "drawn" in told["settings"]["parts"]
    assert told["settings"]["images to test"] == 12
    shutil.rmtree(tree / "ImageSets")
    (tree / "Annotations" / "2008_000001.xml").unlink()
    told = run("svm", "--dataset", "mine", *FAST, "--json", "-q", cwd=tree.parent).json
    assert told["settings"]["images"] == 35
    assert "2008_000001" in " ".join(told["notes"])
    done = run("localize", "train", "--data", "mine", "--out", "a", cwd=tree.parent, status=3)
    assert "train.txt" in done.err
    (tree / "ImageSets" / "Main").mkdir(parents=True)
    done = run("localize", "train", "--data", "mine", "--out", "a", cwd=tree.parent, status=3)
    assert "train.txt" in done.err
    done = run("train", "--data", "mine", "--out", "a", cwd=tree.parent, status=3)
    assert "svm --dataset mine" in done.err
