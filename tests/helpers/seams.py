"""The only place where tests reach into the product: how often, how many, and what was run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock


@contextmanager
def checkpoint_every(updates: int) -> Iterator[None]:
    """Let training look at its loss, and whether a checkpoint is due, after so many updates."""
    with mock.patch("vggfeat.train.loop.CHECK", updates):
        yield
