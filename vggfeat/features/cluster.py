"""Extraction in a Ray cluster: Ray Data schedules, retries and bounds; the store is shared.

Pictures go through three stages: tasks decode them, actors that hold the network describe them,
tasks write shards of their own into the store (:mod:`vggfeat.features.stages`). Rounds are those of
:mod:`vggfeat.features.extract`, so that batches, and with them bits, are those of a local run.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

from vggfeat.data.batches import Job
from vggfeat.data.images import Crop, load
from vggfeat.errors import DataNotFound, DeviceError, ParameterError, PictureError
from vggfeat.features.dense import DenseExtractor
from vggfeat.features.extract import ROWS_PER_SHARD, Run
from vggfeat.features.joining import TRIES, Lost, connect, data_context, plainly
from vggfeat.features.network import Network, probe
from vggfeat.features.place import Folder
from vggfeat.features.rounds import round_size
from vggfeat.features.shards import FolderShards
from vggfeat.features.stages import (
    COLUMN,
    Asked,
    Describe,
    Found,
    Kept,
    Target,
    absolute,
    decode,
    pack,
    unpack,
    unseen,
    write,
)

ACTOR_CPUS = 4  # at most, of an actor that describes on CPUs; more of them serve better than wider
DECODE_CPUS, WRITE_CPUS = 0.5, 0.25  # both also wait: for files, and for the disk
BLOCKS = 10_000  # at most, in which the pictures of a run are handed out
TICKS = 64  # at least so many shards, and with them signs of progress, in a run
LATE_SECONDS = 60.0  # that a network file system may take to show another node's file


class Cluster:
    """A Ray cluster whose nodes describe pictures.

    Parameters
    ----------
    address : str, optional
        As for :func:`~vggfeat.features.joining.connect`.
    device : {"auto", "cuda", "cpu"}
        What describes; ``"auto"`` takes the GPUs, if the cluster has any. Each actor has one.
    precision : str
        See :func:`~vggfeat.features.device.resolve_precision`; ``"auto"`` is what a node of the
        cluster computes in.

    Attributes
    ----------
    kind : str
        ``"cuda"`` or ``"cpu"``.
    name : str
        What computes, as a person knows it.

    Raises
    ------
    MissingExtra
        If Ray is not installed.
    DeviceError
        If no cluster answers, or it lacks the device or the precision.

    Examples
    --------
    >>> cluster = Cluster("auto")  # doctest: +SKIP
    >>> extractor = cluster.extractor("D", "fc7")  # doctest: +SKIP
    >>> store = FeatureStore("/shared/features", extractor.extraction, images.names,
    ...                      stats=images.stats())  # doctest: +SKIP
    >>> extract(images, extractor, [256, 384], store)  # doctest: +SKIP
    """

    def __init__(
        self, address: str | None = None, device: str = "auto", precision: str = "auto"
    ) -> None:
        connect(address)
        import ray

        held = ray.cluster_resources()
        gpus = int(held.get("GPU", 0))
        self.kind = _kind(device, gpus)
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        cpus = [node["CPU"] for node in nodes if node.get("CPU")]
        if not cpus:
            raise DeviceError("The Ray cluster has no CPUs. Start its nodes with some.")
        # Half a CPU of each node is left for decoding and writing, or nothing would come in.
        each = min(ACTOR_CPUS, max(0.5, max(cpus) - 1))
        self.threads = max(1, int(each))
        self._actor = {"num_gpus": 1, "num_cpus": 1} if self.kind == "cuda" else {"num_cpus": each}
        self._actors = gpus if self.kind == "cuda" else sum(int((n - 0.5) // each) for n in cpus)
        with plainly():
            task = ray.remote(probe).options(max_retries=3, **self._actor)
            self._probe = ray.get(task.remote(self.kind, precision))
        count = f"{len(nodes)} node" + "s" * (len(nodes) > 1)
        self.name = f"Ray, {count}: {self._probe.device}"

    def extractor(self, net: str, layers: str | Sequence[str], **settings: Any) -> DenseExtractor:
        """Open a network for the cluster; :func:`~vggfeat.features.extract.extract` takes it.

        Parameters
        ----------
        net, layers, **settings
            As for :class:`~vggfeat.features.dense.DenseExtractor`, less device and precision,
            which are the cluster's.

        Returns
        -------
        DenseExtractor
            What it describes itself, as single pictures for a page, it computes here in fp32.
        """
        extractor = DenseExtractor(net, layers, device="cpu", precision="fp32", **settings)
        precision = self._probe.precision
        extractor.extraction = replace(extractor.extraction, precision=precision)
        extractor.runtime = self._probe.runtime
        extractor.cluster = self
        return extractor

    def run(self, run: Run, jobs: Sequence[Job], scales: Sequence[int]) -> None:
        """Describe what is missing, until all of it is in the store or failed.

        Ray replaces workers and nodes that die, and does their work again. Where it cannot, the
        stages are started anew with what is still missing.

        Raises
        ------
        PictureError
            On a bad picture, where the run stops at one.
        StoreError
            If a node does not see the store.
        DataNotFound
            If a node does not see a picture that this one sees.
        DeviceError
            If the cluster cannot go on.
        """
        import ray

        files = _shared(run)
        numbers = ray.put({name: one.numpy() for name, one in run.extractor.weights.state.items()})
        left, tries = dict(jobs), TRIES
        size = round_size(self.kind, run.extractor.extraction, scales)
        while left:
            before, lost = len(left), Lost("Pictures are missing whose work is done.")
            try:
                with plainly():
                    for kept in self._stages(run, list(left.items()), size, files, numbers):
                        self._take(run, kept, left)
                        run.tell()
            except Lost as error:
                lost = error
            tries = TRIES if len(left) < before else tries - 1
            if left and not tries:
                raise lost

    def _stages(
        self, run: Run, jobs: Sequence[Job], size: int, files: FolderShards, numbers: Any
    ) -> Iterator[Kept]:
        """Start the stages on these pictures, and yield what the writers did."""
        import ray

        extraction = run.extractor.extraction
        network = Network(
            extraction,
            replace(run.extractor.weights, state={}),
            numbers,
            self.kind,
            self.threads,
            run.extractor.pixel_budget if self.kind == "cpu" else None,
            run.extractor.deterministic,
        )
        target = Target(
            files,
            extraction,
            run.store.manifest.dtype,
            run.store._provenance,
            run.store.index.generation,
        )
        rounds = [
            pack([[_asked(run, job) for job in some]])[COLUMN][0]
            for _, some in groupby(jobs, lambda job: job[0] // size)
        ]
        count = max(1, self._actors)
        pool = ray.data.ActorPoolStrategy(min_size=1, max_size=count, initial_size=count)
        shard = min(ROWS_PER_SHARD, size * max(1, len(jobs) // TICKS // size))  # whole rounds
        with data_context():
            given = ray.data.from_items(
                [{COLUMN: one} for one in rounds], override_num_blocks=min(len(rounds), BLOCKS)
            )
        written = (
            given
            .map_batches(decode, batch_size=1, fn_kwargs={"exif": extraction.exif},
                         num_cpus=DECODE_CPUS)
            .map_batches(Describe, batch_size=1, compute=pool,
                         fn_constructor_args=(network, target.dtype),
                         **self._actor)
            .map_batches(write, batch_size=shard, fn_kwargs={"target": target},
                         num_cpus=WRITE_CPUS)
        )  # fmt: skip
        for row in written.iter_rows():
            yield from unpack({COLUMN: [row[COLUMN]]})

    def _take(self, run: Run, kept: Kept, left: dict[int, tuple[int, ...]]) -> None:
        """Take in what a writer did; what Ray did twice counts once."""
        files = run.store.files
        assert isinstance(files, FolderShards)
        new = [row for row in kept.rows if left.pop(row, None)]
        for key in kept.shards if new else ():
            _await(files, key, kept.node)
            run.store.index.add(files.header(key))
            run.store._wrote = True  # as if by this process: the manifest says who wrote last
        run.summary.computed += len(new)
        for one in kept.failed:
            if not left.pop(one.asked.row, None):
                continue
            if one.overflow:
                run.overflow(one.asked.row, one.reason)
            else:
                _refuse_unseen(run, one)
                run.fail(one.asked.row, one.reason)


def _kind(device: str, gpus: int) -> str:
    if device == "auto":
        return "cuda" if gpus else "cpu"
    if device not in ("cuda", "cpu"):
        choices = ("auto", "cuda", "cpu")  # which GPU an actor has is Ray's affair
        raise ParameterError.not_one_of("device", "Cluster", choices, device)
    if device == "cuda" and not gpus:
        raise DeviceError("The Ray cluster has no GPU. Use --device cpu or auto, or add a node.")
    return device


def _shared(run: Run) -> FolderShards:
    """Return the files of the store as workers find them."""
    files = run.store.files
    if not isinstance(files, FolderShards):
        raise ParameterError(
            "A cluster writes into a store that all its nodes see. Open the FeatureStore with a "
            "folder, not in memory."
        )
    place = files.place
    return FolderShards(Folder(place.path.absolute()) if isinstance(place, Folder) else place)


def _asked(run: Run, job: Job) -> Asked:
    row, scales = job
    digest, time_ns = run.store.index.stats[row].tolist()
    picture = absolute(run.images.pictures[row])
    return Asked(row, run.store.names[row], (digest, time_ns), picture, scales)


def _await(files: FolderShards, key: str, node: str) -> None:
    """Wait until a shard that another node wrote is seen here."""
    end = time.monotonic() + LATE_SECONDS
    while not files.place.nbytes([f"shards/{key}"]):
        if time.monotonic() > end:
            raise unseen(files, node)
        time.sleep(0.2)


def _refuse_unseen(run: Run, one: Found) -> None:
    """Tell a bad picture from one that only the other node cannot read."""
    picture = run.images.pictures[one.asked.row]
    if not isinstance(picture, str | Path | Crop):
        return
    try:
        load(picture, one.asked.scales)
    except PictureError:
        return
    raise DataNotFound(
        f"The node {one.node} cannot read {one.asked.name} ({one.reason}), and this one can. Put "
        "the pictures on a file system that all nodes of the cluster have in common, under the "
        "same path, or name them by addresses."
    )
