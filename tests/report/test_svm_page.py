"""The page and the terminal: what they say, what they refuse to run, what they look up."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from vggfeat.report.charts import Series, validation_curve
from vggfeat.report.svm_page import write_page
from vggfeat.report.terminal import summary
from vggfeat.report.thumbnails import thumbnails

HOSTILE = '"><script>alert(1)</script>\n\u202e.jpg'


@pytest.fixture
def page_of(tmp_path, parsed):
    """Write a page and read it."""

    def page_of(result, images=None, **more):
        settings = {"title": "sample", "run": {"Net": "D"}, "provenance": {"torch": "2.6"}, **more}
        target = write_page(result, tmp_path / "new" / "page.html", images or {}, **settings)
        return parsed(target.read_text(encoding="utf-8"))

    return page_of


@pytest.fixture
def images(tmp_path):
    """Sixty small images with the names of the rows."""
    paths = {}
    for row in range(60):
        path = tmp_path / f"{row}.jpg"
        Image.new("RGB", (300, 200), (row, 90, 200)).save(path)
        paths[str(row)] = path
    return paths


def test_the_page_says_what_was_measured(images, page_of, recalls):
    """Headline, every class's recall and every confusion count stand in the page's text."""
    result = recalls(["bird", "boat", "bug"])
    page = page_of(result, images)
    text = re.sub(r"\s+", " ", page.text)
    assert f"{100 * result.mean_class_recall:.1f}" in text
    assert f"± {100 * result.std:.1f}" in text.replace("\xa0", " ")
    for name, recall in zip(result.class_names, result.recalls, strict=True):
        assert re.search(rf"{name}\s+{100 * recall:.1f} ±", text)
    for counts in result.confusion:
        assert "".join(map(str, counts)) in text.replace(" ", "")
    assert "torch" in text
    assert "2.6" in text


def test_the_paper_stands_beside_it(page_of, recalls):
    """Each row of the paper has its figure, its spread and how far this run is from it."""
    result = recalls(["bird", "boat", "bug"], validation=0.2)
    here = round(100 * result.mean_class_recall, 1)
    paper = [("Net D", 91.8, 1.0), ("Zeiler & Fergus", here - 1.5, None)]
    page = page_of(result, paper=paper)
    text = re.sub(r"\s+", " ", page.text)
    assert ["Net D", "", "91.8 ± 1.0", f"{here - 91.8:+.1f}".replace("-", "−")] in page.rows
    assert ["Zeiler & Fergus", "", f"{here - 1.5:.1f}", "+1.5"] in page.rows
    assert "Partial." not in text
    assert "on the 20 % of the training images that were put aside" in text


def test_a_part_of_the_data_is_not_compared(page_of, recalls):
    """A partial run says so, names what is missing, and has no difference to the paper's."""
    missing = ["boat has 3 images, not 40", "<b>bug</b> is missing"]
    page = page_of(recalls(["bird", "boat", "bug"]), paper=[("Net D", 91.8, 1.0)], partial=missing)
    text = re.sub(r"\s+", " ", page.text)
    assert "Partial." in text
    assert all(sentence in text for sentence in missing)
    assert ["Net D", "", "91.8 ± 1.0", "–"] in page.rows


def test_the_page_needs_nothing_else(images, page_of, recalls):
    """No script, no address but data: and #, and a policy that forbids the network."""
    page = page_of(recalls(["bird", "boat", "bug"]), images)
    kinds = {tag for tag, _ in page.tags}
    assert not kinds & {"script", "link", "iframe", "object", "form", "base"}
    for _, attributes in page.tags:
        for name in ("src", "href", "srcset", "action", "xlink:href"):
            if attributes.get(name):
                assert attributes[name].startswith(("data:image/jpeg;base64,", "#"))
    assert any("default-src 'none'" in (a.get("content") or "") for _, a in page.tags)


def test_images_have_alternative_texts_and_sections_names(images, page_of, recalls):
    """Every thumbnail has an alternative text, every drawing a label, every anchor its section."""
    page = page_of(recalls(["bird", "boat", "bug"]), images)
    tags = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(tags) > 24
    assert all(attributes["alt"] in images for attributes in tags)
    assert all(a.get("aria-label") for t, a in page.tags if t == "svg")
    ids = {a["id"] for _, a in page.tags if "id" in a}
    anchors = {a["href"][1:] for t, a in page.tags if t == "a"}
    assert anchors <= ids
    assert ("html", {"lang": "en"}) in page.tags


def test_hostile_names_stay_text(images, page_of, recalls):
    """Names with markup, line ends and direction marks are shown as text, everywhere."""
    classes = [HOSTILE, "<img src=x onerror=alert(1)>", "{{ 7 * 7 }}"]
    names = [f"{row}{HOSTILE}" for row in range(60)]
    lookup = dict(zip(names, images.values(), strict=True))
    result = recalls(classes, names=names)
    settings = {"title": HOSTILE, "run": {HOSTILE: HOSTILE}, "provenance": {HOSTILE: "\udcff"}}
    page = page_of(result, lookup, **settings)
    assert "script" not in {tag for tag, _ in page.tags}
    assert not any("onerror" in attributes for _, attributes in page.tags)
    assert "{{ 7 * 7 }}" in page.text
    assert "\u202e" not in page.text
    assert "\\u202e" in page.text
    alts = {attributes["alt"] for tag, attributes in page.tags if tag == "img"}
    assert next(iter(alts)).endswith('"><script>alert(1)</script>\\n\\u202e.jpg')


def test_evidence_stands_below_the_images_of_its_class(page_of, recalls, maps):
    """Each class has its map and its mistake's, with words, alternative texts and a sentence."""
    result = recalls(["bird", HOSTILE, "bug"])
    drawn = maps(result)
    page = page_of(result, evidence=drawn)
    text = re.sub(r"\s+", " ", page.text)
    images = [a for t, a in page.tags if t == "img"]
    assert len(images) == len(drawn) >= 4
    assert all("where the score of" in a["alt"] for a in images)
    assert text.count("Exact: so it is.") == 1
    assert text.count("Worst mistake:") == sum(bool(one.truth) for one in drawn.values()) >= 1
    assert "script" not in {tag for tag, _ in page.tags}
    assert "Evidence" not in page_of(result).text


def test_lost_images_are_shown_by_name(images, page_of, recalls):
    """An image that is gone, damaged or not listed leaves its name, and the page stands."""
    images["3"].unlink()
    images["4"].write_bytes(b"not an image")
    del images["5"]
    page = page_of(recalls(["bird", "boat", "bug"]), images, examples=12)
    absent = {a["aria-label"] for _, a in page.tags if a.get("class") == "absent"}
    assert absent <= {f"{row}, not available" for row in (3, 4, 5)}
    thumbnail = thumbnails(images)
    assert [thumbnail(row) is None for row in ("2", "3", "4", "5")] == [False, True, True, True]


def test_many_classes_and_no_mistakes(page_of, recalls):
    """Forty classes become a map with one cell for each count; a perfect result says so."""
    result = recalls([f"class {c}" for c in range(40)], n=160, spread=50)
    page = page_of(result)
    assert result.mean_class_recall == 1
    cells = [a for t, a in page.tags if t == "rect" and a.get("height") == "1"]
    assert len(cells) == np.count_nonzero(result.confusion)
    assert "every test image was recognised" in page.text
    assert "Mistakes" not in page.text


def test_the_curve_marks_the_choice(recalls):
    """The choice's mark lies on the curve, above or level with every other point of its split."""
    result = recalls(["bird", "boat", "bug"])
    series = [Series(split.search.overall, split.search.best) for split in result.splits]
    curve = validation_curve(result.splits[0].search.grid, series)
    for line in curve.lines:
        points = [tuple(map(float, point.split(","))) for point in line.points.split()]
        assert line.choices[0] in points
        assert line.choices[0][1] == min(y for _, y in points)
        assert all(0 <= x <= curve.width and 0 <= y <= curve.height for x, y in points)
    assert [label for _, label in curve.x_ticks] == ["0.1", "1", "10"]


def test_the_terminal_tells_the_same(recalls):
    """Headline, classes and the most frequent confusion stand on the terminal; markup is text."""
    result = recalls(["[bold]bird", "boat", "bug"])
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(summary(result))
    text = console.export_text()
    assert f"{100 * result.mean_class_recall:.1f} ± {100 * result.std:.1f} %" in text
    assert "[bold]bird" in text
    pair = result.most_confused(1)[0]
    assert f"{pair.images} of {pair.of}" in text
