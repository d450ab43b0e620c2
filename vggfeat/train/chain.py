"""Chains of training runs, each of which begins from the weights of another (Section 3.1)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, Protocol, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from vggfeat.errors import StoreError
from vggfeat.nets.config import layers_of
from vggfeat.nets.weights import Weights, load
from vggfeat.settings import Training
from vggfeat.train.checkpoint import BEST, LAST, differences, read
from vggfeat.train.data import TrainSet
from vggfeat.train.init import DEEPER

if TYPE_CHECKING:
    from vggfeat.train.loop import TrainingResult

Percent = Annotated[float, Field(ge=0, le=100)]


class ChainLink(BaseModel):
    """A run of a chain, as its recipe writes it.

    Parameters
    ----------
    name : str
        Of its folder.
    from : str, optional
        The link before it that it begins from; without one its layers are drawn at random.
    training : dict
        Settings of :class:`~vggfeat.settings.Training` that are not the chain's.
    paper : (float, float), optional
        Top-1 and top-5 error of Table 3, in percent.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    origin: str = Field(default="", alias="from")
    training: dict[str, Any] = {}
    paper: tuple[Percent, Percent] | None = None


class ChainRun(NamedTuple):
    """A link with all of its settings."""

    name: str
    origin: str
    settings: Training
    paper: tuple[float, float] | None


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


class Chain(BaseModel):
    """A recipe that trains networks one after another.

    Parameters
    ----------
    name : str
        The file's name, without its suffix.
    title : str
        What it trains.
    training : dict
        Settings that all links share; the paper's where nothing is said.
    links : tuple of ChainLink
        In order.

    Examples
    --------
    >>> chain = Chain(links=[
    ...     {"name": "a-256"},
    ...     {"name": "e-256", "from": "a-256", "training": {"net": "E"}},
    ... ])
    >>> [(run.settings.net, run.settings.S, run.origin) for run in chain.runs()]
    [('A', 256, ''), ('E', 256, 'a-256')]
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = ""
    title: str = ""
    training: dict[str, Any] = {}
    links: tuple[ChainLink, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _holds(self) -> Self:
        # All at once, since a wrong last link would otherwise be found after weeks.
        nets: dict[str, str] = {}
        for run in self.runs():
            net = run.settings.net
            layers_of(net)  # which refuses a net that there is not
            if run.name in nets:
                raise ValueError(f"two links are called {run.name!r}")
            if run.origin and run.origin not in nets:
                raise ValueError(f"{run.name} begins from {run.origin!r}, which is no link before")
            before = nets.get(run.origin, net)
            if before != net and not (before == "A" and net in DEEPER):
                raise ValueError(f"{run.name} is net {net}, which cannot begin from net {before}")
            nets[run.name] = net
        return self

    def runs(self) -> list[ChainRun]:
        """Return the links, each with all of its settings."""
        return [
            ChainRun(
                link.name, link.origin, Training(**{**self.training, **link.training}), link.paper
            )
            for link in self.links
        ]


def train_chain(
    chain: Chain, data: TrainSet, out: Path, *, trainer: Trainer | None = None
) -> Iterator[Linked]:
    """Train what is not trained yet, link by link; one that was interrupted goes on.

    A link is trained when its schedule has ended, on the same images, with the same settings,
    from the same weights.

    Parameters
    ----------
    chain : Chain
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
    if trainer is None:
        # Who reads a recipe, or describes images, loads no training.
        from vggfeat.train.loop import train

        trainer = train
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
    from vggfeat.train.loop import finished

    position, known = read(out / LAST)
    facts = {
        "settings": settings.model_dump(mode="json"),
        "data": data.digest,
        "weights": weights.sha256 if weights else "",
    }
    if differences(known, facts) or not finished(settings, position):
        return None
    return position.history
