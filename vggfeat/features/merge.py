"""Joining feature stores, or the many small shards of one, into one store of few large shards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vggfeat.errors import FingerprintMismatch, ParameterError, StoreError
from vggfeat.features.index import Stat
from vggfeat.features.manifest import MANIFEST, differences
from vggfeat.features.place import place_of
from vggfeat.features.store import FeatureStore
from vggfeat.features.united import Source, United

Progress = Callable[[int, int], None]
"""Called with the rows of arrays that are done, and all of them."""


@dataclass(frozen=True)
class Merged:
    """What was joined.

    Parameters
    ----------
    pictures : int
        In the store that was made.
    twice : int
        That were in several parts, and are kept once.
    copied : int
        Rows of arrays that were copied; the rest was there.
    shards : int
        That were written.
    """

    pictures: int
    twice: int
    copied: int
    shards: int


def merge(
    parts: Sequence[Path | str], out: Path | str, *, progress: Progress | None = None
) -> Merged:
    """Join stores into one, whose shards are of 128 MB.

    Pictures come in the order in which folders are searched, whatever the order of the parts. One
    that is in several parts is kept once. What `out` holds already stays, and is not copied again:
    a merge that was stopped, however, goes on where it was. The parts are only read.

    Parameters
    ----------
    parts : sequence of path
        Folders of stores, finished or not, or packed files.
    out : path
        Folder of the store to make, or to add to.
    progress : callable, optional

    Returns
    -------
    Merged

    Raises
    ------
    FingerprintMismatch
        If two parts were made with different settings.
    StoreError
        If one name stands for different pictures, or the same picture has descriptors that differ
        by more than a hundredth of their length; or if the types differ, the disk is full, or a
        part is no store. Where parts do not fit together, nothing has been written.
    StoreDamaged
        If something in a part is not what was written. Nothing has been written then either.

    Notes
    -----
    Memory holds all names, 0.8 kB a picture, and three copies of a shard: 1.4 GB for a million.

    Examples
    --------
    >>> merge(["features-1", "features-2"], "features")  # doctest: +SKIP
    Merged(pictures=1000000, twice=0, copied=1000000, shards=62)
    """
    if not parts or isinstance(parts, str | Path):
        raise ParameterError.of("parts", "merge", "a list of stores", parts)
    sources = _opened(parts, out)
    _refuse_different(sources)
    for one in sources:
        one.any.check_digests()  # or what is damaged would get a digest that is right
    names, stats, twice = _pictures(sources)
    works = [United(net, sources, names, stats) for net in _nets(sources)]
    for work in works:
        work.compare()
    stores = [work.begin(out) for work in works]
    total = sum(work.lacking for work in works)
    copied = shards = 0
    for work in works:
        for rows in work.copy():
            copied, shards = copied + rows, shards + 1
            if progress:
                progress(copied, total)
    held = set(names)
    failed = {name: why for one in sources for name, why in one.any.failed.items()}
    store = max(stores, key=lambda one: int(one.index.has(one.index.where).sum()))
    store.failed.update({name: why for name, why in failed.items() if name not in held})
    store.finish()
    return Merged(len(names), twice, copied, shards)


def _opened(parts: Sequence[Path | str], out: Path | str) -> list[Source]:
    """Open all parts; what is in `out` already comes first."""
    place = place_of(out)
    given = {str(place_of(part)): part for part in parts}
    if Path(str(place)).resolve() in [Path(where).resolve() for where in given]:
        raise StoreError(f"{out} is one of the parts. Name another --out.")
    if place.read(MANIFEST) is not None:
        given = {str(place): out, **given}
    sources = [Source(where, FeatureStore.open_all(part)) for where, part in given.items()]
    kept = [one for one in sources if one.nets and one.any.index.dimensions]
    if not any(one.where != str(place) for one in kept):
        raise StoreError(f"{', '.join(map(str, parts))} hold no features. Extract some first.")
    return kept


def _nets(sources: Sequence[Source]) -> list[str]:
    return list(dict.fromkeys(net for one in sources for net in one.nets))


def _refuse_different(sources: Sequence[Source]) -> None:
    """Refuse parts that were made with different settings, or differ in type or dimensions."""
    made: dict[str, tuple[str, FeatureStore]] = {}
    for one in sources:
        for net, store in one.nets.items():
            where, held = made.setdefault(net, (one.where, store))
            if held.extraction != store.extraction:
                stored, asked = held.extraction.to_dict(), store.extraction.to_dict()
                raise FingerprintMismatch(
                    f"{where} and {one.where} hold features of net {net} that were made with "
                    f"different settings:\n{differences(stored, asked, where, one.where)}\n"
                    "Merge only what was made with the same ones."
                )
            if held.manifest.dtype != store.manifest.dtype:
                raise StoreError(
                    f"{where} holds {held.manifest.dtype} and {one.where} {store.manifest.dtype}. "
                    "Merge only stores of one type."
                )
            for path in held.index.dimensions.keys() & store.index.dimensions.keys():
                if held.index.dimensions[path] != store.index.dimensions[path]:
                    raise StoreError(
                        f"{path} has {held.index.dimensions[path]} dimensions in {where} and "
                        f"{store.index.dimensions[path]} in {one.where}. One of them is wrong."
                    )


def _pictures(sources: Sequence[Source]) -> tuple[list[str], list[Stat], int]:
    """Return all names and stats in the order of a search through folders, and how many recur."""
    held: dict[str, tuple[Stat, str]] = {}
    twice: set[str] = set()
    for one in sources:
        for name, (first, second) in zip(one.any.names, one.any.index.stats.tolist(), strict=True):
            stat = (first, second)
            before, where = held.setdefault(name, (stat, one.where))
            if where != one.where:
                twice.add(name)
                if before != stat and (0, 0) not in (before, stat):
                    raise StoreError(
                        f"{name!r} is one picture in {where} and another in {one.where}: the files "
                        "differ. Extract one of them under another name, or merge the stores apart."
                    )
    names = sorted(held, key=_as_searched)
    return names, [held[name][0] for name in names], len(twice)


def _as_searched(name: str) -> tuple[tuple[bool, str], ...]:
    """Sort the files of a folder before the folders in it."""
    *folders, file = name.split("/")
    return (*((True, folder) for folder in folders), (False, file))
