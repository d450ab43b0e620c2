"""Images, descriptors and stores as the cases reach them."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from helpers.cli import run
from PIL import Image

if TYPE_CHECKING:
    from torch import Tensor


def decode(image: Path) -> Image.Image:
    """Open an image as RGB, upright."""
    from vggfeat.data.image import decode

    return decode(image)


def rescale(image: Image.Image, Q: int) -> np.ndarray:
    """Rescale to smallest side Q."""
    from vggfeat.data.image import rescale

    return rescale(image, Q)


def reason_kind(reason: object) -> str:
    """Say of which kind the reason is why an image cannot be used, whatever its wording."""
    kinds = {
        "empty": "empty",
        "no image": "not an image of a format",
        "cut": "truncated",
    }
    fitting = [kind for kind, words in kinds.items() if words in str(reason)]
    return fitting[0] if fitting else f"another: {reason}"


def image_error() -> type[Exception]:
    """Return what is raised for one image that cannot be used."""
    from vggfeat.errors import ImageError

    return ImageError


# Networks


def describe(
    images: Mapping[str, np.ndarray],
    layers: tuple[str, ...],
    *,
    pools: tuple[str, ...] = ("average",),
    flip: bool = True,
    locations: str = "raw",
    precision: str = "fp32",
    runtime: str = "torch",
) -> dict[str, np.ndarray]:
    """Describe images (H, W, 3) by net D as shipped: descriptor by "name/layer/pool"."""
    from vggfeat import DenseExtractor

    extractor = DenseExtractor(
        "D",
        layers,
        weights="embedded",
        flip=flip,
        pool="+".join(pools),
        locations=locations,
        exif=True,
        device="cpu",
        precision=precision,
        runtime=runtime,
        deterministic=False,
    )
    return {
        f"{name}/{layer}/{pool}": rows[0].numpy()
        for name, pixels in images.items()
        for (layer, pool), rows in extractor.describe(_batch(pixels)).items()
    }


def _batch(pixels: np.ndarray) -> Tensor:
    """Make a batch (1, 3, H, W) of an image (H, W, 3)."""
    import torch

    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None]


def runtimes() -> list[tuple[str, str]]:
    """List what computes on this machine: (runtime, precision)."""
    from importlib.util import find_spec

    import torch

    from vggfeat.nets.runtimes import has_bf16
    from vggfeat.nets.runtimes.packed import can_pack

    absent = set() if find_spec("openvino") else {"openvino"}
    absent |= set() if can_pack() else {"packed"}
    precisions = ["fp32", "bf16"] if has_bf16(torch.device("cpu")) else ["fp32"]
    every = [(runtime, p) for p in precisions for runtime in ("torch", "packed", "openvino")]
    return [("winograd", "fp32"), *(pair for pair in every if pair[0] not in absent)]


# Stores

WORK = ("--device", "cpu", "--precision", "fp32", "--workers", "1")
"""Where and how every command of a case computes."""


def extract(
    images: Path,
    out: Path,
    *,
    net: str = "D",
    layers: tuple[str, ...] = ("pool3", "pool4"),
    pools: tuple[str, ...] = ("average", "max"),
    Q: tuple[int, ...] = (32, 64),
    weights: str | Path = "embedded",
    shard: str | None = None,
) -> dict[str, Any]:
    """Run ``vggfeat extract`` in the folder that both are in: what was done, dimensions."""
    words: list[str | Path] = ["extract", images.name, "--out", out.name, "--net", net]
    words += [word for layer in layers for word in ("--layer", layer)]
    words += [word for side in Q for word in ("--Q", str(side))]
    words += ["--pool", "+".join(pools), "--weights", weights, "--flip", "--exif"]
    words += ["--normalize", "descriptor", "--dtype", "float32", "--on-bad-image", "skip"]
    words += ["--shard", shard] if shard else []
    told = run(*words, *WORK, "--json", cwd=out.parent).json
    counts = {"images": told["images"]}
    counts |= {name: told[name] for name in ("computed", "present", "skipped")}
    dimensions = {column(path, layers[0]): width for path, width in told["dimensions"].items()}
    return {"counts": counts, "dimensions": dimensions, "precision": told["precision"]}


def column(path: str, layer: str = "") -> str:
    """Name a column as "net/layer/pool/Q" by the path of an array, which may leave some out."""
    net, *between, scale = path.strip("/").split("/")
    pools = [word for word in between if word in ("average", "max", "cells")]
    layers = [word for word in between if word not in pools]
    return "/".join([net, *(layers or [layer]), *(pools or ["average"]), scale])


def stored(store: Path, layer: str = "") -> dict[str, dict[str, np.ndarray]]:
    """Read a store or a packed file as any HDF5 reader does: vector by image and column.

    A store of one layer does not name it in its paths: it is to be said.
    """
    import h5py

    rows: dict[str, dict[str, np.ndarray]] = {}
    with h5py.File(store / "features.h5" if store.is_dir() else store) as file:
        names = [Path(name.decode()).name for name in file["names"][:]]
        arrays: dict[str, np.ndarray] = {}
        file.visititems(
            lambda path, item: (
                arrays.update({path: item[:]})
                if isinstance(item, h5py.Dataset) and path not in ("names", "id", "stamp")
                else None
            )
        )
    for path, values in arrays.items():
        for name, vector in zip(names, values, strict=True):
            rows.setdefault(name, {})[column(path, layer)] = vector
    return rows


def failed(store: Path) -> dict[str, str]:
    """Read which images could not be used, and the kind of each reason."""
    lists = [file.read_text(encoding="utf-8") for file in sorted(store.glob("failed*.csv"))]
    lines = [line for text in lists for line in csv.reader(io.StringIO(text, newline=""))]
    return {Path(n).name: reason_kind(why) for n, why in lines if (n, why) != ("name", "reason")}


def store_info(store: Path) -> dict[str, Any]:
    """Run ``vggfeat store info``: counts, arrays, settings."""
    told = run("store", "info", store, "--json").json
    keys = ("dtype", "asked", "failed", "finished", "shards")
    columns = {column(path): told["columns"][path] for path in told["columns"]}
    last = list(columns.values())[-1]["settings"]
    return {
        **{name: told[name] for name in keys},
        "images": told["images"],
        "settings": {
            "net": next(iter(told["nets"])),
            "weights_sha256": last["weights"],
            "layers": list(dict.fromkeys(name.split("/")[1] for name in columns)),
            **{name: last[name] for name in ("flip", "locations", "exif", "precision")},
        },
        "arrays": {name: [found["rows"], found["D"]] for name, found in columns.items()},
    }


def verify(store: Path) -> list[str]:
    """Run ``vggfeat store verify``: its problems."""
    problems: list[str] = run("store", "verify", store, "--json").json["problems"]
    return problems


def pack(store: Path, target: Path) -> None:
    """Run ``vggfeat store pack``."""
    run("store", "pack", store, target)


def merge(parts: list[Path], out: Path) -> int:
    """Run ``vggfeat store merge``: the number of images."""
    images: int = run("store", "merge", *parts, "--out", out, "--json").json["images"]
    return images


def export(store: Path, target: Path, *words: str) -> int:
    """Run ``vggfeat store export``: the number of rows."""
    rows: int = run("store", "export", store, target, *words, "--json").json["rows"]
    return rows


RAW = ("--raw",)
STACKED = ("--aggregate", "stack", "--normalize", "descriptor", "--power", "0.5")


def exported(file: Path) -> tuple[list[str], dict[str, np.ndarray]]:
    """Read names and arrays of an exported file; a CSV's columns of one array together."""
    if file.suffix == ".npz":
        with np.load(file) as arrays:
            names = [Path(name).name for name in arrays["names"].tolist()]
            numbers = [name for name in arrays.files if arrays[name].dtype.kind == "f"]
            return names, {_array(name): arrays[name] for name in numbers}
    if file.suffix == ".parquet":
        import pyarrow.parquet as pq

        table = pq.read_table(file)
        names = [Path(name).name for name in table["name"].to_pylist()]
        lists = {n: np.array(table[n].to_pylist()) for n in table.column_names if n != "name"}
        return names, {_array(name): values for name, values in lists.items()}
    with file.open(newline="") as opened:
        [_, *header], *lines = csv.reader(opened)
    places: dict[str, list[int]] = {}
    for place, title in enumerate(header, start=1):
        array = "X" if title.startswith("x") else title.rpartition("/")[0]
        places.setdefault(_array(array), []).append(place)
    values = {
        name: np.array([[float(line[place]) for place in some] for line in lines])
        for name, some in places.items()
    }
    return [Path(line[0]).name for line in lines], values


def _array(name: str) -> str:
    return name if name == "X" else column(name)


# The transformer, and whole networks


def transformer(**settings: Any) -> Any:
    """Make a scikit-learn transformer of net D with the shipped weights."""
    from vggfeat import VGGFeatures

    fixed = {"weights": "embedded", "device": "cpu", "precision": "fp32", "n_jobs": 1}
    return VGGFeatures(**{"net": "D", **fixed, **settings})


def dense_maps(
    net: str, layer: str, weights: Path, images: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Run a network densely over images (H, W, 3): the map (D, h, w) of each."""
    from vggfeat import DenseExtractor

    extractor = DenseExtractor(
        net,
        layer,
        weights=str(weights),
        flip=False,
        device="cpu",
        precision="fp32",
        runtime="torch",
    )
    return {name: extractor.maps(_batch(p))[layer][0].numpy() for name, p in images.items()}


# Splits and folds


def sample_labels() -> list[str]:
    """Return the labels of the shipped data set `sample`, in its order."""
    from vggfeat.data.datasets import open_dataset

    return list(open_dataset("sample")[1].labels)


def random_splits(labels: list[str], **settings: Any) -> list[tuple[np.ndarray, np.ndarray]]:
    """Draw splits class by class: rows to train and to test."""
    from vggfeat.svm.splits import random_splits

    return [(split.train, split.test) for split in random_splits(labels, **settings)]


def folds(labels: Any, number: int, seed: int) -> list[np.ndarray]:
    """Deal rows over folds: those that each validates."""
    from vggfeat.svm.splits import stratified_folds

    return [fold.test for fold in stratified_folds(labels, number, seed)]


def grouped_folds(targets: np.ndarray, groups: np.ndarray, seed: int) -> list[np.ndarray]:
    """Deal groups of rows over three folds, as VOC's habit cv3 does: those each validates."""
    from vggfeat.svm.protocols.voc import _grouped_folds

    return [fold.test for fold in _grouped_folds(targets, groups, seed)]


def held_out(labels: list[str], share: float, seed: int) -> np.ndarray:
    """Put a share of each class aside: its rows."""
    from vggfeat.svm.splits import held_out_part

    return held_out_part(labels, share, seed).test
