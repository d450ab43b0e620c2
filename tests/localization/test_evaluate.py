"""Errors of localisation, counted by hand and at ILSVRC's size."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from time import perf_counter
from unittest import mock

import numpy as np
import pytest
from PIL import Image

from vggfeat.data.datasets import load_card
from vggfeat.errors import ImageError
from vggfeat.localization.evaluate import _headline, _lacking, _parts, find_published
from vggfeat.localization.predict import Detection
from vggfeat.localization.protocols import BoxErrors, BoxEvaluation, ObjectResult, judge_object
from vggfeat.recipes import open_recipe
from vggfeat.report.page import write_page
from vggfeat.result import Gallery, Result

ILSVRC = tuple(load_card("ilsvrc2012").classes)
TRUTH = np.array([[0.0, 0, 10, 10]])
RIGHT, HALF, WRONG = ([0.0, 0, 10, bottom] for bottom in (9.0, 5.0, 4.0))


def judged(
    label: int,
    rank: int,
    boxes: tuple[list[float], ...],
    name: str = "a",
    truths: np.ndarray = TRUTH,
) -> ObjectResult:
    """Judge an object of its boxes: central, merged, single."""
    central, merged, single = map(np.array, boxes)
    detection = Detection(label, 0.5, merged, 1.0, 2, 3, single)
    return judge_object(name, label, truths, central, detection)._replace(rank=rank, first=label)


def test_errors_by_hand() -> None:
    """Four objects of two classes, none of a third; half an overlap is wrong."""
    objects = (
        judged(0, 0, (RIGHT, RIGHT, WRONG)),
        judged(0, 1, (HALF, RIGHT, RIGHT)),
        judged(0, 2, (RIGHT, RIGHT, RIGHT), "b"),
        judged(1, 0, (WRONG, WRONG, RIGHT), "c"),
    )
    evaluation = BoxEvaluation(("bus", "cat", "dog"), objects, True, 2)
    np.testing.assert_allclose(evaluation.ious[:2], [[0.9, 0.9, 0.4], [0.5, 0.9, 0.9]])
    assert evaluation.errors(0) == pytest.approx((1 / 3, 2 / 3, 1 / 3, 0, 1, 2 / 3, 1 / 3, 3))
    assert evaluation.errors(1) == BoxErrors(1, 1, 1, 1, 0, 0, 0, 1)
    assert evaluation.errors() == BoxErrors(0.5, 0.75, 0.5, 0.25, 0.75, 0.5, 0.25, 4)
    assert evaluation.errors(2).objects == 0
    assert np.isnan(evaluation.errors(2)[:-1]).all()
    central = BoxEvaluation(evaluation.classes, objects, False, 2)
    assert central.errors().central == 0.5
    assert np.isnan(central.errors()[1:-1]).all()
    result = Result("x", "X", _headline(evaluation, {}), parts=_parts(evaluation, {})).to_dict()
    assert result["measures"]["top2"]["value"] == 0.5
    assert result["tables"]["classes"][2]["top2"] is None
    assert "top5" not in {*result["measures"], *result["tables"]["classes"][2]}
    assert [row["objects"] for row in result["tables"]["classes"]] == [3, 1, 0]
    shares = [row["box_iou"] for row in result["tables"]["objects"]]
    assert shares == pytest.approx([0.9, 0.9, 0.9, 0.4])


def test_any_true_box_counts() -> None:
    """The best overlap with one of several; of protocol 1 alone there is one box."""
    beside = np.array([[50.0, 50, 60, 60], [0.0, 0, 10, 10], [80.0, 0, 90, 9]])
    boxes = (RIGHT, HALF, [80.0, 0, 90, 9])
    assert judged(0, 0, boxes, truths=beside).ious == pytest.approx((0.9, 0.5, 1))
    assert judged(0, 0, boxes).ious == pytest.approx((0.9, 0.5, 0))
    assert judge_object("a", 0, TRUTH, np.array(RIGHT)).ious == pytest.approx((0.9, 0, 0))


def evaluation_of(
    classes: tuple[str, ...], each: int, *, dense: bool = True, kept: int = 0
) -> BoxEvaluation:
    """Make so many objects of each class; of class c the first c % (each + 1) are wrong."""
    rng, truth = np.random.default_rng(0), np.array([[20.0, 10, 80, 60]])
    objects = []
    for label in range(len(classes)):
        for k in range(each):
            wrong = k < label % (each + 1)
            box, single = truth[0] + 40 * wrong, truth[0] + rng.integers(0, 40)
            found = Detection(label, 0.5, box, rng.random(), 9, 3, single) if dense else None
            ious, name = (0.1, 0.1, 0.5) if wrong else (1.0, 1.0, 0.5), f"{label}/{k}.jpg"
            objects.append(ObjectResult(name, label, truth, box, ious, 0, label, found))
    windows = {k: truth + np.arange(5)[:, None] for k in range(kept)}
    return BoxEvaluation(classes, tuple(objects), dense, 5, {}, windows)


def test_errors_at_ilsvrcs_size_take_no_time() -> None:
    """50,000 objects and 1,000 classes, each asked for; the sum over classes is that over all."""
    evaluation = evaluation_of(ILSVRC, 50)
    start = perf_counter()
    every = [evaluation.errors(label) for label in range(1000)]
    assert perf_counter() - start < 3
    assert sum(errors.objects for errors in every) == 50_000
    np.testing.assert_allclose(np.mean(every, axis=0)[:-1], evaluation.errors()[:-1])


def galleries(evaluation: BoxEvaluation) -> dict[str, Gallery]:
    return {part.name: part for part in _parts(evaluation, {}) if isinstance(part, Gallery)}


def test_a_page_of_a_thousand_classes_is_no_burden() -> None:
    """Sixty images at most, of the worst and best classes; the table begins with the worst."""
    evaluation = evaluation_of(ILSVRC, 4, kept=100)
    shown, table = galleries(evaluation), _parts(evaluation, {})[0]
    assert sum(len(strip.tiles) for strip in shown["examples"].strips) == 40
    assert len(shown["merging_examples"].strips) == 10
    assert (len(table.rows), table.shown) == (1000, 30)
    errors = table.column("top5")
    assert errors == sorted(errors, reverse=True)
    names = [row[0] for row in table.rows]
    assert [strip.title for strip in shown["examples"].strips] == [*names[:10], *names[-10:]]


def test_a_short_page_shows_every_class(tmp_path: Path) -> None:
    """In their order, six images of each, right and wrong ones; an image that is gone is named."""
    evaluation = evaluation_of(("cat", "dog"), 8, kept=3)
    shown = galleries(evaluation)
    strips = shown["examples"].strips
    assert [(strip.title, len(strip.tiles)) for strip in strips] == [("cat", 6), ("dog", 6)]
    assert [sum(tile.kind == "wrong" for tile in strip.tiles) for strip in strips] == [0, 1]

    def open_image(name: str) -> Image.Image:
        if name == "0/0.jpg":
            raise ImageError("gone")
        return Image.new("RGB", (100, 75), (90, 120, 150))

    parts = _parts(evaluation, {"x<y": "damaged"})
    result = Result("x", "X", _headline(evaluation, {}), parts=parts)
    page = write_page(result, tmp_path / "page.html", open_image).read_text(encoding="utf-8")
    every = [strip.tiles for gallery in shown.values() for strip in gallery.strips]
    drawn = sum(tile.image != "0/0.jpg" for tiles in every for tile in tiles)
    assert page.count("data:image/jpeg") == drawn
    assert "x&lt;y" in page


def test_only_all_of_ilsvrcs_images_compare() -> None:
    """Then there are differences, of validation; else it is said what is lacking."""
    whole, part = evaluation_of(ILSVRC, 50), evaluation_of(ILSVRC, 3)
    result = Result("x", "X", _headline(whole, find_published()))
    rows = {row["row"]: row for row in result.beside_paper().records()}
    difference = rows["Table 9: both nets"]["top5_difference"]
    assert difference == pytest.approx(whole.errors().top5 - 0.269)
    assert rows["Table 10: OverFeat"]["top5_paper"] == 0.3
    assert rows["Table 10: GoogLeNet"]["remark"] == "on test images"
    assert rows["Table 10: GoogLeNet"]["top5_difference"] is None
    [measure] = _headline(evaluation_of(ILSVRC, 3, dense=False), find_published())
    assert [figure.value for figure in measure.paper] == pytest.approx([0.364, 0.343, 0.331])
    assert _lacking(whole, 50_000, 50_000, {}, True) == ()
    limited, lacking = _lacking(part, 3_000, 50_000, {}, True)
    assert "3,000 of 50,000 objects (--limit)" in limited
    assert "3,000 of 50,000 validation images" in lacking


def test_two_systems_of_one_error_are_two_lines() -> None:
    """Equal figures of other nets are lines of their own; the same nets in two tables are one."""
    names = ("table09-localisation", "table10-state-of-the-art")
    recipes = {name: open_recipe(name) for name in names}
    rows = tuple(row.model_copy(update={"paper": 26.9}) for row in recipes[names[0]].rows)
    recipes[names[0]] = recipes[names[0]].model_copy(update={"rows": rows})
    where = "vggfeat.localization.evaluate"
    with (
        mock.patch(f"{where}.recipe_names", return_value=list(recipes)),
        mock.patch(f"{where}.open_recipe", recipes.__getitem__),
    ):
        lines = [line.name for line in find_published()["top5"]]
    assert [line for line in lines if "Table 9" in line] == [f"Table 9: {row.name}" for row in rows]
    assert "Table 10: 2 nets" not in lines


def test_what_was_left_out_is_named() -> None:
    """Whether its boxes could not be placed or it could not be tested, with two objects in it."""
    failed = {f"{k}.jpg": "gone" for k in range(30)}
    evaluation = replace(evaluation_of(("cat", "dog"), 3), failed=failed)
    left_out = {"a": "damaged"}
    unplaced, untested = _lacking(evaluation, 66, 66, left_out, False)
    assert "1 image left out" in unplaced
    assert "30 images left out" in untested
    [table] = [part for part in _parts(evaluation, left_out) if part.name == "left_out"]
    assert (len(table.rows), table.shown) == (31, 20)


def test_a_label_that_is_not_localised_is_no_name() -> None:
    """Where the classification system's first label is of another class, the caption says so."""
    evaluation = evaluation_of(("cat", "dog"), 1)
    objects = (evaluation.objects[0], evaluation.objects[1]._replace(rank=3))
    strips = galleries(replace(evaluation, objects=objects))["examples"].strips
    assert "taken for another class first, for dog in place 4" in strips[1].tiles[0].caption
