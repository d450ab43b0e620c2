"""JSON, CSV files and page of one run have the same numbers, cell by cell."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from helpers.boxes import GRID_BOXES, GRID_NET, GRID_SIZE, box_weights, red_tree
from helpers.cli import run
from helpers.colours import two_classes
from helpers.networks import SMALL, configured, write_weights
from helpers.pages import Page, read_csv

from vggfeat.report.tables import write_value

PARTS = ("train", "val", "test")
FAST = ("--layer", "pool1", "--Q", "16", "--jobs", "1")


def shows(text: str, heading: str, value: Any) -> bool:
    """Tell whether a cell is the value, rounded as its heading says."""
    if isinstance(value, str):
        return text == value
    kinds = ("percent",) if heading.endswith(", %") or heading == "±" else ("int", "number")
    return text in {write_value(value, kind) for kind in kinds}


def check_page(data: dict[str, Any], page: Path) -> None:
    """Compare all cells of a page's tables and matrices with the JSON, and the headline."""
    html, shown = page.read_text(encoding="utf-8"), Page(page).tables
    compared = 0
    for name, records in data["tables"].items():
        if name not in shown:  # one that is in the files alone
            continue
        head, *rows = shown.pop(name)
        headings = [heading for heading in head if heading or len(head) == len(records[0])]
        assert len(rows) == len(records) or f"The first {len(rows)} of {len(records):,};" in html
        for row, record in zip(rows, records, strict=False):
            cells = list(zip(row, headings, record.values(), strict=True))
            assert all(shows(*cell) for cell in cells), cells
            compared += len(cells)
    for name, figure in data["figures"].items():
        if "values" in figure and name in shown:
            head, *rows = shown.pop(name)
            assert head[1:] == figure["columns"]
            assert [row[0] for row in rows] == figure["rows"]
            kinds: tuple[Any, ...] = ("int", "percent", "number")
            for row, values in zip(rows, figure["values"], strict=True):
                for text, value in zip(row[1:], values, strict=True):
                    assert text in {write_value(value, kind) for kind in kinds}
                    compared += 1
    assert set(shown) <= {"paper", "times", "provenance"}
    assert compared >= 8
    first = next(iter(data["measures"].values()))
    [headline] = re.findall(r"<strong>(.*?)<small>", html)
    assert headline == write_value(first["value"], "percent")


def check_files(data: dict[str, Any], folder: Path) -> None:
    """Compare the CSV files with the JSON, to the last bit."""
    for name, records in data["tables"].items():
        rows = read_csv(folder / f"{name}.csv")
        assert [list(row) for row in rows] == [list(record) for record in records]
        for row, record in zip(rows, records, strict=True):
            for key, value in record.items():
                if isinstance(value, str) or value is None:
                    assert row[key] == (value or "")
                else:
                    assert float(row[key]) == value


@pytest.mark.parametrize("dataset", ["sample", "sample-voc"])
def test_of_an_svm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dataset: str) -> None:
    monkeypatch.chdir(tmp_path)
    command = ("svm", "--dataset", dataset, *FAST, "--report", "r.html", "--no-evidence")
    data = run(*command, "--json", "--quiet").json
    check_page(data, Path("r.html"))
    check_files(data, Path("r"))


def test_of_a_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    images = two_classes(tmp_path / "images")
    quick = ["--S", "224", "--batch", "4", "--lr", "1e-4", "--epochs", "2", "--workers", "0"]
    with configured(SMALL):
        data = run("train", "--data", images, "--out", "a", *quick, "--json", "--quiet").json
    check_page(data, Path("a/report.html"))


def test_of_a_localisation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    parts = {part: {f"{part}{k}": ((1, -1), (-1, 1))[k] for k in range(2)} for part in PARTS}
    with configured({"D": GRID_NET}):
        tree = red_tree(tmp_path / "VOC2007", parts, GRID_SIZE, GRID_BOXES)
        write_weights(Path("pcr.safetensors"), box_weights("pcr"))
        command = ("localize", "evaluate", "--data", tree, "--model", "pcr.safetensors")
        data = run(*command, "--precision", "fp32", "--report", "r.html", "--json", "-q").json
    check_page(data, Path("r.html"))
    check_files(data, Path("r"))
