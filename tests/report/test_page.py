"""The page: what it says, what it draws, what it refuses to run, what it needs."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from helpers.pages import Page
from PIL import Image
from report.results import CLASSES, PAPER, a_result, a_table, some_lines

from vggfeat.errors import ImageError
from vggfeat.report.page import write_page
from vggfeat.result import Gallery, GalleryImage, Lines, Measure, Published, Result, Strip

HOSTILE = '"><script>alert(1)</script>\n\u202e.jpg'


def open_image(name):
    if name == "lost.jpg":
        raise ImageError("gone")
    return Image.new("RGB", (300, 200), (90, 120, 150))


@pytest.fixture
def page_of(tmp_path):
    """Write a page and read it."""

    def page_of(result, images=open_image):
        return Page(write_page(result, tmp_path / "new" / "page.html", images))

    return page_of


def text_of(page):
    return re.sub(r"\s+", " ", page.text.replace("\xa0", " "))


def test_the_page_says_what_was_measured(page_of):
    text = text_of(page := page_of(a_result()))
    assert "62.5± 1.3 % mean class recall over 2 random splits" in text
    assert "Pets: 62.5 ± 1.3 % mean class recall" in text
    assert ["Class", "", "Recall, %", "±", "Tested"] in page.rows
    assert ["cat", "75.0", "10.0", "4"] in page.rows
    assert ["owl", "–", "–", "0"] in page.rows
    assert "Q256, 384" in text
    assert ["seeds, splits", "0"] in page.rows


def test_the_paper_stands_beside_it(page_of):
    page = page_of(a_result())
    assert ["D (Table 11)", "62.5", "91.8", "1.0", "−29.3"] in page.rows
    assert ["Zeiler & Fergus", "62.5", "86.5", "–", "−24.0"] in page.rows
    assert "Partial." not in page.text


def test_a_part_of_the_data_is_not_compared(page_of):
    why = tuple(f"<b>{number}</b> is missing" for number in range(10))
    page = page_of(a_result(partial=why))
    assert "Partial." in page.text
    assert why[0] in text_of(page)
    assert "and 2 more" in text_of(page)
    assert ["D (Table 11)", "62.5", "91.8", "1.0", "–", "partial data"] in page.rows


def test_warnings_and_failures_are_told(page_of):
    failed = (Measure("recall", "mean class recall", float("nan"), paper=PAPER),)
    text = text_of(page_of(Result("x", "X", failed, notes=("C at the edge",), failed="no disk")))
    assert "C at the edge" in text
    assert "Failed. no disk" in text


def test_neighbours_with_one_section_share_its_heading_and_the_navigation_lists_all(page_of):
    page = page_of(a_result())
    links = [a["href"] for tag, a in page.tags if tag == "a"]
    assert links == [
        "#classes", "#confusion", "#validation", "#curves", "#ranked", "#times", "#provenance",
    ]  # fmt: skip
    sections = [a["id"] for tag, a in page.tags if tag == "section"]
    assert [f"#{name}" for name in sections] == links
    assert "All images" not in page.text


def test_the_page_needs_nothing_else(page_of):
    page = page_of(a_result((*CLASSES, *map(str, range(20)))))
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "form"}
    for _, attributes in page.tags:
        for name in ("src", "href", "srcset", "action", "xlink:href"):
            if attributes.get(name):
                assert attributes[name].startswith(("data:image/", "#"))
    assert any("default-src 'none'" in (a.get("content") or "") for _, a in page.tags)
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))


def test_drawings_and_images_are_described(page_of):
    page = page_of(a_result())
    images = [a for tag, a in page.tags if tag == "img"]
    assert [a["alt"] for a in images] == ["a.jpg", "b.jpg"]
    labels = [a["aria-label"] for t, a in page.tags if t == "svg" and a.get("role") == "img"]
    assert labels[0].startswith("Recall against C: Recall, % against C; split 1 50.0 at 0.1")
    assert len(labels) == 2
    kinds = [a["class"].split() for t, a in page.tags if t == "figure" and "class" in a]
    assert kinds == [["tile"], ["tile", "wrong"], ["tile", "difficult"]]


def absent(page):
    return [a["aria-label"] for _, a in page.tags if a.get("class") == "absent"]


def test_images_that_are_lost_are_shown_by_name(page_of):
    assert absent(page_of(a_result())) == ["lost.jpg, not available"]
    assert len(absent(page_of(a_result(), None))) == 3


def test_hostile_names_stay_text(page_of):
    classes = (HOSTILE, "<img src=x onerror=alert(1)>", "{{ 7 * 7 }}")
    lines = some_lines()
    lines = replace(lines, title=HOSTILE, series=(replace(lines.series[0], name=HOSTILE),) * 2)
    tiles = (GalleryImage(HOSTILE, HOSTILE), GalleryImage("a.jpg", HOSTILE, jpeg=b"jpeg"))
    result = a_result(classes, title=HOSTILE, settings={HOSTILE: HOSTILE}, notes=(HOSTILE,))
    gallery = Gallery("g", HOSTILE, (Strip(HOSTILE, tiles, HOSTILE),))
    parts = (*result.parts, lines, replace(lines, name="p", panels=True), gallery)
    page = page_of(replace(result, parts=parts, partial=(HOSTILE,), about="\udcff"))
    plain = page_of(a_result())
    assert {tag for tag, _ in page.tags} <= {tag for tag, _ in plain.tags}
    assert not any("onerror" in attributes for _, attributes in page.tags)
    assert "{{ 7 * 7 }}" in page.text
    assert "\u202e" not in page.text
    assert "\\u202e" in page.text


def test_long_tables_scroll_in_a_box_and_say_what_is_left_out(page_of):
    table = a_table(((0.5, 0.1, 4),) * 100, shown=40, emphasis=(2,))
    page = page_of(Result("x", "X", (), parts=(table,)))
    assert [a["class"] for t, a in page.tags if t == "div" and "tabindex" in a] == ["scroll long"]
    assert sum(row[:1] == ["cat"] for row in page.rows) == 14
    assert "The first 40 of 100; the file classes.csv has all." in text_of(page)
    assert sum(a.get("class") == "emphasis" for t, a in page.tags if t == "tr") == 1


def test_many_classes_become_a_map_and_few_a_table(page_of):
    few, many = page_of(a_result()), page_of(a_result(tuple(map(str, range(13)))))
    assert ["cat", "9", "1", "2"] in few.rows
    assert ["cat", "25.0", "50.0"] in few.rows
    assert sum("mark" in a.get("class", "") for t, a in few.tags if t == "td") == 1  # the choice
    assert not [a for t, a in few.tags if t == "image"]
    [drawn] = [a for t, a in many.tags if t == "image"]
    assert drawn["xlink:href"].startswith("data:image/png;base64,")


def test_two_measures_stand_beside_the_paper_without_bars(page_of):
    top1 = Measure("top1", "top-1 error", 0.25, paper=(Published("D", 0.244),))
    top5 = Measure("top5", "top-5 error", 0.07, paper=(Published("D", 0.072),))
    page = page_of(Result("ilsvrc", "ILSVRC", (top1, top5), "over 50,000 images"))
    assert ["D", "25.0", "24.4", "+0.6", "7.0", "7.2", "−0.2"] in page.rows
    assert "top-1 error, top-5 error 7.0 %; over 50,000 images" in text_of(page)


def test_a_page_without_anything_stands(page_of):
    lines = Lines("l", "L", some_lines().x, some_lines().y, ())
    assert "X" in page_of(Result("x", "X", (), parts=(lines,))).text


@pytest.mark.parametrize(("classes", "hint"), [(CLASSES, False), (tuple("abcdefgh"), True)])
def test_a_wide_matrix_says_that_it_scrolls(page_of, classes, hint):
    """On a telephone, where the style sheet shows it, the bar alone is easily missed."""
    page = page_of(a_result(classes))
    hints = [given for tag, given in page.tags if "sideways" in (given.get("class") or "")]
    assert bool(hints) == hint
