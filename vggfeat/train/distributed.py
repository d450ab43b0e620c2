"""The processes of a training run: one, or as many as torchrun started."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from itertools import count
from threading import Event
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from vggfeat.errors import DeviceError, ParameterError, Terminated
from vggfeat.nets.runtimes import resolve_device

MEETING = 30.0  # seconds in which all processes come, which are started at once
LISTING = 1800.0  # seconds that it may take one longer than another to list its images
POLL = 0.1  # seconds
_joined = count()


@dataclass(frozen=True)
class Processes:
    """Which of how many processes this is, and its device.

    Parameters
    ----------
    device : torch.device
    rank, world : int
    """

    device: torch.device
    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the one that writes and speaks."""
        return self.rank == 0

    def total(self, values: Tensor) -> Tensor:
        """Sum over all processes."""
        if self.world > 1:
            dist.all_reduce(values)
        return values

    def wait(self) -> None:
        """Wait for all others to come here."""
        if self.world > 1:
            dist.barrier()


class Stop(Event):
    """Set when a run is asked to stop.

    Attributes
    ----------
    why : type of KeyboardInterrupt
        What the run is to raise when it has stopped.
    """

    why: type[KeyboardInterrupt] = KeyboardInterrupt


@contextmanager
def stopping() -> Iterator[Stop]:
    """Set an event at the first Ctrl-C or SIGTERM, so that a run can stop where it is whole.

    The second one interrupts at once, as ever.
    """
    asked = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, frame: object) -> None:
        asked.why = Terminated if number == signal.SIGTERM else KeyboardInterrupt
        asked.set()
        restore()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    for number in before:
        signal.signal(number, ask)
    try:
        yield asked
    finally:
        restore()


class Rendezvous(NamedTuple):
    """Which of how many processes this is, and where they meet."""

    rank: int
    world: int
    host: str
    port: int


def find_rendezvous() -> Rendezvous | None:
    """Read the variables that torchrun sets, of which a process on its own has none.

    Raises
    ------
    ParameterError
        If one is missing or wrong, naming it.
    """
    environment = os.environ
    if not {"WORLD_SIZE", "RANK"} & environment.keys():
        return None
    world = _number("WORLD_SIZE", 1)
    rank = _number("RANK", 0, world - 1)
    if world == 1:
        return None
    if not environment.get("MASTER_ADDR"):
        raise _wrong("MASTER_ADDR", "the host of the process of rank 0")
    _number("LOCAL_RANK", 0, default="0")
    return Rendezvous(rank, world, environment["MASTER_ADDR"], _number("MASTER_PORT", 0, 65535))


def world_size() -> int:
    """Count the processes that torchrun started; 1 without it."""
    point = find_rendezvous()
    return point.world if point else 1


def meet() -> None:
    """Wait until all processes are there, which are started at once; one that lacks is named.

    A command does so before it lists its images, which takes one process longer than another.

    Raises
    ------
    ParameterError
        If torchrun's variables are wrong.
    DeviceError
        If not all processes come within seconds.
    """
    if point := find_rendezvous():
        _store(point)


@contextmanager
def processes(device: str = "auto") -> Iterator[Processes]:
    """Join the others that torchrun started, if any; NCCL on GPUs, gloo on CPUs.

    Parameters
    ----------
    device : str
        See :func:`~vggfeat.nets.runtimes.resolve_device`; with several GPUs in a
        machine each process takes the one of its local rank.
    """
    point = find_rendezvous()
    if point is None:
        yield Processes(resolve_device(device))
        return
    local = os.environ.get("LOCAL_RANK", "0")
    several = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    on = resolve_device(f"cuda:{local}" if several else device)
    if on.type == "cuda":
        torch.cuda.set_device(on)
    store = _store(point)
    # A chain joins for every link, and must not find the addresses of the one before.
    name = f"run {next(_joined)}"
    _wait_for_all(store, name, point, LISTING)
    dist.init_process_group(
        "nccl" if on.type == "cuda" else "gloo",
        store=dist.PrefixStore(name, store),  # type: ignore[attr-defined]  # torch's types lack it
        rank=point.rank,
        world_size=point.world,
    )
    try:
        yield Processes(on, point.rank, point.world)
    finally:
        dist.destroy_process_group()


def parallel(net: nn.Module, team: Processes, *, compiled: bool) -> nn.Module:
    """Compile a network if that is asked for, and let processes share its gradients."""
    # In this order, so that no_sync is at hand.
    model: nn.Module = torch.compile(net) if compiled else net  # type: ignore[assignment]  # it is called alike
    if team.world > 1:
        ids = [team.device] if team.device.type == "cuda" else None
        model = DistributedDataParallel(model, device_ids=ids)
    return model


def unsynchronised(model: nn.Module) -> AbstractContextManager[None]:
    """Let a backward pass keep its gradients to this process."""
    if isinstance(model, DistributedDataParallel):
        return model.no_sync()
    return nullcontext()


@cache
def _store(point: Rendezvous) -> Any:
    """Open the store where the processes meet; in short waits, between which signals are seen."""
    of_torchrun = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    serves = point.rank == 0 and not of_torchrun
    if not serves:
        _wait_for_host(point)
    try:
        store: Any = dist.TCPStore(  # type: ignore[attr-defined]  # torch's types lack it
            point.host, point.port, point.world, serves, wait_for_workers=False
        )
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise DeviceError(
            f"The processes cannot meet at {point.host}:{point.port} (MASTER_ADDR and "
            f"MASTER_PORT): {reason}. Name a free port of the host of rank 0, or use torchrun."
        ) from error
    if of_torchrun:  # which may start all processes anew, with the same store
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        store = dist.PrefixStore(f"attempt {attempt}", store)  # type: ignore[attr-defined]  # torch's types lack it
    _wait_for_all(store, "met", point, MEETING)
    return store


def _wait_for_host(point: Rendezvous) -> None:
    end = time.monotonic() + MEETING
    while True:
        try:
            socket.create_connection((point.host, point.port), timeout=1).close()
            return
        except OSError as error:
            if time.monotonic() > end:
                raise _missing(point, "rank 0", MEETING, f": {error.strerror or error}") from error
        time.sleep(POLL)


def _wait_for_all(store: Any, name: str, point: Rendezvous, seconds: float) -> None:
    keys = [f"{name}, rank {rank}" for rank in range(point.world)]
    end = time.monotonic() + seconds
    try:
        store.set(keys[point.rank], "here")
        while not store.check(keys):
            if time.monotonic() > end:
                lacking = [str(r) for r, key in enumerate(keys) if not store.check([key])]
                raise _missing(point, f"rank {', '.join(lacking)}", seconds)
            time.sleep(POLL)
    except RuntimeError as error:
        if isinstance(error, DeviceError):
            raise
        raise _missing(point, "rank 0", seconds, ", or it has ended") from error


def _missing(point: Rendezvous, who: str, seconds: float, why: str = "") -> DeviceError:
    return DeviceError(
        f"Of {point.world} processes (WORLD_SIZE) {who} did not come to {point.host}:{point.port} "
        f"within {seconds:.0f} s{why}. Start all of them, best with torchrun; or unset WORLD_SIZE "
        "and RANK to train in one process."
    )


def _number(name: str, low: int, high: int | None = None, default: str | None = None) -> int:
    text = os.environ.get(name, default)
    if text is not None and text.strip().isdecimal():
        number = int(text)
        if low <= number and (high is None or number <= high):
            return number
    raise _wrong(name, f"a number from {low} " + ("on" if high is None else f"to {high}"))


def _wrong(name: str, expected: str) -> ParameterError:
    given = repr(os.environ[name]) if name in os.environ else "not set"
    return ParameterError(
        f"The environment variable {name} is {given}, and should be {expected}. torchrun sets "
        "WORLD_SIZE, RANK, MASTER_ADDR and MASTER_PORT for each of several processes: start them "
        "with it, or unset all four to train in one process."
    )
