"""Class scores in stores: the posteriors of several nets, scales and modes become one.

A picture's scores are kept as its descriptors are, in a feature store: for each net and scale its
posteriors, the mean of its own and its mirror image's. What is left is to average: over scales and
modes, then over nets, each of which counts the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vggfeat.errors import StoreError
from vggfeat.features.extraction import SCORES, Extraction, Part, gives_posteriors
from vggfeat.features.reading import Reader
from vggfeat.features.store import FeatureStore
from vggfeat.ilsvrc.classes import Classes, ilsvrc_classes

BLOCK = 1024  # pictures in memory at a time
FUSED = "fused"  # stands for the net in a store of fused posteriors

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Scores:
    """Posteriors of one net, in a store.

    Parameters
    ----------
    store : Reader
        What holds them.
    pools : tuple of str
        Poolings that are averaged.
    scales : tuple of int
        Test scales Q that are averaged.
    """

    store: Reader = field(repr=False)
    pools: tuple[str, ...]
    scales: tuple[int, ...]

    def __post_init__(self) -> None:
        made = self.store.extraction
        wrong = made.layers != (SCORES,) or not all(map(gives_posteriors, self.pools))
        if wrong or not self.pools or set(self.pools) - set(made.pools):
            raise StoreError(
                f"The store of net {made.net} holds {made.pool} of {', '.join(made.layers)}, not "
                "posteriors. Make one that does with: vggfeat classify … --out STORE"
            )

    @property
    def names(self) -> list[str]:
        """The pictures that have all these scales."""
        return self.store.view_names(self.scales)

    @property
    def classes(self) -> Classes:
        """What the columns are called.

        Raises
        ------
        StoreError
            If the store does not say it.
        """
        behind = self.store.manifest.nets[self.store.extraction.net]["provenance"]
        if "classes" in behind:
            return Classes.from_json(behind["classes"])
        if set(self.store.dimensions.values()) == {len(ilsvrc_classes())}:
            return ilsvrc_classes()
        raise StoreError(
            f"The store of net {self.store.extraction.net} does not say what its classes are "
            "called. Make one that does with: vggfeat classify … --out STORE"
        )

    def read(self, names: Sequence[str]) -> Floats:
        """Return posteriors (n, C) of pictures, the mean over poolings and scales."""
        found = self.store.read(self.scales, names)
        kept = [values for part, values in found.items() if part.pool in self.pools]
        mean: Floats = np.mean(kept, axis=0, dtype=np.float64)
        return mean


def open_scores(path: Path | str, scales: Sequence[int] | None = None) -> list[Scores]:
    """Open what ``vggfeat classify --out`` wrote: every net of it, with all of its poolings.

    Parameters
    ----------
    path : path
        Folder of a store, or a packed file.
    scales : sequence of int, optional
        Test scales Q; all that it has, by default.

    Raises
    ------
    StoreError
        If it is no store, or holds something else than posteriors.
    """
    stores = [store for store in FeatureStore.open_all(path).values() if store.scales]
    if not stores:
        raise StoreError(f"{path} holds no scores yet. Run `vggfeat classify … --out {path}`.")
    return [
        Scores(
            store,
            tuple(filter(gives_posteriors, store.extraction.pools)),
            tuple(scales or store.scales),
        )
        for store in stores
    ]


def same_pictures(scores: Sequence[Scores]) -> list[str]:
    """Return the pictures that all nets have scores of, in the order of the first.

    Raises
    ------
    StoreError
        If they have not the same ones: by name, whatever their order, and by content.
    """
    first, *others = scores
    names = first.names
    for other in others:
        if difference := sorted(set(names) ^ set(other.names)):
            lacking = other if difference[0] in set(names) else first
            raise StoreError(
                f"The scores are not of the same pictures: those of net "
                f"{lacking.store.extraction.net} at Q = {', '.join(map(str, lacking.scales))} lack "
                f"{difference[0]!r}, and {len(difference) - 1} more are in one and not in the "
                "other. Run the same pictures through both."
            )
        mine, its = _contents(first.store), _contents(other.store)
        if changed := [
            name for name in names if mine[name] and its[name] and mine[name] != its[name]
        ]:
            raise StoreError(
                f"{changed[0]!r} and {len(changed) - 1} more are other pictures to one net than to "
                "another: their files have changed since. Run the same pictures through both."
            )
    if not names:
        raise StoreError("No picture has scores. Run `vggfeat classify` on some that can be read.")
    return names


def same_classes(scores: Sequence[Scores]) -> Classes:
    """Return the classes that all nets have.

    Raises
    ------
    StoreError
        If they have not the same ones, in the same order.
    """
    classes = scores[0].classes
    for one in scores[1:]:
        if one.classes.keys != classes.keys:
            raise StoreError(
                f"Net {one.store.extraction.net} was trained on other classes than net "
                f"{scores[0].store.extraction.net}: their posteriors cannot be averaged."
            )
    return classes


def posteriors(
    scores: Sequence[Scores], names: Sequence[str], rows: int = BLOCK
) -> Iterator[Floats]:
    """Fuse nets: the mean of their posteriors (Section 4.5), block by block.

    Each of `scores` counts the same, however many scales it is the mean of.

    Parameters
    ----------
    scores : sequence of Scores
    names : sequence of str
        Pictures.
    rows : int
        Pictures in memory at a time.

    Yields
    ------
    ndarray (n, C) of float64
        Of the next pictures of `names`.
    """
    for start in range(0, len(names), rows):
        some = names[start : start + rows]
        yield np.mean([one.read(some) for one in scores], axis=0)


def behind(scores: Sequence[Scores]) -> dict[str, Any]:
    """Say what stands behind scores, by net, poolings and scales."""
    told = {}
    for one in scores:
        made = one.store.extraction
        source = one.store.manifest.nets[made.net]["provenance"]
        name = f"{made.net} {made.weights_sha256[:12]} {'+'.join(one.pools)} {list(one.scales)}"
        told[name] = {
            **{key: value for key, value in source.items() if key != "classes"},
            "settings": made.to_dict(),
            "fingerprint": made.fingerprint,
        }
    return told


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
    """
    made = [(one.store.extraction.fingerprint, one.pools, one.scales) for one in scores]
    digest = hashlib.sha256(repr(sorted(made)).encode()).hexdigest()
    extraction = Extraction(FUSED, digest, (SCORES,), pool="softmax")
    held = dict(zip(scores[0].store.names, scores[0].store.index.stats.tolist(), strict=True))
    stats = [(int(a), int(b)) for a, b in (held[name] for name in names)]
    store = FeatureStore(folder, extraction, names, stats=stats, provenance=provenance)
    part = Part(FUSED, SCORES, "softmax", 0)  # of no one scale
    todo = [row for row, _ in store.missing([part.Q])]
    for start, block in enumerate(posteriors(scores, [names[row] for row in todo])):
        rows = todo[start * BLOCK : start * BLOCK + len(block)]
        store.write(rows, {part: block.astype(np.float32)})
    store.finish()
    return store


def _contents(store: Reader) -> dict[str, int]:
    """Tell each picture's content from another's, by name; 0 of what is no file."""
    return dict(zip(store.names, store.index.stats[:, 0].tolist(), strict=True))
