"""The page and the terminal: what they say, what they refuse to run, what they look up."""

from __future__ import annotations

import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from vggfeat.learn.protocols import evaluate, random_splits
from vggfeat.report.figures import thumbnails, validation_curve
from vggfeat.report.page import write_page
from vggfeat.report.terminal import summary

HOSTILE = '"><script>alert(1)</script>\n\u202e.jpg'


class Page(HTMLParser):
    """Tags with their attributes, and the text, as a browser would read them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        """Keep the tag."""
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        """Keep the text."""
        self.text += data


def result_of(classes, n=60, spread=0.25, names=None):
    rng = np.random.default_rng(0)
    y = np.arange(n) % len(classes)
    X = rng.random((n, 40)) + spread * rng.random((len(classes), 40))[y]
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    return evaluate(X, y, classes, random_splits(y), names=names, grid=(0.1, 1.0, 10.0))


def page_of(tmp_path, result, pictures=None, **more):
    settings = {"title": "sample", "run": {"Net": "D"}, "provenance": {"torch": "2.6"}, **more}
    target = write_page(result, tmp_path / "new" / "page.html", pictures or {}, **settings)
    return Page(target.read_text(encoding="utf-8"))


@pytest.fixture
def pictures(tmp_path):
    """Sixty small pictures with the names of the rows."""
    paths = {}
    for row in range(60):
        path = tmp_path / f"{row}.jpg"
        Image.new("RGB", (300, 200), (row, 90, 200)).save(path)
        paths[str(row)] = path
    return paths


def test_the_page_says_what_was_measured(tmp_path, pictures):
    """Headline, every class's recall and every confusion count stand in the page's text."""
    result = result_of(["bird", "boat", "bug"])
    page = page_of(tmp_path, result, pictures)
    text = re.sub(r"\s+", " ", page.text)
    assert f"{100 * result.mean_class_recall:.1f}" in text
    assert f"± {100 * result.std:.1f}" in text.replace("\xa0", " ")
    for name, recall in zip(result.class_names, result.recalls, strict=True):
        assert re.search(rf"{name}\s+{100 * recall:.1f} ±", text)
    for counts in result.confusion:
        assert "".join(map(str, counts)) in text.replace(" ", "")
    assert "torch" in text
    assert "2.6" in text


def test_the_page_needs_nothing_else(tmp_path, pictures):
    """No script, no address but data: and #, and a policy that forbids the network."""
    page = page_of(tmp_path, result_of(["bird", "boat", "bug"]), pictures)
    kinds = {tag for tag, _ in page.tags}
    assert not kinds & {"script", "link", "iframe", "object", "form", "base"}
    for _, attributes in page.tags:
        for name in ("src", "href", "srcset", "action", "xlink:href"):
            if attributes.get(name):
                assert attributes[name].startswith(("data:image/jpeg;base64,", "#"))
    assert any("default-src 'none'" in (a.get("content") or "") for _, a in page.tags)


def test_pictures_have_alternative_texts_and_sections_names(tmp_path, pictures):
    """Every thumbnail has an alternative text, every drawing a label, every anchor its section."""
    page = page_of(tmp_path, result_of(["bird", "boat", "bug"]), pictures)
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(images) > 24
    assert all(attributes["alt"] in pictures for attributes in images)
    assert all(a.get("aria-label") for t, a in page.tags if t == "svg")
    ids = {a["id"] for _, a in page.tags if "id" in a}
    anchors = {a["href"][1:] for t, a in page.tags if t == "a"}
    assert anchors <= ids
    assert ("html", {"lang": "en"}) in page.tags


def test_hostile_names_stay_text(tmp_path, pictures):
    """Names with markup, line ends and direction marks are shown as text, everywhere."""
    classes = [HOSTILE, "<img src=x onerror=alert(1)>", "{{ 7 * 7 }}"]
    names = [f"{row}{HOSTILE}" for row in range(60)]
    lookup = dict(zip(names, pictures.values(), strict=True))
    result = result_of(classes, names=names)
    settings = {"title": HOSTILE, "run": {HOSTILE: HOSTILE}, "provenance": {HOSTILE: "\udcff"}}
    page = page_of(tmp_path, result, lookup, **settings)
    assert "script" not in {tag for tag, _ in page.tags}
    assert not any("onerror" in attributes for _, attributes in page.tags)
    assert "{{ 7 * 7 }}" in page.text
    assert "\u202e" not in page.text
    assert "\\u202e" in page.text
    alts = {attributes["alt"] for tag, attributes in page.tags if tag == "img"}
    assert next(iter(alts)).endswith('"><script>alert(1)</script>\\n\\u202e.jpg')


def test_lost_pictures_are_shown_by_name(tmp_path, pictures):
    """A picture that is gone, damaged or not listed leaves its name, and the page stands."""
    pictures["3"].unlink()
    pictures["4"].write_bytes(b"not a picture")
    del pictures["5"]
    page = page_of(tmp_path, result_of(["bird", "boat", "bug"]), pictures, examples=12)
    absent = {a["aria-label"] for _, a in page.tags if a.get("class") == "absent"}
    assert absent <= {f"{row}, not available" for row in (3, 4, 5)}
    thumbnail = thumbnails(pictures)
    assert [thumbnail(row) is None for row in ("2", "3", "4", "5")] == [False, True, True, True]


def test_many_classes_and_no_mistakes(tmp_path):
    """Forty classes become a map with one cell for each count; a perfect result says so."""
    result = result_of([f"class {c}" for c in range(40)], n=160, spread=50)
    page = page_of(tmp_path, result)
    assert result.mean_class_recall == 1
    cells = [a for t, a in page.tags if t == "rect" and a.get("height") == "1"]
    assert len(cells) == np.count_nonzero(result.confusion)
    assert "every test picture was recognised" in page.text
    assert "Mistakes" not in page.text


def test_the_curve_marks_the_choice():
    """The choice's mark lies on the curve, above or level with every other point of its split."""
    curve = validation_curve(result_of(["bird", "boat", "bug"]))
    for line in curve.lines:
        points = [tuple(map(float, point.split(","))) for point in line.points.split()]
        assert line.choices[0] in points
        assert line.choices[0][1] == min(y for _, y in points)
        assert all(0 <= x <= curve.width and 0 <= y <= curve.height for x, y in points)
    assert [label for _, label in curve.x_ticks] == ["0.1", "1", "10"]


def test_the_terminal_tells_the_same():
    """Headline, classes and the most frequent confusion stand on the terminal; markup is text."""
    result = result_of(["[bold]bird", "boat", "bug"])
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(summary(result))
    text = console.export_text()
    assert f"{100 * result.mean_class_recall:.1f} ± {100 * result.std:.1f} %" in text
    assert "[bold]bird" in text
    pair = result.most_confused(1)[0]
    assert f"{pair.pictures} of {pair.of}" in text
