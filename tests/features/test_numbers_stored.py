"""The same bits in a store, and no number in it that is not finite."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers.overflow import WEIGHTS, Half, dark_and_bright, scaled
from helpers.seams import round_size
from support import noise

from vggfeat.data.imageset import ImageSet, find_images
from vggfeat.data.partition import Partition
from vggfeat.errors import DeviceError, ImageError
from vggfeat.features.extractor import DenseExtractor
from vggfeat.features.pipeline import extract
from vggfeat.features.transformer import VGGFeatures
from vggfeat.store.merge import merge
from vggfeat.store.store import FeatureStore

COMBINATIONS = [("torch", "fp32"), ("winograd", "fp32")]


def repeatable(runtime: str, precision: str) -> DenseExtractor:
    return DenseExtractor(
        "A", ("conv2_1", "pool3"), weights=WEIGHTS, device="cpu", runtime=runtime,
        precision=precision, deterministic=True,
    )  # fmt: skip


@pytest.fixture
def images(draw: Callable[..., Path]) -> ImageSet:
    for i in range(12):
        path = draw(f"images/{i:02}.png", 44 + 2 * (i % 3), 40, seed=i)
    return find_images([str(path.parent)])


def stored(
    images: ImageSet,
    extractor: DenseExtractor,
    folder: Path | None,
    scales: tuple[int, ...] = (32,),
    **more: object,
) -> FeatureStore:
    part = more.pop("part", Partition())
    some = images.take(part.rows(len(images)))
    store = FeatureStore(folder, "a")
    extract(some, extractor, scales, store, share=part.share, **more)
    return store


@pytest.mark.parametrize(("runtime", "precision"), COMBINATIONS)
def test_workers_interruptions_shares_and_order_leave_the_bits(
    images: ImageSet, tmp_path: Path, runtime: str, precision: str
) -> None:
    """One run, many threads, a run that was stopped and resumed, shares merged: the same bytes."""
    extractor = repeatable(runtime, precision)
    scales = (24, 40)  # for other shapes oneDNN lays out weights anew, which takes most of it
    whole = stored(images, extractor, tmp_path / "whole", scales, workers=1)
    names = list(images.names)

    def same(store: FeatureStore) -> bool:
        expected, found = whole.read(names=names), store.read(names=names)
        return all(found[name].tobytes() == expected[name].tobytes() for name in expected)

    assert same(stored(images, extractor, tmp_path / "threads", scales, workers=5))

    def stop(done: object) -> None:
        if done.computed >= 4:
            raise KeyboardInterrupt

    with round_size(5), pytest.raises(KeyboardInterrupt):
        stored(images, extractor, tmp_path / "resumed", scales, progress=stop)
    resumed = stored(images, extractor, tmp_path / "resumed", scales)
    assert same(resumed)

    backwards = ImageSet(images.names[::-1], images.images[::-1])
    assert same(stored(backwards, extractor, None, scales))

    parts = [tmp_path / f"part-{number}" for number in (1, 2, 3)]
    for number, part in enumerate(parts, 1):
        stored(images, extractor, part, scales, part=Partition(number, 3))
    merge(parts, tmp_path / "merged")
    assert same(FeatureStore(tmp_path / "merged"))


def test_a_transformer_gives_the_same_bits(tmp_path: Path) -> None:
    """VGGFeatures(deterministic=True) describes an image alone as it does among others."""
    features = VGGFeatures(
        "A", "pool3", 32, weights=WEIGHTS, device="cpu", precision="fp32", deterministic=True,
        cache=tmp_path,
    )  # fmt: skip
    some = [noise(40, 40, seed) for seed in range(3)]
    together = features.transform(some)
    for one, row in zip(some, together, strict=True):
        assert features.transform([one]).tobytes() == row.tobytes()


def run(images: ImageSet, extractor: DenseExtractor, **more: object) -> FeatureStore:
    store = FeatureStore(None, "a", **more)
    extract(images, extractor, [32, 40], store)
    return store


def test_one_image_that_overflows_is_left_out() -> None:
    """It has a reason that names the precisions which would do; its neighbours have their rows."""
    images = dark_and_bright(6, {2})
    store = run(images, Half())
    assert list(store.failed) == ["002"]
    assert "fp16, which ends at 65504. Use the precision bf16 or fp32" in store.failed["002"]
    held = [name for name in images.names if name != "002"]
    for name, values in store.read(names=held).items():
        assert np.isfinite(values).all(), name
    with pytest.raises(ImageError, match=r"002: .* bf16 or fp32"):
        extract(images, Half(), [32], FeatureStore(None, "a"), on_bad_image="error")


def test_where_all_overflow_the_settings_are_wrong() -> None:
    """The run ends with advice: of few images at the end, of many after the first ones."""
    with pytest.raises(DeviceError, match=r"2 images have no finite descriptor, 0 .*bf16"):
        run(dark_and_bright(2, {0, 1}), Half())
    with pytest.raises(DeviceError, match=r"16 images .* 0 have one"):
        run(dark_and_bright(200, set(range(200))), Half())
    store = run(dark_and_bright(60, set(range(0, 60, 3))), Half())
    assert len(store.failed) == 20


def test_descriptors_that_float16_cannot_hold_are_left_out() -> None:
    """A store of float16 leaves out an image, and names the dtype float32."""
    weights = scaled(WEIGHTS, "conv1_1", 3e3)
    extractor = DenseExtractor("A", "pool3", weights=weights, device="cpu", precision="fp32")
    store = run(dark_and_bright(5, {3}), extractor, dtype="float16")
    assert list(store.failed) == ["003"]
    assert "dtype float32" in store.failed["003"]


def test_a_transformer_names_the_image_that_overflows() -> None:
    """A row for every image, or an error: never NaN."""
    weights = scaled(WEIGHTS, "conv3_1", 1e36)
    features = VGGFeatures("A", "pool3", 32, weights=weights, device="cpu", precision="fp32")
    with pytest.raises(ImageError, match="diverged"):
        features.transform([noise(40, 40)])
