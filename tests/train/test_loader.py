"""Batches are a function of the seed alone, and crops those of a full decoding."""

from __future__ import annotations

import io
import multiprocessing
import pickle
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.mistakes import refuses
from PIL import Image
from support import noise

from vggfeat.data.image import decode, load, rescale
from vggfeat.data.sources.files import FileImages
from vggfeat.errors import DataError, ImageError, ParameterError
from vggfeat.settings import Decoding
from vggfeat.train import augment
from vggfeat.train.augment import CENTRE, crop, crop_of, draw
from vggfeat.train.data import Part
from vggfeat.train.loader import MOST_BAD, Batch, Loader, epoch_order

S = (10, 16)
SIDE = 8
COUNT = 22
Batches = list[tuple[list[int], list[int], bytes]]
here_and_apart = pytest.mark.parametrize("workers", [0, 1])


def encoded(image: np.ndarray | Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    out = io.BytesIO()
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    image.save(out, kind, **({"quality": 95} if kind == "JPEG" else {}), **options)
    return out.getvalue()


@pytest.fixture
def part(tmp_path: Path) -> Part:
    """Twenty-two small images of three classes, of several shapes."""
    names = [f"{row:02}.jpg" for row in range(COUNT)]
    for row, name in enumerate(names):
        (tmp_path / name).write_bytes(encoded(noise(14 + row % 5, 12 + row % 7, row)))
    return Part(FileImages(tmp_path, np.array(names, "S")), np.arange(COUNT) % 3)


def loader(part: Part, **settings: object) -> Loader:
    return Loader(part, **{"batch_size": 4, "S": S, "crop": SIDE, "seed": 5} | settings)


def plain(batches: Iterable[Batch]) -> Batches:
    return [
        (labels.tolist(), rows.tolist(), pixels.contiguous().numpy().tobytes())
        for pixels, labels, rows in batches
    ]


def merged(ranks: Iterable[Batches]) -> Batches:
    """Put the processes' shares of each batch together."""
    batches = [list(zip(*shares, strict=True)) for shares in zip(*ranks, strict=True)]
    return [([*chain(*labels)], [*chain(*rows)], b"".join(px)) for labels, rows, px in batches]


def pixels_of(crops: torch.Tensor) -> np.ndarray:
    return crops.permute(1, 2, 0).numpy().astype(int)


def test_batches_follow_from_the_formula(part: Part) -> None:
    """Row, label and crop of every place are those that a slow reading of the rule gives."""
    batches = list(loader(part).batches(epoch=3))
    order = epoch_order(COUNT, 5, 3)
    assert len(batches) == COUNT // 4
    for k, (pixels, labels, rows) in enumerate(batches):
        assert rows.tolist() == order[4 * k : 4 * k + 4].tolist()
        assert labels.tolist() == [row % 3 for row in rows.tolist()]
        assert (pixels.dtype, tuple(pixels.shape)) == (torch.uint8, (4, 3, SIDE, SIDE))
        assert pixels.is_contiguous(memory_format=torch.channels_last)
        for row, cut in zip(rows.tolist(), pixels, strict=True):
            image = decode(Image.open(io.BytesIO(part.read(row))))
            size, (left, top) = crop_of(*image.size, S, draw(5, 3, row), SIDE)
            whole = rescale(image, min(size)).astype(int)
            expected = whole[top : top + SIDE, left : left + SIDE]
            assert np.abs(pixels_of(cut) - expected).max() <= 1


@pytest.mark.parametrize(("world", "workers"), [(1, 1), (1, 2), (2, 0), (2, 2), (3, 0), (4, 0)])
def test_processes_and_workers_change_nothing(part: Part, world: int, workers: int) -> None:
    """Shares of any number of processes and workers make the same global batches."""
    ranks = []
    for rank in range(world):
        with loader(part, rank=rank, world=world, workers=workers) as own:
            ranks.append(plain(own.batches(epoch=1)))
    sizes = {len(rows) for batches in ranks for _, rows, _ in batches}
    assert sizes == ({1, 2} if world == 3 else {4 // world})  # four images are 1, 1 and 2
    assert merged(ranks) == plain(loader(part).batches(epoch=1))


@here_and_apart
def test_resuming_within_an_epoch_is_exact(part: Part, workers: int) -> None:
    """From batch 3 on, a new loader or the same one gives what an unbroken epoch gives.

    And nothing is drawn from torch's generator, which dropout continues.
    """
    state = torch.get_rng_state()
    with loader(part, workers=workers) as own:
        whole = plain(own.batches(epoch=2))
        broken = own.batches(epoch=2)
        next(broken)  # an epoch that is broken off leaves nothing behind
        assert plain(own.batches(epoch=2, start=3)) == whole[3:]
        assert next(broken, None) is None  # it ended when another was begun
        assert plain(own.batches(epoch=2, start=len(own))) == []
    assert plain(loader(part).batches(2, 3)) == whole[3:]
    assert torch.equal(torch.get_rng_state(), state)


def test_epochs_differ_and_hold_each_image_once(part: Part) -> None:
    """An epoch is a permutation, of which the last batch, if incomplete, is left out."""
    orders = [epoch_order(COUNT, seed, epoch).tolist() for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    assert all(sorted(order) == list(range(COUNT)) for order in orders)
    assert len(set(map(tuple, orders))) == 3
    training, validation, small = loader(part), loader(part, seed=None), loader(part.take(range(3)))
    assert (len(training), training.global_size(4)) == (5, 4)
    assert (len(validation), validation.global_size(5)) == (6, 2)
    assert [len(rows) for _, rows, _ in plain(small.batches())] == [3]  # it is the only one
    rows = [row for _, batch, _ in plain(training.batches()) for row in batch]
    assert len(set(rows)) == len(rows) == 20


def test_validation_is_the_central_crop_in_order(part: Part) -> None:
    """It crops the middle at 0.5 (S_min + S_max), decoded in full, shared, never shuffled."""
    large = part.images.root / "01.jpg"
    large.write_bytes(encoded(noise(130, 117, 3)))
    shares = [plain(loader(part, seed=None, rank=rank, world=2).batches()) for rank in (0, 1)]
    assert [row for _, rows, _ in merged(shares) for row in rows] == list(range(COUNT))
    first, second = map(pixels_of, next(loader(part, seed=None).batches()).pixels[:2])
    whole = load(part.images.root / "00.jpg", [13])[13]  # 14 × 12 become 15 × 13
    # The margins 7 and 5 are odd, of which the greater half is left and above.
    assert np.abs(first - whole[3 : 3 + SIDE, 4 : 4 + SIDE]).max() <= 1
    assert np.array_equal(second, crop(large.read_bytes(), 13, CENTRE, SIDE, reduced=False))


@here_and_apart
def test_bad_images_in_training_are_left_out(part: Part, workers: int) -> None:
    """A batch is smaller without them, no other image counts twice, and each is named."""
    order = epoch_order(COUNT, 5, 0).tolist()
    (part.images.root / part.name(order[1])).write_bytes(b"no image")
    (part.images.root / part.name(order[2])).unlink()
    with loader(part, workers=workers) as own:
        batches = plain(own.batches())
        assert [rows for _, rows, _ in batches[:2]] == [[order[0], order[3]], order[4:8]]
        assert own.global_size(0) == 4
        assert own.failed.keys() == {part.name(order[1]), part.name(order[2])}
        assert own.failed[part.name(order[2])] == "no such file"
    assert merged(plain(loader(part, rank=rank, world=2).batches()) for rank in (0, 1)) == batches


def test_bad_images_in_validation_are_left_out(part: Part) -> None:
    """No other image counts for a bad one; a batch may become empty."""
    for row in (1, 4, 5, 6, 7):
        (part.images.root / part.name(row)).write_bytes(b"")
    own = loader(part, seed=None)
    batches = plain(own.batches())
    assert [rows for _, rows, _ in batches[:3]] == [[0, 2, 3], [], [8, 9, 10, 11]]
    assert batches[0][0] == [0, 2, 0]
    assert sorted(own.failed) == [f"0{row}.jpg" for row in (1, 4, 5, 6, 7)]


@here_and_apart
def test_many_bad_images_end_the_run(part: Part, workers: int) -> None:
    """When image after image fails the disk is to blame, and the error says so plainly."""
    for row in range(COUNT):
        (part.images.root / part.name(row)).unlink()
    with loader(part, workers=workers) as own:
        refuses(lambda: list(own.batches()), DataError, [f"{MOST_BAD} images", "no such file"])
    assert len(own.failed) >= MOST_BAD


def test_workers_end_with_the_loader(part: Part) -> None:
    """Workers live from epoch to epoch, and none is left after the loader is closed.

    What they get survives pickling, as starting them by spawn does.
    """
    before = set(multiprocessing.active_children())
    with loader(part, workers=2) as own:
        list(own.batches(0))
        first = set(multiprocessing.active_children()) - before
        held = own.batches(1)
        next(held)  # broken off, and held as the traceback of an error holds it
        assert set(multiprocessing.active_children()) - before == first
        again = pickle.loads(pickle.dumps(own._crops))
        assert np.array_equal(again[0, 2].pixels, own._crops[0, 2].pixels)
    assert len(first) == 2
    assert not set(multiprocessing.active_children()) - before


def test_waiting_is_measured(part: Part, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where an image takes 1 to decode and a batch of four 4 to use, it is 20 of 36 at the end."""
    clock, read = [0], Part.read

    def pass_time(time: int) -> None:
        clock[0] += time

    monkeypatch.setattr("vggfeat.train.loader.perf_counter", lambda: clock[0])
    monkeypatch.setattr(Part, "read", lambda *of: (pass_time(1), read(*of))[1])
    own = loader(part)
    assert own.waited == 0
    for _ in own.batches():
        pass_time(4)
    assert own.waited == pytest.approx(20 / 36)


@pytest.mark.parametrize("size", [(120, 88), (87, 121), (333, 200)])
def test_reduced_decoding_is_close_to_full(size: tuple[int, int]) -> None:
    """A JPEG decoded at a part of its size gives the same crop to about a grey level."""
    content, chosen = encoded(noise(*size, seed=3)), draw(0, 0, 1)
    full = crop(content, 12, chosen, 9, reduced=False).astype(int)
    reduced = crop(content, 12, chosen, 9).astype(int)
    assert not np.array_equal(full, reduced)  # or nothing was reduced
    assert np.sqrt(np.square(full - reduced).mean()) < 2
    assert np.abs(full - reduced).max() < 10


def test_reduced_decoding_keeps_twice_the_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow is asked for no less than twice S, and gives a half, quarter or eighth."""
    seen = []
    monkeypatch.setattr(
        augment, "decode", lambda image, *_: seen.append(min(image.size)) or decode(image)
    )
    for side in (47, 48, 95, 96, 191, 192):
        crop(encoded(noise(side, side + 4)), 12, CENTRE, 8)
    assert seen == [47, 24, 48, 24, 48, 24]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_images_are_cropped_upright(orientation: int) -> None:
    """What the camera recorded is applied before the crop is chosen, or ignored if so told."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = noise(120, 88, 2)
    content, chosen = encoded(stored, exif=exif), draw(0, 0, 4)
    image = decode(Image.open(io.BytesIO(content)))
    assert image.size == ((120, 88) if orientation < 5 else (88, 120))
    left, top = crop_of(*image.size, 12, chosen, 9).offset
    expected = rescale(image, 12).astype(int)[top : top + 9, left : left + 9]
    for reduced, worst in ((False, 1), (True, 10)):
        cut = crop(content, 12, chosen, 9, reduced=reduced)
        assert np.abs(cut - expected).max() <= worst
    ignored = crop(content, 12, chosen, 9, decoding=Decoding(exif=False))
    assert np.array_equal(ignored, crop(encoded(stored), 12, chosen, 9))


@pytest.mark.parametrize(("mode", "kind"), [("CMYK", "JPEG"), ("L", "JPEG"), ("P", "PNG")])
def test_other_formats_are_decoded_as_everywhere(mode: str, kind: str) -> None:
    """CMYK, grey and PNG images give the crop that the project's own decoder gives."""
    content = encoded(Image.fromarray(noise(20, 16)).convert(mode), kind)
    expected = rescale(decode(Image.open(io.BytesIO(content))), 16).astype(int)[4:12, 6:14]
    assert np.abs(crop(content, 16, CENTRE, 8) - expected).max() <= 1


def test_a_cut_off_image_has_a_reason() -> None:
    """A JPEG that ends early is an error with its reason, never an image half grey."""
    content = encoded(noise(60, 40))
    refuses(lambda: crop(content[: len(content) // 2], 16, CENTRE, 8), ImageError, ["OSError"])


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": 3, "world": 4}, "at least 4"),
        ({"S": 7}, "'S'"),
        ({"S": (16, 10)}, "'S'"),
        ({"workers": -1}, "workers"),
    ],
)
def test_settings_out_of_range_are_named(part: Part, settings: dict, named: str) -> None:
    refuses(lambda: loader(part, **settings), ParameterError, [named])
    refuses(lambda: loader(part).batches(start=6), ParameterError, ["from 0 to 5"])


def test_fewer_images_than_processes_are_refused(part: Part) -> None:
    """What is there, how many processes are too many, and how many are not."""
    three = part.take(range(3))
    refuses(lambda: loader(three, world=4), DataError, ["3 images", "4 processes", "at most 3"])
    assert len(loader(three, world=4, seed=None)) == 1  # to validate with, a share may be empty
    assert [len(rows) for _, rows, _ in plain(loader(three, world=3).batches())] == [1]
