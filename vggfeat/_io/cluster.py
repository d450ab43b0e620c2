"""A Ray cluster: joined, divided into slots and given tasks; its errors are raised as our own."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

from vggfeat.errors import DeviceError, MissingExtra, ParameterError, VggfeatError

CPUS = 4  # of a task without a GPU: several such serve better than a wider one
RETRIES = 3  # of a task whose worker or node died
REACH_SECONDS = 10.0  # for the head of a cluster to answer
CANCEL_SECONDS = 60.0  # for tasks to keep what is complete
# A worker may be given another GPU for its next task: torch sees them all, and takes that one.
ALL_GPUS = {"env_vars": {"RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES": "1"}}


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


def choose_slot(device: str) -> Slot:
    """Choose what a task takes: a GPU and its share of the node's cores, or some cores.

    Raises
    ------
    ParameterError, DeviceError
        For a device that is none of a cluster's, or that no node has.
    """
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


def own_gpu() -> str:
    """Name the GPU that Ray has given this task, as torch counts them."""
    import ray

    given = str(ray.get_gpu_ids()[0])
    seen = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    return f"cuda:{seen.index(given) if given in seen else given}"


def run_in_turn(
    begin: Callable[[int], Any], count: int, ahead: int
) -> Generator[tuple[int, Any], None, None]:
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
            outcome = get(first)
            yield waiting.pop(first), outcome
    finally:  # on Ctrl-C, as on an error, tasks keep what is complete
        for reference in waiting:
            ray.cancel(reference)
        if waiting:
            ray.wait(list(waiting), num_returns=len(waiting), timeout=CANCEL_SECONDS)


def put(value: Any) -> Any:
    """Put a value into Ray's object store, from which each node takes it once."""
    import ray

    return ray.put(value)


def get(reference: Any) -> Any:
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
