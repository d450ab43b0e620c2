"""Results as data: figures beside the paper's, and JSON of what tables hold."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from vggfeat.result import (
    Axis,
    Lines,
    Measure,
    Published,
    Result,
    Series,
    Table,
    TableColumn,
    beside_paper,
    plain,
)

TABLE_11 = (Published("D", 0.918, 0.01), Published("D & E", 0.927, 0.005))


def recall(value: float, paper: tuple[Published, ...] = TABLE_11, **more: float) -> Measure:
    return Measure("recall", "mean class recall", value, paper=paper, **more)


def records(*measures: Measure, **more: Any) -> list[dict[str, Any]]:
    return Result("x", "X", measures, **more).beside_paper().records()


def test_each_figure_of_the_paper_has_a_row_with_the_difference():
    """Spreads stand beside their figures where there are any."""
    rows = records(recall(0.93))
    assert [row["row"] for row in rows] == ["D", "D & E"]
    assert [row["recall_difference"] for row in rows] == pytest.approx([0.012, 0.003])
    assert [row["recall_paper_spread"] for row in rows] == [0.01, 0.005]
    assert "recall_spread" not in rows[0]
    one = Result("D", "D", (recall(0.93, TABLE_11[:1], spread=0.02),))
    assert beside_paper([("D", one)]).records()[0]["recall_spread"] == 0.02


def test_a_result_that_the_paper_lacks_stands_beside_nothing():
    assert Result("mine", "Mine", (recall(0.93, ()),)).beside_paper() is None


@pytest.mark.parametrize(
    ("unlike", "partial", "remark"),
    [("", ("3 images",), "partial data"), ("S is not known", (), "S is not known")],
)
def test_what_cannot_be_compared_has_no_difference_and_says_why(unlike, partial, remark):
    result = Result(
        "x", "X", (recall(0.8, (Published("D", 0.9, unlike=unlike),)),), partial=partial
    )
    table = result.beside_paper()
    [row] = table.records()
    assert (row["recall_difference"], row["remark"]) == (None, remark)
    assert any(column.bar for column in table.columns) == (not partial)


def test_two_measures_stand_beside_the_two_figures_of_one_row():
    top1 = Measure("top1", "top-1 error", 0.25, paper=(Published("D", 0.244),))
    top5 = Measure("top5", "top-5 error", 0.07, paper=(Published("D", 0.072),))
    [row] = records(top1, top5)
    assert row["top1_difference"] == pytest.approx(0.006)
    assert row["top5_difference"] == pytest.approx(-0.002)


def test_json_holds_what_tables_and_figures_hold_unrounded():
    columns = (
        TableColumn("class", "Class"),
        TableColumn("ap", "AP", "percent"),
        TableColumn("n", "N", "int"),
    )
    table = Table("classes", "Classes", columns, (("cat", np.float64(1 / 3), np.int64(4)),))
    lines = Lines("c", "C", Axis("C", log=True), Axis("mAP", "percent"), (
        Series("mean", (0.1, 1.0), (0.5, math.nan), marks=(0,)),
    ))  # fmt: skip
    text = json.dumps(Result("x", "X", (recall(math.nan),), parts=(table, lines)).to_dict())
    data = json.loads(text)
    assert data["tables"]["classes"] == [{"class": "cat", "ap": 1 / 3, "n": 4}]
    assert data["figures"]["c"]["series"][0]["y"] == [0.5, None]
    assert data["measures"]["recall"]["value"] is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [(np.float32(0.75), 0.75), (np.float16(0.5), 0.5), (np.int8(3), 3), (math.inf, None)],
)
def test_numbers_of_every_width_are_plain(value, expected):
    assert plain(value) == expected


def test_a_row_must_have_a_value_for_each_column():
    with pytest.raises(AssertionError):
        Table("t", "T", (TableColumn("a", "A"),), ((1, 2),))


def test_a_failed_row_and_measures_without_a_figure_of_the_paper_keep_their_places():
    """Rows are matched by the names of measures; the paper has columns where it has figures."""
    other = Measure("mAP_area", "mAP (area)", 0.5)
    mAP = Measure("mAP", "mAP", 0.6, paper=(Published("D", 0.7),))
    lost = Measure("mAP", "mAP", math.nan, paper=(Published("E", 0.8),))
    rows = [("D", Result("d", "D", (mAP, other))), ("E", Result("e", "E", (lost,), failed="no E"))]
    for order in (rows, rows[::-1]):
        each = {row["row"]: row for row in beside_paper(order).records()}
        assert each["D"]["mAP_area"] == 0.5
        assert each["D"]["mAP_difference"] == pytest.approx(-0.1)
        assert each["E"] == {
            "row": "E", "mAP": None, "mAP_paper": 0.8, "mAP_difference": None, "mAP_area": None,
            "remark": "failed",
        }  # fmt: skip
    assert "mAP_area" not in records(mAP, other)[0]
