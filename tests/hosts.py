"""Two network namespaces as two hosts; a test that needs them skips where they cannot be made."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import pytest

ADDRESSES = ("10.77.0.1", "10.77.0.2")


@contextmanager
def two_hosts() -> Iterator[list[str]]:
    """Make two namespaces, joined by a cable; whatever runs in them ends with them."""
    spaces = [f"vggfeat-{os.getpid()}-{end}" for end in "ab"]
    try:
        _join(spaces, [cable(end) for end in "ab"])
    except (OSError, subprocess.CalledProcessError) as error:
        _remove(spaces)
        pytest.skip(f"network namespaces cannot be made here: {error}")
    try:
        yield spaces
    finally:
        _remove(spaces)


def cable(end: str) -> str:
    """Name an end of the cable; the system allows 15 letters."""
    return f"vgf{os.getpid() % 10**7}{end}"


def _join(spaces: Sequence[str], ends: Sequence[str]) -> None:
    for space in spaces:
        _ip("netns", "add", space)
    _ip("link", "add", ends[0], "type", "veth", "peer", "name", ends[1])
    for space, end, address in zip(spaces, ends, ADDRESSES, strict=True):
        _ip("link", "set", end, "netns", space)
        _ip("-n", space, "addr", "add", f"{address}/24", "dev", end)
        _ip("-n", space, "link", "set", "lo", "up")
        _ip("-n", space, "link", "set", end, "up")


def _remove(spaces: Sequence[str]) -> None:
    for space in spaces:
        with suppress(OSError, subprocess.CalledProcessError):
            kill_all(space)
            _ip("netns", "del", space)


def pids(space: str) -> list[int]:
    """List the processes of a host."""
    return [int(pid) for pid in _ip("netns", "pids", space).split()]


def kill_all(space: str) -> None:
    """Kill the processes of a host."""
    for pid in pids(space):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _ip(*words: str) -> str:
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout
