"""Fused posteriors in a store of their own, which can be fused and exported again."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vggfeat.errors import StoreError
from vggfeat.features.place import place_of
from vggfeat.features.pooling import SCORES
from vggfeat.features.reading import look
from vggfeat.features.shards import FolderShards
from vggfeat.features.store import FeatureStore
from vggfeat.features.view import VIEW
from vggfeat.ilsvrc.scores import BLOCK, FUSED, PLAIN, Scores, posteriors
from vggfeat.settings import Extraction
from vggfeat.store.column import Descriptor


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
    _, manifest = look(FolderShards(place_of(target)))
    if manifest and (others := sorted(set(manifest.nets) - {FUSED})):
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
    made = [(one.store.extraction.fingerprint, one.pools, one.scales) for one in scores]
    digest = hashlib.sha256(repr(sorted(made)).encode()).hexdigest()
    extraction = Extraction(FUSED, digest, (SCORES,), pool=PLAIN)
    held = dict(zip(scores[0].store.names, scores[0].store.index.stats.tolist(), strict=True))
    stats = [(int(a), int(b)) for a, b in (held[name] for name in names)]
    store = FeatureStore(folder, extraction, names, stats=stats, provenance=provenance)
    part = Descriptor(FUSED, SCORES, PLAIN, 0)  # of no one scale
    todo = [row for row, _ in store.missing([part.Q])]
    for start, block in enumerate(posteriors(scores, [names[row] for row in todo])):
        rows = todo[start * BLOCK : start * BLOCK + len(block)]
        store.write(rows, {part: block.astype(np.float32)})
    store.finish()
    return store
