"""Results on the terminal and as files: written for people, and unrounded for programs."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace

import pytest
from helpers.pages import read_csv
from report.results import a_result, a_table
from rich.console import Console

from vggfeat.errors import StoreError
from vggfeat.report.tables import render_result, render_table, write_csv, write_files
from vggfeat.result import Measure, Result, Table, TableColumn


def printed(shown, width=100):
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(shown)
    return console.export_text()


def test_the_headline_is_the_last_line_and_the_paper_stands_above_it():
    lines = printed(render_result(a_result())).splitlines()
    assert lines[-1].strip() == "Mean class recall 62.5 ± 1.3 %  (over 2 random splits)"
    assert any(line.split()[:3] == ["D", "(Table", "11)"] for line in lines)
    assert any("−29.3" in line for line in lines)  # 62.51 − 91.8
    assert not any("All images" in line for line in lines)  # shown = 0


def test_partial_results_warnings_and_failures_are_told():
    result = a_result(partial=("owl is missing",), notes=("C at the edge",), failed="no weights")
    text = printed(render_result(result))
    assert all(words in text for words in ("owl is missing", "C at the edge", "no weights"))
    assert "−29.3" not in text


def test_a_value_that_is_none_is_a_dash_and_a_bar_is_as_long_as_its_share():
    lines = [line.split() for line in printed(render_table(a_table())).splitlines()]
    assert lines[2][:3] == ["cat", "75.0", "█" * 18]
    assert lines[3][:3] == ["dog", "50.0", "█" * 12]
    assert lines[4] == ["owl", "–", "–", "0"]


def test_a_table_shows_the_rows_that_it_should():
    text = printed(render_table(replace(a_table(), shown=1)))
    assert "cat" in text
    assert "dog" not in text
    assert "and 2 more rows" in text


def test_names_with_markup_and_control_characters_are_shown_as_they_are():
    table = Table("t", "[red]", (TableColumn("a", "A"),), (("[bold]\x1b[2J\u202e",),))
    assert "[bold]\\x1b[2J\\u202e" in printed(render_table(table))
    assert "[red]" in printed(render_table(table))


def test_several_measures_share_the_headline():
    measures = (Measure("top1", "top-1 error", 0.25), Measure("top5", "top-5 error", float("nan")))
    text = printed(render_result(Result("x", "X", measures)))
    assert text.strip() == "Top-1 error 25.0 %, top-5 error –"


def test_files_hold_every_value_unrounded(tmp_path):
    """Of tables, and of lines and matrices."""
    result = a_result()
    written = write_files(result, folder := tmp_path / "new")
    names = ["confusion", "validation", "grid", "curves", "classes", "all"]
    assert [path.name for path in written] == [*(f"{name}.csv" for name in names), "result.json"]
    data = json.loads((folder / "result.json").read_text())
    assert data == json.loads(json.dumps(result.to_dict()))
    rows = read_csv(folder / "classes.csv")
    assert [row["recall"] for row in rows] == ["0.75", "0.5", ""]
    assert [row["tested"] for row in rows] == ["4", "6", "0"]
    curve = [row for row in read_csv(folder / "curves.csv") if row["series"] == "cat"]
    assert [row["x"] for row in curve] == ["0.0", "0.5", "1.0"]
    assert [row["y"] for row in curve] == ["1.0", "1.0", "0.5"]
    row = {"row": "dog", "cat": "1", "dog": "9", "owl": "0"}
    assert read_csv(folder / "confusion.csv")[1] == row


def test_tables_that_an_earlier_result_had_alone_go(tmp_path):
    write_files(a_result(), tmp_path)
    (tmp_path / "mine.csv").write_text("kept")
    write_files(replace(a_result(), parts=(a_table(),)), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"classes.csv", "mine.csv", "result.json"}


def test_a_csv_reads_back_to_the_last_bit_and_names_keep_their_bytes(tmp_path):
    columns = (TableColumn("image", "Image"), TableColumn("score", "Score", "number"))
    table = Table("t", "T", columns, (('a\r\n,"\udcff', 1 / 3),))
    [row] = read_csv(write_csv(table, tmp_path / "t.csv"))
    assert row["image"] == 'a\r\n,"\udcff'
    assert float(row["score"]) == 1 / 3


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError):
        write_files(a_result(), tmp_path / "file" / "below")


def test_numbers_are_not_cut_where_there_is_little_room() -> None:
    """Headings and names are broken into lines; 223 is never shown as 22."""
    names = tuple(TableColumn(name, f"A long heading {name}", "count") for name in "abcdefghij")
    row = ("a long name of an image.jpg", *(223 + place for place in range(10)))
    table = Table("x", "X", (TableColumn("image", "Image"), *names), (row,))
    out = io.StringIO()
    Console(file=out, width=80).print(render_table(table))
    assert [*map(str, row[1:])] == re.findall(r"\b2\d\d\b", out.getvalue())
