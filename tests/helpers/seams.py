"""The only place where tests reach into the product: how often, how many, and what was run."""

from __future__ import annotations

import hashlib
import itertools
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

from torch import Tensor

from vggfeat._io.download import Checksums, DownloadError
from vggfeat.data.datasets import load_card
from vggfeat.data.image import FORMATS
from vggfeat.features import pooling
from vggfeat.features.extractor import DenseExtractor
from vggfeat.features.pooling import Pooling
from vggfeat.nets.registry import SOURCES, folder
from vggfeat.train.loop import Engine


@contextmanager
def checkpoint_every(updates: int) -> Iterator[None]:
    """Let training look at its loss, and whether a checkpoint is due, after so many updates."""
    with mock.patch("vggfeat.train.loop.CHECK", updates):
        yield


@contextmanager
def training_engine(engine: Engine) -> Iterator[None]:
    """Let commands train by an engine of which an option says nothing: how often it keeps."""
    with mock.patch("vggfeat.cli.training.engine_of", return_value=engine):
        yield


@contextmanager
def signal_at_update(update: int, number: int) -> Iterator[None]:
    """Send this process a signal right after an update of training, counted from 1 on."""
    from torch.optim import SGD

    step, done = SGD.step, []

    def stopped(optimiser: SGD, *given: Any) -> Any:
        result = step(optimiser, *given)
        done.append(optimiser)
        if len(done) == update:
            os.kill(os.getpid(), number)
        return result

    with mock.patch.object(SGD, "step", stopped):
        yield


@contextmanager
def without_decoder(kind: str) -> Iterator[None]:
    """Let this machine decode no images of a format, as without an extra."""
    left = tuple(name for name in FORMATS if name != kind)
    with mock.patch("vggfeat.data.image.FORMATS", left):
        yield


@contextmanager
def own_pooling(name: str, kind: type[Pooling]) -> Iterator[None]:
    """Register a pooling, and forget it afterwards."""
    with mock.patch.dict(pooling._KINDS), mock.patch.dict(pooling._EXAMPLES):
        pooling.register(name)(kind)
        yield
    pooling.resolve_pooling.cache_clear()


@contextmanager
def shard_rows(rows: int) -> Iterator[None]:
    """Let an extraction read so many images at a time, and write a shard of each round of them."""
    with round_size(rows), shard_due(size=1):
        yield


@contextmanager
def shard_due(size: int = 64 << 20, seconds: float = 30.0) -> Iterator[None]:
    """Let a shard of a store be due after so many bytes, or so many seconds."""
    with (
        mock.patch("vggfeat.features.pipeline.BYTES_PER_SHARD", size),
        mock.patch("vggfeat.features.pipeline.SECONDS_PER_SHARD", seconds),
    ):
        yield


@contextmanager
def round_size(images: int) -> Iterator[None]:
    """Let an extraction read so many images at a time."""
    with mock.patch("vggfeat.features.pipeline.round_size", return_value=images):
        yield


@contextmanager
def index_from(shards: int) -> Iterator[None]:
    """Let a store of so many shards have an index of them."""
    with mock.patch("vggfeat.store.store.INDEXED", shards):
        yield


@contextmanager
def merged_shard_bytes(size: int) -> Iterator[None]:
    """Let a merge write shards of about so many bytes."""
    with mock.patch("vggfeat.store.merge.SHARD_BYTES", size):
        yield


@contextmanager
def before_batches(act: Callable[[DenseExtractor, Tensor], None]) -> Iterator[None]:
    """Do something each time before a network describes a batch."""
    describe = DenseExtractor.describe_finite

    def described(extractor: DenseExtractor, pixels: Tensor, wanted: Any = None) -> Any:
        act(extractor, pixels)
        return describe(extractor, pixels, wanted)

    with mock.patch.object(DenseExtractor, "describe_finite", described):
        yield


@contextmanager
def described_images() -> Iterator[list[str]]:
    """List the poolings that networks compute of every image, at each scale."""
    done: list[str] = []
    describe = DenseExtractor.describe_finite

    def list_and_describe(extractor: DenseExtractor, pixels: Tensor, wanted: Any = None) -> Any:
        pools = dict.fromkeys(pool for _, pool in wanted or ()) or extractor.extraction.pools
        done.extend(["+".join(pools)] * len(pixels))
        return describe(extractor, pixels, wanted)

    with mock.patch.object(DenseExtractor, "describe_finite", list_and_describe):
        yield done


@contextmanager
def signal_at_batch(batch: int, number: int) -> Iterator[None]:
    """Send this process a signal when a network is given a batch, counted from 1 on."""
    count = itertools.count(1)

    def stop(net: DenseExtractor, pixels: Tensor) -> None:
        if next(count) == batch:
            os.kill(os.getpid(), number)

    with before_batches(stop):
        yield


@contextmanager
def published(name: str, net: str, weights: Path) -> Iterator[None]:
    """Let a file of weights be what a source publishes; it is verified and read as ever."""
    source = SOURCES[name, net]
    path = folder() / source.files[0].name
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(weights, path)
    checksums = Checksums(hashlib.sha256(path.read_bytes()).hexdigest())
    files = (replace(source.files[0], checksums=checksums),)
    with mock.patch.dict(SOURCES, {(name, net): replace(source, files=files)}):
        yield


@contextmanager
def no_downloads() -> Iterator[list[str]]:
    """Let no weights be downloaded, and list the files that would have been."""
    asked: list[str] = []

    def refuse(urls: Sequence[str], target: Path, *_: Any) -> Path:
        asked.append(target.name)
        raise DownloadError("No network.")

    with mock.patch("vggfeat.nets.registry.download", refuse):
        yield asked


@contextmanager
def validation_images(count: int) -> Iterator[None]:
    """Let ILSVRC's validation set have so many images."""
    card = load_card("ilsvrc2012").model_copy(update={"counts": {"val": count}})
    with mock.patch("vggfeat.classification.validation.load_card", return_value=card):
        yield


@contextmanager
def shown_rows(count: int) -> Iterator[None]:
    """Let a terminal show so many images."""
    with mock.patch("vggfeat.cli.classify.SHOWN", count):
        yield


@contextmanager
def interrupted_after_maps(count: int) -> Iterator[None]:
    """Press Ctrl-C whenever a network is asked for dense maps after so many."""
    maps, given = DenseExtractor.maps, itertools.count(1)

    def interrupted(extractor: DenseExtractor, pixels: Tensor) -> Any:
        if next(given) > count:
            raise KeyboardInterrupt
        return maps(extractor, pixels)

    with mock.patch.object(DenseExtractor, "maps", interrupted):
        yield
