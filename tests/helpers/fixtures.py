"""Fixtures of networks: the tiny configuration, its weights, and one whole net for all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.networks import SMALL, TINY, configured, formula_weights, write_weights
from vggfeat.nets.weights import Weights


@pytest.fixture
def tiny() -> Iterator[str]:
    """Add the tiny configuration to Table 1, and name it."""
    with configured({"tiny": TINY}):
        yield "tiny"


@pytest.fixture
def tiny_weights(tiny: str, tmp_path: Path) -> Path:
    """Write weights of the tiny configuration as a file, its ten classes named."""
    classes = json.dumps([f"class {k}" for k in range(10)])
    path = tmp_path / "weights" / "tiny.safetensors"
    return write_weights(path, formula_weights(tiny), classes=classes)


@pytest.fixture
def small_nets() -> Iterator[None]:
    """Let nets A, D and E have few channels."""
    with configured(SMALL):
        yield


@pytest.fixture
def tiny_nets() -> Iterator[None]:
    """Let nets A, D and E be the tiny configuration, where only their names matter."""
    with configured(dict.fromkeys("ADE", TINY)):
        yield


@pytest.fixture(scope="session")
def whole_net() -> Weights:
    """Make net A whole, fc8 for ten classes: 0.5 GB, which all tests share and none may change."""
    return formula_weights("A")
