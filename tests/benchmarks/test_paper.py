"""The table of measured and published figures, and why a row is empty."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from vggfeat.result import Measure, Published, Result

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "paper.py"


@pytest.fixture(scope="module")
def paper() -> ModuleType:
    """Load the script, which is no part of the package."""
    specification = importlib.util.spec_from_file_location("paper", SCRIPT)
    module = importlib.util.module_from_spec(specification)
    sys.modules["paper"] = module
    specification.loader.exec_module(module)
    return module


def row_of(paper: ModuleType, result: Result) -> dict[str, object]:
    outcome = paper.Outcome("Table 11", [{"row": "D", **result.to_dict()}])
    [line] = paper.lines(outcome)
    return dict(zip((column.name for column in paper.COLUMNS), line, strict=True))


def recall(value: float, unlike: str = "") -> tuple[Measure, ...]:
    figure = Published("D", 0.918, unlike=unlike)
    return (Measure("mean_class_recall", "mean class recall", value, paper=(figure,)),)


def test_a_row_has_the_difference_from_the_paper(paper):
    row = row_of(paper, Result("D", "D", recall(0.93)))
    assert (row["here"], row["paper"]) == (0.93, 0.918)
    assert row["difference"] == pytest.approx(0.012)


@pytest.mark.parametrize(
    ("result", "remark"),
    [
        (Result("D", "D", recall(0.93), partial=("3 images are absent",)), "3 images are absent"),
        (Result("D", "D", recall(float("nan")), failed="no weights"), "no weights"),
        (Result("D", "D", recall(0.93, unlike="S is not known")), "S is not known"),
    ],
)
def test_what_cannot_be_compared_says_why_and_has_no_difference(paper, result, remark):
    row = row_of(paper, result)
    assert (row["difference"], row["remark"]) == (None, remark)


def test_absent_data_are_said_in_a_line_of_the_table(paper, tmp_path, capfd):
    (tmp_path / "data").mkdir()
    written = tmp_path / "table.md"
    words = ["--only", "table11-caltech101", "--root", str(tmp_path / "data")]
    assert paper.main([*words, "--markdown", str(written)]) == 0
    [line] = [line for line in written.read_text().splitlines() if "Caltech-101" in line]
    assert "data absent" in line
    assert "Error: " in capfd.readouterr().err
    assert not list((tmp_path / "data").iterdir())
