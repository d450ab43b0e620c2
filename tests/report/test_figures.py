"""Drawings: points are where the values are, colours are the page's."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from report.results import a_result, some_lines

from vggfeat.report.figures import draw_heat_map, draw_lines, draw_panel
from vggfeat.result import Axis, Lines, Series


def points_of(svg):
    """Corners of each series, in the units of the drawing."""
    groups = re.findall(r'<g class="series"><title>(.*?)</title>.*?<path d="(.*?)"', svg)
    return {
        name: [tuple(map(float, point)) for point in re.findall(r"[ML] ([\d.]+) ([\d.]+)", path)]
        for name, path in groups
    }


def test_a_line_goes_through_its_values():
    points = points_of(draw_lines(some_lines()))
    (x0, y0), (x1, y1), (x2, y2) = points["split 1"]
    assert x1 - x0 == pytest.approx(x2 - x1)  # decades of C are equally far apart
    assert (y0 - y1) == pytest.approx(2 * (y2 - y1), abs=0.01)  # 50, 70, 60: upwards is less y
    assert points["split 2"][0][1] > y0
    assert len(points["&lt;dog&gt;"]) == 2  # no line where there is no value


def test_colours_are_those_of_the_page():
    svg = draw_lines(some_lines(events=((1.0, "$x"),)))
    assert not re.search(r"#[0-9a-f]{6}", re.sub(r"#[mp][0-9a-f]{10}", "", svg))
    assert {"var(--line1)", "var(--soft)", "var(--page)"} <= set(re.findall(r"var\(.*?\)", svg))
    assert "$x" in svg


def test_the_same_lines_are_the_same_text():
    assert draw_lines(some_lines()) == draw_lines(some_lines())
    assert "20" + "26" not in draw_lines(some_lines())  # no date


def test_a_panel_names_its_axes():
    lines = Lines("pr", "PR", Axis("Recall"), Axis("Precision"), (Series("cat", (0, 1), (1, 0)),))
    assert re.findall(r"<text[^>]*>(\w+)</text>", draw_panel(lines, 0)) == ["Recall", "Precision"]


def test_ticks_have_neither_exponents_nor_hyphens():
    line = Series("loss", (1e-5, 1000.0), (-0.2, 0.2))
    lines = Lines("l", "L", Axis("C", log=True), Axis("Gain", "percent"), (line,))
    ticks = re.findall(r"<text[^>]*>([^<]+)</text>", draw_lines(lines))
    assert {"10⁻⁵", "1,000", "−20"} <= set(ticks)
    assert not [tick for tick in ticks if "e" in tick.replace("Gain", "") or "-" in tick]


@pytest.mark.parametrize("points", [3, 100_000])
def test_a_panel_is_a_square_from_0_to_1(points):
    """A curve of many points is thinned to what is seen."""
    x = tuple(k / (points - 1) for k in range(points))
    curve = Series("cat", x, tuple(1 - value for value in x))
    lines = Lines("pr", "PR", Axis("Recall"), Axis("Precision"), (curve, Series("owl", (), ())))
    svg = draw_panel(lines, 0)
    (x0, y0), *_, (x1, y1) = points_of(svg)["cat"]
    assert (x1 - x0, y1 - y0) == pytest.approx((98, 98), abs=1)
    assert len(svg) < 50_000
    assert draw_panel(lines, 1) == ""


def test_a_heat_map_names_its_classes_as_they_are():
    matrix = a_result(("$cat$", *map(str, range(12)))).figures["confusion"]
    assert "$cat$" in draw_heat_map(matrix)
    many = replace(matrix, rows=tuple(map(str, range(100))), columns=tuple(map(str, range(100))),
                   values=((1.0,) * 100,) * 100)  # fmt: skip
    assert draw_heat_map(many).count("<text") == 2  # the titles of its axes
