"""How far a run is: what it did so far, and the bar that shows it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from vggfeat._io.text import counted

Progress = Callable[["Summary"], None]


@dataclass
class Summary:
    """What a run did, also while it runs.

    Parameters
    ----------
    images : int
        Images asked for.
    present, computed, failed : int
        Those that the store already had, those done by this run, and those that could not be read.
    seconds : float
        Time since the start.
    replaced : int
        Those that took the place of others of their names.
    added : Counter of int
        Of those that had some of the columns, how many were computed with so many more.
    """

    images: int
    present: int = 0
    computed: int = 0
    failed: int = 0
    seconds: float = 0.0
    replaced: int = 0
    added: Counter[int] = field(default_factory=Counter)

    @property
    def images_per_s(self) -> float:
        """Images computed a second, at all scales together."""
        return self.computed / self.seconds if self.seconds else 0.0

    def __str__(self) -> str:
        return (
            f"{self.computed} of {counted(self.images, 'image')} computed, {self.present} already "
            f"there, {self.failed} left out, {self.images_per_s:.2f} images/s"
        )

    def plus(self, done: Summary) -> Summary:
        """Add what another run did to one that counts the images of both."""
        return Summary(
            self.images,
            self.present + done.present,
            self.computed + done.computed,
            self.failed + done.failed,
            self.seconds + done.seconds,
            self.replaced + done.replaced,
            self.added + done.added,
        )

    def onto(self, progress: Progress | None) -> Progress | None:
        """Make a `progress` that tells what a run does together with all that went before."""
        return None if progress is None else lambda done: progress(self.plus(done))


def show_by(update: Callable[..., None]) -> Progress:
    """Make a `progress` that shows a run by what updates a task of a bar."""

    def show(done: Summary) -> None:
        update(
            total=done.images,
            completed=done.present + done.computed + done.failed,
            rate=f"{done.images_per_s:.2f} images/s" if done.computed else "",
        )

    return show


@contextmanager
def image_bar(what: str) -> Iterator[Progress]:
    """Show a run on a bar of its own, as the command line does."""
    from vggfeat._io.progress import late_task, progress_bar  # rich, which few programs need

    with progress_bar("rate") as bar:
        yield show_by(late_task(bar, what, rate=""))
