"""What a store of a million rows costs: time, memory and files of all that is done with one.

`make bench-store`, or `python benchmarks/large_store.py --rows 1000000 --width 512`. Each stage
runs in a process of its own, so that its peak memory is its own, 0.1 GB of Python, NumPy and HDF5
included; the time is without the start of Python. What is read is compared with what was written.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
from large_made import FC7, descriptors, name_of, write

from vggfeat.store.export import pack
from vggfeat.store.maintenance import verify
from vggfeat.store.merge import merge
from vggfeat.store.store import FeatureStore

SAMPLE = 1000


def main() -> None:
    """Run all stages, and print a row for each."""
    asked = _asked()
    if asked.stage:
        print(json.dumps(_stage(asked)))
        return
    found = {}
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        print(f"{asked.rows:,} rows of {asked.width} {asked.dtype}, in shards of {asked.per_shard}")
        print(f"{'stage':<24}{'s':>8}{'peak GB':>9}  {'':<30}")
        for stage in STAGES:
            command = [sys.executable, __file__, *sys.argv[1:], "--stage", stage, "--in", folder]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)  # noqa: S603  # this very script
            found[stage] = json.loads(done.stdout)
            row = found[stage]
            print(f"{stage:<24}{row['seconds']:>8.2f}{row['gb']:>9.2f}  {row['note']:<30}")
    if asked.json:
        asked.json.parent.mkdir(parents=True, exist_ok=True)
        asked.json.write_text(json.dumps({**vars(asked), "stages": found}, default=str, indent=1))


def _stage(asked: argparse.Namespace) -> dict[str, object]:
    start = time.perf_counter()
    note = STAGES[asked.stage](asked.into, asked)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "seconds": seconds,
        "gb": peak / (1e6 if sys.platform == "linux" else 1e9),
        "note": note,
    }


def _write(folder: Path, asked: argparse.Namespace) -> str:
    store = write(folder / "many", asked.rows, asked.width, asked.dtype, asked.per_shard)
    return f"{store.nbytes / 1e9:.2f} GB, {len(store.index.headers):,} shards"


def _open(store: str) -> Callable[[Path, argparse.Namespace], str]:
    def stage(folder: Path, asked: argparse.Namespace) -> str:
        opened = FeatureStore(folder / store)
        assert len(opened.names) == asked.rows
        return f"{len(opened.index.headers):,} shards"

    return stage


def _sample(store: str) -> Callable[[Path, argparse.Namespace], str]:
    def stage(folder: Path, asked: argparse.Namespace) -> str:
        rows = np.random.default_rng(0).integers(asked.rows, size=SAMPLE)
        opened = FeatureStore(folder / store)
        [values] = opened.read([FC7], [name_of(row) for row in rows]).values()
        np.testing.assert_array_equal(values, descriptors(rows, asked.width))
        return f"{SAMPLE:,} random rows, opening included"

    return stage


def _blocks(store: str) -> Callable[[Path, argparse.Namespace], str]:
    def stage(folder: Path, asked: argparse.Namespace) -> str:
        first = 0
        for names, arrays in FeatureStore(folder / store).blocks([FC7]):
            [values] = arrays.values()
            if first % (64 * 1024) == 0:
                expected = descriptors(np.arange(first, first + len(names)), asked.width)
                np.testing.assert_array_equal(values, expected)
            first += len(names)
        assert first == asked.rows
        return "all rows, 1,024 at a time"

    return stage


def _verify(store: str) -> Callable[[Path, argparse.Namespace], str]:
    def stage(folder: Path, asked: argparse.Namespace) -> str:
        assert verify(folder / store) == []
        return "every byte and number"

    return stage


def _merge(folder: Path, asked: argparse.Namespace) -> str:
    done = merge([folder / "many"], folder / "few")
    shutil.rmtree(folder / "many")
    return f"{done.shards} shards"


def _foreign(folder: Path, asked: argparse.Namespace) -> str:
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024))
    with h5py.File(folder / "few" / "features.h5") as file:
        array = file[FC7.path]
        for first in range(0, asked.rows, 4096):
            block = array[first : first + 4096]
            assert not np.isnan(block).any()
        last = np.arange(first, first + len(block))
        np.testing.assert_array_equal(block, descriptors(last, asked.width))
    return "all rows, by h5py alone"


def _pack(folder: Path, asked: argparse.Namespace) -> str:
    pack(folder / "few", folder / "packed.h5")
    return f"{(folder / 'packed.h5').stat().st_size / 1e9:.2f} GB"


STAGES: dict[str, Callable[[Path, argparse.Namespace], str]] = {
    "write": _write,
    "open": _open("many"),
    "sample": _sample("many"),
    "blocks": _blocks("many"),
    "verify": _verify("many"),
    "merge": _merge,
    "open, merged": _open("few"),
    "sample, merged": _sample("few"),
    "blocks, merged": _blocks("few"),
    "features.h5": _foreign,
    "pack": _pack,
    "open, packed": _open("packed.h5"),
    "sample, packed": _sample("packed.h5"),
}


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--width", type=int, default=512, help="512 of pool5, 4096 of fc7")
    parser.add_argument("--dtype", default="float16", choices=["float16", "float32"])
    parser.add_argument("--per-shard", type=int, default=256, help="rows of a shard")
    parser.add_argument("--folder", type=Path, help="on a disk with room for three copies")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--stage", choices=list(STAGES), help=argparse.SUPPRESS)
    parser.add_argument("--in", dest="into", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
