"""What the protocols of linear SVMs measure, on the terminal, on the page and in files."""

from __future__ import annotations

import csv
import io

import pytest
from PIL import Image
from rich.console import Console

from vggfeat.report.page import write_page
from vggfeat.report.tables import render_result, write_files

CLASSES = ["bird", "boat, small", '"bug"']
TABLES = {
    "recalls": ["classes", "confused", "splits", "validation", "ranked", "mistakes"],
    "precisions": ["classes", "validation", "rankings"],
}


@pytest.fixture(params=[*TABLES, "hidden", "untested"])
def result(request, recalls, precisions):
    """Give a result of each kind, also of test labels or images that are not there."""
    if request.param == "recalls":
        return recalls(CLASSES)
    return precisions(**{} if request.param == "precisions" else {request.param: True})


def read(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_pages_show_every_class_image_and_drawing(result, tmp_path, parsed):
    """Classes, headline and galleries are on the page, whose curves are drawings with names."""

    def open_image(name):
        return Image.new("RGB", (30, 20), (int(name), 90, 200))

    page = parsed(write_page(result, tmp_path / "page.html", open_image).read_text("utf-8"))
    first = [row[0] for row in page.rows if row]
    for label in result.tables["classes"].column("class"):
        assert label in first
    value = result.headline[0].value
    assert f"{100 * value:.1f}" in page.text
    galleries = [part for part in result.parts if type(part).__name__ == "Gallery"]
    tiles = sum(len(strip.tiles) for gallery in galleries for strip in gallery.strips)
    assert sum(tag == "img" for tag, _ in page.tags) == tiles
    assert sum(tag == "svg" for tag, _ in page.tags) >= 1


@pytest.mark.parametrize("width", [80, 160])
def test_the_terminal_has_classes_and_headline(result, width):
    """A row for each class and, last, the figure that counts, on a narrow terminal, too."""
    out = io.StringIO()
    Console(file=out, width=width, color_system=None).print(render_result(result))
    lines = out.getvalue().splitlines()
    for label in result.tables["classes"].column("class"):
        assert any(line.startswith(label) for line in lines)
    assert "…" not in out.getvalue().replace(" … ", " to ")
    last = " ".join(lines[-2:])
    assert f"{100 * result.headline[0].value:.1f}" in last


FIGURES = {"recalls": {"confusion"}, "precisions": {"choice", "curves", "validation"}}


def test_files_read_back(tmp_path, recalls, precisions):
    """Every table is a CSV file, whose figures are those of the result to the last bit."""
    for kind, result in (("recalls", recalls(CLASSES)), ("precisions", precisions())):
        write_files(result, tmp_path / kind)
        names = {path.stem for path in (tmp_path / kind).glob("*.csv")}
        assert names == {*TABLES[kind], *FIGURES[kind]}
        for table in result.tables.values():
            rows = read(tmp_path / kind / f"{table.name}.csv")
            for column in table.columns:
                cells = ["" if v is None else v for v in (r[column.name] for r in table.records())]
                assert [row[column.name] for row in rows] == list(map(str, cells))
