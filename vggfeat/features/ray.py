"""Extraction in a Ray cluster: blocks of images, each a task that runs the same pipeline as here.

The driver alone admits the columns, lists once what is lacking, and begins and finishes the run.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from vggfeat._io.remote import address_of
from vggfeat._io.text import counted
from vggfeat.data.image import Crop, ImageLike, load
from vggfeat.data.imageset import ImageSet
from vggfeat.data.sources.tar import TarMember
from vggfeat.errors import (
    DataNotFound,
    DeviceError,
    MissingExtra,
    ParameterError,
    PictureError,
    StoreError,
    VggfeatError,
)
from vggfeat.features.extractor import DenseExtractor
from vggfeat.features.pipeline import (
    Progress,
    Run,
    Summary,
    check_policy,
    judge_settings,
    round_size,
)
from vggfeat.features.provenance import provenance
from vggfeat.features.replacing import refuse_other_images
from vggfeat.nets.runtimes.device import resolve_device, resolve_precision
from vggfeat.nets.weights import Weights
from vggfeat.nets.weights import load as load_weights
from vggfeat.settings import Extraction, Hardware
from vggfeat.store.column import Column, Descriptor
from vggfeat.store.shard import Pairs
from vggfeat.store.storage import LocalStorage, RemoteStorage, open_storage
from vggfeat.store.store import FeatureStore

BLOCK = 2_000  # images of a task that lack something, at most
BLOCKS = 64  # at least, where there are as many rounds: signs of progress, and no stragglers
CPUS = 4  # of a task without a GPU: several such serve better than a wider one
RETRIES = 3  # of a task whose worker or node died
REACH_SECONDS = 10.0  # for the head of a cluster to answer
LATE_SECONDS = 60.0  # that a network file system may take to show what another node wrote
# A worker may be given another GPU for its next task: torch sees them all, and takes that one.
ALL_GPUS = {"env_vars": {"RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES": "1"}}


def extract_on_ray(
    images: ImageSet,
    extraction: Extraction,
    hardware: Hardware,
    scales: Sequence[int],
    store: FeatureStore,
    *,
    outputs: Sequence[str] = (),
    on_bad_image: str = "skip",
    workers: int | None = None,
    share: tuple[int, int] | None = None,
    progress: Progress | None = None,
    address: str | None = None,
    weights: Weights | None = None,
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
    scales, store, outputs, on_bad_image, share
        As for :func:`~vggfeat.features.pipeline.extract`; all nodes see the store.
    workers : int, optional
        Decoding threads of a task; as many as it has cores by default.
    progress : callable, optional
        Called with the :class:`Summary` so far, after every block.
    address : str, optional
        As for :func:`connect`.
    weights : Weights, optional
        Those of the extraction, if they are loaded already. They go to the nodes by themselves.

    Returns
    -------
    Summary

    Raises
    ------
    MissingExtra
        If Ray is not installed.
    DeviceError
        If no cluster answers, it lacks the device or the precision, or it cannot go on.
    StoreError, DataNotFound
        If a node does not see the store, or an image that this one sees.
    VggfeatError
        As from :func:`~vggfeat.features.pipeline.extract`, wherever it went wrong.

    Notes
    -----
    Ray does the blocks of workers and nodes that die again. Rounds are those of a local run, and
    so are the bits on processors of the same kind with as many threads.

    Examples
    --------
    >>> settings = Extraction(net="D", layers="pool5")
    >>> store = FeatureStore("/shared/features", "a")  # doctest: +SKIP
    >>> extract_on_ray(images, settings, Hardware(), [256, 384], store)  # doctest: +SKIP
    """
    check_policy(on_bad_image)
    store.check_writable()
    where = _shared(store)
    connect(address)
    slot = _slot(hardware.device)
    hardware = hardware.but(device=slot.device)
    numbers = _put(weights or load_weights(extraction.weights, extraction.net, extraction.layers))
    network = Network(extraction, hardware, numbers, slot.threads, tuple(scales), tuple(outputs))
    held = [column for name, column in store.index.columns.items() if name.net == extraction.net]
    probed = _get(slot.remote(_probe).remote(network, held))
    network = replace(network, extraction=probed.extraction)
    columns = [column.descriptor for column in probed.columns]
    store.add_columns(probed.columns)
    device = f"Ray, {counted(slot.nodes, 'node')}: {probed.provenance['device']}"
    stamps = images.stamps()
    refuse_other_images(images, stamps, store)
    store.begin(images.names, {**probed.provenance, "device": device}, share)

    lacking = _lacking(store, columns, images.names, stamps)
    blocks = cut(lacking, probed.round_size, min(BLOCK, int(lacking.sum()) // BLOCKS))
    target = Target(where, store.dtype, columns, on_bad_image, workers or slot.threads)
    task = slot.remote(_describe)

    def begin(number: int) -> Any:
        block = blocks[number]
        pictures = tuple(map(absolute, images.images[block]))
        return task.remote(network, target, ImageSet(images.names[block], pictures))

    start = time.perf_counter()
    summary = Summary(len(images), present=int((~lacking).sum()))
    if progress:
        progress(summary)
    failed: dict[str, str] = {}
    overflowed: dict[str, str] = {}
    with closing(_in_turn(begin, len(blocks), 2 * slot.slots)) as outcomes:
        for number, done in outcomes:
            block = blocks[number]
            _refuse_unseen(done, images.names[block], images.images[block], scales)
            if done.failed and on_bad_image == "error":
                name, reason = next(iter(done.failed.items()))
                raise PictureError(f"{name}: {reason}")
            failed |= done.failed
            overflowed |= done.overflowed
            summary.present += done.summary.present - int((~lacking[block]).sum())
            summary.computed += done.summary.computed
            summary.failed += done.summary.failed
            summary.replaced += done.summary.replaced
            summary.added += done.summary.added
            summary.seconds = time.perf_counter() - start
            if progress:
                progress(summary)
    judge_settings(overflowed, summary, at_least=1)
    _await(store, columns, [name for name in images.names if name not in failed])
    store.finish(images.names, failed, share)
    return summary


def connect(address: str | None = None) -> None:
    """Join a Ray cluster, unless this process is in one already.

    Parameters
    ----------
    address : str, optional
        ``"auto"`` for the cluster of this machine, or ``"host:6379"``; by default that of
        ``RAY_ADDRESS``, else that of this machine, else a new one of this machine alone.

    Raises
    ------
    MissingExtra
        If Ray is not installed.
    DeviceError
        If no cluster answers.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to anybody
    # Ray tells of lost workers on stdout, where results go; it mends them, or an error is raised.
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")
    try:
        import ray
    except ImportError as error:
        raise MissingExtra.of("A Ray cluster", "ray", "ray") from error
    if ray.is_initialized():
        return
    try:
        _reach(address)
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise DeviceError(
            f"No Ray cluster answers at {address or 'this machine'}: {_last_line(error)} Start one "
            "with `ray start --head`, and with `ray start --address=HEAD:6379` on the other nodes; "
            "or leave the address out to use this machine alone. A cluster that asks for a token "
            "wants RAY_AUTH_MODE=token on all nodes and here, and its token."
        ) from error


def absolute(picture: ImageLike) -> ImageLike:
    """Name an image's file from the root, as workers run in other folders.

    Examples
    --------
    >>> str(absolute("/data/a.jpg"))
    '/data/a.jpg'
    """
    if isinstance(picture, Crop):
        return replace(picture, path=picture.path.absolute())
    if isinstance(picture, TarMember) and address_of(picture.archive) is None:
        return replace(picture, archive=str(Path(picture.archive).absolute()))
    return Path(picture).absolute() if isinstance(picture, str | Path) else picture


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


# In a worker


@dataclass(frozen=True)
class Network:
    """What a worker opens a network with; `weights` is a reference into Ray's object store."""

    extraction: Extraction
    hardware: Hardware
    weights: Any
    threads: int
    scales: tuple[int, ...]
    outputs: tuple[str, ...]

    def device(self) -> str:
        """Name the GPU that Ray has given this task, or the CPU."""
        return _own_gpu() if self.hardware.device == "cuda" else "cpu"

    def open(self) -> DenseExtractor:
        """Open it, once for all tasks of this process."""
        hardware = self.hardware.but(device=self.device())
        return _open_once(self.extraction, hardware, self.weights, self.threads)


class Target(NamedTuple):
    """Where a worker writes, and how it treats images."""

    where: Path | str
    dtype: str
    columns: list[Descriptor]
    on_bad_image: str
    workers: int


class Probe(NamedTuple):
    """What a node computes, and with what."""

    extraction: Extraction
    columns: list[Column]
    provenance: dict[str, Any]
    round_size: int


class Outcome(NamedTuple):
    """What became of a block."""

    node: str
    summary: Summary
    failed: dict[str, str]
    overflowed: dict[str, str]


def _probe(network: Network, held: list[Column]) -> Probe:
    """Find out what a node computes for a store with such columns; refuse scales too small."""
    device = resolve_device(network.device())
    stored = [column.settings.get("precision", "auto") for column in held]
    precision = resolve_precision(network.extraction.precision, device, stored)
    extractor = replace(network, extraction=network.extraction.but(precision=precision)).open()
    extractor.check_scales(network.scales)
    made = extractor.extraction
    return Probe(
        made,
        extractor.columns(network.scales, network.outputs),
        provenance(extractor),
        round_size(extractor.device.type, network.scales, made.pools),
    )


def _describe(network: Network, target: Target, images: ImageSet) -> Outcome:
    """Describe the images of a block that lack something."""
    node = socket.gethostname()
    storage = open_storage(target.where)
    if any(storage.read(column.file) is None for column in target.columns):
        raise _unseen(storage, f"The node {node} does")
    store = FeatureStore(target.where, "a", dtype=target.dtype)
    extractor = network.open()
    run = Run(images, extractor, network.scales, store, network.outputs, target.on_bad_image)
    with suppress(PictureError):  # it is in `failed`
        run.all(target.workers)
    return Outcome(node, run.summary, run.failed, run.overflowed)


@lru_cache(maxsize=1)
def _open_once(
    extraction: Extraction, hardware: Hardware, reference: Any, threads: int
) -> DenseExtractor:
    """Open a network for all blocks that this process describes."""
    import ray

    if hardware.device == "cpu":
        torch.set_num_threads(threads)
    weights = ray.get(reference)  # its arrays are shared and read-only: torch wants its own
    state = {name: torch.tensor(array) for name, array in weights.state.items()}
    return DenseExtractor(extraction, hardware=hardware, weights=replace(weights, state=state))


def _own_gpu() -> str:
    """Name the GPU that Ray has given this task, as torch counts them."""
    import ray

    given = str(ray.get_gpu_ids()[0])
    seen = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    return f"cuda:{seen.index(given) if given in seen else given}"


# In the driver


@dataclass(frozen=True)
class Slot:
    """What of the cluster each task takes, and for how many at a time it has room."""

    device: str
    resources: dict[str, Any]
    threads: int
    slots: int
    nodes: int

    def remote(self, function: Callable[..., Any]) -> Any:
        """Make a task of a function; its worker stays for the next one, with its network."""
        import ray

        return ray.remote(max_retries=RETRIES, max_calls=0, **self.resources)(function)


def _slot(device: str) -> Slot:
    """Choose what a task takes: a GPU and its share of the node's cores, or some cores."""
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    with_gpu = [node for node in nodes if node.get("GPU", 0) >= 1]
    if device not in (choices := ("auto", "cuda", "cpu")):  # which GPU is Ray's affair
        raise ParameterError.not_one_of("device", "a Ray cluster", choices, device)
    if device == "cuda" and not with_gpu:
        raise DeviceError("The Ray cluster has no GPU. Use --device cpu or auto, or add a node.")
    if with_gpu and device != "cpu":
        cores = int(min(node.get("CPU", 0) // node["GPU"] for node in with_gpu))
        resources = {"num_gpus": 1, "num_cpus": cores, "runtime_env": ALL_GPUS}
        slots = sum(int(node["GPU"]) for node in with_gpu)
        return Slot("cuda", resources, max(1, cores), slots, len(nodes))
    cores = int(min(CPUS, max(node.get("CPU", 0) for node in nodes)))
    if not cores:
        raise DeviceError("The Ray cluster has no CPUs. Start its nodes with some.")
    slots = sum(int(node.get("CPU", 0) // cores) for node in nodes)
    return Slot("cpu", {"num_cpus": cores}, cores, slots, len(nodes))


def _put(weights: Weights) -> Any:
    """Put weights into Ray's object store, from which each node takes them once."""
    import ray

    arrays: Any = {name: tensor.numpy() for name, tensor in weights.state.items()}
    return ray.put(replace(weights, state=arrays))


def _lacking(
    store: FeatureStore, columns: Sequence[Descriptor], names: Sequence[str], stamps: Pairs
) -> NDArray[np.bool_]:
    """Tell which images lack a column, or must be read before that is known."""
    ids = store.recall(names, stamps)
    held = store.has(columns, names, ids, current=True).all(axis=1)
    return np.asarray(~(held & ids.any(axis=1)))


def _in_turn(
    begin: Callable[[int], Any], count: int, ahead: int
) -> Generator[tuple[int, Outcome], None, None]:
    """Keep some tasks under way until all are done; yield what each did as it ends."""
    import ray

    waiting: dict[Any, int] = {}
    begun = 0
    try:
        while waiting or begun < count:
            while begun < count and len(waiting) < ahead:
                waiting[begin(begun)] = begun
                begun += 1
            [first, *_], _ = ray.wait(list(waiting), num_returns=1)
            outcome = _get(first)
            yield waiting.pop(first), outcome
    finally:  # on Ctrl-C, as on an error, tasks keep what is complete
        for reference in waiting:
            ray.cancel(reference)
        if waiting:
            ray.wait(list(waiting), num_returns=len(waiting), timeout=LATE_SECONDS)


def _get(reference: Any) -> Any:
    """Take what a task returned, or raise its error as if it had been raised here."""
    import ray

    try:
        return ray.get(reference)
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", None)
        if isinstance(cause, VggfeatError):
            raise cause from None
        raise DeviceError(
            f"The Ray cluster could not go on: {_last_line(cause or error)} What was complete is "
            "kept: run the same command again."
        ) from error


def _refuse_unseen(
    done: Outcome, names: Sequence[str], pictures: Sequence[ImageLike], scales: Sequence[int]
) -> None:
    """Tell a bad image from one that only the other node cannot read."""
    for name, picture in zip(names, pictures, strict=True):
        if name not in done.failed or name in done.overflowed:
            continue
        with suppress(PictureError):
            if isinstance(picture, str | Path | Crop | TarMember) and load(picture, scales):
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


def _reach(address: str | None) -> None:
    """Fail at once where nothing listens: Ray itself would try for many minutes."""
    host, _, port = (address or os.environ.get("RAY_ADDRESS", "")).rpartition(":")
    if host and "/" not in host and port.isdigit():
        with socket.create_connection((host, int(port)), timeout=REACH_SECONDS):
            pass


def _last_line(error: BaseException) -> str:
    """Return the last line of a message: of a traceback, what it is about."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[-1].rstrip(".") + "."
