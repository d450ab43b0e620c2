"""Processes that are killed with SIGKILL, at a random moment or at a request to the disk.

A process that runs already is forked, so that a kill costs a hundredth of a second: importing torch
alone would take a hundred times as long.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

REQUESTS = ("open", "fsync", "replace", "link", "unlink", "mkdir")
KILLED = -signal.SIGKILL
PATIENCE = 60.0
MEMORY = Path("/dev/shm")

Work = Callable[[], object]


@contextmanager
def folder_in_memory(otherwise: Path) -> Iterator[Path]:
    """Give a folder in memory for a while, or the one on the disk where there is none."""
    if not os.access(MEMORY, os.W_OK):
        yield otherwise
        return
    with tempfile.TemporaryDirectory(
        prefix="vggfeat-faults-", dir=MEMORY, ignore_cleanup_errors=True
    ) as folder:
        yield Path(folder)


def import_for_training() -> None:
    """Import what an optimizer and a report import when first used, longer than a short training.

    A forked process has what this one imported. Nor may another user be able to import it, where
    Python is installed in root's home.
    """
    for module in ("torch._dynamo", "matplotlib.figure", "matplotlib.backends.backend_svg"):
        import_module(module)


def die() -> None:
    """Kill this process."""
    os.kill(os.getpid(), signal.SIGKILL)


class Steps:
    """Counts the moments around all requests of this process to the disk; at one a fault comes.

    Parameters
    ----------
    at : int or None
        The moment of the fault.
    fault : callable
        What comes then.
    """

    def __init__(self, at: int | None = None, fault: Work = die) -> None:
        self.at = at
        self.fault = fault
        self.count = 0

    def step(self) -> None:
        self.count += 1
        if self.count == self.at:
            self.fault()

    def install(self) -> None:
        """Stand before and behind each request, and in the middle of a file that is written."""
        for name in REQUESTS:
            setattr(os, name, self._around(getattr(os, name)))
        whole, steps = Path.write_bytes, self

        def torn(path: Path, content: Any) -> int:
            whole(path, bytes(content)[: len(content) // 2])
            steps.step()
            done = whole(path, content)
            steps.step()
            return done

        Path.write_bytes = torn  # type: ignore[method-assign]  # in this process, to be killed

    def _around(self, request: Callable[..., Any]) -> Callable[..., Any]:
        def asked(*args: Any, **kwargs: Any) -> Any:
            self.step()
            result = request(*args, **kwargs)
            self.step()
            return result

        return asked


class Course(NamedTuple):
    """How long work takes, and how many steps it has, if nobody kills it."""

    seconds: float
    steps: int


def forked(work: Work, at: int | None = None, fault: Work = die, told: int | None = None) -> int:
    """Do work in a process of its own; return its number.

    Parameters
    ----------
    work : callable
    at : int, optional
        The step at which a fault comes.
    fault : callable
        What comes then; by default the process dies.
    told : int, optional
        A file descriptor, to which the number of steps is written.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    if pid := os.fork():
        return pid
    status = 1
    try:
        steps = Steps(at, fault)
        if at is not None or told is not None:
            steps.install()
        try:
            work()
        finally:
            if told is not None:
                os.write(told, str(steps.count).encode())
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def ended(pid: int, patience: float = PATIENCE) -> int:
    """Wait for a process; return its exit status, negative for a signal."""
    until = time.monotonic() + patience
    while time.monotonic() < until:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.0005)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    raise TimeoutError(f"a process did not end within {patience:g} s")


def course(work: Work) -> Course:
    """Measure work that nobody kills."""
    ours, theirs = os.pipe()
    try:
        begun = time.perf_counter()
        status = ended(forked(work, told=theirs))
        seconds = time.perf_counter() - begun
        assert status == 0, f"the uninterrupted run ended with {status}"
        return Course(seconds, int(os.read(ours, 20)))
    finally:
        os.close(ours)
        os.close(theirs)


def kill(works: Sequence[Work], course: Course, rng: random.Random) -> int:
    """Begin all works at once, and kill each at a moment of its own; return how many it hit.

    Half of the moments are at any time, half at a request to the disk. Whoever is not hit must end
    without an error.
    """
    begun: list[tuple[int, float | None]] = []
    start = time.perf_counter()
    for work in works:
        if rng.random() < 0.5:
            begun.append((forked(work, rng.randint(1, course.steps)), None))
        else:
            begun.append((forked(work), rng.uniform(0, course.seconds)))
    for pid, moment in sorted(begun, key=lambda one: one[1] or 0.0):
        if moment is not None:
            time.sleep(max(0.0, start + moment - time.perf_counter()))
            os.kill(pid, signal.SIGKILL)
    ends = [ended(pid) for pid, _ in begun]
    assert set(ends) <= {0, KILLED}, f"exit statuses {ends}"
    return ends.count(KILLED)
