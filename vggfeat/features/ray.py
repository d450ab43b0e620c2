"""Extraction in a Ray cluster: blocks of images, each a task that runs the same pipeline as here.

The driver alone admits the columns, lists once what is lacking, and begins and finishes the run.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable, Sequence
from contextlib import closing, suppress
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from vggfeat._io import cluster
from vggfeat._io.text import counted
from vggfeat.data.datasets.labels import labels_of
from vggfeat.data.image import Crop, ImageLike, load
from vggfeat.data.imageset import ImageSet
from vggfeat.data.places import absolute
from vggfeat.data.sources.tar import TarMember
from vggfeat.errors import DataNotFound, ImageError, ParameterError, StoreError
from vggfeat.features.extractor import DenseExtractor
from vggfeat.features.pipeline import Run, RunOptions, judge_settings, round_size
from vggfeat.features.provenance import provenance
from vggfeat.features.summary import Progress, Summary
from vggfeat.nets.runtimes import resolve_device, resolve_precision
from vggfeat.nets.weights import Weights
from vggfeat.nets.weights import load as load_weights
from vggfeat.settings import Extraction, Hardware
from vggfeat.store.column import Column, Descriptor
from vggfeat.store.labels import write_labels
from vggfeat.store.storage import LocalStorage, RemoteStorage, open_storage
from vggfeat.store.store import FeatureStore

BLOCK = 2_000  # images of a task that lack something, at most
BLOCKS = 64  # at least, where there are as many rounds: signs of progress, and no stragglers
LATE_SECONDS = 60.0  # that a network file system may take to show what another node wrote


def extract_on_ray(
    images: ImageSet,
    extraction: Extraction,
    hardware: Hardware,
    scales: Sequence[int],
    store: FeatureStore,
    *,
    share: tuple[int, int] | None = None,
    progress: Progress | None = None,
    address: str | None = None,
    weights: Weights | None = None,
    **options: Any,
) -> Summary:
    """Compute what a store lacks on all nodes of a Ray cluster.

    Parameters
    ----------
    images : ImageSet
        On a file system that all nodes see, under the same paths, or at addresses.
    extraction : Extraction
        The precision ``"auto"`` is the store's, or else what a node computes in.
    hardware : Hardware
        The device is ``"auto"`` (the GPUs, if the cluster has any), ``"cuda"`` or ``"cpu"``.
    scales, store, share, progress, **options
        As for :func:`~vggfeat.features.pipeline.extract`; all nodes see the store, workers are
        those of a task, and progress is told after every block.
    address : str, optional
        As for :func:`~vggfeat._io.cluster.connect`.
    weights : Weights, optional
        Those of the extraction, if they are loaded already. They go to the nodes by themselves.

    Raises
    ------
    MissingExtra
        If Ray is not installed.
    DeviceError
        If no cluster answers, it lacks the device or the precision, or it cannot go on.
    StoreError, DataNotFound
        If a node does not see the store, or an image that this one sees.

    Notes
    -----
    Ray does the blocks of workers and nodes that die again. Rounds are those of a local run, and
    so are the bits on processors of the same kind with as many threads. Errors are as well,
    wherever they happen.

    Examples
    --------
    >>> settings = Extraction(net="D", layers="pool5")
    >>> store = FeatureStore("/shared/features", "a")  # doctest: +SKIP
    >>> extract_on_ray(images, settings, Hardware(), [256, 384], store)  # doctest: +SKIP
    """
    run_options = RunOptions(tuple(scales), **options)
    store.check_writable()
    where = _shared(store)
    columns = [column for name, column in store.index.columns.items() if name.net == extraction.net]
    stored = [column.settings.get("precision", "auto") for column in columns]
    precision = resolve_precision_on_ray(extraction.precision, hardware.device, stored, address)
    slot = cluster.choose_slot(hardware.device)
    weights = weights or load_weights(
        extraction.weights, extraction.net, extraction.layers, pixels=extraction.pixels
    )
    network = Network(
        extraction.but(precision=precision),
        hardware.but(device=slot.device),
        cluster.put(weights),
        slot.threads,
    )
    columns, made_by = cluster.get(slot.remote(_probe).remote(network, run_options))
    store.add_columns(columns)
    device = f"Ray, {counted(slot.nodes, 'node')}: {made_by['device']}"
    store.begin(images.names, {**made_by, "device": device}, share)

    names = [column.descriptor for column in columns]
    lacking = _lacking(store, names, images)
    whole_rounds = round_size(slot.device, scales, extraction.pools)
    blocks = cut(lacking, whole_rounds, min(BLOCK, int(lacking.sum()) // BLOCKS))
    target = Target(where, store.dtype, names, run_options)
    task = slot.remote(_describe)

    def begin(number: int) -> Any:
        block = images.take(range(*blocks[number].indices(len(images))))
        there = ImageSet(block.names, tuple(map(absolute, block.images)))
        return task.remote(network, target, there)

    start = time.perf_counter()
    summary = Summary(len(images), present=int((~lacking).sum()))
    if progress:
        progress(summary)
    failed: dict[str, str] = {}
    overflowed: dict[str, str] = {}
    with closing(cluster.run_in_turn(begin, len(blocks), 2 * slot.slots)) as outcomes:
        for number, done in outcomes:
            block = blocks[number]
            _refuse_unseen(done, images.names[block], images.images[block], scales)
            if done.failed and run_options.on_bad_image == "error":
                name, reason = next(iter(done.failed.items()))
                raise ImageError.of(name, reason)
            failed |= done.failed
            overflowed |= done.overflowed
            summary = summary.plus(done.summary)
            summary.present -= int((~lacking[block]).sum())  # these are counted already
            summary.seconds = time.perf_counter() - start
            if progress:
                progress(summary)
    judge_settings(overflowed, summary, at_least=1)
    _await(store, names, [name for name in images.names if name not in failed])
    write_labels(store.storage, labels_of(images), share)
    store.finish(images.names, failed, share)
    return summary


def resolve_precision_on_ray(
    precision: str, device: str, stored: Iterable[str], address: str | None
) -> str:
    """Turn a name into a precision that a node computes in, as `resolve_precision` does here.

    Raises
    ------
    MissingExtra, DeviceError
        As from :func:`extract_on_ray`.
    """
    cluster.connect(address)
    slot = cluster.choose_slot(device)
    found: str = cluster.get(slot.remote(_resolve).remote(precision, slot.device, list(stored)))
    return found


def cut(lacking: NDArray[np.bool_], round_size: int, most: int) -> list[slice]:
    """Cut a list into blocks of whole rounds, each with about so many rows that lack something.

    Examples
    --------
    >>> cut(np.array([True, False, False, False, True, True, True]), 2, 2)
    [slice(0, 6, None), slice(6, 7, None)]
    """
    starts = np.arange(0, len(lacking), round_size)
    counts = np.array([lacking[start : start + round_size].sum() for start in starts])
    block = (np.cumsum(counts) - counts) // max(most, 1)
    edges = [*starts[np.flatnonzero(np.diff(block, prepend=-1))].tolist(), len(lacking)]
    blocks = [slice(start, end) for start, end in pairwise(edges)]
    return [block for block in blocks if lacking[block].any()]


class Network(NamedTuple):
    """What a worker opens a network with; `weights` is a reference into Ray's object store."""

    extraction: Extraction
    hardware: Hardware
    weights: Any
    threads: int


class Target(NamedTuple):
    """The store as a worker finds it, the columns that it has there, and how a run works."""

    where: Path | str
    dtype: str
    columns: list[Descriptor]
    options: RunOptions


class BlockOutcome(NamedTuple):
    """What became of a block."""

    node: str
    summary: Summary
    failed: dict[str, str]
    overflowed: dict[str, str]


def _resolve(precision: str, kind: str, stored: list[str]) -> str:
    return resolve_precision(precision, resolve_device(_own_device(kind)), stored)


def _probe(network: Network, options: RunOptions) -> tuple[list[Column], dict[str, Any]]:
    """Find out on a node what is computed, and by what."""
    extractor = _open(network)
    extractor.check_scales(options.scales)
    return extractor.columns(options.scales, options.outputs), provenance(extractor)


def _describe(network: Network, target: Target, images: ImageSet) -> BlockOutcome:
    """Describe the images of a block that lack something, on a node."""
    node = socket.gethostname()
    storage = open_storage(target.where)
    if any(storage.read(column.file) is None for column in target.columns):
        raise _unseen(storage, f"The node {node} does")
    store = FeatureStore(target.where, "a", dtype=target.dtype)
    run = Run(images, _open(network), target.options, store)
    with suppress(ImageError):  # it is in `failed`
        run.all(target.options.workers or network.threads)
    return BlockOutcome(node, run.summary, run.failed, run.overflowed)


def _own_device(kind: str) -> str:
    """Name the GPU that Ray has given this task, or the CPU."""
    return cluster.own_gpu() if kind == "cuda" else "cpu"


def _open(network: Network) -> DenseExtractor:
    device = _own_device(network.hardware.device)
    return _open_once(network._replace(hardware=network.hardware.but(device=device)))


@lru_cache(maxsize=1)
def _open_once(network: Network) -> DenseExtractor:
    """Open a network for all blocks that this process describes."""
    if network.hardware.device == "cpu":
        torch.set_num_threads(network.threads)
    weights = cluster.get(network.weights)
    return DenseExtractor(network.extraction, hardware=network.hardware, weights=weights)


def _lacking(
    store: FeatureStore, columns: Sequence[Descriptor], images: ImageSet
) -> NDArray[np.bool_]:
    """Tell which images lack a column, or must be read before that is known."""
    ids = store.recall(images.names, images.stamps())
    held = store.has(columns, images.names, ids, current=True).all(axis=1)
    return np.asarray(~(held & ids.any(axis=1)))


def _refuse_unseen(
    done: BlockOutcome, names: Sequence[str], images: Sequence[ImageLike], scales: Sequence[int]
) -> None:
    """Tell a bad image from one that only the other node cannot read."""
    for name, image in zip(names, images, strict=True):
        if name not in done.failed or name in done.overflowed:
            continue
        with suppress(ImageError):
            if isinstance(image, str | Path | Crop | TarMember) and load(image, scales):
                raise DataNotFound(
                    f"The node {done.node} cannot read {name} ({done.failed[name]}), and this one "
                    "can. Put the images on a file system that all nodes of the cluster have in "
                    "common, under the same path, or name them by addresses."
                )


def _await(store: FeatureStore, columns: Sequence[Descriptor], names: Sequence[str]) -> None:
    """Wait until all that other nodes wrote is seen here."""
    end = time.monotonic() + LATE_SECONDS
    store.refresh()
    while not store.has(columns, names).all():
        if time.monotonic() > end:
            raise _unseen(store.storage, "Some node of the cluster does")
        time.sleep(0.2)
        store.refresh()


def _shared(store: FeatureStore) -> Path | str:
    """Name a store as workers find it."""
    if isinstance(store.storage, LocalStorage):
        return store.storage.path.absolute()
    if isinstance(store.storage, RemoteStorage):
        return store.storage.address
    raise ParameterError(
        "A cluster writes into a store that all its nodes see. Open the FeatureStore with a "
        "folder, not in memory."
    )


def _unseen(storage: object, who: str) -> StoreError:
    return StoreError(
        f"{who} not see the store {storage} as this one does. Put it on a file system, or at an "
        "address, that all nodes of the cluster have in common, and name it by the same path."
    )
