"""Results to show, and a reader of pages."""

from __future__ import annotations

from html.parser import HTMLParser

import numpy as np
import pytest
from helpers.rows import evaluate_parts, evaluate_splits

from vggfeat.attribution import Explanation, Share
from vggfeat.store.column import Descriptor

NAMES = ["cat", "dog", "owl", "yak"]


class Page(HTMLParser):
    """Tags with their attributes, the text, and the rows of tables, as a browser reads them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.cells: list[list[str]] = []
        self.feed(text)

    @property
    def rows(self) -> list[list[str]]:
        """Text of every cell, by row, spaces squeezed."""
        return [[" ".join(cell.split()) for cell in row] for row in self.cells]

    def handle_starttag(self, tag, attrs):
        """Keep the tag."""
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.cells.append([])
        if tag in ("td", "th"):
            self.cells[-1].append("")

    def handle_data(self, data):
        """Keep the text."""
        self.text += data
        if self.cells and self.cells[-1]:
            self.cells[-1][-1] += data

    def handle_endtag(self, tag):
        """Close a table, so that what follows is in no cell."""
        if tag == "table":
            self.cells.append([])


def recalls_of(classes, n=60, spread=0.25, names=None):
    rng = np.random.default_rng(0)
    y = np.arange(n) % len(classes)
    X = rng.random((n, 40)) + spread * rng.random((len(classes), 40))[y]
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    return evaluate_splits(X, y, classes, names, grid=(0.1, 1.0, 10.0)).result


def precisions_of(hidden=False, classes=NAMES, names=None, untested=False):
    """Score images with several classes; no yak trains, and no owl is tested."""
    rng = np.random.default_rng(0)
    present = rng.random((120, 4)) < 0.35
    X = rng.random((120, 20)) + 0.5 * present @ rng.random((4, 20))
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    targets = np.where(present, 1, -1)
    targets[rng.random((120, 4)) < 0.05] = 0
    targets[:80, 3] = -1
    targets[80:, 2] = -1
    if hidden:
        targets[80:] = 0
    parts = np.arange(40), np.arange(40, 80), np.arange(80, 80 if untested else 120)
    return evaluate_parts(X, targets, classes, parts, names, grid=(0.1, 1.0, 10.0)).result


@pytest.fixture
def explanation():
    """Make an explanation of two classes on a grid of 3 × 4, of an image of 40 × 30."""
    shares = np.zeros((2, 3, 4))
    shares[0, 0, 3], shares[0, 2, 0], shares[1] = 2.0, -1.0, 0.5
    bias = np.array([-0.25, 0.125])
    totals = shares.sum(axis=(1, 2))
    share = Share(Descriptor("D", "pool5", "average", 32), 1.5, totals[None])
    return Explanation(("cat", "dog"), totals + bias, bias, shares, (share,), 1.0, "", (40, 30))


@pytest.fixture(scope="session")
def recalls():
    """Make a result of recalls, for some classes."""
    return recalls_of


@pytest.fixture(scope="session")
def precisions():
    """Make a result of average precisions, of four classes."""
    return precisions_of


@pytest.fixture(scope="session")
def parsed():
    """Read the text of a page as a browser would."""
    return Page
