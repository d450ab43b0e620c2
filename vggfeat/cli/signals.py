"""Ctrl-C and SIGTERM: the first interrupts a command, the second ends its process at once."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

from vggfeat.errors import Terminated

INTERRUPTED = 130
_STATUS = {signal.SIGINT: INTERRUPTED, signal.SIGTERM: Terminated.exit_status}
_SHOW_CURSOR = b"\x1b[?25h"  # which a bar hides


@contextmanager
def answered() -> Iterator[None]:
    """Take SIGTERM for a Ctrl-C, so that what is complete is written; the second ends at once.

    Once one of them came, this holds to the end of the process, which is near.
    """
    if threading.current_thread() is not threading.main_thread() or _ours():
        yield
        return
    before = {number: signal.getsignal(number) for number in _STATUS}
    signal.signal(signal.SIGTERM, _first)
    if before[signal.SIGINT] is signal.default_int_handler:  # else it is ignored, as after nohup
        signal.signal(signal.SIGINT, _first)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) is _first:
            for number, handler in before.items():
                signal.signal(number, handler)


@contextmanager
def telling() -> Iterator[None]:
    """Write the message of the first signal whole, before a second one ends the process."""
    if threading.current_thread() is not threading.main_thread() or not _ours():
        yield
        return
    waiting: list[int] = []
    _answer(lambda number, frame: waiting.append(number))
    try:
        yield
    finally:
        _answer(_silently)
        if waiting:
            _silently(waiting[0], None)


def _ours() -> bool:
    return signal.getsignal(signal.SIGTERM) in (_first, _second)


def _answer(handler: Callable[[int, object], None] | signal.Handlers) -> None:
    for number in _STATUS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


def _first(number: int, frame: object) -> NoReturn:
    _answer(_second)
    raise Terminated if number == signal.SIGTERM else KeyboardInterrupt


def _second(number: int, frame: object) -> NoReturn:
    """End where the first has not been told yet; Python's own streams may be in the middle."""
    _answer(signal.SIG_IGN)  # a third would say it again
    what = "Terminated" if number == signal.SIGTERM else "Interrupted"
    with suppress(OSError):
        if sys.__stderr__ and sys.__stderr__.isatty():
            os.write(2, _SHOW_CURSOR)
        os.write(2, f"{what}. What was complete is kept.\n".encode())
    _silently(number, frame)


def _silently(number: int, frame: object) -> NoReturn:
    """End without joining threads or flushing: what was complete is on disk."""
    os._exit(_STATUS[signal.Signals(number)])
