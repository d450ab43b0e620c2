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
from collections.abc import Iterable, Mapping
from typing import Any

from vggfeat.errors import StoreDamaged
from vggfeat.store.shard import encode
from vggfeat.store.storage import Storage

FAILED, RUN = "failed.csv", "run.json"
Share = tuple[int, int]
"""Part and number of parts."""
Lists = dict[str, list[str]]
"""Paths of columns, by the digest of a list of images."""


def start_run(storage: Storage, run: Mapping[str, Any]) -> None:
    """Write ``run.json`` of a run, or of one share of it, that has begun with some ``lists``."""
    write_run(storage, {**run, "failed": 0, "finished": False, "done": {}, "left": run["lists"]})


def finish_run(storage: Storage, run: Mapping[str, Any], failed: Mapping[str, str]) -> None:
    """Write ``run.json`` and ``failed.csv`` of a run, or of one share of it, that is through.

    A run over the whole list removes those of the shares: it has tried again what they name. All
    its ``lists`` are done, unless it says itself what is ``finished``, ``done`` and ``left``.
    """
    share = run["share"]
    if failed:
        text = io.StringIO(newline="")
        csv.writer(text).writerows([("name", "reason"), *failed.items()])
        storage.write(of_share(FAILED, share), b"".join(encode([text.getvalue()])))
    else:
        storage.remove(of_share(FAILED, share))
    outcome = {"finished": True, "done": run["lists"], "left": {}}
    write_run(storage, {**outcome, **run, "failed": len(failed)})
    if share is None:
        for own in (FAILED, RUN):
            for name in list_shares(storage, own):
                if name != own:
                    storage.remove(name)


def write_run(storage: Storage, run: Mapping[str, Any]) -> None:
    """Write the record of a run, or of one share of it."""
    kept = (
        *("asked", "new", "failed", "finished", "merged", "share", "shares"),
        *("provenance", "done", "left"),
    )
    content = json.dumps({name: run[name] for name in kept if name in run}, indent=2, default=str)
    storage.write(of_share(RUN, run["share"]), content.encode())


def digest_list(names: Iterable[str]) -> str:
    """Return what tells a list of images from others, in whatever order.

    Examples
    --------
    >>> digest_list(["a.jpg", "b.jpg"]) == digest_list(["b.jpg", "a.jpg"])
    True
    """
    return hashlib.sha256(b"\0".join(sorted(encode(list(names))))).hexdigest()[:32]


def join_shares(runs: Iterable[Mapping[str, Any]]) -> dict[str, dict[Share, int]]:
    """Count by column the images of each share that runs, and merges of them, were of."""
    shares: dict[str, dict[Share, int]] = {}
    for run in runs:
        for path, own in run["shares"].items():
            counts = {parse_share(text): asked for text, asked in own.items()}
            shares.setdefault(path, {}).update(counts)
        if run["share"]:
            lists = (*run["done"].values(), *run["left"].values())
            for path in {path for paths in lists for path in paths} or {""}:
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


def name_shares(shares: Mapping[str, Mapping[Share, int]]) -> dict[str, dict[str, int]]:
    """Write shares by column as a record keeps them."""
    return {
        path: {name_share(share): asked for share, asked in own.items()}
        for path, own in shares.items()
    }


def parse_share(text: str) -> Share:
    """Read what :func:`name_share` wrote."""
    part, parts = map(int, text.split("/"))
    return part, parts


def name_share(share: Share) -> str:
    """Write a share as it is typed.

    Examples
    --------
    >>> name_share((3, 16))
    '3/16'
    """
    return f"{share[0]}/{share[1]}"


def read_runs(storage: Storage) -> list[dict[str, Any]]:
    """Return ``run.json``, where there is one, and those of the shares."""
    return [read_run(storage, name) for name in list_shares(storage, RUN)]


def read_run(storage: Storage, name: str) -> dict[str, Any]:
    """Return what a run, or one share of it, said of itself."""
    try:
        run = dict(json.loads(storage.read(name) or b""))
        share, shares = run["share"], dict(run.get("shares", {}))
        return {
            **run,
            "asked": int(run["asked"]),
            "finished": run["finished"] is True,
            "merged": run.get("merged") is True,
            "share": share and parse_share(name_share(share)),
            "shares": {
                str(path): {name_share(parse_share(text)): int(own[text]) for text in own}
                for path, own in shares.items()
            },
            "done": {key: list(map(str, paths)) for key, paths in dict(run["done"]).items()},
            "left": {key: list(map(str, paths)) for key, paths in dict(run["left"]).items()},
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
    found = (one for one in storage.list() if pattern.fullmatch(one))
    return sorted(found, key=lambda one: (one != name, one))
