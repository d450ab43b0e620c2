"""Qualities: all settings of features in one word."""

from __future__ import annotations

from collections.abc import Collection

from vggfeat.errors import ParameterError
from vggfeat.recipes import open_svm_recipe
from vggfeat.settings import Features

SHIPPED = ("fast", "standard", "best")
"""What the embedded weights do at three costs: the recipes ``embedded-fast`` and so on."""
QUALITIES = (*SHIPPED, "paper")
OF_THE_PAPER = ("nets", "layers", "weights")
"""Settings that, once they are named, leave the rest to the paper."""


def read_quality(name: str) -> Features:
    """Return the settings of a quality.

    ``"fast"``, ``"standard"`` and ``"best"`` need nothing but the embedded weights; ``"paper"`` is
    the descriptor of Appendix B: net D, fc7, average pooling.

    Parameters
    ----------
    name : {"fast", "standard", "best", "paper"}

    Raises
    ------
    ParameterError
        For another name.

    Examples
    --------
    >>> read_quality("fast").weights, read_quality("paper").layers
    (('embedded',), ('fc7',))
    """
    if name not in QUALITIES:
        raise ParameterError.not_one_of("quality", "vggfeat", QUALITIES, name)
    return Features() if name == "paper" else open_svm_recipe(f"embedded-{name}").features


def choose_quality(
    name: str | None, named: Collection[str] = (), defaults: Features | None = None
) -> Features:
    """Return the settings that stand where nothing else is named.

    Parameters
    ----------
    name : {"fast", "standard", "best", "paper"}, optional
        A quality. By default the data set's own settings; without any, the paper's where a net, a
        layer or weights are named, else the standard quality.
    named : collection of str
        Settings that are named beside it.
    defaults : Features, optional
        The data set's own settings. Its views are kept; where it is one of the paper's, these are
        the quality ``"paper"``.

    Raises
    ------
    ParameterError
        If there is no quality of that name.

    Examples
    --------
    >>> choose_quality(None).weights, choose_quality(None, ["nets"]).weights
    (('embedded',), ('auto',))
    """
    if name is None:
        by_name = "paper" if set(OF_THE_PAPER) & set(named) else "standard"
        return defaults or read_quality(by_name)
    quality = read_quality(name)
    if defaults is None:
        return quality
    is_papers = defaults.layers == quality.layers
    return defaults if name == "paper" and is_papers else quality.but(views=defaults.views)
