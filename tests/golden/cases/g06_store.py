"""G06: what the commands of a store say and write; shares of a run, joined."""

from __future__ import annotations

from typing import Any

import numpy as np

from golden.adapter import features as adapter
from golden.case import case
from golden.inputs import Inputs
from golden.summaries import distance, summary, within

LAYERS = ("pool1", "pool2")
POWER = 0.5
Rows = dict[str, dict[str, np.ndarray]]


@case(
    "G06-store",
    command="of G04's store, of pool1 and pool2: store info, verify, pack; export as csv, npz, "
    "parquet, raw and with --aggregate stack --power 0.5; extract --shard 1/2 and 2/2, merge",
    tolerance={
        **within("stacked/rows/*", 1e-5),
        "stacked/from the store": {"at_most": 1e-6},
        "merged/from the store": {"at_most": 1e-5},
    },
)
def working_with_a_store(inputs: Inputs) -> dict[str, Any]:
    """Keep counts and headers; the numbers are the same wherever they are written."""
    photos, store = inputs.copy("I1", "I1b", to="photos"), inputs.work / "f"
    adapter.extract(photos, store, layers=LAYERS)
    rows = adapter.stored(store)
    packed = inputs.work / "packed.h5"
    adapter.pack(store, packed)
    parts, shares = [inputs.work / "part1", inputs.work / "part2"], {}
    for number, part in enumerate(parts, start=1):
        told = adapter.extract(photos, part, layers=LAYERS, shard=f"{number}/2")
        shares[part.name] = {**told["counts"], "failed": adapter.failed(part)}
    merged = inputs.work / "merged"
    images = adapter.merge(parts, merged)
    again = adapter.stored(merged)
    return {
        "info": adapter.store_info(store),
        "verify": adapter.verify(store),
        "packed": {"verify": adapter.verify(packed), "same": _same(rows, adapter.stored(packed))},
        "shares": shares,
        "merged": {
            "images": images,
            "verify": adapter.verify(merged),
            "names": sorted(again),
            "from the store": max(
                distance(again[n][c], v) for n, row in rows.items() for c, v in row.items()
            ),
        },
        "raw": _raw(inputs, rows),
        "stacked": _stacked(inputs, rows),
    }


def _raw(inputs: Inputs, rows: Rows) -> dict[str, Any]:
    """Export the columns as they are: each must have the bits of the store."""
    values: dict[str, Any] = {}
    for kind in ("csv", "npz", "parquet"):
        file = inputs.work / f"raw.{kind}"
        count = adapter.export(inputs.work / "f", file, *adapter.RAW)
        names, arrays = adapter.exported(file)
        found = {
            name: {column: array[row].astype(np.float32) for column, array in arrays.items()}
            for row, name in enumerate(names)
        }
        values[kind] = {"rows": count, "names": names, "same": _same(rows, found)}
        values[kind]["columns"] = {column: array.shape[1] for column, array in arrays.items()}
    return values


def _stacked(inputs: Inputs, rows: Rows) -> dict[str, Any]:
    """Export one row an image: signed root and unit length of each column, and of them all."""
    values: dict[str, Any] = {}
    matrices = []
    for kind in ("csv", "npz", "parquet"):
        file = inputs.work / f"stacked.{kind}"
        count = adapter.export(inputs.work / "f", file, *adapter.STACKED)
        names, arrays = adapter.exported(file)
        matrices.append(arrays["X"].astype(np.float32))
        values[kind] = {"rows": count, "names": names, "D": arrays["X"].shape[1]}
    expected = np.stack(
        [_unit(np.concatenate([_unit(v**POWER) for v in rows[name].values()])) for name in names]
    )
    return {
        **values,
        "same": bool(all(np.array_equal(matrices[0], other) for other in matrices[1:])),
        "from the store": distance(matrices[0], expected),
        "rows": {name: summary(row) for name, row in zip(names, matrices[0], strict=True)},
    }


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def _same(rows: Rows, others: Rows) -> bool:
    """Tell whether all columns of all images have the same bits."""
    return rows.keys() == others.keys() and all(
        row.keys() == others[name].keys()
        and all(np.array_equal(vector, others[name][column]) for column, vector in row.items())
        for name, row in rows.items()
    )
