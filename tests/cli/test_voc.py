"""PASCAL VOC and Caltech from the command line, on data that ship or that stand beside us."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from helpers.cli import run

from vggfeat.data.datasets import open_dataset

FAST = ["--net", "D", "--layer", "pool2", "--Q", "32", "--weights", "embedded", "--jobs", "1"]


def eleven_points(targets: np.ndarray, scores: np.ndarray) -> float:
    """VOC 2007's average precision, written a second time: the highest precision at each recall."""
    kept = targets != 0
    right = targets[kept][np.argsort(-scores[kept], kind="stable")] == 1
    found = np.cumsum(right)
    precision, recall = found / np.arange(1, len(right) + 1), found / right.sum()
    return float(np.mean([max(precision[recall >= t], default=0) for t in np.arange(11) / 10]))


@pytest.mark.slow
def test_sample_voc_agrees_with_a_second_average_precision(tmp_path: Path) -> None:
    """From the scores that the run wrote, a second 11-point formula gives each class's AP."""
    written = ["--features", "f", "--report", "r.html", "--json", "-q"]
    told = run("svm", "--dataset", "sample-voc", *FAST, *written, cwd=tmp_path).json
    card, images = open_dataset("sample-voc")
    test = images.splits["test"]
    assert "<h1" in (tmp_path / "r.html").read_text()
    with (tmp_path / "r" / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == [images.names[row] for row in test]
    for column, one in enumerate(told["tables"]["classes"]):
        scores = np.array([float(row[one["class"]]) for row in rows])
        expected = eleven_points(images.targets[test, column], scores)
        assert one["ap11"] == pytest.approx(expected, abs=1e-9)
    assert [one["class"] for one in told["tables"]["classes"]] == list(card.classes)


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
