"""What a run, or each share of it, leaves behind: ``run.json`` and ``failed.csv``.

A record names the lists of images that it is of, by a digest, with their columns: what is ``done``
of them, and what is ``left`` to do. So it can be told whether another run has done the same since.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from typing import Any

from vggfeat.errors import StoreDamaged
from vggfeat.store.shard import encode
from vggfeat.store.storage import Storage

FAILED, RUN = "failed.csv", "run.json"
_FIELDS = (
    *("asked", "new", "failed", "finished", "merged", "share", "shares"),
    *("provenance", "done", "left"),
)
Share = tuple[int, int]
"""Part and number of parts."""
Lists = dict[str, list[str]]
"""Paths of columns, by the digest of a list of images."""
Shares = dict[str, dict[Share, int]]
"""Images of each share of a list, by the path of a column."""


def record_run(
    storage: Storage,
    names: Sequence[str],
    columns: Collection[str],
    about: Mapping[str, Any],
    *,
    finished: bool,
) -> None:
    """Write the record of a run, or of one share of it, that begins or is through.

    It takes the place of the last one. Of a share, what that one says of other columns stays: nets
    that share a list in one folder have one file.
    """
    lists: dict[str, Lists] = {"left": {}, "done": {}}
    if about["share"]:
        with suppress(StoreDamaged):
            before = read_run(storage, of_share(RUN, about["share"]))
            lists = {of: _without(before[of], columns) for of in lists}
    of = "done" if finished else "left"
    lists[of] = join_lists([lists[of], {digest_list(names): columns}])
    write_run(storage, {**about, "finished": finished and not lists["left"], **lists})


def _without(lists: Lists, columns: Collection[str]) -> Lists:
    others = {key: [path for path in paths if path not in columns] for key, paths in lists.items()}
    return {key: paths for key, paths in others.items() if paths}


def join_lists(several: Iterable[Mapping[str, Iterable[str]]]) -> Lists:
    """Join what several records say of lists of images."""
    joined: dict[str, set[str]] = {}
    for lists in several:
        for key, paths in lists.items():
            joined.setdefault(key, set()).update(paths)
    return {key: sorted(paths) for key, paths in joined.items()}


def digest_list(names: Iterable[str]) -> str:
    """Return what tells a list of images from others, in whatever order.

    Examples
    --------
    >>> digest_list(["a.jpg", "b.jpg"]) == digest_list(["b.jpg", "a.jpg"])
    True
    """
    return hashlib.sha256(b"\0".join(sorted(encode(list(names))))).hexdigest()[:32]


def join_shares(runs: Iterable[Mapping[str, Any]]) -> Shares:
    """Count by column the images of each share that runs, and merges of them, were of."""
    shares: Shares = {}
    for run in runs:
        for path, own in run["shares"].items():
            shares.setdefault(path, {}).update(own)
        if run["share"]:
            lists = (*run["done"].values(), *run["left"].values())
            for path in set(chain.from_iterable(lists)) or {""}:
                shares.setdefault(path, {})[run["share"]] = run["asked"]
    return shares


def missing_shares(shares: Mapping[str, Mapping[Share, int]]) -> dict[Share, int]:
    """Count the images, at least, of each share that some column lacks; each is dealt as many.

    Examples
    --------
    >>> missing_shares({"/D": {(1, 3): 7, (2, 3): 6}}), missing_shares({"/D": {(1, 1): 5}})
    ({(3, 3): 5}, {})
    """
    missing: dict[Share, int] = {}
    for counts in shares.values():
        for parts in sorted({parts for (_, parts), asked in counts.items() if asked}):
            own = {part: asked for (part, of), asked in counts.items() if of == parts}
            for part in set(range(1, parts + 1)).difference(own):
                later = (asked for other, asked in own.items() if other > part)
                asked = max(later, default=max(0, min(own.values()) - 1))
                missing[part, parts] = max(asked, missing.get((part, parts), 0))
    return dict(sorted(missing.items()))


def name_share(share: Share) -> str:
    """Write a share as it is typed.

    Examples
    --------
    >>> name_share((3, 16))
    '3/16'
    """
    return f"{share[0]}/{share[1]}"


def write_run(storage: Storage, run: Mapping[str, Any]) -> None:
    """Write the record of a run, or of one share of it."""
    kept = {name: run[name] for name in _FIELDS if name in run}
    if "shares" in run:
        by_path = run["shares"].items()
        kept["shares"] = {p: {name_share(s): n for s, n in own.items()} for p, own in by_path}
    storage.write(of_share(RUN, run["share"]), json.dumps(kept, indent=2, default=str).encode())


def read_runs(storage: Storage) -> list[dict[str, Any]]:
    """Return ``run.json``, where there is one, and those of the shares."""
    return [read_run(storage, name) for name in list_shares(storage, RUN)]


def read_run(storage: Storage, name: str) -> dict[str, Any]:
    """Return what a run, or one share of it, said of itself."""
    try:
        run = dict(json.loads(storage.read(name) or b""))
        shares = dict(run.get("shares", {})).items()
        return {
            **run,
            "asked": int(run["asked"]),
            "finished": run["finished"] is True,
            "merged": run.get("merged") is True,
            "share": run["share"] and _parse_share(run["share"]),
            "shares": {
                path: {_parse_share(text.split("/")): int(own[text]) for text in own}
                for path, own in shares
            },
            "done": join_lists([run["done"]]),
            "left": join_lists([run["left"]]),
        }
    except (
        AttributeError,
        ValueError,
        TypeError,
        LookupError,
        OverflowError,
        RecursionError,
    ) as error:
        raise StoreDamaged(f"{storage}/{name} is damaged: {error}. Delete it.") from error


def _parse_share(numbers: Iterable[Any]) -> Share:
    part, parts = map(int, numbers)
    return part, parts


def write_failed(storage: Storage, failed: Mapping[str, str], share: Share | None) -> None:
    """Write ``failed.csv`` of a run, or of one share of it; none where nothing failed."""
    if not failed:
        storage.remove(of_share(FAILED, share))
        return
    text = io.StringIO(newline="")
    csv.writer(text).writerows([("name", "reason"), *failed.items()])
    storage.write(of_share(FAILED, share), b"".join(encode([text.getvalue()])))


def remove_shares(storage: Storage) -> None:
    """Remove what shares left: a run over the whole list has tried again what they name."""
    for own in (FAILED, RUN):
        for name in list_shares(storage, own):
            if name != own:
                storage.remove(name)


def read_failed(storage: Storage) -> dict[str, str]:
    """Return by name the reasons why images could not be used."""
    failed: dict[str, str] = {}
    for name in list_shares(storage, FAILED):
        failed |= read_list(storage, name)
    return failed


def read_list(storage: Storage, name: str) -> dict[str, str]:
    """Return what the ``failed.csv`` of a run, or of one share of it, says."""
    text = (storage.read(name) or b"").decode("utf-8", "surrogateescape")
    try:
        rows = csv.DictReader(io.StringIO(text, newline=""))
        return {row["name"]: row["reason"] or "" for row in rows}
    except (csv.Error, KeyError) as error:
        raise StoreDamaged(
            f"{storage}/{name} is no list of failed images: {error}. Delete it."
        ) from error


def of_share(name: str, share: Share | None) -> str:
    """Name a file of one share of a run.

    Examples
    --------
    >>> of_share("failed.csv", None), of_share("failed.csv", (3, 16))
    ('failed.csv', 'failed-3-of-16.csv')
    """
    stem, dot, ending = name.partition(".")
    return name if share is None else f"{stem}-{share[0]}-of-{share[1]}{dot}{ending}"


def list_shares(storage: Storage, name: str) -> list[str]:
    """Name the file of a whole run, where it is there, then those of all shares."""
    stem, _, ending = name.partition(".")
    pattern = re.compile(rf"{stem}(-\d+-of-\d+)?\.{ending}")
    return sorted(filter(pattern.fullmatch, storage.list()), key=lambda one: (one != name, one))
