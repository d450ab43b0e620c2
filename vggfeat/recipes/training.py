"""A chain of networks that are trained one after another (Section 3.1)."""

from __future__ import annotations

from typing import Any, NamedTuple, Self

from pydantic import Field, model_validator

from vggfeat.nets.config import DEEPER, layers_of
from vggfeat.recipes.networks import ErrorPair
from vggfeat.settings import Settings, Training
from vggfeat.validation import checked


class ChainLink(Settings):
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

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    origin: str = Field(default="", alias="from")
    training: dict[str, Any] = Field(default={})
    paper: ErrorPair | None = None


class ChainRun(NamedTuple):
    """A link with all of its settings."""

    name: str
    origin: str
    settings: Training
    paper: tuple[float, float] | None


class TrainingRecipe(Settings):
    """A chain of networks that are trained one after another.

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
    >>> chain = TrainingRecipe(links=[
    ...     {"name": "a-256"},
    ...     {"name": "e-256", "from": "a-256", "training": {"net": "E"}},
    ... ])
    >>> [(run.settings.net, run.settings.S, run.origin) for run in chain.runs()]
    [('A', 256, ''), ('E', 256, 'a-256')]
    """

    name: str = ""
    title: str = ""
    training: dict[str, Any] = Field(default={})
    links: tuple[ChainLink, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _links_hold(self) -> Self:
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
                link.name,
                link.origin,
                checked(Training, **{**self.training, **link.training}),
                link.paper,
            )
            for link in self.links
        ]
