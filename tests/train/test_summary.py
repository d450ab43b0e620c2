"""A training run as a result: errors, the best epoch, what a run under way says of itself."""

from __future__ import annotations

from io import StringIO
from typing import Any

import numpy as np
import pytest
from helpers.mistakes import refuses
from rich.console import Console

from vggfeat.errors import ParameterError
from vggfeat.report.tables import render_table
from vggfeat.result import Result
from vggfeat.settings import Training
from vggfeat.train.summary import summarize_training

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
]


class Data:
    """So many classes and images, of which nothing is read."""

    source, digest = "photos", "ab" * 32

    def __init__(self, classes: int) -> None:
        self.classes = tuple(map(str, range(classes)))
        self.train, self.val = np.zeros(8), np.zeros(2)


def summary(history: list[dict[str, Any]] = HISTORY, classes: int = 1000, **more: Any) -> Result:
    settings = Training(net="E", S=(256, 512))
    return summarize_training(settings, history, Data(classes), **more)  # type: ignore[arg-type]


def test_a_run_by_hand() -> None:
    """Epoch 3 was right on 40 % of the validation images: 60 % error, 32 % top-5."""
    result = summary(failed={"a.jpg": "truncated"})
    errors = {measure.name: measure.value for measure in result.headline}
    assert errors == {"top1_error": pytest.approx(0.6), "top5_error": pytest.approx(0.32)}
    assert result.about.endswith("best epoch 3 of 4")
    assert result.title == "Net E, S ∈ [256; 512]"
    assert result.settings["waited_for_images"] == "12.0 % of the time"  # of 30, 10, 5 and 3
    assert result.settings["images_per_second"] == 1350
    assert result.tables["left_out"].records() == [{"image": "a.jpg", "reason": "truncated"}]
    table, figures = result.tables["epochs"], result.figures
    assert table.emphasis == (2,)
    assert table.column("epoch") == [1, 2, 3, 4]
    assert table.column("val_top5_error") == pytest.approx([0.7, 0.5, 0.32, 0.31])
    assert table.column("images_per_s")[1] is None
    assert [line.name for line in figures["figures"].series] == [
        f"{error}, {part}"
        for error in ("Top-1 error", "Top-5 error")
        for part in ("validation", "training")
    ]
    assert [line.marks for line in figures["loss"].series] == [(2,), ()]
    assert figures["loss"].series[1].y == (6.0, 4.0, 3.0, 2.0)
    assert figures["loss"].events == ((2.5, "0.001"),)


def test_a_run_under_way_says_so_and_one_epoch_is_enough() -> None:
    result = summary(HISTORY[:1], finished=False)
    assert "under way" in result.title
    assert "epoch 1" in result.notes[0]
    assert not summary().notes
    assert "left_out" not in summary().tables
    refuses(lambda: summary([]), ParameterError, ["history"])


def test_with_five_classes_there_is_no_top_5_error() -> None:
    """It would be 0 for every network."""
    result = summary(classes=5)
    assert result.to_dict()["measures"]["top5_error"]["value"] is None
    assert "val_top5_error" not in [column.name for column in result.tables["epochs"].columns]
    assert len(result.figures["figures"].series) == 2


def test_of_boxes_it_is_the_overlap_that_counts() -> None:
    keys = [key.replace("top1", "iou").replace("top5", "iou50") for key in KEYS]
    renamed = [dict(zip(keys, row.values(), strict=True)) for row in HISTORY]
    result = summary(renamed, classes=2)
    assert [(one.name, one.value) for one in result.headline] == [("iou", 0.4), ("iou50", 0.68)]
    assert result.tables["epochs"].column("val_iou") == [0.1, 0.25, 0.4, 0.38]


def test_epochs_are_whole_at_80_columns() -> None:
    """The terminal has what decides, every word of it; page, CSV and JSON have the rest as well."""
    table = summary().tables["epochs"]
    console = Console(width=80, color_system=None, file=StringIO())
    console.print(render_table(table))
    shown = console.file.getvalue()
    assert "…" not in shown
    assert all(heading in shown for heading in ("Rate", "Loss", "Val. top-1 error, %"))
    assert len(set(map(len, map(str.rstrip, shown.splitlines()[1:])))) == 1
    assert {"top1_error", "images_per_s", "waited"} <= set(table.records()[0])
