"""Fused posteriors in a store of their own, which can be fused and exported again."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vggfeat.classification.scores import BLOCK, FUSED, Scores, posteriors, same_classes
from vggfeat.errors import StoreError
from vggfeat.features.pooling import SCORES
from vggfeat.store.column import Column, Descriptor
from vggfeat.store.storage import MANIFEST, VIEW
from vggfeat.store.store import FeatureStore

NAME = Descriptor(FUSED, SCORES, "softmax", 0)  # of no one scale


def check_target(folder: Path | str, inputs: Sequence[Path | str] = ()) -> None:
    """Refuse to put fused posteriors where they would be taken for those of one more net.

    Parameters
    ----------
    folder : path
        Where they are to go.
    inputs : sequence of path
        The stores that are fused.

    Raises
    ------
    StoreError
        If it is one of the inputs, or holds the scores of a net.
    """
    target = Path(folder).resolve()
    sources = [Path(one).resolve() for one in inputs]
    if target in [one.parent if one.name == VIEW else one for one in sources]:
        raise StoreError(
            f"{folder} is one of the stores that are fused. Name another folder with --out."
        )
    if not (target / MANIFEST).is_file():
        return
    nets = {name.net for name in FeatureStore(target).index.columns}
    if others := sorted(nets - {FUSED}):
        raise StoreError(
            f"{folder} holds the scores of net {others[0]}, with which fused ones are not mixed. "
            "Name a new folder with --out."
        )


def write_fused(
    folder: Path | str,
    scores: Sequence[Scores],
    names: Sequence[str],
    provenance: Mapping[str, Any],
) -> FeatureStore:
    """Keep fused posteriors in a store of their own, which can be fused and exported again.

    Parameters
    ----------
    folder : path
        Where to. What is there already, of the same scores, is not written again.
    scores, names
        As of :func:`posteriors`.
    provenance : mapping
        What stands behind them, as plain JSON types.

    Raises
    ------
    StoreError
        If the folder holds the scores of a net.
    """
    check_target(folder)
    store = FeatureStore(folder, "a")
    outputs = same_classes(scores).keys
    store.add_columns([Column(NAME, {"weights": _digest(scores)}, len(outputs), outputs)])
    ids = scores[0].store.identify(names)
    lacking = np.flatnonzero(~store.has([NAME], names, ids, current=True)[:, 0])
    store.begin(names, provenance)
    for start in range(0, len(lacking), BLOCK):
        rows = lacking[start : start + BLOCK]
        some = [names[row] for row in rows]
        stamps = np.zeros((len(rows), 2), np.int64)  # no file was looked at
        [block] = posteriors(scores, some)
        store.write(some, ids[rows], stamps, {NAME: block})
    store.finish(names, {})
    return store


def _digest(scores: Sequence[Scores]) -> str:
    """Return the digest of what is fused: all columns with their settings."""
    columns = sorted(
        (column.path, one.store.index.columns[column].digest)
        for one in scores
        for column in one.columns
    )
    return hashlib.sha256(repr(columns).encode()).hexdigest()
