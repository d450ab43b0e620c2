"""Random crops, mirror images and colour shifts against their formulas and distributions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as tv
from helpers.mistakes import refuses
from scipy import stats
from support import noise

from vggfeat.data.image import decode
from vggfeat.errors import DataError, ParameterError
from vggfeat.nets.preprocessing import CAFFE, TORCHVISION, PixelConvention
from vggfeat.train import augment
from vggfeat.train.augment import (
    CENTRE,
    ILSVRC,
    Draw,
    crop_of,
    draw,
    mirrored,
    principal_components,
    to_input,
    training_scale,
)

each_convention = pytest.mark.parametrize("pixels", [CAFFE, TORCHVISION], ids=["caffe", "torch"])


@pytest.fixture(scope="module")
def many() -> list[Draw]:
    """Draws of images 0, 1, … of one epoch."""
    return [draw(seed=5, epoch=2, image=i) for i in range(20_000)]


def crops(count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, 6, 6), generator=generator, dtype=torch.uint8)


def test_a_draw_is_philox_keyed_by_seed_and_epoch() -> None:
    """The numbers are those of NumPy's Philox with its words set by hand."""
    key, counter = np.array([11, 3], np.uint64), np.array([0, 12345, 0, 0], np.uint64)
    raw = np.random.Philox(key=key, counter=counter).random_raw(7)
    uniform = ((raw >> np.uint64(12)).astype(float) + 0.5) / 2**52
    found = draw(seed=11, epoch=3, image=12345)
    assert found[:3] == tuple(uniform[:3])
    assert found.flip == (uniform[3] < 0.5)
    np.testing.assert_allclose(found.alpha, 0.1 * stats.norm.ppf(uniform[4:]), rtol=1e-9)


def test_draws_have_the_distributions_of_the_paper(many: list[Draw]) -> None:
    """Scale and place are uniform, half the images are mirrored, α is N(0, 0.1)."""
    for name in ("scale", "left", "top"):
        assert stats.kstest([getattr(d, name) for d in many], "uniform").pvalue > 1e-3
    assert stats.binomtest(sum(d.flip for d in many), len(many), 0.5).pvalue > 1e-3
    for alphas in zip(*(d.alpha for d in many), strict=True):
        assert stats.kstest(alphas, "norm", (0, 0.1)).pvalue > 1e-3
        assert np.mean(alphas) == pytest.approx(0, abs=0.004)
        assert np.std(alphas) == pytest.approx(0.1, rel=0.02)


def test_draws_are_independent(many: list[Draw]) -> None:
    """Neither numbers of one image, nor those of neighbours, epochs or seeds go together."""
    n = 5000
    neighbours = [*many[1:n], many[0]]
    others = [[draw(seed, epoch, i) for i in range(n)] for seed, epoch in ((5, 3), (6, 2))]
    rows = [[[*d[:4], *d.alpha] for d in drawn] for drawn in (many[:n], neighbours, *others)]
    correlation = np.corrcoef(np.concatenate(rows, axis=1), rowvar=False)
    assert np.abs(correlation - np.eye(28)).max() < 5 / np.sqrt(n)


def test_scales_and_offsets_are_uniform_over_the_integers(many: list[Draw]) -> None:
    """All 257 scales of [256; 512]; of 230×460 at S = 228 the 5 offsets across, 233 down."""
    places = [crop_of(230, 460, 228, d) for d in many]
    assert {place.size for place in places} == {(228, 456)}
    across, down = zip(*(place.offset for place in places), strict=True)
    jittered = [training_scale((256, 512), d) - 256 for d in many]
    for values, count in ((jittered, 257), (across, 5), (down, 233)):
        counts = np.bincount(values)
        assert (len(counts), counts.min() > 0) == (count, True)
        assert stats.chisquare(counts).pvalue > 1e-3
    assert {training_scale(384, d) for d in many[:50]} == {384}


def test_a_crop_by_hand() -> None:
    """500×375 at S = 256 is 341×256; the middles of 118 and 33 offsets are 59 and 16."""
    assert crop_of(500, 375, 256, CENTRE) == ((341, 256), (59, 16))
    assert crop_of(375, 500, (256, 512), CENTRE) == ((384, 512), (80, 144))
    last = CENTRE._replace(scale=1 - 2**-53, left=1 - 2**-53, top=1 - 2**-53)
    assert crop_of(375, 500, (256, 512), last) == ((512, 682), (288, 458))
    assert crop_of(10, 10, 8, last, side=8) == ((8, 8), (0, 0))
    for S in (223, (200, 300), (400, 300)):  # without room for a crop, or upside down
        refuses(lambda S=S: crop_of(500, 375, S, CENTRE), ParameterError, ("'S'", "224"))


@each_convention
def test_validation_input_is_torchvisions_normalisation(pixels: PixelConvention) -> None:
    """Without draws, channels are ordered and scaled as torchvision's normalize does it."""
    batch = crops(2)
    ordered = batch[:, [2, 1, 0]] if pixels.channels == "BGR" else batch
    expected = tv.normalize(ordered * (pixels.range / 255), list(pixels.mean), list(pixels.std))
    torch.testing.assert_close(to_input(batch, pixels), expected, rtol=1e-5, atol=1e-4)


@each_convention
def test_training_input_is_the_formula_pixel_by_pixel(pixels: PixelConvention) -> None:
    """Each image is mirrored, has P·(α∘λ) added in [0, 1], then its mean subtracted: by hand."""
    draws = [draw(1, 1, image) for image in range(6)]
    assert {d.flip for d in draws} == {True, False}
    batch = crops(6)
    expected = np.empty(batch.shape)
    for b, (image, d) in enumerate(zip(batch.numpy() / 255, draws, strict=True)):
        rgb = image[:, :, ::-1] if d.flip else image
        for channel, row in enumerate(ILSVRC.vectors):
            terms = zip(row, d.alpha, ILSVRC.values, strict=True)
            shifted = (rgb[channel] + sum(p * a * value for p, a, value in terms)) * pixels.range
            at = 2 - channel if pixels.channels == "BGR" else channel
            expected[b, at] = (shifted - pixels.mean[at]) / pixels.std[at]
    found = to_input(batch, pixels, draws)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-4)
    unshifted = to_input(mirrored(batch, [d.flip for d in draws]), pixels)
    assert torch.equal(to_input(batch, pixels, draws, colours=None), unshifted)


@each_convention
def test_input_does_not_depend_on_the_batch(pixels: PixelConvention) -> None:
    """The same bits alone and among others; the memory format and the crops stay."""
    batch = crops(4).contiguous(memory_format=torch.channels_last)
    draws, before = [draw(0, 0, image) for image in range(4)], batch.clone()
    together = to_input(batch, pixels, draws)
    alone = [to_input(batch[i : i + 1], pixels, draws[i : i + 1]) for i in range(4)]
    assert torch.equal(together, torch.cat(alone))
    assert together.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(batch, before)


def test_components_are_those_of_the_covariance(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streamed over images in chunks, they are NumPy's of the stacked pixels in [0, 1]."""
    monkeypatch.setattr(augment, "_CHUNK", 77)
    images = [noise(30 + i, 20, seed=i) for i in range(5)]
    rows = np.concatenate([pixels.reshape(-1, 3) for pixels in images]).astype(np.float64)
    found = principal_components(iter(images))
    np.testing.assert_allclose(found.mean, rows.mean(axis=0), rtol=1e-14)
    values, vectors = np.array(found.values), np.array(found.vectors)
    assert values[0] > values[1] > values[2] > 0
    covariance = np.cov(rows / 255, rowvar=False, bias=True)
    np.testing.assert_allclose(vectors @ np.diag(values) @ vectors.T, covariance, rtol=1e-11)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(3), atol=1e-12)
    assert (vectors[np.abs(vectors).argmax(axis=0), range(3)] > 0).all()
    refuses(lambda: principal_components([]), DataError, ["image"])
    refuses(lambda: principal_components([np.zeros((4, 4, 3))]), ParameterError, ["float64"])


def test_the_common_vectors_are_orthonormal() -> None:
    """The published four decimals form a rotation to within their rounding."""
    P = np.array(ILSVRC.vectors)
    np.testing.assert_allclose(P.T @ P, np.eye(3), atol=3e-4)


def test_the_common_components_are_eigenvalues_in_the_unit_of_a_channel(real_images: Path) -> None:
    """Photographs have nearly the same first axis, and eigenvalues of that size."""
    paths = sorted((real_images / "caltech101").rglob("*.jpg"))[::60]
    if not paths:
        pytest.skip("no photographs of Caltech-101")
    found = principal_components(np.asarray(decode(path)) for path in paths)
    assert 0.5 < found.values[0] / ILSVRC.values[0] < 2
    assert abs(np.array(found.vectors)[:, 0] @ np.array(ILSVRC.vectors)[:, 0]) > 0.99
