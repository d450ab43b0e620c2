"""A training run as one HTML page: curves, epochs, settings; no network, no script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from vggfeat._io.atomic import make_folder, write_atomic
from vggfeat.errors import ParameterError
from vggfeat.report.svm_page import environment
from vggfeat.report.training_curves import Line, Plot, plot
from vggfeat.report.words import percent
from vggfeat.settings import Training
from vggfeat.train.task import TITLES, figures_in

Rows = Sequence[Mapping[str, Any]]
TOP = 5  # with no more classes than that, the top-5 error is 0


def write_training_page(
    target: Path,
    settings: Training,
    history: Rows,
    *,
    classes: int,
    finished: bool,
    taken: Sequence[str] = (),
    drawn: Sequence[str] = (),
    run: Mapping[str, object],
    provenance: Mapping[str, object],
    failed: Mapping[str, str] | None = None,
) -> Path:
    """Write the page of a run that has trained for some epochs, whole or not at all.

    Parameters
    ----------
    target : Path
        The page; its folder is made.
    settings : Training
    history : sequence of mapping
        One row for each epoch, as in :class:`~vggfeat.train.checkpoint.Position`.
    classes : int
        How many the network tells apart.
    finished : bool
        Whether the schedule has ended; a page of a run under way says so.
    taken, drawn : sequence of str
        Layers that began with other weights, and at random.
    run : mapping
        What a reader asks for first beside the settings: data, device.
    provenance : mapping
        Versions, digests.
    failed : mapping of name to reason, optional
        Images that could not be read.

    Returns
    -------
    Path
        ``target``.

    Raises
    ------
    ParameterError
        If there is no epoch yet.
    StoreError
        If the disk is full or the folder may not be written.
    """
    if not history:
        expected = "the rows of one epoch at least"
        raise ParameterError.of("history", "write_training_page", expected, history)
    first, second = figures_in(history[0])
    best = max(history, key=lambda row: float(row[f"val_{first}"]))
    # Among five classes or fewer nothing is ever outside of the five best.
    shown = [first] if second == "top5" and classes <= TOP else [first, second]
    context = {
        "title": title_of(settings),
        "best": best,
        "figures": [(name, TITLES.get(name, name)) for name in shown],
        "finished": finished,
        "history": history,
        "settings": settings.model_dump(),
        "run": _first(settings, history, best) | dict(run),
        "loss": _loss(history, best),
        "errors": _errors(history, best, shown),
        "drops": _drops(history),
        "taken": list(taken),
        "drawn": list(drawn),
        "provenance": provenance,
        "failed": dict(failed or {}),
    }
    page = environment().get_template("training.html.j2").render(context)
    make_folder(target.parent)
    write_atomic(target, page.encode())
    return target


def title_of(settings: Training) -> str:
    """Name a run by its network and scale.

    Examples
    --------
    >>> title_of(Training(net="E", S=(256, 512)))
    'Net E, S ∈ [256; 512]'
    """
    S = settings.S
    return f"Net {settings.net}, S {f'= {S}' if isinstance(S, int) else f'∈ [{S[0]}; {S[1]}]'}"


def _first(settings: Training, history: Rows, best: Mapping[str, Any]) -> dict[str, object]:
    """Say what a reader asks for first; the speed is that of the last epoch that has one."""
    speeds = [row["images_per_s"] for row in history if row["images_per_s"] is not None]
    waited = sum(float(row["waited"]) for row in history) / len(history)
    return {
        "epochs": f"{len(history)} of at most {settings.epochs}, best {best['epoch']}",
        "batch": settings.batch,
        "learning rate": f"{settings.learning_rate:g}, {settings.schedule}",
        "speed": f"{speeds[-1]:,.{0 if speeds[-1] >= 100 else 1}f} images/s" if speeds else "–",
        "waited for images": f"{percent(waited)} % of the time",
    }


def _drops(history: Rows) -> list[tuple[int, float]]:
    """List the epochs after which the rate changed, and what it became."""
    return [
        (int(before["epoch"]), float(after["learning_rate"]))
        for before, after in pairwise(history)
        if before["learning_rate"] != after["learning_rate"]
    ]


def _loss(history: Rows, best: Mapping[str, Any]) -> Plot:
    lines = [
        Line("Training", "training", [float(row["loss"]) for row in history]),
        Line("Validation", "", [float(row["val_loss"]) for row in history]),
    ]
    return plot(lines, int(best["epoch"]), _drops(history))


def _errors(history: Rows, best: Mapping[str, Any], shown: Sequence[str]) -> Plot:
    def errors(key: str) -> list[float]:
        return [100 * (1 - float(row[key])) for row in history]

    lines = []
    for name, other in zip(shown, ("", " other"), strict=False):
        title = TITLES.get(name, name).capitalize()
        lines += [
            Line(f"{title}, training", f"training{other}", errors(name)),
            Line(f"{title}, validation", other.strip(), errors(f"val_{name}")),
        ]
    return plot(lines, int(best["epoch"]), _drops(history))
