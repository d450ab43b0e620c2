"""Results as files: what is written reads back as what was measured."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from vggfeat.errors import StoreError
from vggfeat.report.files import write_results
from vggfeat.svm.ap import average_precision_area

NAMES = ["cat", "dog", "owl", "yak"]


def read(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_average_precisions_read_back(tmp_path, precisions):
    """Scores, curves and figures in the files are those of the result, to the last bit."""
    result = precisions()
    written = write_results(tmp_path / "new", result, {"dataset": "voc"})
    assert {path.name for path in written} == {
        *(f"{name}.csv" for name in ("classes", "validation", "curves", "rankings", "scores")),
        "results.json",
    }
    scores = read(tmp_path / "new" / "scores.csv")
    assert [row["image"] for row in scores] == [str(row) for row in range(80, 120)]
    for c in (0, 1):
        column = [float(row[NAMES[c]]) for row in scores]
        assert column == result.scores[:, c].tolist()
        assert average_precision_area(column, result.truth[:, c]) == result.area[c]
    assert all(row["yak"] == "" for row in scores)
    classes = read(tmp_path / "new" / "classes.csv")
    assert [row["class"] for row in classes] == NAMES
    assert float(classes[0]["ap11"]) == result.ap11[0]
    assert classes[2]["ap11"] == classes[3]["C"] == ""
    curve = [row for row in read(tmp_path / "new" / "curves.csv") if row["class"] == "dog"]
    assert [float(row["recall"]) for row in curve] == result.curves[1].recall.tolist()
    worst = [
        row
        for row in read(tmp_path / "new" / "rankings.csv")
        if row["class"] == "cat" and row["list"] == "worst"
    ]
    assert {row["truth"] for row in worst} == {"-1"}
    assert int(worst[0]["image"]) == result.rankings.worst[0][0].row
    plain = json.loads((tmp_path / "new" / "results.json").read_text())
    assert plain["dataset"] == "voc"
    assert plain["result"]["mAP"] == result.mAP


def test_recalls_read_back(tmp_path, recalls):
    """Confusions, recalls, validation scores and mistakes are those of the result."""
    result = recalls(["bird", "boat, small", '"bug"'])
    write_results(tmp_path, result)
    confusion = read(tmp_path / "confusion.csv")
    counts = [[int(row[name]) for name in result.class_names] for row in confusion]
    np.testing.assert_array_equal(counts, result.confusion)
    classes = read(tmp_path / "classes.csv")
    assert [float(row["recall"]) for row in classes] == result.recalls.tolist()
    validation = read(tmp_path / "validation.csv")
    assert [float(row["split 2"]) for row in validation] == result.splits[1].search.overall.tolist()
    assert len(read(tmp_path / "mistakes.csv")) == len(result.mistakes())
    plain = json.loads((tmp_path / "results.json").read_text())
    assert plain["result"]["mean_class_recall"] == result.mean_class_recall


def test_names_that_are_no_text_keep_their_bytes(tmp_path, precisions):
    """A file name of stray bytes comes back from the csv as the same bytes."""
    names = [f"{row}\udcff" for row in range(120)]
    write_results(tmp_path, precisions(names=names))
    assert b"\n80\xff," in (tmp_path / "scores.csv").read_bytes()
    json.loads((tmp_path / "results.json").read_text())


def test_a_folder_that_cannot_be_made_is_told(tmp_path, precisions):
    """A file where the folder should be is an error in words."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError):
        write_results(tmp_path / "file" / "below", precisions())
