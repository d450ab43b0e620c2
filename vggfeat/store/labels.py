"""``labels.csv`` of a store: labels and splits of its images, where they are known."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping

from vggfeat.errors import StoreDamaged
from vggfeat.store.runs import Share, list_shares, of_share
from vggfeat.store.shard import encode
from vggfeat.store.storage import Storage

LABELS = "labels.csv"
_HEAD = ("name", "label", "split")
Labels = Mapping[str, tuple[str, str]]
"""Label and split by an image's name; several labels of an image are joined by |."""


def write_labels(storage: Storage, labels: Labels, share: Share | None = None) -> None:
    """Add labels to those that are there; a share of a run writes a file of its own.

    Examples
    --------
    >>> from vggfeat.store.storage import MemoryStorage
    >>> storage = MemoryStorage()
    >>> write_labels(storage, {"cat/1.jpg": ("cat", "train")})
    >>> read_labels(storage)
    {'cat/1.jpg': ('cat', 'train')}
    """
    held = read_labels(storage)
    if all(held.get(name) == of_image for name, of_image in labels.items()):
        return
    rows = labels if share else {**held, **labels}
    text = io.StringIO(newline="")
    csv.writer(text).writerows([_HEAD, *([name, *of_image] for name, of_image in rows.items())])
    storage.write(of_share(LABELS, share), b"".join(encode([text.getvalue()])))
    if share is None:
        for name in list_shares(storage, LABELS):
            if name != LABELS:
                storage.remove(name)


def read_labels(storage: Storage) -> dict[str, tuple[str, str]]:
    """Return the labels that any run, or share of one, has left.

    Raises
    ------
    StoreDamaged
        If a file of them is no such list.
    """
    labels: dict[str, tuple[str, str]] = {}
    for file in reversed(list_shares(storage, LABELS)):
        text = (storage.read(file) or b"").decode("utf-8", "surrogateescape")
        try:
            rows = csv.DictReader(io.StringIO(text, newline=""))
            labels |= {row["name"]: (row["label"] or "", row["split"] or "") for row in rows}
        except (csv.Error, KeyError) as error:
            raise StoreDamaged(f"{storage}/{file} has no labels: {error}. Delete it.") from error
    return labels
