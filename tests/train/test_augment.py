"""Random crops, mirror images and colour shifts against their formulas and distributions."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as tv
from PIL import Image
from scipy import stats
from support import noise

from vggfeat.data.image import decode
from vggfeat.errors import DataError, ParameterError
from vggfeat.nets.preprocessing import CAFFE, TORCHVISION, PixelConvention
from vggfeat.settings import Decoding
from vggfeat.train import augment
from vggfeat.train.augment import (
    ILSVRC,
    Colours,
    Draw,
    colour_shifts,
    crop,
    crop_of,
    draw,
    mirrored,
    principal_components,
    to_input,
    training_scale,
)

MIDDLE = Draw(0.5, 0.5, 0.5, False, (0.0, 0.0, 0.0))


@pytest.fixture(scope="module")
def many() -> list[Draw]:
    """Images 0, 1, … of one epoch."""
    return [draw(seed=5, epoch=2, image=i) for i in range(20_000)]


def crops(count: int, side: int = 6, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, side, side), generator=generator, dtype=torch.uint8)


def test_a_draw_is_philox_keyed_by_seed_and_epoch() -> None:
    """The numbers are those of NumPy's Philox with its words set by hand, whatever came before."""
    source = np.random.Philox(
        key=np.array([11, 3], np.uint64), counter=np.array([0, 12345, 0, 0], np.uint64)
    )
    uniform = ((source.random_raw(7) >> np.uint64(12)).astype(float) + 0.5) / 2**52
    found = draw(seed=11, epoch=3, image=12345)
    assert found[:3] == tuple(uniform[:3])
    assert found.flip == (uniform[3] < 0.5)
    np.testing.assert_allclose(found.alpha, 0.1 * stats.norm.ppf(uniform[4:]), rtol=1e-9)


def test_draws_have_the_distributions_of_the_paper(many: list[Draw]) -> None:
    """Scale and place are uniform, half the images are mirrored, α is N(0, 0.1)."""
    for name in ("scale", "left", "top"):
        assert stats.kstest([getattr(d, name) for d in many], "uniform").pvalue > 1e-3
    flips = sum(d.flip for d in many)
    assert stats.binomtest(flips, len(many), 0.5).pvalue > 1e-3
    alpha = np.array([d.alpha for d in many])
    for column in alpha.T:
        assert stats.kstest(column, "norm", (0, 0.1)).pvalue > 1e-3
    assert np.abs(alpha.mean(0)).max() < 0.004
    np.testing.assert_allclose(alpha.std(0), 0.1, rtol=0.02)


def test_draws_of_one_image_are_independent(many: list[Draw]) -> None:
    """Neither its numbers among themselves, nor neighbours, epochs or seeds go together."""
    own = np.array([[*d[:4], *d.alpha] for d in many[:5000]])
    others = [draw(5, 3, i) for i in range(5000)], [draw(6, 2, i) for i in range(5000)]
    columns = [own, np.roll(own, 1, axis=0)]
    columns += [np.array([[*d[:4], *d.alpha] for d in drawn]) for drawn in others]
    correlation = np.corrcoef(np.concatenate(columns, axis=1), rowvar=False)
    assert np.abs(correlation - np.eye(28)).max() < 5 / np.sqrt(5000)


def test_jittered_scale_is_uniform_over_the_integers(many: list[Draw]) -> None:
    """All 257 scales of [256; 512] occur, equally often by a chi-square test; a fixed S is S."""
    scales = [training_scale((256, 512), d) for d in many]
    counts = np.bincount(scales, minlength=513)[256:]
    assert len(counts) == 257
    assert counts.min() > 0
    assert stats.chisquare(counts).pvalue > 1e-3
    assert {training_scale(384, d) for d in many[:50]} == {384}


def test_every_offset_is_reached_and_no_crop_leaves_the_image(many: list[Draw]) -> None:
    """An image of 230×460 at S = 228 has 5 offsets across and 233 down, all equally likely."""
    places = [crop_of(230, 460, 228, d) for d in many]
    assert {place.size for place in places} == {(228, 456)}
    across = np.bincount([place.offset[0] for place in places])
    down = np.bincount([place.offset[1] for place in places])
    assert (len(across), len(down)) == (5, 233)
    assert stats.chisquare(across).pvalue > 1e-3
    assert stats.chisquare(down).pvalue > 1e-3


def test_a_crop_by_hand() -> None:
    """500×375 at S = 256 is 341×256; the middles of 118 and 33 offsets are 59 and 16."""
    assert crop_of(500, 375, 256, MIDDLE) == ((341, 256), (59, 16))
    assert crop_of(375, 500, (256, 512), MIDDLE) == ((384, 512), (80, 144))
    last = MIDDLE._replace(scale=1 - 2**-53, left=1 - 2**-53, top=1 - 2**-53)
    assert crop_of(375, 500, (256, 512), last) == ((512, 682), (288, 458))
    assert crop_of(10, 10, 8, last, side=8) == ((8, 8), (0, 0))


@pytest.mark.parametrize("S", [223, (200, 300), (400, 300)])
def test_a_scale_without_room_for_the_crop_is_refused(S: int | tuple[int, int]) -> None:
    """A smallest side below 224, or a range upside down, is named."""
    with pytest.raises(ParameterError, match="'S' parameter of training must be an integer"):
        crop_of(500, 375, S, MIDDLE)


def test_chosen_images_are_mirrored() -> None:
    """A mirrored image is NumPy's with its columns reversed; the others stay."""
    batch = crops(3)
    expected = batch.numpy().copy()
    expected[1] = expected[1, :, :, ::-1]
    np.testing.assert_array_equal(mirrored(batch, [False, True, False]).numpy(), expected)


@pytest.mark.parametrize("pixels", [CAFFE, TORCHVISION], ids=["caffe", "torchvision"])
def test_validation_input_is_torchvisions_normalisation(pixels: PixelConvention) -> None:
    """Without draws, channels are ordered, scaled, and normalised as torchvision's normalize."""
    batch = crops(2)
    ordered = batch[:, [2, 1, 0]] if pixels.channels == "BGR" else batch
    expected = tv.normalize(ordered * (pixels.range / 255), list(pixels.mean), list(pixels.std))
    torch.testing.assert_close(to_input(batch, pixels), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("pixels", [CAFFE, TORCHVISION], ids=["caffe", "torchvision"])
def test_training_input_is_the_formula_pixel_by_pixel(pixels: PixelConvention) -> None:
    """Each image is mirrored, has P·(α∘λ) added in [0, 1], then its mean subtracted: by hand."""
    draws = [draw(1, 1, image) for image in range(6)]
    assert {d.flip for d in draws} == {True, False}
    batch = crops(6)
    expected = np.empty(batch.shape)
    for b, (image, d) in enumerate(zip(batch.numpy() / 255, draws, strict=True)):
        rgb = image[:, :, ::-1] if d.flip else image
        for channel in range(3):
            row = ILSVRC.vectors[channel]
            shift = sum(
                p * a * value for p, a, value in zip(row, d.alpha, ILSVRC.values, strict=True)
            )
            at = 2 - channel if pixels.channels == "BGR" else channel
            shifted = (rgb[channel] + shift) * pixels.range
            expected[b, at] = (shifted - pixels.mean[at]) / pixels.std[at]
    found = to_input(batch, pixels, draws)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-4)
    without = to_input(batch, pixels, draws, colours=None)
    torch.testing.assert_close(
        without, to_input(mirrored(batch, [d.flip for d in draws]), pixels), rtol=0, atol=0
    )


def test_input_does_not_depend_on_the_batch() -> None:
    """An image gives the same bits alone and among others, as processes may share them out."""
    batch, draws = crops(4), [draw(0, 0, image) for image in range(4)]
    together = to_input(batch, CAFFE, draws)
    alone = [to_input(batch[i : i + 1], CAFFE, draws[i : i + 1]) for i in range(4)]
    assert torch.equal(together, torch.cat(alone))


def test_input_keeps_the_memory_format_and_the_crops() -> None:
    """Crops in channels-last order stay so, and their own pixels are not written to."""
    batch = crops(2).contiguous(memory_format=torch.channels_last)
    before = batch.clone()
    for pixels in (CAFFE, TORCHVISION):
        found = to_input(batch, pixels, [draw(0, 0, 0), draw(0, 0, 1)])
        assert found.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(batch, before)


def images() -> list[np.ndarray]:
    return [noise(30 + i, 20, seed=i) for i in range(5)]


def test_components_are_those_of_the_covariance(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streamed over images in chunks, they are NumPy's of the stacked pixels in [0, 1]."""
    monkeypatch.setattr(augment, "_CHUNK", 77)
    rows = np.concatenate([p.reshape(-1, 3) for p in images()]).astype(np.float64)
    found = principal_components(iter(images()))
    np.testing.assert_allclose(found.mean, rows.mean(axis=0), rtol=1e-14)
    values, vectors = np.array(found.values), np.array(found.vectors)
    assert values[0] > values[1] > values[2] > 0
    covariance = np.cov(rows / 255, rowvar=False, bias=True)
    np.testing.assert_allclose(vectors @ np.diag(values) @ vectors.T, covariance, rtol=1e-11)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(3), atol=1e-12)
    assert (vectors[np.abs(vectors).argmax(axis=0), range(3)] > 0).all()


def test_colours_survive_json() -> None:
    """What a checkpoint keeps is equal after it was written and read."""
    found = principal_components(images())
    assert Colours.from_dict(json.loads(json.dumps(found.to_dict()))) == found


def test_the_common_components_are_eigenvalues_in_the_unit_of_a_channel(
    real_images: Path,
) -> None:
    """Photographs have eigenvalues near those used for ILSVRC, and nearly the same first axis."""
    paths = sorted((real_images / "caltech101").rglob("*.jpg"))[::60]
    if not paths:
        pytest.skip("no photographs of Caltech-101")
    found = principal_components(np.asarray(decode(path)) for path in paths)
    assert 0.5 < found.values[0] / ILSVRC.values[0] < 2
    axis = abs(np.array(found.vectors)[:, 0] @ np.array(ILSVRC.vectors)[:, 0])
    assert axis > 0.99


def test_the_common_vectors_are_orthonormal() -> None:
    """The published four decimals form a rotation to within their rounding."""
    vectors = np.array(ILSVRC.vectors)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(3), atol=3e-4)


def test_shifts_have_the_covariance_of_the_formula() -> None:
    """P·(α∘λ) with α of variance 0.01 has the covariance 0.01·P·diag(λ²)·Pᵀ."""
    alphas = np.random.default_rng(0).normal(0, 0.1, (200_000, 3))
    found = np.cov(colour_shifts(alphas, ILSVRC).numpy(), rowvar=False)
    P, values = np.array(ILSVRC.vectors), np.array(ILSVRC.values)
    expected = 0.01 * P @ np.diag(values**2) @ P.T
    np.testing.assert_allclose(found, expected, rtol=0.02)


def test_what_is_no_image_is_refused() -> None:
    """No images at all, or arrays of another kind, are named."""
    with pytest.raises(DataError, match="no image was read"):
        principal_components([])
    with pytest.raises(ParameterError, match=r"arrays \(H, W, 3\) of uint8.*float64"):
        principal_components([np.zeros((4, 4, 3))])


def test_the_orientation_of_a_camera_is_applied_unless_it_is_ignored() -> None:
    """A crop of an image on its side is that of the image turned upright, or as it is stored."""
    stored = Image.fromarray(noise(60, 40, 0))

    def encoded(image: Image.Image, orientation: int = 1) -> bytes:
        file, exif = io.BytesIO(), Image.Exif()
        exif[0x0112] = orientation
        image.save(file, "PNG", exif=exif)
        return file.getvalue()

    def cut(content: bytes, **how: Any) -> bytes:
        return crop(content, 32, draw(0, epoch=0, image=1), 24, **how).tobytes()

    turned = encoded(stored, 6)
    upright = encoded(stored.transpose(Image.Transpose.ROTATE_270))
    assert cut(turned) == cut(upright) != cut(encoded(stored))
    assert cut(turned, decoding=Decoding(exif=False)) == cut(encoded(stored))
