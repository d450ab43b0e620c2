"""How much memory a process holds at most."""

from __future__ import annotations

import threading
import time

import psutil


class Peak(threading.Thread):
    """The most memory that this process and its workers hold together, in GB.

    Pages that several of them share count once (PSS, on Linux), elsewhere in each.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.gigabytes = 0.0

    def run(self) -> None:
        """Look ten times a second."""
        me = psutil.Process()
        while True:
            self.gigabytes = max(
                self.gigabytes, sum(map(held, [me, *me.children(recursive=True)])) / 1e9
            )
            time.sleep(0.1)


def held(process: psutil.Process) -> int:
    """Bytes in memory of a process; 0 where it has just ended."""
    try:
        memory = process.memory_full_info()
    except psutil.Error:
        return 0
    return getattr(memory, "pss", memory.rss)
