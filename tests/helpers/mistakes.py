"""A mistake is answered by an error that names what is wrong; its wording is not tested."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest

from vggfeat.errors import VggfeatError


def refuses(
    action: Callable[[], object], kind: type[VggfeatError], mentions: Iterable[str] = ()
) -> VggfeatError:
    """Do what is to be refused; return the error, which names every setting, file or option."""
    with pytest.raises(kind) as caught:
        action()
    for name in mentions:
        assert name in str(caught.value), f"{name!r} is not in: {caught.value}"
    return caught.value
