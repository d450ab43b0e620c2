"""What every command shows: progress on stderr, its result on stdout, errors in one form."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table
from rich.text import Text

from vggfeat._io.text import counted, printable
from vggfeat.cli.signals import INTERRUPTED, answered, telling
from vggfeat.errors import Terminated, VggfeatError
from vggfeat.report.tables import render_result

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import RenderableType
    from rich.progress import ProgressColumn, TaskID

    from vggfeat.features.pipeline import Summary
    from vggfeat.result import Result

LOG_SECONDS = 30.0

Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Show the result and errors, no progress.")
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON, for machines.")]


def console(*, stderr: bool = False) -> Console:
    """Open a console on stdout, where results go, or on stderr, where progress goes."""
    return Console(stderr=stderr, highlight=False, soft_wrap=False)


def note(*lines: str, quiet: bool = False) -> None:
    """Say something beside the result, in as many lines as are given."""
    if not quiet:
        # A terminal breaks long lines itself; an address that was broken here cannot be copied.
        console(stderr=True).print(_text(lines), soft_wrap=True)


def note_error(what: str, error: VggfeatError) -> None:
    """Say what an error says, after what it is or of what it is."""
    first, *more = error.lines
    note(f"{what}: {first}", *more)


def first() -> bool:
    """Tell whether this process is the one that speaks, of those that torchrun started."""
    return os.environ.get("RANK", "0") == "0"


def warn_of(failed: Mapping[str, str]) -> None:
    """Name the images that could not be read."""
    for name, reason in list(failed.items())[:10]:
        note(f"Warning: {name}: {reason}")
    if len(failed) > 10:
        note(f"Warning: and {counted(len(failed) - 10, 'more image')} that could not be read.")


def show(result: Mapping[str, Any], *shown: RenderableType, as_json: bool) -> None:
    """Print a result, for a person or for a machine; a text is a line."""
    if as_json:
        typer.echo(json.dumps(result, indent=2))
        return
    out = console()
    for part in shown:
        out.print(_text([part]) if isinstance(part, str) else part)


def show_result(result: Result, *, as_json: bool) -> None:
    """Print a result, for a person or for a machine."""
    if as_json:
        typer.echo(json.dumps(result.to_dict(), indent=2))
    else:
        console().print(render_result(result))


def _text(lines: Iterable[object]) -> Text:
    """Make lines of texts, whatever characters and brackets are in them."""
    return Text("\n".join(map(printable, lines)))


def facts(rows: Mapping[str, object]) -> RenderableType:
    """Lay out names and values in two columns; a list has a line for each of its values."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(_text([name]), _text(value if isinstance(value, list) else [value]))
    return table


def grid(columns: list[str], rows: list[list[object]]) -> RenderableType:
    """Lay out rows under headings."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(_text([column]), overflow="fold")
    for row in rows:
        table.add_row(*(_text([cell]) for cell in row))
    return table


@dataclass(frozen=True)
class Callbacks:
    """What to call as work goes on; nothing, where it should be quiet."""

    images: Callable[[Summary], None] | None = None
    splits: Callable[[int, int], None] | None = None


def resumed() -> str:
    """Say what Ctrl-C leaves of work that goes on where it stopped."""
    return "What was complete is kept: run the same command again to go on where it stopped."


def begun_anew(done: Sized, table: Path | None, write: Callable[[], None]) -> str:
    """Say what Ctrl-C leaves of work that does not, image by image; write the table of it."""
    told = f"{counted(len(done), 'image')} done; the drawings are kept"
    if table and len(done):
        write()
        told += f", and {table} has what was found"
    return f"{told}. The same command begins anew."


@contextmanager
def interruptible(kept: Callable[[], str] | None = resumed) -> Iterator[None]:
    """Answer Ctrl-C and SIGTERM during long work with what is kept; None says nothing."""
    try:
        with answered():
            yield
    except KeyboardInterrupt as stop:
        terminated = isinstance(stop, Terminated)
        if kept is not None:
            said = f"{'Terminated' if terminated else 'Interrupted'}. {kept()}"
            with telling():
                note(said)
        raise typer.Exit(Terminated.exit_status if terminated else INTERRUPTED) from None


def counted_bar(field: str = "", width: int | None = 40) -> Progress:
    """Make bars of things done, of all, and the time left, with a text field of the tasks."""
    told = [TextColumn(f"{{task.fields[{field}]}}")] if field else []
    return _bar(
        TextColumn("{task.description}"),
        BarColumn(width),
        MofNCompleteColumn(),
        *told,
        TimeRemainingColumn(elapsed_when_finished=True),
    )


class _Lines(Progress):
    """A bar that moves on a terminal only."""

    def __init__(self, *columns: ProgressColumn) -> None:
        super().__init__(*columns, console=console(stderr=True))
        self.told = monotonic()

    def update(self, task_id: TaskID, **fields: Any) -> None:
        super().update(task_id, **fields)
        if not self.console.is_terminal and monotonic() - self.told > LOG_SECONDS:
            self.told = monotonic()
            self.console.print(self.make_tasks_table([self._tasks[task_id]]))


def _bar(*columns: ProgressColumn) -> Progress:
    """Make a bar on stderr; in a file, as a cluster keeps one, it is a line every half a minute."""
    return _Lines(*columns)


def settle(bar: Progress) -> None:
    """In a file, write the tasks so far: the bar's end would write them after the next one."""
    if bar.console.is_terminal:
        return
    for task in bar.tasks:
        bar.console.print(bar.make_tasks_table([task]))
        bar.remove_task(task.id)


@contextmanager
def work_progress(what: str, *, quiet: bool) -> Iterator[Callbacks]:
    """Show what is done, the rate and the time left while images are described and learnt."""
    if quiet:
        with interruptible():
            yield Callbacks()
        return
    with interruptible(), counted_bar("rate") as bar:
        tasks: list[TaskID] = []  # none before there is something to tell: an error may come first

        def tell(summary: Summary) -> None:
            if not tasks:
                tasks.append(bar.add_task(what, total=None, rate=""))
            bar.update(
                tasks[0],
                total=summary.images,
                completed=summary.present + summary.computed + summary.failed,
                rate=f"{summary.images_per_s:.2f} images/s" if summary.computed else "",
            )

        def tell_split(done: int, total: int) -> None:
            if done == 1:
                splits.append(bar.add_task("train and test", total=total, rate=""))
            bar.update(splits[0], completed=done)

        splits: list[TaskID] = []
        yield Callbacks(tell, tell_split)


@contextmanager
def counting(
    what: str, *, quiet: bool, kept: Callable[[], str] = resumed
) -> Iterator[Callable[[int, int], None] | None]:
    """Show how much of some work is done, and the time left; of Ctrl-C say what is kept."""
    if quiet:
        with interruptible(kept):
            yield None
        return
    with interruptible(kept), counted_bar() as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def waiting(what: str, *, quiet: bool) -> Iterator[None]:
    """Show that a command is at work, and for how long, where no part of it can be counted."""
    if quiet:
        with interruptible():
            yield
        return

    # What is told names a folder, perhaps; brackets in it are no markup.
    told = TextColumn("{task.description}", markup=False)
    columns = (SpinnerColumn(), told, TimeElapsedColumn())
    with interruptible(), Progress(*columns, console=console(stderr=True), transient=True) as bar:
        bar.add_task(printable(what), total=None)
        yield


@contextmanager
def download_progress(*, quiet: bool) -> Iterator[Any]:
    """Show bytes done, rate and time left while a file is downloaded."""
    if quiet:
        with interruptible():
            yield None
        return

    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with interruptible(), _bar(*columns) as bar:
        task = bar.add_task("download", total=None, visible=False)

        def tell(done: int, total: int | None) -> None:
            bar.update(task, completed=done, total=total, visible=True)

        yield tell
