"""The page of a training run: its figures, its curves, and what it says of a run under way."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vggfeat.errors import ParameterError
from vggfeat.report.training_curves import Line, nice_step, plot
from vggfeat.report.training_page import write_training_page
from vggfeat.settings import Training

KEYS = ("epoch", "learning_rate", "loss", "top1", "top5", "val_loss", "val_top1", "val_top5",
        "images_per_s", "waited")  # fmt: skip
HISTORY = [
    dict(zip(KEYS, row, strict=True))
    for row in (
        (1, 0.01, 6.0, 0.05, 0.20, 5.0, 0.10, 0.30, 1200.0, 0.30),
        (2, 0.01, 4.0, 0.20, 0.45, 4.5, 0.25, 0.50, None, 0.10),
        (3, 0.001, 3.0, 0.40, 0.65, 3.5, 0.40, 0.68, 1340.0, 0.05),
        (4, 0.001, 2.0, 0.50, 0.75, 3.6, 0.38, 0.69, 1350.0, 0.03),
    )
]  # fmt: skip


@pytest.fixture
def page(tmp_path: Path, parsed: Any) -> Callable[..., Any]:
    def made(history: list[dict[str, Any]] = HISTORY, **more: Any) -> Any:
        told = {
            "classes": 1000,
            "finished": True,
            "taken": ("conv1_1", "fc6"),
            "drawn": ("conv1_2",),
            "run": {"device": "CPU"},
            "provenance": {"versions": "torch 2"},
        }
        settings = Training(net="E", S=(256, 512))
        target = tmp_path / "runs" / "report.html"
        write_training_page(target, settings, history, **{**told, **more})
        return parsed(target.read_text(encoding="utf-8"))

    return made


def points_of(page: Any, which: int) -> list[tuple[float, float]]:
    lines = [attributes for tag, attributes in page.tags if tag == "polyline"]
    return [tuple(map(float, pair.split(","))) for pair in lines[which]["points"].split()]


def test_the_headline_is_the_best_epochs_error(page: Callable[..., Any]) -> None:
    """Epoch 3 was right on 40 % of the validation images, so 60.0 % error and 32.0 % top-5."""
    shown = page()
    text = " ".join(shown.text.split())
    assert "Net E, S ∈ [256; 512]" in text
    assert "60.0% top-1 error in validation, 32.0 % top-5; central crops, best epoch" in text
    assert "4 of at most 74, best 3" in text
    assert "1.35e+03 images/s" not in text
    assert "1,350 images/s" in text
    assert "12.0 % of the time" in text  # the mean of 30, 10, 5 and 3
    assert "Under way" not in text


def test_the_table_has_every_epoch(page: Callable[..., Any]) -> None:
    """Errors in percent; a dash where a resumed epoch has no speed."""
    rows = [row for row in page().rows if row and row[0] in "1234"]
    assert rows == [
        ["1", "0.01", "6.000", "95.0", "80.0", "5.000", "90.0", "70.0", "1200", "30.0 %"],
        ["2", "0.01", "4.000", "80.0", "55.0", "4.500", "75.0", "50.0", "–", "10.0 %"],
        ["3", "0.001", "3.000", "60.0", "35.0", "3.500", "60.0", "32.0", "1340", "5.0 %"],
        ["4", "0.001", "2.000", "50.0", "25.0", "3.600", "62.0", "31.0", "1350", "3.0 %"],
    ]


def test_curves_are_where_the_numbers_are(page: Callable[..., Any]) -> None:
    """Loss 6 of an axis to 6 is at the top, 2 a third from below; a drop lies between epochs."""
    shown = page()
    top, bottom, left, right = 26, 300 - 44, 48, 520 - 18
    third = (right - left) / 3
    losses = points_of(shown, 0)
    assert losses[0] == (left, top)
    assert losses[3] == pytest.approx((right, bottom - (bottom - top) / 3), abs=0.1)
    assert [x for x, _ in losses] == pytest.approx([left + i * third for i in range(4)], abs=0.1)
    top1 = points_of(shown, 3)  # validation, on an axis to 100 %
    assert top1[2][1] == pytest.approx(bottom - 0.6 * (bottom - top), abs=0.1)
    drops = [a for tag, a in shown.tags if tag == "line" and a.get("class") == "drop"]
    assert [float(drop["x1"]) for drop in drops] == pytest.approx([left + 1.5 * third] * 2, abs=0.1)
    labels = [a["aria-label"] for tag, a in shown.tags if tag == "svg" and a.get("role") == "img"]
    assert labels == [
        "Loss over 4 epochs: in validation 5.000 after the first, 3.600 after the last",
        "Error over 4 epochs: top-1 in validation 90.0 % after the first, 62.0 % after the last, "
        "60.0 % at best",
    ]


def test_a_run_under_way_says_so_and_one_epoch_is_enough(page: Callable[..., Any]) -> None:
    """The page is written from the first epoch on."""
    shown = page(HISTORY[:1], finished=False)
    assert "Under way. After epoch 1" in " ".join(shown.text.split())
    assert points_of(shown, 0) == [(275.0, 26.0)]


def test_with_five_classes_there_is_no_top_5(page: Callable[..., Any]) -> None:
    """It would be 0 for every network."""
    shown = page(classes=5)
    assert "Top-5" not in shown.text
    assert len([tag for tag, _ in shown.tags if tag == "polyline"]) == 4


def test_layers_and_unreadable_images_are_told(page: Callable[..., Any]) -> None:
    """Names are a stranger's words: they are shown, not obeyed."""
    shown = page(failed={"<b>x</b>.jpg": "truncated"})
    text = " ".join(shown.text.split())
    assert "taken from other weightsconv1_1, fc6" in text
    assert "drawn at random (glorot)conv1_2" in text
    assert "1 could not be read" in text
    assert "<b>x</b>.jpgtruncated" in text


def test_the_page_needs_nothing_but_itself(page: Callable[..., Any]) -> None:
    """No script, no address but its own anchors, and every anchor is there."""
    shown = page()
    assert not {"script", "link", "img", "iframe"} & {tag for tag, _ in shown.tags}
    anchors = {a["href"] for tag, a in shown.tags if tag == "a"}
    ids = {f"#{a['id']}" for _, a in shown.tags if "id" in a}
    assert anchors <= ids
    assert not [a for _, a in shown.tags if re.search(r"https?:", str(a))]


def test_without_an_epoch_there_is_no_page(tmp_path: Path) -> None:
    """There would be nothing to draw."""
    told = {"classes": 2, "finished": False, "run": {}, "provenance": {}}
    with pytest.raises(ParameterError, match="history"):
        write_training_page(tmp_path / "report.html", Training(), [], **told)


@pytest.mark.parametrize(
    ("highest", "step"), [(6.9, 2), (5.0, 1), (100, 20), (0.7, 0.2), (7e7, 2e7), (0, 1)]
)
def test_steps_of_an_axis_are_round(highest: float, step: float) -> None:
    """1, 2 or 5 times a power of ten, five at most up to the highest value."""
    assert nice_step(highest) == pytest.approx(step)


def test_many_epochs_have_few_ticks_and_no_points() -> None:
    """74 epochs: ticks at 1, 20, 40, 60."""
    values = [1 / (n + 1) for n in range(74)]
    made = plot([Line("a", "", values), Line("b", "", values)], best=74)
    assert [text for _, text in made.x_ticks] == ["1", "20", "40", "60"]
    assert [line.marks for line in made.lines] == [(), ()]
