"""What every command shows: its result on stdout, progress on stderr; what interrupts it."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table
from rich.text import Text

from vggfeat._io.progress import Bar, bars, late_task, progress_bar
from vggfeat._io.text import counted, printable
from vggfeat.errors import Terminated, VggfeatError
from vggfeat.features.summary import Summary, show_by

if TYPE_CHECKING:
    from vggfeat.data.left_out import LeftOut
    from vggfeat.result import Result

FILE_WIDTH = 160  # of what goes into a pipe or a file, which has none of its own
NAMED = 10  # images left out that are warned of by name
INTERRUPTED = 130
_STATUS = {signal.SIGINT: INTERRUPTED, signal.SIGTERM: Terminated.exit_status}
_QUOTES = "'(),"  # of a text, and of a tuple of one
# Arguments that errors advise to give.
_ARGUMENT = re.compile(
    r"\b(device|precision|deterministic|net|layers?|weights|pixels|normalize|views|loss|"
    r"relative_to)="
    r"('[^']*'|\('[^']*',\)|True|FILE|DIR)"
)
_SHOW_CURSOR = b"\x1b[?25h"  # which a bar hides

Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Show the result and errors, no progress.")
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON, for machines.")]


def console(*, stderr: bool = False) -> Console:
    """Open a console on stdout, where results go, or on stderr, where progress goes."""
    if stderr and bars:  # which is drawn below what is printed on its own console
        return bars[-1].console
    stream = sys.stderr if stderr else sys.stdout
    fits = stream.isatty() or "COLUMNS" in os.environ
    return Console(
        stderr=stderr, highlight=False, soft_wrap=False, width=None if fits else FILE_WIDTH
    )


def is_first_process() -> bool:
    """Tell whether this process is the one that speaks, of those that torchrun started."""
    return os.environ.get("RANK", "0") == "0"


def note(*lines: str, quiet: bool = False) -> None:
    """Say something beside the result, in as many lines as are given."""
    if not quiet:
        # A terminal breaks long lines itself; an address that was broken here cannot be copied.
        console(stderr=True).print(_text(lines), soft_wrap=True)


def note_error(what: str, error: VggfeatError) -> None:
    """Say what an error says, after what it is or of what it is, by options."""
    first, *more = map(in_options, error.lines)
    note(f"{what}: {first}", *more)


def note_left_out(left_out: LeftOut, *, quiet: bool) -> None:
    """Say what lies beside the images of a command and is not read."""
    for line in left_out.warnings:
        note(f"Warning: {line}")
    for line in left_out.notes:
        note(line, quiet=quiet)


def in_options(line: str) -> str:
    """Turn what is written in Python into what is typed.

    Examples
    --------
    >>> in_options("Use device='cpu' with deterministic=True, or layer='pool5'.")
    'Use --device cpu with --deterministic, or --layer pool5.'
    >>> in_options("Name weights='embedded', layers=('pool5',).")
    'Name --weights embedded, --layer pool5.'
    >>> in_options("Use another path.")  # of a store
    'Use another --out.'
    """
    return _ARGUMENT.sub(_option, line).replace("another path", "another --out")


def _option(argument: re.Match[str]) -> str:
    name, value = argument.groups()
    flag = "--" + name.replace("_", "-").removesuffix("s" if name in ("layers", "views") else "")
    return flag if value == "True" else f"{flag} {value.strip(_QUOTES)}"


def warn_of_failures(failed: Mapping[str, str]) -> None:
    """Name the images that could not be read."""
    for name, reason in list(failed.items())[:NAMED]:
        note(f"Warning: {name}: {reason}")
    if (more := len(failed) - NAMED) > 0:
        note(f"Warning: and {counted(more, 'more image')} that could not be read.")


def show(values: Mapping[str, Any], *shown: RenderableType, as_json: bool) -> None:
    """Print values as JSON for a machine, or what is shown for a person; a text is a line."""
    with _without_bar():
        if as_json:
            typer.echo(json.dumps(values, indent=2, allow_nan=False))
            return
        out = console()
        for part in shown:
            out.print(_text([part]) if isinstance(part, str) else part)


def show_result(result: Result, *, as_json: bool, **more: Any) -> None:
    """Print a result, for a machine, which is given `more` of the command, or for a person."""
    from vggfeat.report.tables import render_result  # which --help does not need

    show({**result.to_dict(), **more}, render_result(result), as_json=as_json)


def grid(columns: list[str], rows: list[list[object]]) -> RenderableType:
    """Lay out rows under headings."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(_text([column]), overflow="fold")
    for row in rows:
        table.add_row(*(_text([cell]) for cell in row))
    return table


def _text(lines: Iterable[object]) -> Text:
    """Make lines of texts, whatever characters and brackets are in them."""
    return Text("\n".join(map(printable, lines)))


# Interrupts: the first Ctrl-C or SIGTERM stops a command, the second ends its process at once.


def resume_hint() -> str:
    """Say what an interrupt leaves of work that goes on where it stopped."""
    return "What was complete is kept: run the same command again to go on where it stopped."


def download_hint() -> str:
    """Say what an interrupt leaves while data or weights are opened, whatever comes after."""
    return "What was complete is kept; the same command goes on with a download that it began."


def restart_hint(done: Sized, table: Path | None, write: Callable[[], None]) -> str:
    """Say what an interrupt leaves of work that begins anew; write the table of what was done."""
    hint = f"{counted(len(done), 'image')} done; the drawings are kept"
    if table and len(done):
        write()
        hint += f", and {table} has what was found"
    return f"{hint}. The same command begins anew."


@contextmanager
def interruptible(hint: Callable[[], str] | None = resume_hint) -> Iterator[None]:
    """Answer Ctrl-C and SIGTERM during long work with what is kept; None says nothing."""
    try:
        with _handle_signals():
            yield
    except KeyboardInterrupt as stop:
        terminated = isinstance(stop, Terminated)
        if hint is not None:
            message = f"{'Terminated' if terminated else 'Interrupted'}. {hint()}"
            with _delay_second_signal():
                note(message)
        raise typer.Exit(Terminated.exit_status if terminated else INTERRUPTED) from None


@contextmanager
def _handle_signals() -> Iterator[None]:
    """Take SIGTERM for a Ctrl-C, so that what is complete is written; the second ends at once.

    Once one of them came, this holds to the end of the process, which is near.
    """
    if threading.current_thread() is not threading.main_thread() or _handlers_are_set():
        yield
        return
    before = {number: signal.getsignal(number) for number in _STATUS}
    signal.signal(signal.SIGTERM, _on_first)
    if before[signal.SIGINT] is signal.default_int_handler:  # else it is ignored, as after nohup
        signal.signal(signal.SIGINT, _on_first)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) is _on_first:
            for number, handler in before.items():
                signal.signal(number, handler)


@contextmanager
def _delay_second_signal() -> Iterator[None]:
    """Write the message of the first signal whole, before a second one ends the process."""
    if threading.current_thread() is not threading.main_thread() or not _handlers_are_set():
        yield
        return
    waiting: list[int] = []
    _set_handlers(lambda number, frame: waiting.append(number))
    try:
        yield
    finally:
        _set_handlers(_exit)
        if waiting:
            _exit(waiting[0], None)


def _handlers_are_set() -> bool:
    return signal.getsignal(signal.SIGTERM) in (_on_first, _on_second)


def _set_handlers(handler: Callable[[int, object], None] | signal.Handlers) -> None:
    for number in _STATUS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


def _on_first(number: int, frame: object) -> NoReturn:
    _set_handlers(_on_second)
    raise Terminated if number == signal.SIGTERM else KeyboardInterrupt


def _on_second(number: int, frame: object) -> NoReturn:
    """End where the first has no message yet; Python's own streams may be in the middle."""
    _set_handlers(signal.SIG_IGN)  # a third would say it again
    what = "Terminated" if number == signal.SIGTERM else "Interrupted"
    with suppress(OSError):
        if sys.__stderr__ and sys.__stderr__.isatty():
            os.write(2, _SHOW_CURSOR)
        os.write(2, f"{what}. What was complete is kept.\n".encode())
    _exit(number, frame)


def _exit(number: int, frame: object) -> NoReturn:
    """End without joining threads or flushing: what was complete is on disk."""
    os._exit(_STATUS[signal.Signals(number)])


# Progress


@contextmanager
def _without_bar() -> Iterator[None]:
    """Take the bar off the terminal while a result is printed there, which would end its line."""
    bar = bars[-1] if bars and bars[-1].console.is_terminal else None
    if bar:
        bar.clear()
    try:
        yield
    finally:
        if bar:
            bar.start()


def settle(bar: Progress) -> None:
    """In a file, write the tasks so far: the bar's end would write them after the next one."""
    if bar.console.is_terminal:
        return
    for task in bar.tasks:
        bar.console.print(bar.make_tasks_table([task]))
        bar.remove_task(task.id)


@dataclass(frozen=True)
class Callbacks:
    """What to call as work goes on; nothing, where it should be quiet."""

    images: Callable[[Summary], None] | None = None
    splits: Callable[[int, int], None] | None = None


@contextmanager
def work_progress(what: str, *, quiet: bool) -> Iterator[Callbacks]:
    """Show what is done, the rate and the time left while images are described and learnt."""
    if quiet:
        with interruptible():
            yield Callbacks()
        return
    with interruptible(), progress_bar("rate") as bar:
        splits = late_task(bar, "train and test", rate="")
        yield Callbacks(
            show_by(late_task(bar, what, rate="")),
            lambda done, total: splits(completed=done, total=total),
        )


@contextmanager
def count_progress(
    what: str, *, quiet: bool, hint: Callable[[], str] = resume_hint
) -> Iterator[Callable[[int, int], None] | None]:
    """Show how much of some work is done, and the time left."""
    if quiet:
        with interruptible(hint):
            yield None
        return
    with interruptible(hint), progress_bar() as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def spinner(what: str, *, quiet: bool) -> Iterator[None]:
    """Show that a command is at work, and for how long, where no part of it can be counted."""
    if quiet:
        with interruptible():
            yield
        return
    # The text may name a folder; brackets in it are no markup.
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with interruptible(), Progress(*columns, console=console(stderr=True), transient=True) as bar:
        bar.add_task(printable(what), total=None)
        yield


@contextmanager
def download_progress(*, quiet: bool) -> Iterator[Any]:
    """Show bytes done, rate and time left while a file is downloaded."""
    if quiet:
        with interruptible(download_hint):
            yield None
        return
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with interruptible(download_hint), Bar(*columns) as bar:
        download = late_task(bar, "download")
        yield lambda done, total: download(completed=done, total=total)
