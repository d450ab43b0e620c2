"""What a run, or each share of it, leaves behind: ``run.json`` and ``failed.csv``."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping
from typing import Any

from vggfeat.errors import StoreDamaged
from vggfeat.store.shard import encode
from vggfeat.store.storage import Storage

FAILED, RUN = "failed.csv", "run.json"
Share = tuple[int, int]
"""Part and number of parts."""


def start_run(storage: Storage, run: Mapping[str, Any]) -> None:
    """Write ``run.json`` of a run, or of one share of it, that has begun."""
    _write_run(storage, run, 0, finished=False)


def finish_run(storage: Storage, run: Mapping[str, Any], failed: Mapping[str, str]) -> None:
    """Write ``run.json`` and ``failed.csv`` of a run, or of one share of it, that is through.

    A run over the whole list removes those of the shares: it has tried again what they name.
    """
    share = run["share"]
    if failed:
        text = io.StringIO(newline="")
        csv.writer(text).writerows([("name", "reason"), *failed.items()])
        storage.write(of_share(FAILED, share), b"".join(encode([text.getvalue()])))
    else:
        storage.remove(of_share(FAILED, share))
    _write_run(storage, run, len(failed), finished=True)
    if share is None:
        for own in (FAILED, RUN):
            for name in list_shares(storage, own):
                if name != own:
                    storage.remove(name)


def _write_run(storage: Storage, run: Mapping[str, Any], failed: int, *, finished: bool) -> None:
    outcome = {"asked": run["asked"], "new": run["new"], "failed": failed, "finished": finished}
    content = json.dumps({**outcome, **run}, indent=2, default=str).encode()
    storage.write(of_share(RUN, run["share"]), content)


def read_runs(storage: Storage) -> list[dict[str, Any]]:
    """Return ``run.json``, where there is one, and those of the shares."""
    return [read_run(storage, name) for name in list_shares(storage, RUN)]


def read_run(storage: Storage, name: str) -> dict[str, Any]:
    """Return what a run, or one share of it, said of itself."""
    try:
        run = dict(json.loads(storage.read(name) or b""))
        return {**run, "asked": int(run["asked"]), "finished": run["finished"] is True}
    except (ValueError, TypeError, LookupError, OverflowError, RecursionError) as error:
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
