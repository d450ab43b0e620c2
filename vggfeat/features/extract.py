"""The one path from pictures to a store, which every surface of vggfeat takes."""

from __future__ import annotations

import secrets
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import groupby

from joblib import cpu_count

from vggfeat.data.batches import Decoded, Job, batches, decode_ahead
from vggfeat.data.imagesets import ImageSet
from vggfeat.errors import DeviceError, ParameterError, PictureError
from vggfeat.features.aggregate import Matrix
from vggfeat.features.describing import described, shards
from vggfeat.features.extractor import DenseExtractor
from vggfeat.features.rounds import round_size
from vggfeat.features.store import FeatureStore
from vggfeat.store.column import Descriptor

BAD_IMAGE_POLICIES = ("skip", "error")
# A shard is written after so many pictures, or so many seconds: what `kill -9` can lose.
ROWS_PER_SHARD = 256
SECONDS_PER_SHARD = 30.0
# A picture whose numbers overflow is left out as a bad one is. When so many have, and they are more
# than those that did not, it is the settings that are wrong, and a run of days ends at once.
OVERFLOWED = 16

Progress = Callable[["Summary"], None]


@dataclass
class Summary:
    """What a run did, also while it runs.

    Parameters
    ----------
    pictures : int
        Pictures asked for.
    present : int
        Those that the store already had.
    computed, failed : int
        Those done by this run, and those that could not be read.
    seconds : float
        Time since the start.
    """

    pictures: int
    present: int = 0
    computed: int = 0
    failed: int = 0
    seconds: float = 0.0

    @property
    def images_per_s(self) -> float:
        """Pictures computed a second, at all scales together."""
        return self.computed / self.seconds if self.seconds else 0.0

    def plus(self, done: Summary) -> Summary:
        """Add what another run did to one that counts the pictures of both.

        Examples
        --------
        >>> Summary(pictures=20, computed=10).plus(Summary(pictures=10, present=2)).present
        2
        """
        return Summary(
            self.pictures,
            self.present + done.present,
            self.computed + done.computed,
            self.failed + done.failed,
            self.seconds + done.seconds,
        )

    def onto(self, progress: Progress | None) -> Progress | None:
        """Make a `progress` that tells what a run does together with all that went before."""
        return None if progress is None else lambda done: progress(self.plus(done))


def extract(
    images: ImageSet,
    extractor: DenseExtractor,
    scales: Sequence[int],
    store: FeatureStore,
    *,
    on_bad_image: str = "skip",
    workers: int | None = None,
    progress: Progress | None = None,
) -> Summary:
    """Describe every picture that a store lacks, at every scale Q, and keep it there.

    Parameters
    ----------
    images : ImageSet
        The pictures whose names the store was opened with.
    extractor : DenseExtractor
        The network; one of :class:`~vggfeat.features.cluster.Cluster` describes in a cluster.
    scales : sequence of int
        Smallest sides Q to which every picture is rescaled, in pixels (Section 3.2).
    store : FeatureStore
        What is complete in it is not computed again.
    on_bad_image : {"skip", "error"}
        Leave out a picture that cannot be read or whose numbers overflow, with its reason, or
        stop.
    workers : int, optional
        Decoding threads; as many as there are cores by default.
    progress : callable, optional
        Called with the :class:`Summary` so far, after every batch.

    Returns
    -------
    Summary

    Raises
    ------
    PictureError
        On the first bad picture, with ``on_bad_image="error"``; what was computed is kept.
    DeviceError
        If the numbers of most pictures overflow, as the settings are wrong.
    StoreError
        If the extractor is deterministic, and the store has descriptors of one that is not; or if
        the store was opened for reading.
    ParameterError
        For a scale too small for the layer, before anything is decoded.

    Notes
    -----
    On Ctrl-C, as on an error, the pictures that are complete are written before it is raised;
    the view that the store had stays as it was.

    Runs that work on one list in one folder at the same time share it, on one machine or several:
    with every shard each takes in what the others wrote, and goes on elsewhere.

    Examples
    --------
    >>> from vggfeat.data.imagesets import find_pictures
    >>> from vggfeat.resources import asset
    >>> images = find_pictures([str(asset("clipart10") / "boat" / "boat_000[1-3].jpg")])
    >>> extractor = DenseExtractor("D", "pool2", weights="embedded")
    >>> store = FeatureStore(None, extractor.extraction, images.names)
    >>> extract(images, extractor, [32], store).computed
    3
    """
    if on_bad_image not in BAD_IMAGE_POLICIES:
        raise ParameterError.not_one_of("on_bad_image", "extract", BAD_IMAGE_POLICIES, on_bad_image)
    store.check_writable()
    if store.extraction != extractor.extraction or list(images.names) != list(store.names):
        raise ParameterError(
            "The store was opened for other pictures or settings. Open it with the extraction of "
            "the extractor and the names of the image set."
        )
    extractor.check_scales(scales)
    store.promise(deterministic=extractor.deterministic)
    jobs = store.missing(scales)
    run = Run(images, extractor, store, on_bad_image == "error", progress)
    run.summary.present = len(images) - len(jobs)
    run.tell()
    if extractor.cluster is None:
        _Here(run, scales).all(jobs, workers or cpu_count())
    else:
        extractor.cluster.run(run, jobs, scales)
    run.judge_settings(at_least=1)
    store.finish()
    return run.summary


class Run:
    """What one run of :func:`extract` works on, and what it did so far.

    Parameters
    ----------
    images, extractor, store, progress
        As :func:`extract` takes them.
    stop_on_bad : bool
        Whether a bad picture ends the run.
    """

    def __init__(
        self,
        images: ImageSet,
        extractor: DenseExtractor,
        store: FeatureStore,
        stop_on_bad: bool,
        progress: Progress | None,
    ) -> None:
        self.images = images
        self.extractor = extractor
        self.store = store
        self.stop_on_bad = stop_on_bad
        self.progress = progress
        self.summary = Summary(len(images))
        self.start = time.perf_counter()
        self._overflowed = 0
        self._advice = ""

    def fail(self, row: int, reason: str) -> None:
        """Leave a picture out, or stop at it.

        Raises
        ------
        PictureError
            If a bad picture ends the run.
        """
        if self.stop_on_bad:
            raise PictureError(f"{self.images.names[row]}: {reason}")
        self.store.fail(row, reason)
        self.summary.failed += 1

    def overflow(self, row: int, reason: str) -> None:
        """Leave out a picture that could be read and has no finite descriptor, or stop at it."""
        self.fail(row, reason)
        self._overflowed += 1
        self._advice = reason
        self.judge_settings(at_least=OVERFLOWED)

    def judge_settings(self, at_least: int) -> None:
        """Stop where so many pictures overflowed, and they are more than have descriptors.

        Raises
        ------
        DeviceError
        """
        good = self.summary.present + self.summary.computed
        if self._overflowed >= at_least and self._overflowed > good:
            raise DeviceError(
                f"{self._overflowed} pictures have no finite descriptor, {good} have one: the "
                f"settings do not suit these weights. Of the last: {self._advice}"
            )

    def tell(self) -> None:
        """Tell how far the run is."""
        self.summary.seconds = time.perf_counter() - self.start
        if self.progress:
            self.progress(self.summary)


class _Here:
    """A run in this process; others may work on the same list, and take from each other's part."""

    def __init__(self, run: Run, scales: Sequence[int]) -> None:
        self.run = run
        self.scales = scales
        self.extractor = run.extractor
        self.size = round_size(self.extractor.device.type, self.extractor.extraction, scales)
        self.rounds: deque[list[Job]] = deque()  # not yet begun
        self.complete: dict[int, dict[Descriptor, Matrix]] = {}  # described, not yet written
        self.shared = False  # whether others were met

    def all(self, jobs: Sequence[Job], workers: int) -> None:
        # By place in the list, so that a bad picture tried again shifts no other round.
        self.rounds.extend(list(some) for _, some in groupby(jobs, lambda job: self._of(job[0])))
        exif, asked = self.extractor.extraction.exif, dict(jobs)
        pictures = self.run.images.pictures
        decoded = decode_ahead(pictures, self._jobs(), workers=workers, exif=exif)
        written = time.perf_counter()
        # Whatever ends the run, what is complete is kept.
        with ExitStack() as at_end, closing(decoded) as stream:
            at_end.callback(self._write)
            for _, some in groupby(stream, lambda picture: self._of(picture.row)):
                self._round(asked, some)
                late = time.perf_counter() - written > SECONDS_PER_SHARD
                if late or len(self.complete) >= ROWS_PER_SHARD:
                    self._meet_others()
                    self._write()
                    written = time.perf_counter()
            self._meet_others()

    def _of(self, row: int) -> int:
        return row // self.size

    def _jobs(self) -> Iterator[Job]:
        while self.rounds:
            yield from self.rounds.popleft()

    def _meet_others(self) -> None:
        """Leave to other runs what they did meanwhile, and go on far from where they are.

        Runs of one command that began together would otherwise go through the list side by side.
        """
        met = self.run.store.meet_others()
        self.shared |= met
        if not self.shared:
            return
        lacking = {row for row, _ in self.run.store.missing(self.scales)}
        self.complete = {row: parts for row, parts in self.complete.items() if row in lacking}
        left = [[job for job in some if job[0] in lacking] for some in self.rounds]
        self.run.summary.present += sum(map(len, self.rounds)) - sum(map(len, left))
        self.rounds = deque(filter(None, left))
        if met:
            self.rounds.rotate(secrets.randbelow(len(self.rounds) or 1))

    def _round(self, scales: Mapping[int, tuple[int, ...]], decoded: Iterable[Decoded]) -> None:
        """Describe some pictures; a picture is complete when all its parts are there."""
        found: defaultdict[int, dict[Descriptor, Matrix]] = defaultdict(dict)
        overflowed: set[int] = set()
        parts_of = self.extractor.extraction.parts
        dtype = self.run.store.manifest.dtype
        for batch in batches(self._readable(decoded), self.extractor.pixel_budget):
            for row, parts, reason in described(self.extractor, batch, dtype):
                if row in overflowed:
                    continue  # at another scale
                if reason:
                    overflowed.add(row)
                    self.run.overflow(row, reason)
                    continue
                found[row] |= parts
                if len(found[row]) == len(parts_of(scales[row])):
                    self.complete[row] = found.pop(row)
                    self.run.summary.computed += 1
            self.run.tell()
        self.run.tell()

    def _readable(self, decoded: Iterable[Decoded]) -> Iterator[Decoded]:
        for picture in decoded:
            if picture.error is None:
                yield picture
            else:
                self.run.fail(picture.row, str(picture.error))

    def _write(self) -> None:
        for rows, arrays in shards(self.complete):
            self.run.store.write(rows, arrays)
            for row in rows:
                del self.complete[row]
