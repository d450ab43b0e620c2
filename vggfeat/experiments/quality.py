"""What ``--quality`` means: settings that go furthest, or fastest, with the weights at hand."""

from __future__ import annotations

from typing import Literal

from vggfeat.errors import ParameterError, WeightsError
from vggfeat.nets.registry import cached, source_of
from vggfeat.recipes import open_svm_recipe
from vggfeat.settings import Features

QUALITIES = ("best", "fast")
Quality = Literal["best", "fast"]


def preset(name: str | None, base: Features) -> Features:
    """Return the settings of a quality, on top of a data set's own, or these where none is asked.

    ``"best"`` is the paper's nets D and E with fc7, at the scales of the data set, where the
    authors' weights of both are on this machine; without them, what the shipped convolutional
    layers do best (``pipelines/embedded-best.toml``). ``"fast"`` is
    ``pipelines/embedded-fast.toml``. Neither downloads anything.

    Parameters
    ----------
    name : {"best", "fast"}, optional
    base : Features
        The data set's own settings; its views are kept.

    Raises
    ------
    ParameterError
        For another name.

    Examples
    --------
    >>> preset("fast", Features()).weights
    ('embedded',)
    """
    if name is None:
        return base
    if name not in QUALITIES:
        raise ParameterError.not_one_of("quality", "vggfeat", QUALITIES, name)
    if name == "best" and authors_at_hand():
        scales = base.Q if len(base.Q) > 1 else (256, 384, 512)
        return Features(
            nets=("D", "E"),
            weights=("authors",),
            Q=scales,
            aggregate=base.aggregate,
            views=base.views,
        )
    return open_svm_recipe(f"embedded-{name}").features.but(views=base.views)


def authors_at_hand() -> bool:
    """Tell whether the authors' weights of nets D and E are on this machine."""
    try:
        return all(cached(source_of("authors", net)) for net in ("D", "E"))
    except WeightsError:  # a damaged file is none; using it by name says so
        return False
