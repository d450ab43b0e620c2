"""Bars of what is done, on a terminal, in a notebook, and as lines of a log."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

LOG_SECONDS = 30.0  # between lines of progress, where stderr is no terminal


class Bar(Progress):
    """A bar on a terminal; in a file, as a cluster keeps one, a line every half a minute.

    It is there from its first task on. One bar is drawn at a time: that of the work around it
    comes back when it ends.
    """

    def __init__(self, *columns: ProgressColumn) -> None:
        super().__init__(*columns, console=Console(stderr=True, highlight=False))
        self.last_line = monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self in bars:
            self.stop()
            bars.remove(self)
            if bars and bars[-1].console.is_terminal:
                bars[-1].start()

    def add_task(self, *given: Any, **fields: Any) -> TaskID:
        if self not in bars:
            if bars and bars[-1].console.is_terminal:
                bars[-1].clear()
            bars.append(self)
            self.start()
        return super().add_task(*given, **fields)

    def update(self, task_id: TaskID, **fields: Any) -> None:
        super().update(task_id, **fields)
        if not self.console.is_terminal and monotonic() - self.last_line > LOG_SECONDS:
            self.last_line = monotonic()
            self.console.print(self.make_tasks_table([self._tasks[task_id]]))

    def clear(self) -> None:
        """Take it off the terminal, until it is started again."""
        self.live.transient = True
        self.stop()
        self.live.transient = False


bars: list[Bar] = []
"""Those that are at work, the innermost last: it alone is drawn, and notes stand above it."""


def progress_bar(field: str = "", width: int | None = 40) -> Progress:
    """Make bars of what is done, of all, and the time left, with a text field of the tasks."""
    return Bar(
        TextColumn("{task.description}"),
        BarColumn(width),
        MofNCompleteColumn(),
        *([TextColumn(f"{{task.fields[{field}]}}")] if field else []),
        TimeRemainingColumn(elapsed_when_finished=True),
    )


def late_task(bar: Progress, what: str, **fields: Any) -> Callable[..., None]:
    """Make what updates a task of a bar, which has it from the first update on."""
    tasks: list[TaskID] = []

    def update(**values: Any) -> None:
        if not tasks:
            tasks.append(bar.add_task(what, total=None, **fields))
        bar.update(tasks[0], **values)

    return update
