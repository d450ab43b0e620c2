"""State dicts that many tests read and none changes."""

from __future__ import annotations

import pytest
from weightfiles import State, random_state


@pytest.fixture(scope="session")
def small() -> State:
    """Two convolutions of net A and narrow full connections: 220,000 numbers."""
    return random_state("A", 2)


@pytest.fixture(scope="session")
def whole() -> State:
    """All convolutions of net A and narrow full connections."""
    return random_state("A")
