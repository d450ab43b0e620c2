"""A training run as a result: its best epoch, curves over epochs, a table of all."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from vggfeat._io.text import shorten
from vggfeat.errors import ParameterError
from vggfeat.result import Axis, Lines, Measure, Part, Result, Series, Table, TableColumn
from vggfeat.settings import Training
from vggfeat.train.data import TrainSet
from vggfeat.train.init import Start
from vggfeat.train.task import TITLES, figures_in, informative

ERRORS = ("top1", "top5")  # accuracies, which are shown as errors
NAMED = 20  # images left out that a page names
History = Sequence[Mapping[str, Any]]


def summarize_training(
    settings: Training,
    history: History,
    data: TrainSet,
    *,
    start: Start | None = None,
    finished: bool = True,
    failed: Mapping[str, str] | None = None,
    device: str = "",
    provenance: Mapping[str, Any] | None = None,
) -> Result:
    """Sum up a run that has trained for some epochs.

    Errors of classification are shares of images; of boxes it is what they are judged by.

    Parameters
    ----------
    settings : Training
    history : sequence of mapping
        One row for each epoch, as in :class:`~vggfeat.train.checkpoint.Position`.
    data : TrainSet
    start : Start, optional
        Which layers began with other weights, and which at random.
    finished : bool
        Whether the schedule has ended; a run under way says so.
    failed : mapping of name to reason, optional
        Images that could not be read.
    device : str
        Where it was trained.
    provenance : mapping, optional
        Where its weights are from and are kept, versions.

    Returns
    -------
    Result

    Raises
    ------
    ParameterError
        If there is no epoch yet.
    """
    if not history:
        expected = "the rows of one epoch at least"
        raise ParameterError.of("history", "summarize_training", expected, history)
    first, second = figures_in(history[0])
    best = max(range(len(history)), key=lambda place: float(history[place][f"val_{first}"]))
    shown = informative([first, second], len(data.classes))
    parts: list[Part] = [
        _curves("loss", "Loss", Axis("Loss"), history, best, {"loss": ""}),
        _curves(
            "figures",
            "Error" if first in ERRORS else "Overlap of boxes",
            Axis("Error" if first in ERRORS else "IoU", "percent"),
            history,
            best,
            {name: f"{_title(name)}, " for name in shown},
        ),
        _epochs(history, best, shown),
    ]
    if failed:
        columns = (TableColumn("image", "Image"), TableColumn("reason", "Reason"))
        named = tuple(failed.items())
        parts.append(Table("left_out", "Images left out", columns, named, shown=NAMED))
    speeds = [row["images_per_s"] for row in history if row["images_per_s"] is not None]
    waited = sum(float(row["waited"]) for row in history) / len(history)
    return Result(
        settings.net,
        title_of(settings) + ("" if finished else " (under way)"),
        tuple(
            Measure(
                _key(name),
                _title(name),
                _figure(name, history[best][f"val_{name}"]) if name in shown else math.nan,
            )
            for name in (first, second)
        ),
        f"in validation, central crops, best epoch {best + 1} of {len(history)}",
        tuple(parts),
        {
            "epochs": f"{len(history)} of at most {settings.epochs}",
            "batch": settings.batch,
            "learning_rate": f"{shorten(settings.learning_rate)}, {settings.schedule}",
            "training_images": len(data.train),
            "validation_images": len(data.val),
            "classes": len(data.classes),
            "device": device,
            "images_per_second": round(speeds[-1], 1) if speeds else None,
            "waited_for_images": f"{100 * waited:.1f} % of the time",
        },
        {
            "images": data.source,
            "digest_of_labels": data.digest,
            "layers_taken": list(start.taken) if start else [],
            "layers_drawn": list(start.drawn) if start else [],
            **(provenance or {}),
            "settings": settings.model_dump(mode="json"),
        },
        notes=() if finished else (f"After epoch {len(history)} the schedule had not ended.",),
    )


def title_of(settings: Training) -> str:
    """Name a run by its network and scale.

    Examples
    --------
    >>> title_of(Training(net="E", S=(256, 512)))
    'Net E, S ∈ [256; 512]'
    """
    S = settings.S
    return f"Net {settings.net}, S {f'= {S}' if isinstance(S, int) else f'∈ [{S[0]}; {S[1]}]'}"


def describe_figure(name: str, accuracy: float) -> str:
    """Write a figure of a run in the words and the sense of its page.

    Examples
    --------
    >>> describe_figure("top1", 0.875), describe_figure("iou", 0.5)
    ('top-1 error 12.5 %', 'mean IoU 50.0 %')
    """
    return f"{_title(name)} {100 * _figure(name, accuracy):.1f} %"


def _title(name: str) -> str:
    title = TITLES.get(name, name)
    return f"{title} error" if name in ERRORS else title


def _key(name: str) -> str:
    return f"{name}_error" if name in ERRORS else name


def _figure(name: str, value: float) -> float:
    """Turn an accuracy into an error, and leave others as they are."""
    return 1 - float(value) if name in ERRORS else float(value)


def _epochs(history: History, best: int, shown: Sequence[str]) -> Table:
    columns = [
        TableColumn("epoch", "Epoch", "int"),
        TableColumn("learning_rate", "Rate", "number"),
        TableColumn("loss", "Loss", "number"),
        *(TableColumn(_key(n), _title(n).capitalize(), "percent", detail=True) for n in shown),
        TableColumn("val_loss", "Val. loss", "number"),
        *(TableColumn(f"val_{_key(name)}", f"Val. {_title(name)}", "percent") for name in shown),
        TableColumn("images_per_s", "Images/s", "number", detail=True),
        TableColumn("waited", "Waited", "percent", detail=True),
    ]
    rows = tuple(
        (
            row["epoch"],
            row["learning_rate"],
            row["loss"],
            *(_figure(name, row[name]) for name in shown),
            row["val_loss"],
            *(_figure(name, row[f"val_{name}"]) for name in shown),
            row["images_per_s"],
            row["waited"],
        )
        for row in history
    )
    note = "The best epoch, whose weights are kept, stands out."
    return Table("epochs", "Epochs", tuple(columns), rows, note, emphasis=(best,))


def _curves(
    name: str,
    title: str,
    y: Axis,
    history: History,
    best: int,
    names: Mapping[str, str],
) -> Lines:
    """Draw figures over epochs, in validation and in training, with the drops of the rate."""
    epochs = tuple(float(row["epoch"]) for row in history)
    series = []
    for figure, lead in names.items():
        for part, words in (("val_", "validation"), ("", "training")):
            values = tuple(_figure(figure, row[f"{part}{figure}"]) for row in history)
            marks = (best,) if part else ()
            words = (lead + words)[:1].upper() + (lead + words)[1:]
            series.append(Series(words, epochs, values, marks, "line" if part else "dashed"))
    drops = [
        (float(before["epoch"]) + 0.5, shorten(after["learning_rate"]))
        for before, after in pairwise(history)
        if before["learning_rate"] != after["learning_rate"]
    ]
    note = (
        "Training is measured as it goes, with dropout and random crops; validation after each "
        "epoch, on central crops. A ring marks the best epoch."
    )
    if 2 * len(drops) > len(history):  # a rate that changes all the time has no drops
        drops = []
    if drops:
        note += " Dotted lines mark where the learning rate became what stands above them."
    x = Axis("Epoch", "int")
    return Lines(
        name, title, x, y, tuple(series), note if name == "loss" else "", events=tuple(drops),
        section="Curves",
    )  # fmt: skip
