"""Batches are a function of the seed alone, and crops those of a full decoding."""

from __future__ import annotations

import io
import multiprocessing
import pickle
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support import noise

from vggfeat.data.image import decode, load, rescale
from vggfeat.data.sources.files import FileImages
from vggfeat.errors import DataError, ImageError, ParameterError
from vggfeat.train import augment
from vggfeat.train.augment import CENTRE, Scale, crop, crop_of, draw
from vggfeat.train.data import Part, open_trainset
from vggfeat.train.loader import MOST_BAD, Batch, Loader, epoch_order

S = (10, 16)
SIDE = 8
COUNT = 22
Batches = list[tuple[list[int], list[int], bytes]]


def jpeg(width: int, height: int, seed: int = 0, **options: object) -> bytes:
    out = io.BytesIO()
    Image.fromarray(noise(width, height, seed)).save(out, "JPEG", quality=95, **options)
    return out.getvalue()


@pytest.fixture
def part(tmp_path: Path) -> Part:
    """Twenty-two small images of three classes, of several shapes."""
    names = [f"{row:02}.jpg" for row in range(COUNT)]
    for row, name in enumerate(names):
        (tmp_path / name).write_bytes(jpeg(14 + row % 5, 12 + row % 7, row))
    return Part(FileImages(tmp_path, np.array(names, "S")), np.arange(COUNT) % 3)


def loader(part: Part, batch_size: int = 4, S: Scale = S, **settings: object) -> Loader:
    return Loader(part, **{"batch_size": batch_size, "S": S, "crop": SIDE, "seed": 5} | settings)


def plain(batches: Iterable[Batch]) -> Batches:
    return [
        (labels.tolist(), rows.tolist(), pixels.contiguous().numpy().tobytes())
        for pixels, labels, rows in batches
    ]


def merged(ranks: list[Batches]) -> Batches:
    """Put the processes' shares of each batch together."""
    return [
        (
            [label for labels, _, _ in shares for label in labels],
            [row for _, rows, _ in shares for row in rows],
            b"".join(pixels for _, _, pixels in shares),
        )
        for shares in zip(*ranks, strict=True)
    ]


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
            (left, top), chosen = _place(image, row, epoch=3)
            whole = rescale(image, min(chosen)).astype(int)
            expected = whole[top : top + SIDE, left : left + SIDE]
            assert np.abs(cut.permute(1, 2, 0).numpy() - expected).max() <= 1


def _place(image: Image.Image, row: int, epoch: int) -> tuple[tuple[int, int], tuple[int, int]]:
    place = crop_of(*image.size, S, draw(5, epoch, row), SIDE)
    return place.offset, place.size


@pytest.mark.parametrize(("world", "workers"), [(1, 1), (1, 2), (2, 0), (2, 2), (3, 0), (4, 0)])
def test_processes_and_workers_change_nothing(part: Part, world: int, workers: int) -> None:
    """Shares of any number of processes and workers make the same global batches."""
    one = plain(loader(part).batches(epoch=1))
    ranks = []
    for rank in range(world):
        with loader(part, rank=rank, world=world, workers=workers) as own:
            ranks.append(plain(own.batches(epoch=1)))
    sizes = {len(rows) for batches in ranks for _, rows, _ in batches}
    assert sizes == ({1, 2} if world == 3 else {4 // world})  # four images are 1, 1 and 2
    assert merged(ranks) == one


@pytest.mark.parametrize("workers", [0, 1])
def test_resuming_within_an_epoch_is_exact(part: Part, workers: int) -> None:
    """From batch 3 on, a new loader or the same one gives what an unbroken epoch gives."""
    with loader(part, workers=workers) as own:
        whole = plain(own.batches(epoch=2))
        broken = own.batches(epoch=2)
        next(broken)  # an epoch that is broken off leaves nothing behind
        assert plain(own.batches(epoch=2, start=3)) == whole[3:]
        assert next(broken, None) is None  # it ended when another was begun
        assert plain(own.batches(epoch=2, start=len(own))) == []
    assert plain(loader(part).batches(2, 3)) == whole[3:]


def test_epochs_differ_and_hold_each_image_once(part: Part) -> None:
    """An epoch is a permutation; another epoch or seed is another one."""
    orders = [epoch_order(COUNT, seed, epoch).tolist() for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    assert all(sorted(order) == list(range(COUNT)) for order in orders)
    assert len(set(map(tuple, orders))) == 3
    rows = [row for _, batch, _ in plain(loader(part).batches()) for row in batch]
    assert len(set(rows)) == len(rows) == 20


def test_torch_random_state_is_left_alone(part: Part) -> None:
    """Walking an epoch draws nothing from torch's generator, which dropout continues."""
    before = torch.get_rng_state()
    with loader(part, workers=1) as own:
        next(own.batches())
    assert torch.equal(torch.get_rng_state(), before)


def test_last_batch_is_dropped_in_training_alone(part: Part) -> None:
    """22 images are 5 training batches of 4, and 6 of validation; fewer than 4 are a batch."""
    own = loader(part)
    check = loader(part, seed=None)
    assert (len(own), own.global_size(4)) == (5, 4)
    assert (len(check), check.global_size(5)) == (6, 2)
    assert len(loader(part.take(range(3)))) == 1
    assert [len(rows) for _, rows, _ in plain(loader(part.take(range(3))).batches())] == [3]


def test_validation_is_the_central_crop_in_order(part: Part) -> None:
    """Validation crops the middle at 0.5 (S_min + S_max), shared by processes, never shuffled."""
    batches = [list(loader(part, seed=None, rank=r, world=2).batches()) for r in (0, 1)]
    rows = [row for pair in zip(*batches, strict=True) for b in pair for row in b.rows.tolist()]
    assert rows == list(range(COUNT))
    whole = load(part.images.root / "00.jpg", [13])[13]  # 14 × 12 become 15 × 13
    assert whole.shape == (13, 15, 3)
    cut = batches[0][0].pixels[0].permute(1, 2, 0).numpy().astype(int)
    # The margins 7 and 5 are odd, of which the greater half is left and above.
    assert np.abs(cut - whole[3 : 3 + SIDE, 4 : 4 + SIDE]).max() <= 1


def test_validation_is_decoded_in_full(part: Part) -> None:
    """An image of many pixels is not decoded at reduced size to validate."""
    (part.images.root / "00.jpg").write_bytes(jpeg(130, 117, 3))
    expected = crop((part.images.root / "00.jpg").read_bytes(), 13, CENTRE, SIDE, reduced=False)
    cut = next(loader(part, seed=None).batches()).pixels[0].permute(1, 2, 0)
    assert np.array_equal(cut, expected)


@pytest.mark.parametrize("workers", [0, 1])
def test_bad_images_in_training_are_left_out(part: Part, workers: int) -> None:
    """A batch is smaller without them, no other image counts twice, and each is named."""
    order = epoch_order(COUNT, 5, 0).tolist()
    (part.images.root / part.name(order[1])).write_bytes(b"no image")
    (part.images.root / part.name(order[2])).unlink()
    with loader(part, workers=workers) as own:
        batches = plain(own.batches())
        assert [rows for _, rows, _ in batches[:2]] == [[order[0], order[3]], order[4:8]]
        assert own.global_size(0) == 4
        assert own.failed == {
            part.name(order[1]): "not an image of a format that is read",
            part.name(order[2]): "no such file",
        }
    shares = [plain(loader(part, rank=rank, world=2).batches()) for rank in (0, 1)]
    assert merged(shares) == batches


def test_bad_image_in_validation_is_left_out(part: Part) -> None:
    """In validation no other image counts for a bad one; a batch may become empty."""
    for row in (1, 4, 5, 6, 7):
        (part.images.root / part.name(row)).write_bytes(b"")
    own = loader(part, seed=None)
    batches = plain(own.batches())
    assert [rows for _, rows, _ in batches[:3]] == [[0, 2, 3], [], [8, 9, 10, 11]]
    assert batches[0][0] == [0, 2, 0]
    assert own.failed["01.jpg"] == "the file is empty"
    assert len(own.failed) == 5


@pytest.mark.parametrize("workers", [0, 1])
def test_many_bad_images_end_the_run(part: Part, workers: int) -> None:
    """When image after image fails the disk is to blame, and the error says so plainly."""
    for row in range(COUNT):
        (part.images.root / part.name(row)).unlink()
    with (
        loader(part, workers=workers) as own,
        pytest.raises(DataError, match=f"^{MOST_BAD} images, one after another.*no such file"),
    ):
        list(own.batches())
    assert len(own.failed) >= MOST_BAD


def test_workers_end_with_the_loader(part: Part) -> None:
    """Workers live from epoch to epoch, and none is left after the loader is closed."""
    before = set(multiprocessing.active_children())
    with loader(part, workers=2) as own:
        list(own.batches(0))
        first = set(multiprocessing.active_children()) - before
        held = own.batches(1)
        next(held)  # broken off, and held as the traceback of an error holds it
        assert set(multiprocessing.active_children()) - before == first
    assert len(first) == 2
    assert not set(multiprocessing.active_children()) - before


def test_work_can_be_sent_to_a_fresh_process(part: Part) -> None:
    """What a worker gets survives pickling, as starting it by spawn does."""
    crops = loader(part)._crops
    again = pickle.loads(pickle.dumps(crops))
    assert np.array_equal(again[0, 2].pixels, crops[0, 2].pixels)


def test_waiting_is_measured(part: Part, monkeypatch: pytest.MonkeyPatch) -> None:
    """With decoding that sleeps and a consumer that does too, the share lies between."""
    read = Part.read
    monkeypatch.setattr(Part, "read", lambda *a: (time.sleep(0.005), read(*a))[1])
    own = loader(part)
    assert own.waited == 0
    for _ in own.batches():
        time.sleep(0.02)
    assert 0.3 < own.waited < 0.95
    fast = loader(part)
    monkeypatch.setattr(Part, "read", read)
    for _ in fast.batches():
        time.sleep(0.05)
    assert fast.waited < own.waited


@pytest.mark.parametrize("size", [(120, 88), (87, 121), (333, 200)])
def test_reduced_decoding_is_close_to_full(size: tuple[int, int]) -> None:
    """A JPEG decoded at a part of its size gives the same crop to about a grey level."""
    content = jpeg(*size, seed=3)
    chosen = draw(0, 0, 1)
    full = crop(content, 12, chosen, 9, reduced=False).astype(int)
    reduced = crop(content, 12, chosen, 9).astype(int)
    assert not np.array_equal(full, reduced)  # or nothing was reduced
    assert np.sqrt(np.square(full - reduced).mean()) < 2
    assert np.abs(full - reduced).max() < 10


def test_reduced_decoding_keeps_twice_the_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow is asked for no less than twice S, and gives a half, quarter or eighth."""
    seen = []
    monkeypatch.setattr(
        augment, "decode", lambda image, *_: seen.append(image.size) or decode(image)
    )
    for side in (47, 48, 95, 96, 191, 192):
        crop(jpeg(side, side + 4), 12, CENTRE, 8)
    assert [min(size) for size in seen] == [47, 24, 48, 24, 48, 24]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_images_are_cropped_upright(orientation: int) -> None:
    """What the camera recorded is applied before the crop is chosen, reduced or not."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = jpeg(120, 88, 2, exif=exif)
    image = decode(Image.open(io.BytesIO(content)))
    assert image.size == ((120, 88) if orientation < 5 else (88, 120))
    left, top = crop_of(*image.size, 12, draw(0, 0, 4), 9).offset
    expected = rescale(image, 12).astype(int)[top : top + 9, left : left + 9]
    for reduced, worst in ((False, 1), (True, 10)):
        cut = crop(content, 12, draw(0, 0, 4), 9, reduced=reduced)
        assert np.abs(cut - expected).max() <= worst


def test_other_formats_are_decoded_as_everywhere() -> None:
    """CMYK, grey and PNG images give the crop that the project's own decoder gives."""
    for image, kind in (
        (Image.fromarray(noise(20, 16)).convert("CMYK"), "JPEG"),
        (Image.fromarray(noise(20, 16)).convert("L"), "JPEG"),
        (Image.fromarray(noise(20, 16)).convert("P"), "PNG"),
    ):
        out = io.BytesIO()
        image.save(out, kind)
        expected = rescale(decode(Image.open(out)), 16).astype(int)[4:12, 6:14]
        cut = crop(out.getvalue(), 16, CENTRE, 8)
        assert np.abs(cut - expected).max() <= 1


def test_cut_off_image_has_a_reason() -> None:
    """A JPEG that ends early is an error with its reason, never an image half grey."""
    content = jpeg(60, 40)
    with pytest.raises(ImageError, match="OSError"):
        crop(content[: len(content) // 2], 16, CENTRE, 8)


def test_settings_out_of_range_are_named(part: Part) -> None:
    """Each wrong setting is named, with what would be right."""
    for settings, said in (
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": 3, "world": 4}, "at least 4, an image for each process"),
        ({"S": 7}, "'S'"),
        ({"S": (16, 10)}, "'S'"),
        ({"workers": -1}, "workers"),
    ):
        with pytest.raises(ParameterError, match=said):
            loader(part, **settings)
    with pytest.raises(ParameterError, match="from 0 to 5"):
        loader(part).batches(start=6)


def test_fewer_images_than_processes_are_refused(part: Part) -> None:
    """What is there, how many processes are too many, and how many are not."""
    three = part.take(range(3))
    with pytest.raises(DataError, match=r"3 images .* 4 processes\. Start at most 3"):
        loader(three, world=4)
    assert len(loader(three, world=4, seed=None)) == 1  # to validate with, a share may be empty
    assert [len(rows) for _, rows, _ in plain(loader(three, world=3).batches())] == [1]


def test_loader_reads_out_of_an_opened_set(tmp_path: Path) -> None:
    """From a folder of classes to batches of its images, whose colour is their class."""
    for label, grey in (("dark", 10), ("light", 240)):
        (tmp_path / label).mkdir()
        for number in range(4):
            image = Image.new("RGB", (12 + number, 11), (grey, grey, grey))
            image.save(tmp_path / label / f"{number}.png")
    found = open_trainset(tmp_path, val_fraction=0.5)
    for one in (found.train, found.val):
        ((pixels, labels, _),) = loader(one).batches()
        assert [10 if label == 0 else 240 for label in labels] == pixels[:, 0, 0, 0].tolist()
