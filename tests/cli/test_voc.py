"""PASCAL VOC and Caltech from the command line, on data that stand beside us."""

from __future__ import annotations

from pathlib import Path

from helpers.cli import run

FAST = ["--net", "D", "--layer", "pool2", "--Q", "32", "--weights", "embedded", "--jobs", "1"]


def test_a_partial_tree_names_what_is_left_out(real_images: Path, tmp_path: Path) -> None:
    """On some genuine VOC images classes without positives have no AP, and the run is partial."""
    partly = ["--root", real_images / "VOCdevkit", "--allow-partial", "--json", "-q"]
    told = run("svm", "--dataset", "voc2007", *partly, *FAST, cwd=tmp_path).json
    assert told["dataset"]["partial"]
    without = {*told["dataset"]["absent"], "pottedplant"}
    for one in told["tables"]["classes"]:
        assert (one["ap11"] is None) == (one["class"] in without)


def test_without_leave_a_partial_tree_is_refused(real_images: Path, tmp_path: Path) -> None:
    """Data that are not all there are an error that names --allow-partial."""
    root = real_images / "caltech101"
    done = run("svm", "--dataset", "caltech101", "--root", root, cwd=tmp_path, status=3)
    assert "--allow-partial" in done.err
