"""The page and the terminal for average precisions."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from vggfeat.report.charts import pr_drawing
from vggfeat.report.svm_page import write_page
from vggfeat.report.terminal import summary
from vggfeat.svm.ap import PRCurve

NAMES = ["cat", "dog", "owl", "yak"]
HOSTILE = '"><script>alert(1)</script>\n\u202e.jpg'


@pytest.fixture
def page_of(tmp_path, parsed):
    """Write a page and read it."""

    def page_of(result, images=None, **more):
        settings = {"title": "VOC", "run": {"Net": "D"}, "provenance": {"torch": "2.6"}, **more}
        target = write_page(result, tmp_path / "page.html", images or {}, **settings)
        return parsed(target.read_text(encoding="utf-8"))

    return page_of


def squeezed(page):
    return re.sub(r"\s+", " ", page.text)


@pytest.fixture
def images(tmp_path):
    """Images with the names of the test rows."""
    paths = {}
    for row in range(80, 120):
        path = tmp_path / f"{row}.jpg"
        Image.new("RGB", (30, 20), (row, 90, 200)).save(path)
        paths[str(row)] = path
    return paths


@pytest.mark.parametrize("ap", ["ap11", "area"])
def test_the_page_says_what_was_measured(images, ap, page_of, precisions):
    """Headline, both APs of each class, its C and its positives stand in the page's text."""
    result = precisions(ap=ap)
    page = page_of(result, images, paper=[("Net D", 89.3, None)])
    text = squeezed(page)
    assert f"{100 * result.mAP:.1f}% mAP ({'11-point' if ap == 'ap11' else 'area'})" in text
    assert "over 2 of 4 classes on 40 test images" in text
    other = result.area if ap == "ap11" else result.ap11
    for c in (0, 1):
        figures = (result.per_class[c], other[c], result.validation_per_class[c])
        known = result.positives["train"][c] + result.positives["val"][c]
        row = next(cells for cells in page.rows if cells[:1] == [NAMES[c]])
        assert row[2:5] == [f"{100 * value:.1f}" for value in figures]
        assert row[5].startswith(f"{result.C[c]:g}")
        assert row[6] == f"{known} / {result.positives['test'][c]}"
    difference = f"{round(100 * result.mAP, 1) - 89.3:+.1f}".replace("-", "−")
    assert ["Net D", "", "89.3", difference] in page.rows
    assert all(warning in text for warning in result.warnings)
    assert ["yak", "", "–", "–", "–", "–"] in [row[:6] for row in page.rows]


def test_every_validation_figure_is_told_and_the_choice_marked(page_of, precisions):
    """The table has each class's figure for each C, and marks the chosen one."""
    result = precisions()
    page = page_of(result)
    chosen = [a for t, a in page.tags if t == "td" and a.get("class") == "chosen"]
    assert len(chosen) == result.searched.sum() == 3
    for c in range(3):
        assert [NAMES[c], *(f"{100 * score:.1f}" for score in result.validation[:, c])] in page.rows


def test_rankings_show_their_images(images, page_of, precisions):
    """First, worst and missed of each class are there as images, framed by their truth."""
    result = precisions()
    page = page_of(result, images, examples=6)
    figures = [a["class"].split() for t, a in page.tags if t == "figure" and "class" in a]
    tags = [a for t, a in page.tags if t == "img"]
    expected = 0
    wrong = 0
    for c in range(3):
        lists = (
            result.rankings.ranked[c][:6],
            result.rankings.worst[c][:3],
            result.rankings.missed[c][:3],
        )
        expected += sum(map(len, lists))
        wrong += sum(one.truth < 0 for ranking in lists for one in ranking)
    assert len(tags) == len(figures) == expected
    assert sum("wrong" in kinds for kinds in figures) == wrong
    assert all(a["alt"] in images for a in tags)
    assert squeezed(page).count("Missed") == 2


def test_without_test_labels_validation_is_the_headline(images, page_of, precisions):
    """Where test labels are not public there are no curves, mistakes or differences."""
    result = precisions(hidden=True, ap="area")
    page = page_of(result, images, paper=[("Net D", 89.0, None)])
    text = squeezed(page)
    assert f"{100 * result.validation_mAP:.1f}% mAP in validation" in text
    assert ["Net D", "", "89.0", "–"] in page.rows
    assert "Worst mistakes" not in text
    assert "Precision upwards" not in text
    kinds = [a["class"].split() for t, a in page.tags if t == "figure" and "class" in a]
    assert kinds == [["tile"]] * 24


def test_without_test_images_the_page_says_so(page_of, precisions):
    """Where there is no test part validation is the headline, and no image is spoken of."""
    result = precisions(untested=True, ap="area")
    page = page_of(result, paper=[("Net D", 89.0, None)])
    text = squeezed(page)
    assert f"{100 * result.validation_mAP:.1f}% mAP in validation over 3 of 4 classes" in text
    assert "there are no test images" in text
    assert not re.search("0 test images|not public|Images of each class|Not trained", text)
    assert {a["href"][1:] for t, a in page.tags if t == "a"} <= {
        a["id"] for _, a in page.tags if "id" in a
    }
    assert ["Net D", "", "89.0", "–"] in page.rows
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(summary(result))
    assert "there are no test images" in console.export_text()


@pytest.mark.parametrize("hidden", [False, True])
def test_evidence_stands_beside_the_images_of_its_class(hidden, page_of, precisions, maps):
    """Each map has its words and an alternative text; a mistake says what the image is."""
    result = precisions(hidden=hidden)
    drawn = maps(result, "Not exact, though it adds up: power 0.5.")
    page = page_of(result, evidence=drawn)
    text = squeezed(page)
    assert text.count("Evidence: the places") == text.count("power 0.5.") == 1
    assert all(one.told in text for one in drawn.values())
    alts = [a["alt"] for t, a in page.tags if t == "img"]
    assert sorted(alts) == sorted(
        f"{name}: where the score of {label} comes from" for name, label in drawn
    )
    assert text.count("Worst mistake:") == (0 if hidden else 3)
    assert "Evidence" not in squeezed(page_of(result))


def test_anchors_lead_somewhere_and_drawings_have_names(images, page_of, precisions):
    """Every link has its target, every drawing a label, and nothing is loaded from elsewhere."""
    page = page_of(precisions(), images)
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    assert {a["href"][1:] for t, a in page.tags if t == "a"} <= set(ids)
    assert all(a.get("aria-label") for t, a in page.tags if t == "svg")
    assert sum(t == "polygon" for t, _ in page.tags) == 2
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "form"}
    assert all(a["src"].startswith("data:") for t, a in page.tags if t == "img")


def test_hostile_names_stay_text(images, page_of, precisions):
    """Names of classes and images with markup are shown as text."""
    classes = [HOSTILE, "<img src=x onerror=alert(1)>", "{{ 7 * 7 }}", "yak"]
    names = [f"{row}{HOSTILE}" for row in range(120)]
    lookup = {names[int(row)]: path for row, path in images.items()}
    page = page_of(precisions(classes=classes, names=names), lookup, title=HOSTILE)
    assert "script" not in {tag for tag, _ in page.tags}
    assert not any("onerror" in attributes for _, attributes in page.tags)
    assert "{{ 7 * 7 }}" in page.text
    assert "\u202e" not in page.text


def test_a_curve_is_drawn_as_it_is():
    """Recall 1/2 at precision 1/3 and 1 at 2/4: the envelope is 1/2 throughout."""
    drawing = pr_drawing(PRCurve(np.array([0.5, 1.0]), np.array([1 / 3, 0.5])))
    assert drawing.line == "0,66.67 50,66.67 100,50"
    assert drawing.area == "0,100 0,50 50,50 100,50 100,100"
    assert pr_drawing(PRCurve(np.empty(0), np.empty(0))) is None


def test_a_long_curve_is_thinned():
    """Two thousand positives are drawn with few points, the first and the last among them."""
    recall = np.arange(1, 2001) / 2000
    drawing = pr_drawing(PRCurve(recall, 1 - recall / 2))
    points = drawing.line.split()
    assert len(points) <= 121
    assert points[-1] == "100,50"


@pytest.mark.parametrize("hidden", [False, True])
def test_the_terminal_tells_the_same(hidden, precisions):
    """Headline, classes, choices and warnings stand on the terminal."""
    result = precisions(hidden=hidden)
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(summary(result))
    text = console.export_text()
    figure = result.validation_mAP if hidden else result.mAP
    assert f"{100 * figure:.1f} %" in text
    assert ("mAP in validation" in text) == hidden
    shown = result.validation_per_class if hidden else result.per_class
    for c in (0, 1):
        assert re.search(rf"{NAMES[c]} +{100 * shown[c]:.1f}", text)
    assert all(warning in text for warning in result.warnings)
