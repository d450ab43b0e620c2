"""Class scores in stores: the posteriors of several nets, scales and modes become one.

A picture's scores are kept as its descriptors are, in a feature store: for each net, pooling and
scale its posteriors, the mean of its own and its mirror image's. Each pooling has an entry of its
own, so that what one mode has computed serves the others. What is left is to average: over scales
and modes, then over nets, each of which counts the same.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vggfeat._io.text import and_more, counted
from vggfeat.errors import StoreError
from vggfeat.features.extractor import DenseExtractor
from vggfeat.features.pooling import SCORES, gives_posteriors
from vggfeat.features.reading import Reader
from vggfeat.features.shards import FolderShards
from vggfeat.features.store import FeatureStore
from vggfeat.features.view import VIEW
from vggfeat.ilsvrc.classes import Classes, ilsvrc_classes
from vggfeat.settings import Extraction

BLOCK = 1024  # pictures in memory at a time
FUSED = "fused"  # stands for the net in a store of fused posteriors
PLAIN = "softmax"  # the pooling whose entry has the bare name of the net

Floats = NDArray[np.floating[Any]]
Scale = int | tuple[int, int]


def entry(extractor: DenseExtractor, pool: str) -> DenseExtractor:
    """Make of a network one that pools in a single way, for an entry of its own in a store.

    The copy has the network in common with the original, which stays as it is.

    Parameters
    ----------
    extractor : DenseExtractor
        Of fc8.
    pool : str
        One that gives posteriors. All but ``"softmax"`` are kept as another net: ``D-crops5``.
    """
    made = extractor.extraction
    net = made.net if pool == PLAIN else f"{made.net}-{pool}"
    alone = copy.copy(extractor)
    alone.extraction = replace(made, net=net, pool=pool)
    return alone


def net_of(made: Extraction) -> str:
    """Name the net of an entry.

    Examples
    --------
    >>> net_of(Extraction("A-LRN-crops5", "ab", ("fc8",), pool="crops5"))
    'A-LRN'
    """
    return made.net.removesuffix(f"-{made.pool}")


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
                f"The store of net {self.net} holds {made.pool} of {', '.join(made.layers)}, not "
                "posteriors. Make one that does with: vggfeat classify … --out STORE"
            )

    @property
    def net(self) -> str:
        """Configuration of Table 1."""
        return net_of(self.store.extraction)

    @property
    def names(self) -> list[str]:
        """The pictures that have all these scales."""
        return self.store.view_names(self.scales)

    @property
    def provenance(self) -> dict[str, Any]:
        """What the run that wrote them said of itself."""
        told: dict[str, Any] = self.store.manifest.nets[self.store.extraction.net]["provenance"]
        return told

    @property
    def S(self) -> Scale | None:
        """The training scale, where the weights' file says it."""
        told = json.loads(self.provenance.get("S", "null"))
        return tuple(told) if isinstance(told, list) else told

    @property
    def classes(self) -> Classes:
        """What the columns are called.

        Raises
        ------
        StoreError
            If the store does not say it.
        """
        if "classes" in self.provenance:
            return Classes.from_json(self.provenance["classes"])
        if set(self.store.dimensions.values()) == {len(ilsvrc_classes())}:
            return ilsvrc_classes()
        raise StoreError(
            f"The store of net {self.net} does not say what its classes are called. Make one that "
            "does with: vggfeat classify … --out STORE"
        )

    def read(self, names: Sequence[str]) -> Floats:
        """Return posteriors (n, C) of pictures, the mean over poolings and scales."""
        return _mean([self], names)


def open_scores(path: Path | str, scales: Sequence[int] | None = None) -> list[Scores]:
    """Open what ``vggfeat classify --out`` wrote: every net of it, with all of its poolings.

    Fused posteriors that lie beside nets are left out: they are made of them.

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
    stores = FeatureStore.open_all(path)
    if not any(store.scales for store in stores.values()):
        raise StoreError(f"{path} holds no scores yet. Run `vggfeat classify … --out {path}`.")
    found = []
    for net, store in stores.items():
        if net == FUSED and len(stores) > 1:
            continue
        pools = tuple(filter(gives_posteriors, store.extraction.pools))
        found.append(Scores(store, pools, tuple(scales or store.scales)))
        _check_finished(path, found[-1])
    return found


def _check_finished(path: Path | str, scores: Scores) -> None:
    """Refuse what an interrupted run left, whose pictures or scales would be left out unsaid."""
    store, what = scores.store, f"net {scores.net}, {' and '.join(scores.pools)}"
    command = "fuse" if scores.net == FUSED else "classify"
    again = f"Run the same `vggfeat {command} … --out {path}` again"
    for scale in [[Q] for Q in scores.scales] or [[]]:
        held = {*store.view_names(scale), *store.failed}
        if lacking := [name for name in store.names if name not in held]:
            others = " ".join(f"--Q {Q}" for Q in store.scales if Q not in scale)
            less = f", or take the other scales alone: {others}" if others and scale else ""
            raise StoreError(
                f"{path} is not finished: {what}{f' at Q = {scale[0]}' if scale else ''} is not "
                f"yet computed of {len(lacking)} of {len(store.names)} pictures, such as "
                f"{lacking[0]!r}. {again}{less}."
            )
    if isinstance(store.files, FolderShards):
        unseen = store.manifest.asked - len(store.names) - len(store.failed)
        if unseen > 0 or VIEW not in store.files.place.names():
            count = "some pictures may be"
            if unseen > 0:
                count = f"{counted(unseen, 'picture')} {'is' if unseen == 1 else 'are'}"
            raise StoreError(
                f"{path} is not finished: of {what} {count} not yet computed. {again}, without "
                "--shard: what is there is not computed twice."
            )


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
                f"{lacking.net} at Q = {', '.join(map(str, lacking.scales))} lack "
                f"{difference[0]!r}; {counted(len(difference), 'picture')} in all are in one and "
                "not in the other. Run the same pictures through both."
            )
        mine, its = _contents(first.store), _contents(other.store)
        if changed := [
            name for name in names if any(mine[name]) and any(its[name]) and mine[name] != its[name]
        ]:
            raise StoreError(
                f"Some pictures are not the same to both nets: {and_more(changed, 'picture')}. "
                "Their files have changed since. Run the same ones through both."
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
                f"Net {one.net} was trained on other classes than net {scores[0].net}: their "
                "posteriors cannot be averaged."
            )
    return classes


def by_net(scores: Sequence[Scores]) -> list[list[Scores]]:
    """Put together what is of the same net with the same weights, in the order of the first."""
    nets: dict[tuple[str, str, str], list[Scores]] = {}
    for one in scores:
        made = one.store.extraction
        nets.setdefault((one.net, made.weights_sha256, made.pixels), []).append(one)
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
        Pictures.
    rows : int
        Pictures in memory at a time.

    Yields
    ------
    ndarray (n, C) of float64
        Of the next pictures of `names`.
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
        for part, values in one.store.read(one.scales, names).items():
            if part.pool in one.pools:
                pools.setdefault(part.pool, {}).setdefault(part.Q, []).append(values)
    modes = [[_average(same) for same in scales.values()] for scales in pools.values()]
    return _average([_average(scales) for scales in modes])


def _average(values: Sequence[Floats]) -> Floats:
    mean: Floats = np.mean(values, axis=0, dtype=np.float64)
    return mean


def behind(scores: Sequence[Scores]) -> dict[str, Any]:
    """Say what stands behind scores, by net, poolings and scales."""
    told = {}
    for one in scores:
        made = one.store.extraction
        name = f"{one.net} {made.weights_sha256[:12]} {'+'.join(one.pools)} {list(one.scales)}"
        told[name] = {
            **{key: value for key, value in one.provenance.items() if key != "classes"},
            "settings": {**made.to_dict(), "net": one.net},
            "fingerprint": made.fingerprint,
        }
    return told


def _contents(store: Reader) -> dict[str, list[int]]:
    """Tell each picture's content from another's, by name; zeros of what is no file."""
    return dict(zip(store.names, store.index.stats.tolist(), strict=True))
