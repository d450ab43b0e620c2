"""Class scores in stores: the posteriors of several nets, scales and modes become one.

The scores of an image are kept as its descriptors are, in a feature store: each pooling of fc8 at
each scale is a column of posteriors, the mean of the image's and its mirror image's. What is left
is to average: over scales and modes, then over nets, each of which counts the same. What comes out
can be a store of its own, which is fused and exported as others are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vggfeat._io.text import and_more, counted
from vggfeat.classification.classes import Classes, ilsvrc_classes, named
from vggfeat.errors import StoreError
from vggfeat.features.pooling import SCORES, gives_posteriors, resolve_pooling
from vggfeat.store.column import Column, Descriptor
from vggfeat.store.storage import MANIFEST, VIEW
from vggfeat.store.store import FeatureStore

BLOCK = 1024  # images in memory at a time
FUSED = "fused"  # stands for the net in a store of fused posteriors
FUSED_COLUMN = Descriptor(FUSED, SCORES, "softmax", 0)  # of no one scale

Floats = NDArray[np.floating[Any]]
Scale = int | tuple[int, int]


@dataclass(frozen=True)
class Scores:
    """Posteriors of one net, in a store.

    Parameters
    ----------
    store : FeatureStore
        What holds them.
    net : str
        Configuration of Table 1.
    pools : tuple of str
        Poolings of fc8 that are averaged.
    scales : tuple of int
        Test scales Q that are averaged.
    images : tuple of str, optional
        The images that are meant; by default all that the store has.

    Raises
    ------
    StoreError
        If the store has no posteriors of the net by these poolings.
    """

    store: FeatureStore = field(repr=False)
    net: str
    pools: tuple[str, ...]
    scales: tuple[int, ...]
    images: tuple[str, ...] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        held = [name for name in self.store.index.columns if name.net == self.net]
        if not self.pools or set(self.pools) - {name.pool for name in held if _is_posterior(name)}:
            raise _no_posteriors(self.net, held)

    @property
    def columns(self) -> list[Descriptor]:
        """The columns that are averaged."""
        return [Descriptor(self.net, SCORES, pool, Q) for pool in self.pools for Q in self.scales]

    @property
    def column(self) -> Column:
        """The first of them, whose settings, outputs and training scale are those of all."""
        return self.store.index.columns[self.columns[0]]

    @property
    def settings(self) -> Mapping[str, Any]:
        """The settings that change the numbers."""
        return self.column.settings

    @property
    def weights(self) -> str:
        """SHA-256 of the weights; of fused scores, of what they are made of."""
        return str(self.settings["weights"])

    @property
    def names(self) -> list[str]:
        """The images that have all these poolings and scales."""
        complete = self.store.complete(self.columns)
        if self.images is None:
            return complete
        known = set(complete)
        return [name for name in self.images if name in known]

    @property
    def failed(self) -> dict[str, str]:
        """By name, why images could not be used."""
        failed = self.store.failed
        if self.images is None:
            return failed
        return {name: failed[name] for name in self.images if name in failed}

    @property
    def provenance(self) -> dict[str, Any]:
        """What the run that wrote the newest of them said of itself."""
        return self.store.provenance(self.columns[0])

    @property
    def S(self) -> Scale | None:
        """The training scale, where the weights' file says it."""
        S: Scale | None = self.column.S
        return S

    @property
    def classes(self) -> Classes:
        """What the outputs are called.

        Raises
        ------
        StoreError
            If the store does not say it.
        """
        if self.column.outputs:
            return named(self.column.outputs)
        if self.column.width == len(ilsvrc_classes()):
            return ilsvrc_classes()
        raise StoreError(
            f"The store of net {self.net} does not say what its classes are called. Make one that "
            "does with: vggfeat classify … --out STORE"
        )

    def read(self, names: Sequence[str]) -> Floats:
        """Return posteriors (n, C) of images, the mean over poolings and scales."""
        return _mean([self], names)


def open_scores(path: Path | str, scales: Sequence[int] | None = None) -> list[Scores]:
    """Open what ``vggfeat classify --out`` wrote: each net and pooling of it.

    Fused posteriors that lie beside nets are left out: they are made of them. Scales of a net that
    were computed with other weights or settings are scores of their own.

    Parameters
    ----------
    path : path
        Folder of a store, or a packed file.
    scales : sequence of int, optional
        Test scales Q; all that it has, by default.

    Raises
    ------
    StoreError
        If it is no store, holds something else than posteriors, or not yet all of them.
    """
    store = FeatureStore(path)
    if not store.columns:
        raise StoreError(f"{path} holds no scores yet. Run `vggfeat classify … --out {path}`.")
    columns = store.index.columns  # also those that an interrupted run has not come to
    held = sorted(filter(_is_posterior, columns), key=_place)
    if not held:
        raise _no_posteriors(next(iter(store.columns)).net, list(columns))
    if {name.net for name in held} != {FUSED}:
        held = [name for name in held if name.net != FUSED]
    found = []
    for net, pool in dict.fromkeys((name.net, name.pool) for name in held):
        digests = {n.Q: columns[n].digest for n in held if (n.net, n.pool) == (net, pool)}
        alike: dict[str, list[int]] = {}
        for Q in scales or digests:
            alike.setdefault(digests.get(Q, ""), []).append(Q)
        found += [Scores(store, net, (pool,), tuple(some)) for some in alike.values()]
    for one in found:
        _check_finished(path, one)
    return found


def _is_posterior(name: Descriptor) -> bool:
    return name.layer == SCORES and gives_posteriors(name.pool)


def _place(name: Descriptor) -> tuple[str, bool, str, int]:
    """Sort by net; the dense poolings come before the crops."""
    return name.net, resolve_pooling(name.pool).crop_pixels > 0, name.pool, name.Q


def _no_posteriors(net: str, held: Sequence[Descriptor]) -> StoreError:
    kinds = ", ".join(sorted({f"{name.pool} of {name.layer}" for name in held})) or "nothing"
    return StoreError(
        f"The store of net {net} holds {kinds}, not posteriors. Make one that does with: vggfeat "
        "classify … --out STORE"
    )


def _check_finished(path: Path | str, scores: Scores) -> None:
    """Refuse what an interrupted run left, whose images or scales would be left out unsaid."""
    store, what = scores.store, f"net {scores.net}, {' and '.join(scores.pools)}"
    command = "fuse" if scores.net == FUSED else "classify"
    again = f"Run the same `vggfeat {command} … --out {path}` again"
    names, failed = store.names, store.failed

    def lacks(column: Descriptor) -> list[str]:
        held = set(store.complete([column]))
        return [name for name in names if name not in held and name not in failed]

    for column in scores.columns:
        if lacking := lacks(column):
            others = [name for name in store.columns if name[:3] == column[:3] and not lacks(name)]
            typed = " ".join(f"--Q {name.Q}" for name in others)
            less = f", or take the other scales alone: {typed}" if others else ""
            raise StoreError(
                f"{path} is not finished: {what} at Q = {column.Q} is not yet computed of "
                f"{len(lacking)} of {len(names)} images, such as {lacking[0]!r}. {again}{less}."
            )
    if store.packed:
        return
    runs = store.runs
    unseen = max((run["asked"] - len(names) - len(failed) for run in runs), default=0)
    shares_alone = all(run["share"] for run in runs)
    if unseen > 0 or shares_alone or any(run["new"] and not run["finished"] for run in runs):
        count = "some images may be"
        if unseen > 0:
            count = f"{counted(unseen, 'image')} {'is' if unseen == 1 else 'are'}"
        raise StoreError(
            f"{path} is not finished: of {what} {count} not yet computed. {again}, without "
            "--shard: what is there is not computed twice."
        )


def same_images(scores: Sequence[Scores]) -> list[str]:
    """Return the images that all nets have scores of, in the order of the first.

    Raises
    ------
    StoreError
        If they have not the same ones: by name, whatever their order, and by content.
    """
    first, *others = scores
    names = first.names
    ids = first.store.identify(names)
    for other in others:
        if difference := sorted(set(names) ^ set(other.names)):
            lacking = other if difference[0] in set(names) else first
            raise StoreError(
                f"The scores are not of the same images: those of net "
                f"{lacking.net} at Q = {', '.join(map(str, lacking.scales))} lack "
                f"{difference[0]!r}; {counted(len(difference), 'image')} in all are in one and "
                "not in the other. Run the same images through both."
            )
        unlike = (ids != other.store.identify(names)).any(axis=1)
        if changed := [name for name, differs in zip(names, unlike, strict=True) if differs]:
            raise StoreError(
                f"Some images are not the same to both nets: {and_more(changed, 'image')}. "
                "Their files have changed since. Run the same ones through both."
            )
    if not names:
        raise StoreError("No image has scores. Run `vggfeat classify` on some that can be read.")
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
                f"Net {one.net} was trained on other classes than net {scores[0].net}: their "
                "posteriors cannot be averaged."
            )
    return classes


def by_net(scores: Sequence[Scores]) -> list[list[Scores]]:
    """Put together what is of the same net with the same weights, in the order of the first."""
    nets: dict[tuple[str, str, str], list[Scores]] = {}
    for one in scores:
        nets.setdefault((one.net, one.weights, one.settings.get("pixels", "")), []).append(one)
    return list(nets.values())


def posteriors(
    scores: Sequence[Scores], names: Sequence[str], rows: int = BLOCK
) -> Iterator[Floats]:
    """Fuse nets: the mean of their posteriors (Section 4.4), block by block.

    Each net counts the same, however many scales and modes it is the mean of.

    Parameters
    ----------
    scores : sequence of Scores
    names : sequence of str
        Images.
    rows : int
        Images in memory at a time.

    Yields
    ------
    ndarray (n, C) of float64
        Of the next images of `names`.
    """
    nets = by_net(scores)
    for start in range(0, len(names), rows):
        some = names[start : start + rows]
        yield _average([_mean(net, some) for net in nets])


def scales_of(net: Sequence[Scores]) -> dict[str, tuple[int, ...]]:
    """Tell the scales at which a net has each pooling, in whichever of its stores they are."""
    scales: dict[str, set[int]] = {}
    for one in net:
        for pool in one.pools:
            scales.setdefault(pool, set()).update(one.scales)
    return {pool: tuple(sorted(own)) for pool, own in scales.items()}


def _mean(scores: Sequence[Scores], names: Sequence[str]) -> Floats:
    """Average a net's posteriors (n, C) over scales, then over modes.

    A scale counts once, however many stores have it.
    """
    pools: dict[str, dict[int, list[Floats]]] = {}
    for one in scores:
        for column, values in one.store.read(one.columns, names).items():
            pools.setdefault(column.pool, {}).setdefault(column.Q, []).append(values)
    modes = [[_average(same) for same in scales.values()] for scales in pools.values()]
    return _average([_average(scales) for scales in modes])


def _average(values: Sequence[Floats]) -> Floats:
    mean: Floats = np.mean(values, axis=0, dtype=np.float64)
    return mean


def describe_origin(scores: Sequence[Scores]) -> dict[str, Any]:
    """Say what stands behind scores, by net, poolings and scales, as plain JSON types."""
    origin = {}
    for one in scores:
        name = f"{one.net} {one.weights[:12]} {'+'.join(one.pools)} {list(one.scales)}"
        origin[name] = {
            **one.provenance,
            "S": one.S,
            "settings": {"net": one.net, "pool": "+".join(one.pools), **one.settings},
            "digest": one.column.digest,
        }
    return origin


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
    store.add_columns(
        [Column(FUSED_COLUMN, {"weights": _digest_of(scores)}, len(outputs), outputs)]
    )
    ids = scores[0].store.identify(names)
    lacking = np.flatnonzero(~store.has([FUSED_COLUMN], names, ids, current=True)[:, 0])
    store.begin(names, provenance)
    for start in range(0, len(lacking), BLOCK):
        rows = lacking[start : start + BLOCK]
        some = [names[row] for row in rows]
        stamps = np.zeros((len(rows), 2), np.int64)  # no file was looked at
        [block] = posteriors(scores, some)
        store.write(some, ids[rows], stamps, {FUSED_COLUMN: block})
    store.finish(names, {})
    return store


def _digest_of(scores: Sequence[Scores]) -> str:
    """Return the digest of what is fused: all columns with their settings."""
    columns = sorted(
        (column.path, one.store.index.columns[column].digest)
        for one in scores
        for column in one.columns
    )
    return hashlib.sha256(repr(columns).encode()).hexdigest()
