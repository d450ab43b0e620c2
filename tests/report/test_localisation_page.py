"""The page of localisation: small enough at any size, and honest about what was tested."""

from __future__ import annotations

import re
from collections.abc import Mapping
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vggfeat.data.datasets import load_card
from vggfeat.errors import ImageError
from vggfeat.localization.judged import Judged, LocalisationResult
from vggfeat.localization.predict import Located
from vggfeat.report.localisation_page import write_localisation_page
from vggfeat.report.localisation_paper import compares, lacking, papers

ILSVRC = tuple(load_card("ilsvrc2012").classes)
TRUTH = np.array([[20.0, 10, 80, 60]])


def result_of(
    classes: tuple[str, ...], each: int, *, dense: bool = True, kept: int = 0, **told: Any
) -> LocalisationResult:
    """So many images of each class; of class c the first c % (each + 1) are wrong."""
    rng = np.random.default_rng(0)
    rows = []
    for c in range(len(classes)):
        for k in range(each):
            wrong = k < c % (each + 1)
            box = TRUTH[0] + 40 * wrong
            found = Located(c, 0.5, box, rng.random(), 9, 3, TRUTH[0] + rng.integers(0, 40))
            rows.append(Judged(f"{c}/{k}.jpg", c, TRUTH, box, 0, found if dense else None, c))
    windows = {k: TRUTH + np.arange(5)[:, None] for k in range(kept)}
    return LocalisationResult(classes, tuple(rows), dense, 5, told, {}, windows)


def page_of(result: LocalisationResult, target: Path) -> str:
    def image(name: str) -> Image.Image:
        if name == "0/0.jpg":
            raise ImageError("gone")
        return Image.new("RGB", (100, 75), (90, 120, 150))

    facts: Mapping[str, object] = {"nets": "D", "versions": "1"}
    written = write_localisation_page(
        result, target, image, title="Boxes", run=facts, provenance=facts
    )
    return written.read_text(encoding="utf-8")


def names(page: str) -> list[str]:
    """Classes of the table of errors, in its order."""
    table = page[page.index('class="recalls errors"') : page.index("</tbody>")]
    return [unescape(one) for one in re.findall(r'<tr><th scope="row">(.*?)</th>', table)]


def test_a_page_of_a_thousand_classes_is_no_burden(tmp_path: Path) -> None:
    """Sixty images at most, of the worst and best classes; the table has all, the worst first."""
    result = result_of(ILSVRC, 4, kept=100)
    page = page_of(result, tmp_path / "page.html")
    assert 50 <= page.count("data:image/jpeg") <= 60
    assert len(page) < 1_500_000
    listed = names(page)
    assert sorted(listed) == sorted(result.names)
    errors = [result.errors(result.names.index(name)).top5 for name in listed]
    assert errors == sorted(errors, reverse=True)
    assert "the worst first" in page
    assert 'class="scroll body long"' in page
    shown = re.findall(r"<h3>(.*?)</h3>", page)
    assert shown == [*listed[:10], *listed[-10:]]
    assert "some classes" in page


def test_a_short_page_shows_every_class(tmp_path: Path) -> None:
    """In their order, six images of each; one that is gone is left out."""
    page = page_of(result_of(("cat", "dog"), 8, kept=3), tmp_path / "page.html")
    assert names(page) == ["cat", "dog"]
    assert page.count("data:image/jpeg") == 2 * 6 - 1 + 2 * 2
    assert page.count("Wrong: ") == 1
    assert 'class="scroll body"' in page
    assert "Partial" not in page
    assert "other images and classes" in page
    assert ">Difference<" not in page


def test_only_all_of_ilsvrcs_images_compare(tmp_path: Path) -> None:
    """Then the page has differences, of validation; else it says what is lacking."""
    whole = result_of(ILSVRC, 50, limit=None, objects=50_000)
    assert not lacking(whole)
    assert compares(whole)
    rows = {row.name: row for row in papers(whole)}
    top5 = 100 * whole.errors().top5
    assert rows["both nets"].difference == f"{top5 - 26.9:+.1f}"
    assert rows["GoogLeNet, test"].difference == "–"
    page = page_of(whole, tmp_path / "whole.html")
    assert ">Difference<" in page
    assert "Partial" not in page
    part = result_of(ILSVRC, 3, limit=3000, objects=50_000)
    assert lacking(part) == [
        "the first 3,000 of 50,000 objects (--limit)", "3,000 of 50,000 validation images",
    ]  # fmt: skip
    page = page_of(part, tmp_path / "part.html")
    assert "the first 3,000 of 50,000 objects" in page
    assert ">Difference<" not in page
    assert {row.difference for row in papers(part)} == {"–"}


@pytest.mark.parametrize("dense", [True, False])
def test_what_was_left_out_is_named(tmp_path: Path, dense: bool) -> None:
    """Whether its boxes could not be placed or it could not be tested."""
    base = result_of(("cat", "dog"), 3, dense=dense, left_out={"x<y": "damaged"})
    failed = {f"{k}.jpg": "gone" for k in range(30)}
    result = LocalisationResult(base.classes, base.judged, dense, 2, base.settings, failed)
    page = page_of(result, tmp_path / "page.html")
    assert lacking(result) == ["1 image left out: boxes cannot be placed", "30 images left out"]
    assert "x&lt;y" in page
    assert "and 11 more" in page
    assert {row.table for row in papers(result)} == (
        {"Table 8", "Table 9", "Table 10"} if dense else {"Table 8"}
    )


def test_a_label_that_is_not_localised_is_no_name(tmp_path: Path) -> None:
    """Where the classification system's first label is of another class, the page says so."""
    base = result_of(("cat", "dog"), 1)
    rows = (base.judged[0], base.judged[1]._replace(rank=3))
    page = page_of(LocalisationResult(base.classes, rows, True, 5, {}), tmp_path / "page.html")
    assert "taken for another class first, for dog in place 4" in page
