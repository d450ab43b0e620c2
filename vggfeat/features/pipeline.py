"""The one path from images to a store, which every surface of vggfeat takes."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple, get_args

import numpy as np
from joblib import cpu_count

from vggfeat.data.batching import DecodedImage, ImageBatch, decode_ahead, make_batches
from vggfeat.data.datasets.labels import labels_of
from vggfeat.data.imageset import ImageSet
from vggfeat.errors import DeviceError, ImageError, ParameterError
from vggfeat.features.aggregate import Matrix
from vggfeat.features.extractor import DenseExtractor, explain_overflow
from vggfeat.features.outbox import Outbox
from vggfeat.features.plan import Bools, Plan
from vggfeat.features.pooling import resolve_pooling
from vggfeat.features.provenance import name_network, provenance
from vggfeat.features.summary import Progress, Summary, image_bar
from vggfeat.settings import OnBadImage
from vggfeat.store.column import Descriptor
from vggfeat.store.labels import write_labels
from vggfeat.store.store import FeatureStore
from vggfeat.validation import is_count

LOGGER = logging.getLogger("vggfeat")
# A shard is written after so many bytes, or so many seconds: what `kill -9` can lose.
BYTES_PER_SHARD = 64 << 20
SECONDS_PER_SHARD = 30.0
# An image whose numbers overflow is left out as a bad one is. When so many have, and they are more
# than those that did not, it is the settings that are wrong, and a run of days ends at once.
OVERFLOWED = 16
# Images at Q = 384, the work of a round. Batches never reach over its end, so that a run that
# was killed and resumed makes the same ones, and with them the same bits.
ROUND = {"cpu": 16, "cuda": 512, "mps": 64}


def extract(
    images: ImageSet,
    extractor: DenseExtractor,
    scales: int | Sequence[int],
    store: FeatureStore,
    *,
    outputs: Sequence[str] = (),
    on_bad_image: str = "skip",
    workers: int | None = None,
    share: tuple[int, int] | None = None,
    progress: Progress | bool | None = None,
) -> Summary:
    """Compute, for every image, the columns that a store lacks, and keep them there.

    Parameters
    ----------
    images : ImageSet
    extractor : DenseExtractor
    scales : int or sequence of int
        Smallest sides Q to which every image is rescaled, in pixels (Section 3.2).
    store : FeatureStore
        Opened with ``mode="a"``. What is there is never computed again.
    outputs : sequence of str
        What class scores are called, where the extractor ends in fc8.
    on_bad_image : {"skip", "error"}
        Leave out an image that cannot be read or whose numbers overflow, with its reason, or stop.
    workers : int, optional
        Decoding threads; as many as there are cores by default.
    share : (int, int), optional
        Which part of how many of a longer list `images` are, as (3, 16): lists of failed images
        are kept for each, and no view is written.
    progress : bool or callable, optional
        True shows the bar of the command line; a callable is called with the :class:`Summary` so
        far, after every batch.

    Returns
    -------
    Summary

    Raises
    ------
    ImageError
        On the first bad image, with ``on_bad_image="error"``; what was computed is kept.
    DeviceError
        If the numbers of most images overflow, as the settings are wrong.
    FingerprintMismatch
        If the store has one of the columns with other settings.
    StoreError
        If the store was opened for reading, or cannot be written.
    ParameterError
        For a scale too small for the layer, or an argument of another kind, before anything is
        decoded.

    Notes
    -----
    On Ctrl-C, as on an error, the images that are complete are written before it is raised; the
    view that the store had stays as it was.

    Runs that work on one list in one store at the same time lose nothing: with every shard each
    takes in what the others wrote.

    The logger ``vggfeat`` says at INFO what computes, and what was done; images that are left out
    are warnings.

    Examples
    --------
    >>> from vggfeat._io.assets import asset
    >>> from vggfeat.data.imageset import find_images
    >>> images = find_images([str(asset("clipart10") / "boat" / "boat_000[1-3].jpg")])
    >>> extractor = DenseExtractor("D", "pool2", weights="embedded")
    >>> extract(images, extractor, [32], FeatureStore(None, "a")).computed
    3
    """
    _check_kinds(images, extractor, store)
    options = RunOptions(_list_scales(scales), tuple(outputs), on_bad_image, workers)
    with ExitStack() as shown:
        if isinstance(progress, bool):
            progress = shown.enter_context(image_bar("extract")) if progress else None
        run = Run(images, extractor, options, store, progress)
        LOGGER.info(name_network(extractor))
        store.begin(images.names, run.provenance, share)
        run.all(workers or cpu_count())
    judge_settings(run.overflowed, run.summary, at_least=1)
    write_labels(store.storage, labels_of(images), share)
    store.finish(images.names, run.failed, share)
    LOGGER.info("%s: %s", store, run.summary)
    return run.summary


@dataclass(frozen=True)
class RunOptions:
    """How a run works, wherever it does: options of :func:`extract`."""

    scales: tuple[int, ...]
    outputs: tuple[str, ...] = ()
    on_bad_image: str = "skip"
    workers: int | None = None

    def __post_init__(self) -> None:
        if self.on_bad_image not in (choices := get_args(OnBadImage)):
            raise ParameterError.not_one_of("on_bad_image", "extract", choices, self.on_bad_image)
        if self.workers is not None and not is_count(self.workers):
            expected = "an int from 1 on, or None for all cores"
            raise ParameterError.of("workers", "extract", expected, self.workers)


def _list_scales(scales: int | Sequence[int]) -> tuple[int, ...]:
    if isinstance(scales, Iterable) and not isinstance(scales, str):
        return tuple(scales)
    return (scales,)  # what is no int is refused by the extractor


def _check_kinds(images: object, extractor: object, store: object) -> None:
    """Refuse what is given in place of the three objects, and say how each is made."""
    for name, value, is_right, expected in (
        ("images", images, isinstance(images, ImageSet), "an ImageSet: find_images([...]) is one"),
        # Whatever describes as one does will do.
        (
            "extractor",
            extractor,
            hasattr(extractor, "describe_finite"),
            'an extractor: DenseExtractor("D", "fc7") is one',
        ),
        (
            "store",
            store,
            isinstance(store, FeatureStore),
            'a store: FeatureStore(path, mode="a") opens one',
        ),
    ):
        if not is_right:
            raise ParameterError.of(name, "extract", expected, type(value))


class ImageDescription(NamedTuple):
    """What became of an image at one scale: descriptors (D,), or the reason why it has none."""

    row: int
    arrays: dict[Descriptor, Matrix]
    reason: str = ""


class Run:
    """Images on their way into a store, as far as :func:`extract` does not begin or finish it.

    Attributes
    ----------
    summary : Summary
    failed : dict
        By name, why images could not be used.
    overflowed : dict
        Those of them that could be read, and whose numbers overflow.
    plan : Plan
        What is left to do.
    """

    def __init__(
        self,
        images: ImageSet,
        extractor: DenseExtractor,
        options: RunOptions,
        store: FeatureStore,
        progress: Progress | None = None,
    ) -> None:
        store.check_writable()
        extractor.check_scales(options.scales)
        columns = extractor.columns(options.scales, options.outputs)
        store.add_columns(columns)
        self.images = images
        self.extractor = extractor
        self.store = store
        self.stop_on_bad = options.on_bad_image == "error"
        self.progress = progress
        self.columns = [column.descriptor for column in columns]
        self.provenance = provenance(extractor)
        self.round_size = round_size(
            extractor.device.type, options.scales, extractor.extraction.pools
        )
        self.summary = Summary(len(images))
        self.failed: dict[str, str] = {}
        self.overflowed: dict[str, str] = {}
        self._start = time.perf_counter()
        self.plan = Plan(images, self.columns, store)
        self._outbox = Outbox(self.plan, self.provenance)
        self._computed: Bools = np.zeros(len(images), bool)  # by this run
        self._met: Bools = np.zeros(len(images), bool)  # read, and found to lack nothing
        self.look()

    def look(self) -> None:
        """Look what the store has now, and what therefore is left to do."""
        done = set(self.failed) | {self.images.names[row] for row in self._outbox.complete}
        for row, held in self.plan.look(done).items():
            self._outbox.keep(row, held)
        present = (self.plan.complete | self._met) & ~self._computed
        self.summary.present = int(present.sum())

    def all(self, workers: int) -> None:
        """Describe and write everything that is lacking."""
        self.plan.note_changed()
        self._tell()
        decoded = decode_ahead(
            self.images.images, self.plan.jobs(), self.extractor.extraction, workers=workers
        )
        written = time.perf_counter()
        # Whatever ends the run, what is complete is kept.
        with ExitStack() as at_end, closing(decoded) as stream:
            at_end.callback(self._write)
            # By place in the list, so that a bad image tried again shifts no other round.
            for _, images in groupby(stream, lambda image: image.row // self.round_size):
                self._describe_round(images)
                late = time.perf_counter() - written > SECONDS_PER_SHARD
                if late or self._outbox.nbytes >= BYTES_PER_SHARD:
                    if self._write():
                        self.look()
                    written = time.perf_counter()

    def _write(self) -> bool:
        others = self._outbox.write()
        self.summary.replaced = int(self._outbox.replaced.sum())
        return others

    def _describe_round(self, decoded: Iterable[DecodedImage]) -> None:
        """Describe some images; one is complete when all that it lacked is there."""
        found: defaultdict[int, dict[Descriptor, Matrix]] = defaultdict(dict)
        wanted: dict[int, int] = {}
        overflowed: set[int] = set()
        for batch in make_batches(self._readable(decoded, wanted), self.extractor.pixel_budget):
            for row, arrays, reason in describe_batch(self.extractor, batch, self.store.dtype):
                if row in overflowed:
                    continue  # at another scale
                if reason:
                    overflowed.add(row)
                    self._overflow(row, reason)
                    continue
                found[row] |= arrays
                if len(found[row]) == wanted[row]:
                    self._complete(row, found.pop(row))
            self._tell()
        self._tell()

    def _complete(self, row: int, arrays: dict[Descriptor, Matrix]) -> None:
        self._outbox.complete[row] = arrays
        self._computed[row] = True
        self.summary.computed += 1
        if len(arrays) < len(self.columns):
            self.summary.added[len(arrays)] += 1

    def _readable(
        self, decoded: Iterable[DecodedImage], wanted: dict[int, int]
    ) -> Iterator[DecodedImage]:
        """Pass on what has to be described, and take note of the rest."""
        for image in decoded:
            row = image.row
            if not self.plan.left[row]:
                continue  # decoded, and meanwhile done by others
            if image.error is not None:
                self._fail(row, str(image.error))
                continue
            self.plan.ids[row] = image.id
            wanted[row] = sum(map(len, image.wanted.values()))
            if wanted[row] < len(self.columns):
                lacking = {(*key, Q) for Q, keys in image.wanted.items() for key in keys}
                held = [column for column in self.columns if column[1:] not in lacking]
                self._outbox.keep(row, held)
            if image.wanted:
                yield image
            else:
                self._met[row] = True
                self.summary.present += 1

    def _fail(self, row: int, reason: str) -> None:
        """Leave an image out, or stop at it."""
        name = self.images.names[row]
        self.failed[name] = reason
        self.summary.failed += 1
        if self.stop_on_bad:
            raise ImageError.of(name, reason)
        LOGGER.warning("%s: %s", name, reason)

    def _overflow(self, row: int, reason: str) -> None:
        """Leave out an image that could be read and has no finite descriptor, or stop at it."""
        self.overflowed[self.images.names[row]] = reason
        self._fail(row, reason)
        judge_settings(self.overflowed, self.summary, at_least=OVERFLOWED)

    def _tell(self) -> None:
        """Tell how far the run is."""
        self.summary.seconds = time.perf_counter() - self._start
        if self.progress:
            self.progress(self.summary)


def judge_settings(overflowed: Mapping[str, str], done: Summary, at_least: int) -> None:
    """Stop where so many images overflowed, and they are more than have descriptors."""
    good = done.present + done.computed
    if len(overflowed) >= at_least and len(overflowed) > good:
        raise DeviceError(
            f"{len(overflowed)} images have no finite descriptor, {good} have one: the settings "
            f"do not suit these weights. Of the last: {list(overflowed.values())[-1]}"
        )


def describe_batch(
    extractor: DenseExtractor, batch: ImageBatch, dtype: str
) -> Iterator[ImageDescription]:
    """Describe the images of a batch in order, to be kept as float32 or float16.

    One that has no finite descriptor is yielded with the reason, its neighbours with their rows.

    Examples
    --------
    >>> import torch
    >>> extractor = DenseExtractor("D", "pool1", weights="embedded")
    >>> pixels = torch.zeros(1, 3, 32, 48, dtype=torch.uint8)
    >>> [image] = describe_batch(extractor, ImageBatch(32, (7,), pixels), "float32")
    >>> image.row, {name.path: array.shape for name, array in image.arrays.items()}, image.reason
    (7, {'/D/pool1/average/Q32': (64,)}, '')
    """
    kept, described = extractor.describe_finite(batch.pixels, batch.wanted)
    net = extractor.extraction.net
    arrays = {Descriptor(net, *key, batch.Q): values.numpy() for key, values in described.items()}
    places = {place: n for n, place in enumerate(kept.tolist())}
    for place, row in enumerate(batch.rows):
        if place not in places:
            yield ImageDescription(row, {}, explain_overflow(extractor.extraction.precision))
            continue
        own = {descriptor: values[places[place]] for descriptor, values in arrays.items()}
        if all(np.abs(values).max() <= np.finfo(dtype).max for values in own.values()):
            yield ImageDescription(row, own)
        else:
            reason = f"Its descriptor has numbers that {dtype} cannot hold. Use the dtype float32."
            yield ImageDescription(row, {}, reason)


def round_size(device: str, scales: Sequence[int], pools: Sequence[str] = ("average",)) -> int:
    """Count the images of a round on a type of device: fewer where each takes more.

    Examples
    --------
    >>> round_size("cpu", [384]), round_size("cpu", [256, 384, 512])
    (16, 4)
    >>> round_size("cpu", [384], ["crops5"])
    1
    """
    crop_pixels = [resolve_pooling(pool).crop_pixels for pool in pools]
    dense = sum(Q * Q for Q in scales) if not all(crop_pixels) else 0
    crops = sum(crop_pixels) * len(scales)
    most = ROUND[device]
    return max(1, min(most, most * 384 * 384 // max(1, dense + crops)))
