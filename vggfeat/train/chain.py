"""Chains of training runs, each of which begins from the weights of another (Section 3.1)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from vggfeat.errors import StoreError
from vggfeat.nets.weights import Weights, load
from vggfeat.recipes.networks import BEST
from vggfeat.recipes.training import ChainRun, TrainingRecipe
from vggfeat.settings import Training
from vggfeat.train.checkpoint import LAST, differences, read
from vggfeat.train.data import TrainSet
from vggfeat.train.loop import TrainingResult, finished, train


class Linked(NamedTuple):
    """What a link came to.

    Parameters
    ----------
    run : ChainRun
    out : Path
        Its folder.
    history : list of dict
        One row for each epoch.
    skipped : bool
        Whether it was there already.
    """

    run: ChainRun
    out: Path
    history: list[dict[str, Any]]
    skipped: bool

    @property
    def best(self) -> dict[str, Any]:
        """The epoch whose weights were kept: the first of the highest validation accuracy."""
        return max(self.history, key=lambda row: float(row["val_top1"]))


class Trainer(Protocol):
    """What trains a link: :func:`~vggfeat.train.loop.train`, or something around it."""

    def __call__(
        self,
        settings: Training,
        data: TrainSet,
        out: Path,
        *,
        weights: Weights | None,
        resume: bool,
    ) -> TrainingResult:
        """Train, going on where an interrupted run stopped."""


def train_chain(
    chain: TrainingRecipe, data: TrainSet, out: Path, *, trainer: Trainer = train
) -> Iterator[Linked]:
    """Train what is not trained yet, link by link; one that was interrupted goes on.

    A link is trained when its schedule has ended, on the same images, with the same settings,
    from the same weights.

    Parameters
    ----------
    chain : TrainingRecipe
    data : TrainSet
        As from :func:`~vggfeat.train.data.open_trainset`.
    out : Path
        Every link has a folder in it, of its name. Chains that share links can share it.
    trainer : callable, optional
        What trains a link; :func:`~vggfeat.train.loop.train` by default.

    Yields
    ------
    Linked
        After each link.

    Raises
    ------
    StoreError
        If a link's folder holds a run on other images, with other settings or from other
        weights, or the weights of a trained link are gone.
    VggfeatError
        If training diverges; all checkpoints are intact.
    """
    nets = {run.name: run.settings.net for run in chain.runs()}
    for run in chain.runs():
        folder = out / run.name
        weights = None
        if run.origin:
            weights = load(out / run.origin / BEST, nets[run.origin], ["fc8"])
        history = trained(folder, run.settings, data, weights)
        skipped = history is not None
        if history is None:
            done = trainer(run.settings, data, folder, weights=weights, resume=True)
            history = done.history
        if not (folder / BEST).is_file():
            raise StoreError(
                f"{run.name} is trained, but its weights, {folder / BEST}, are gone. Put them "
                f"back, or delete {folder} to train it again."
            )
        yield Linked(run, folder, history, skipped)


def trained(
    out: Path, settings: Training, data: TrainSet, weights: Weights | None
) -> list[dict[str, Any]] | None:
    """Return the epochs of a run that has ended; None if it is still to train.

    A run of something else is still to train: training then refuses it, and says what differs.
    """
    if not (out / LAST).is_file():
        return None
    position, known = read(out / LAST)
    facts = {
        "settings": settings.model_dump(mode="json"),
        "data": data.digest,
        "weights": weights.sha256 if weights else "",
    }
    if differences(known, facts) or not finished(settings, position):
        return None
    return position.history
