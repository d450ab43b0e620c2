"""Localisation from end to end, with the shipped convolutions on shipped scenes."""

from __future__ import annotations

from pathlib import Path

import pytest

from vggfeat.ilsvrc.begin import begun
from vggfeat.ilsvrc.boxset import SAMPLE, open_boxset
from vggfeat.ilsvrc.judging import judge
from vggfeat.ilsvrc.localize import Localiser, Merging
from vggfeat.ilsvrc.outputs import Alike
from vggfeat.ilsvrc.regression import BoxRegression
from vggfeat.nets.weights import load
from vggfeat.train.loop import train
from vggfeat.train.settings import Training
from vggfeat.train.words import Engine

CLASSES = ["boat", "house"]


@pytest.mark.slow
def test_boxes_are_learnt_from_shipped_scenes(tmp_path: Path) -> None:
    """A dozen epochs find more than a box that is always the same; merging beats one window."""
    data = open_boxset(SAMPLE, classes=CLASSES)
    task = BoxRegression.on(data, "scr", 256)
    weights = begun(load("embedded", "D", ["pool5"]), task)
    settings = Training(
        net="D", S=256, batch=8, learning_rate=1e-3, epochs=12, freeze="conv", patience=6
    )
    engine = Engine(workers=0, precision="fp32")
    done = train(settings, data.trainset, tmp_path, weights=weights, task=task, engine=engine)
    assert done.history[-1]["loss"] < done.history[0]["loss"]
    assert max(row["val_iou"] for row in done.history) > done.history[0]["val_iou"]
    net = Localiser.open(tmp_path)
    some = data.test.take(range(min(24, len(data.test))))
    result = judge(
        some,
        data.classes,
        [net],
        classifier=Alike(data.classes, [0, 1]),
        scales=[[256, 320]],
        merging=Merging(threshold=0.3),
    )
    merged, single = result.shares()[:, 1:].mean(axis=0)
    assert merged >= single
