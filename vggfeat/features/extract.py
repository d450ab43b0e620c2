"""The one path from pictures to a store, which every surface of vggfeat takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import groupby, islice

import numpy as np
from joblib import cpu_count

from vggfeat.data.batches import Batch, Decoded, Job, batches, decode_ahead
from vggfeat.data.imagesets import ImageSet
from vggfeat.errors import ParameterError, PictureError
from vggfeat.features.aggregate import Matrix
from vggfeat.features.dense import DenseExtractor
from vggfeat.features.extraction import Part
from vggfeat.features.store import FeatureStore

BAD_IMAGE_POLICIES = ("skip", "error")
# Pictures batched together: batches never reach over the end of a round, so that a run that was
# killed and resumed makes the same ones, and with them the same bits.
ROUND = {"cpu": 16, "cuda": 512, "mps": 64}
# A shard is written after so many pictures, or so many seconds: what `kill -9` can lose.
ROWS_PER_SHARD = 256
SECONDS_PER_SHARD = 30.0

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
        The network.
    scales : sequence of int
        Smallest sides Q to which every picture is rescaled, in pixels (Section 3.2).
    store : FeatureStore
        What is complete in it is not computed again.
    on_bad_image : {"skip", "error"}
        Leave out a picture that cannot be read, with its reason, or stop.
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
    ParameterError
        For a scale too small for the layer, before anything is decoded.

    Notes
    -----
    On Ctrl-C, as on an error, the pictures that are complete are written before it is raised;
    the view that the store had stays as it was.

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
    if store.extraction != extractor.extraction or list(images.names) != list(store.names):
        raise ParameterError(
            "The store was opened for other pictures or settings. Open it with the extraction of "
            "the extractor and the names of the image set."
        )
    extractor.check_scales(scales)
    jobs = store.missing(scales)
    run = _Run(images, extractor, store, on_bad_image, progress)
    run.summary.present = len(images) - len(jobs)
    run.all(jobs, workers or cpu_count())
    store.finish()
    return run.summary


class _Run:
    """One run of :func:`extract`."""

    def __init__(
        self,
        images: ImageSet,
        extractor: DenseExtractor,
        store: FeatureStore,
        on_bad_image: str,
        progress: Progress | None,
    ) -> None:
        self.images = images
        self.extractor = extractor
        self.store = store
        self.stop_on_bad = on_bad_image == "error"
        self.progress = progress
        self.summary = Summary(len(images))
        self.complete: dict[int, dict[Part, Matrix]] = {}  # described, not yet written
        self.start = time.perf_counter()

    def all(self, jobs: Sequence[Job], workers: int) -> None:
        exif = self.extractor.extraction.exif
        self._tell()
        size = ROUND[self.extractor.device.type]
        decoded = decode_ahead(self.images.pictures, jobs, workers=workers, exif=exif)
        written = time.perf_counter()
        # Whatever ends the run, what is complete is kept.
        with ExitStack() as at_end, closing(decoded) as stream:
            at_end.callback(self._write)
            # By place in the list, so that a bad picture tried again shifts no other round.
            for _, group in groupby(jobs, lambda job: job[0] // size):
                some = dict(group)
                self._round(some, islice(stream, len(some)))
                late = time.perf_counter() - written > SECONDS_PER_SHARD
                if late or len(self.complete) >= ROWS_PER_SHARD:
                    self._write()
                    written = time.perf_counter()

    def _round(self, scales: dict[int, tuple[int, ...]], decoded: Iterable[Decoded]) -> None:
        """Describe some pictures; a picture is complete when all its parts are there."""
        found: dict[int, dict[Part, Matrix]] = {row: {} for row in scales}
        expected = {row: len(self.store.extraction.parts(Qs)) for row, Qs in scales.items()}
        for batch in batches(self._readable(decoded), self.extractor.pixel_budget):
            for row, part, vector in self._described(batch):
                found[row][part] = vector
                if len(found[row]) == expected[row]:
                    self.complete[row] = found.pop(row)
                    self.summary.computed += 1
            self._tell()
        self._tell()

    def _readable(self, decoded: Iterable[Decoded]) -> Iterator[Decoded]:
        for picture in decoded:
            if picture.error is None:
                yield picture
                continue
            name = self.images.names[picture.row]
            if self.stop_on_bad:
                raise PictureError(f"{name}: {picture.error}") from picture.error
            self.store.fail(picture.row, str(picture.error))
            self.summary.failed += 1

    def _described(self, batch: Batch) -> Iterator[tuple[int, Part, Matrix]]:
        for key, descriptors in self.extractor.describe(batch.pixels).items():
            part = self.extractor.part(key, batch.Q)
            for row, vector in zip(batch.rows, descriptors.numpy(), strict=True):
                yield row, part, vector

    def _write(self) -> None:
        """Write one shard for each set of scales; only a store that grew by a scale has two."""
        alike: dict[tuple[Part, ...], list[int]] = {}
        for row in sorted(self.complete):
            alike.setdefault(tuple(sorted(self.complete[row])), []).append(row)
        for parts, rows in alike.items():
            arrays = {p: np.stack([self.complete[row][p] for row in rows]) for p in parts}
            self.store.write(rows, arrays)
            for row in rows:
                del self.complete[row]

    def _tell(self) -> None:
        self.summary.seconds = time.perf_counter() - self.start
        if self.progress:
            self.progress(self.summary)
