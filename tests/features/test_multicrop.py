"""Crops of a grid: cut as they are needed, and averaged image by image."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vggfeat.features import multicrop
from vggfeat.features.multicrop import average_crops, offsets
from vggfeat.nets.config import INPUT_SIDE as SIDE

CROP = SIDE**2  # pixels


def posteriors(pixels: Tensor) -> Tensor:
    """Describe two classes by the first pixel, so that every crop and mirror image differs."""
    first = pixels[:, 0, 0, 0].float() / 50
    return torch.stack([first, -first], 1).softmax(1)


def images(count: int, height: int = 230, width: int = 250) -> Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.randint(0, 256, (count, 3, height, width), generator=generator, dtype=torch.uint8)


def alone(pixels: Tensor, grid: int, flip: bool) -> Tensor:
    """Run every crop by itself."""
    found = []
    for image in pixels:
        some = []
        for y in offsets(pixels.shape[2], grid):
            for x in offsets(pixels.shape[3], grid):
                crop = image[None, :, y : y + SIDE, x : x + SIDE]
                some += [posteriors(one) for one in ([crop, crop.flip(3)][: 1 + flip])]
        found.append(torch.cat(some).mean(0))
    return torch.stack(found)


@pytest.mark.parametrize("budget", [1, 2 * CROP, 5 * CROP, 100 * CROP])
@pytest.mark.parametrize("flip", [False, True])
def test_crops_of_a_batch_in_chunks_of_any_size(budget: int, flip: bool) -> None:
    """Chunks end within an image, or reach over several: each has the mean of its own crops."""
    pixels = images(3)
    found = average_crops(posteriors, pixels, 3, flip=flip, budget=budget)
    torch.testing.assert_close(found, alone(pixels, 3, flip))
    again = average_crops(posteriors, pixels, 3, flip=flip, budget=budget)
    assert torch.equal(found, again)


def test_no_more_crops_are_held_than_the_budget_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 4 images with 10×10 crops three are cut at a time, not 400."""
    stack, sizes = torch.stack, []

    def watched(tensors: list[Tensor], dim: int = 0) -> Tensor:
        made = stack(tensors, dim)
        sizes.append(made.numel())
        return made

    monkeypatch.setattr(multicrop.torch, "stack", watched)
    average_crops(posteriors, images(4), 10, flip=False, budget=3 * CROP)
    assert max(sizes) == 3 * CROP * 3


def test_where_memory_is_short_fewer_crops_are_run_at_a_time() -> None:
    """A device that holds two crops gets two, nothing is left out; one that holds none fails."""
    seen: list[int] = []

    def narrow(pixels: Tensor, most: int = 2) -> Tensor:
        if len(pixels) > most:
            raise torch.OutOfMemoryError
        seen.append(len(pixels))
        return posteriors(pixels)

    pixels = images(2)
    found = average_crops(narrow, pixels, 3, flip=False, budget=9 * CROP)
    torch.testing.assert_close(found, alone(pixels, 3, False))
    assert (max(seen), sum(seen)) == (2, 18)
    with pytest.raises(torch.OutOfMemoryError):
        average_crops(lambda some: narrow(some, 0), pixels, 3, flip=False, budget=9 * CROP)
