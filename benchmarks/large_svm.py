"""A linear SVM over more rows than memory holds, read from the store, beside the exact one.

`python benchmarks/large_svm.py --rows 1000000 --width 4096 --memory 2` takes a disk with 8.2 GB of
room, and half an hour on a few cores. The process that trains may not have more memory of its own
than `--memory` GB (RLIMIT_DATA; pages that the system caches of files are not its own). It trains

1. the exact solver (`gram`) and the streaming one on the first `--subset` rows, one C for both;
2. the streaming one on all rows,

and judges each by mean AP on the same `--test` rows, which no one has trained on. Rows are float16
on disk: classes overlap, so that AP is well below 100 and depends on what is learnt.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from large_made import FC7, column, ids, name_of, stamps

from vggfeat.features.matrix import StoreRows
from vggfeat.store.store import FeatureStore
from vggfeat.svm.ap import average_precisions
from vggfeat.svm.linear import LinearSVM
from vggfeat.svm.rows import Rows, linear_scores

PER_SHARD = 2048


def main() -> None:
    """Write the store in one process, train in another, and print what came of it."""
    asked = _asked()
    if asked.into:
        print(json.dumps(_trained(asked)))
        return
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        start = time.perf_counter()
        store = _write(Path(folder) / "store", asked)
        print(f"{len(store.names):,} rows of {asked.width} float16: {store.nbytes / 1e9:.2f} GB")
        print(f"written in {time.perf_counter() - start:.0f} s")
        command = [sys.executable, __file__, *sys.argv[1:], "--in", folder]
        found = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)  # noqa: S603  # this very script
    for name, value in found.items():
        print(f"{name:<44}{value:>12,.3f}")
    if asked.json:
        asked.json.parent.mkdir(parents=True, exist_ok=True)
        asked.json.write_text(json.dumps({**vars(asked), **found}, default=str, indent=1))


def _labels(asked: argparse.Namespace) -> Any:
    """Give every row a class; a fifth of them none of the classes."""
    total = asked.rows + asked.test
    return np.random.default_rng(1).integers(-asked.classes // 4, asked.classes, total)


def _write(folder: Path, asked: argparse.Namespace) -> FeatureStore:
    """Write descriptors as a network's are: not negative, sparse, a direction for each class."""
    total, labels = asked.rows + asked.test, _labels(asked)
    rng = np.random.default_rng(2)
    directions = rng.standard_normal((asked.classes, asked.width), np.float32)
    store = FeatureStore(folder, "a", dtype="float16")
    store.add_columns([column(asked.width)])
    every = [name_of(row) for row in range(total)]
    for first in range(0, total, PER_SHARD):
        mine = labels[first : first + PER_SHARD]
        values = rng.standard_normal((len(mine), asked.width), np.float32)
        values[mine >= 0] += asked.signal * directions[mine[mine >= 0]]
        rows = np.arange(first, first + len(mine))
        arrays = {FC7: np.maximum(values, 0)}
        store.write(every[first : first + PER_SHARD], ids(rows), stamps(rows), arrays)
    store.finish(every, {})
    return store


def _trained(asked: argparse.Namespace) -> dict[str, float]:
    limit = int(asked.memory * 2**30)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    X = StoreRows(FeatureStore(asked.into / "store"))
    targets = np.where(_labels(asked)[:, None] == np.arange(asked.classes), 1, -1).astype(np.int8)
    test = np.arange(asked.rows, asked.rows + asked.test)
    found: dict[str, float] = {}
    for solver, count in (("gram", asked.subset), ("stream", asked.subset), ("stream", asked.rows)):
        rows = Rows(X, np.arange(count))
        start = time.perf_counter()
        svm = LinearSVM(asked.C, "squared_hinge", solver, tol=asked.tol, n_jobs=1)
        svm.fit(rows, targets[:count])
        head = f"{solver}, {count:,} rows"
        found[f"{head}: s"] = time.perf_counter() - start
        found[f"{head}: readings"] = svm.readings_
        scores = linear_scores(Rows(X, test), svm.coef_, svm.intercept_)
        found[f"{head}: mAP"] = 100 * float(
            average_precisions(targets[test], scores, "area").mean()
        )
    start = time.perf_counter()
    for first in range(0, asked.rows, 1024):
        X[first : first + 1024]
    found["one reading of all rows: s"] = time.perf_counter() - start
    found["memory at most: GB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    exact, streamed = (found[f"{name}, {asked.subset:,} rows: mAP"] for name in ("gram", "stream"))
    found["stream / gram on the subset"] = streamed / exact
    assert streamed / exact > 0.99, found
    return found


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--width", type=int, default=4096)
    parser.add_argument("--classes", type=int, default=5)
    parser.add_argument("--subset", type=int, default=4_000)
    parser.add_argument("--test", type=int, default=10_000)
    parser.add_argument("--signal", type=float, default=0.05)
    parser.add_argument("--C", type=float, default=1.0)
    parser.add_argument("--tol", type=float, default=1e-3)
    parser.add_argument("--memory", type=float, default=2.0, help="GB")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--in", dest="into", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
