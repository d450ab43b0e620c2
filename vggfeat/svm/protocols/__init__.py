"""How data sets are tested: the protocol that a card names, its result and its classifier."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from pydantic import ValidationError

from vggfeat.data.datasets.card import DatasetCard
from vggfeat.errors import DataError
from vggfeat.svm.protocols.base import PROTOCOLS, Evaluation, Example, Fitted, Protocol
from vggfeat.validation import data_error

__all__ = ["PROTOCOLS", "Evaluation", "Example", "Fitted", "Protocol", "protocol_of"]

for _module in iter_modules(__path__):  # each protocol registers itself
    import_module(f"{__name__}.{_module.name}")


def protocol_of(card: DatasetCard) -> Protocol:
    """Read the protocol of a data set's card; random splits where it names none.

    Raises
    ------
    DataError
        If there is no such protocol, or a setting of it is wrong; each is named.

    Examples
    --------
    >>> from vggfeat.data.datasets import load_card
    >>> protocol_of(load_card("voc2007")).metric
    'mAP'
    >>> protocol_of(load_card("sample")).splits
    3
    """
    kind = card.kind or "splits"
    if kind not in PROTOCOLS:
        raise DataError(
            f"{card.name} has no protocol that is known: kind should be one of "
            f"{', '.join(sorted(PROTOCOLS))}. Got {kind!r}."
        )
    try:
        return PROTOCOLS[kind](**card.protocol)
    except ValidationError as error:
        raise data_error(
            f"[protocol] of the card {card.name} is wrong", error, PROTOCOLS[kind]
        ) from error
