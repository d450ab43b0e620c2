"""The processes of a training run: one, or as many as torchrun started."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from threading import Event

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from vggfeat.errors import Terminated
from vggfeat.nets.runtimes import resolve_device

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


@contextmanager
def processes(device: str = "auto") -> Iterator[Processes]:
    """Join the others that torchrun started, if any; NCCL on GPUs, gloo on CPUs.

    Parameters
    ----------
    device : str
        See :func:`~vggfeat.nets.runtimes.resolve_device`; with several GPUs in a
        machine each process takes the one of its local rank.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Processes(resolve_device(device))
        return
    local = int(os.environ.get("LOCAL_RANK", "0"))
    several = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    on = resolve_device(f"cuda:{local}" if several else device)
    if on.type == "cuda":
        torch.cuda.set_device(on)
    store, rank, world = next(rendezvous("env://"))
    dist.init_process_group(
        "nccl" if on.type == "cuda" else "gloo",
        # A chain joins for every link, and must not find the addresses of the one before.
        store=dist.PrefixStore(f"run {next(_joined)}", store),  # type: ignore[attr-defined]  # torch's types lack it
        rank=rank,
        world_size=world,
    )
    try:
        yield Processes(on, rank, world)
    finally:
        dist.destroy_process_group()
