"""What VGGFeatures takes as images, of whatever library, and what it says of the rest."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from helpers.mistakes import refuses
from PIL import Image
from support import noise
from torch.utils.data import Dataset, TensorDataset

from vggfeat import VGGFeatures
from vggfeat._io.remote import open_filesystem
from vggfeat.data.image import Crop
from vggfeat.data.imageset import find_images
from vggfeat.errors import ImageError, ParameterError, VggfeatError
from vggfeat.features import elements

SMALL = {"layer": "pool2", "Q": 32, "weights": "embedded", "precision": "fp32"}
PIXELS = [noise(40, 36, seed) for seed in range(3)]
TENSORS = [torch.tensor(pixels).permute(2, 0, 1) for pixels in PIXELS]


def encoded(pixels: np.ndarray) -> bytes:
    """Write pixels as a PNG."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


class Labelled(Dataset):
    """A data set of (image, label), which ends as torch's own do not: it has a length alone."""

    def __getitem__(self, number: int) -> tuple[Image.Image, int]:
        return Image.fromarray(PIXELS[number % len(PIXELS)]), 7

    def __len__(self) -> int:
        return len(PIXELS)


def polars(make: str, files: list[Any]) -> Any:
    """Make a series or a frame of polars."""
    library = pytest.importorskip("polars", reason="polars is not installed")
    series = library.Series("image", files)
    return series if make == "series" else library.DataFrame([series])


def in_memory(file: str) -> str:
    """Put a file at an address."""
    address = f"memory://elements/{Path(file).name}"
    filesystem, path = open_filesystem(address)
    filesystem.pipe_file(path, Path(file).read_bytes())
    return address


HELD: dict[str, Callable[[list[str]], Any]] = {
    "bytes": lambda files: [encoded(pixels) for pixels in PIXELS],
    "bytearray": lambda files: [bytearray(encoded(pixels)) for pixels in PIXELS],
    "tensors": lambda files: TENSORS,
    "floats": lambda files: [tensor / 255 for tensor in TENSORS],
    "gradient": lambda files: [(tensor / 255).requires_grad_() for tensor in TENSORS],
    "batch": lambda files: torch.stack(TENSORS),
    "array": lambda files: np.stack(PIXELS),
    "rgba": lambda files: [
        np.dstack([pixels, np.full_like(pixels[:, :, :1], 255)]) for pixels in PIXELS
    ],
    "pairs": lambda files: [(file, "label") for file in files],
    "objects": lambda files: np.array(files, object)[:, None],
    "data set": lambda files: Labelled(),
    "tensor data set": lambda files: TensorDataset(torch.stack(TENSORS)),
    "generator": lambda files: (file for file in files),
    "addresses": lambda files: [in_memory(file) for file in files],
    "addresses as paths": lambda files: [Path(in_memory(file)) for file in files],
    "addresses of files": lambda files: [f"file://{file}" for file in files],
    "values": lambda files: dict(enumerate(files)).values(),
    "image set": lambda files: find_images(files),
    "crops": lambda files: [Crop(Path(file), (1, 1, 40, 36)) for file in files],
    "pandas": lambda files: pd.Series(files, index=[5, 3, 1], dtype="string"),
    "pandas frame": lambda files: pd.DataFrame({"path": files}),
    "Arrow": lambda files: pa.array(files),
    "Arrow's own": lambda files: list(pa.chunked_array([files[:1], files[1:]])),
    "Arrow bytes": lambda files: pa.chunked_array([[encoded(pixels) for pixels in PIXELS]]),
    "Arrow table": lambda files: pa.table({"path": files}),
    "polars": partial(polars, "series"),
    "polars frame": partial(polars, "frame"),
    "polars bytes": lambda files: polars("series", [encoded(pixels) for pixels in PIXELS]),
}


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Write the pixels as files."""
    for number, pixels in enumerate(PIXELS):
        (tmp_path / f"{number}.png").write_bytes(encoded(pixels))
    return [str(tmp_path / f"{number}.png") for number in range(len(PIXELS))]


@pytest.mark.parametrize("kind", HELD)
def test_every_kind_of_image_has_the_rows_of_its_file(kind: str, files: list[str]) -> None:
    """Lists, arrays, columns, data sets and generators give what the paths of the files give."""
    features = VGGFeatures(**SMALL)
    rows = features.transform(HELD[kind](files))
    np.testing.assert_allclose(rows, features.transform(files), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(40, 36), (40, 36, 1), (40, 36, 4)])
def test_grey_and_transparent_pixels_are_what_their_file_is(
    shape: tuple[int, ...], tmp_path: Path
) -> None:
    """Arrays and tensors of one and four channels are laid on white as files are."""
    values = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    file = tmp_path / "image.png"
    Image.fromarray(values.squeeze()).save(file)
    tensor = torch.tensor(np.atleast_3d(values)).permute(2, 0, 1)
    rows = VGGFeatures(**SMALL).transform([file, values, values / 255, tensor, tensor / 255])
    np.testing.assert_allclose(rows, np.repeat(rows[:1], 5, axis=0), rtol=1e-5, atol=1e-6)


def test_one_tensor_is_one_image(files: list[str]) -> None:
    """(3, H, W) has one row."""
    rows = VGGFeatures(**SMALL).transform(TENSORS[0])
    np.testing.assert_allclose(rows, VGGFeatures(**SMALL).transform(files[:1]), rtol=1e-5)


def test_images_that_are_made_one_by_one_are_held_a_few_at_a_time(
    files: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a generator of many images some are described before the next are made."""
    monkeypatch.setattr(elements, "HELD", 2)
    blocks = elements.iter_blocks(file for file in files)
    assert [[element.place.split(",")[0] for element in block] for block in blocks] == [
        ["element 0", "element 1"],
        ["element 2"],
    ]
    features = VGGFeatures(**SMALL)
    expected = features.transform(files)
    np.testing.assert_allclose(features.transform(file for file in files), expected, rtol=1e-5)
    assert features.transform(iter(())).shape == (0, 128)


@pytest.mark.parametrize(
    ("element", "mentions"),
    [
        ({"path": "a.jpg"}, ["dict"]),
        (3, ["int"]),
        (["a.jpg", "b.jpg"], ["list of 2", "(image, label)"]),
        ((3, "label"), ["int"]),
        (io.BytesIO(b"abc"), ["BytesIO"]),
        (torch.zeros(40, 36, 3), ["(40, 36, 3)", "permute(2, 0, 1)"]),
        (torch.zeros(2, 3, 40, 36), ["(2, 3, 40, 36)"]),
    ],
)
def test_what_is_no_image_is_named_by_its_place(element: Any, mentions: list[str]) -> None:
    """It is the third, of this type; nothing is described."""
    features = VGGFeatures(**SMALL, on_bad_image="nan")
    given = [PIXELS[0], PIXELS[1], element]
    refuses(lambda: features.transform(given), ParameterError, ["element 2", *mentions])


@pytest.mark.parametrize(
    ("element", "mentions"),
    [
        ("absent.png", ["absent.png", "no such file"]),
        (b"abc", ["not an image"]),
        (np.zeros((40, 36, 5), np.uint8), ["(40, 36, 5)"]),
        (np.zeros((3, 40, 36), np.uint8), ["(3, 40, 36)", "transpose"]),
        (torch.full((3, 40, 36), 255.0), ["[0, 1]", "255"]),
        (None, ["missing"]),
        (float("nan"), ["missing"]),
        (pd.NA, ["missing"]),
        (Image.new("RGB", (0, 4)), ["no pixels"]),
    ],
)
def test_a_bad_image_is_named_by_its_place_or_has_a_row_of_nan(
    element: Any, mentions: list[str]
) -> None:
    """By default it is an error; on_bad_image="nan" warns of it and describes all others."""
    given = [PIXELS[0], PIXELS[1], element, PIXELS[2]]
    features = VGGFeatures(**SMALL)
    refuses(lambda: features.transform(given), ImageError, ["element 2", *mentions])
    expected = features.transform(PIXELS)
    features.set_params(on_bad_image="nan")
    with pytest.warns(UserWarning, match="1 row of NaN.*element 2") as warned:
        rows = features.transform(given)
    assert all(mention in str(warned[0].message) for mention in mentions)
    assert warned[0].filename == __file__
    assert np.isnan(rows[2]).all()
    np.testing.assert_allclose(rows[[0, 1, 3]], expected, rtol=1e-5, atol=1e-6)


def test_nothing_but_bad_images_is_nothing_but_nan(tmp_path: Path) -> None:
    """There is a row for each, of the usual width; with a cache as without; ten are named."""
    for cache in (None, tmp_path / "cache"):
        features = VGGFeatures(**SMALL, on_bad_image="nan", cache=cache)
        with pytest.warns(UserWarning, match="12 rows of NaN.*and 2 more"):
            rows = features.transform([f"{number}.png" for number in range(12)])
        assert rows.shape == (12, 128)
        assert np.isnan(rows).all()


@pytest.mark.parametrize(
    ("X", "kind", "mentions"),
    [
        ("a.jpg", ParameterError, ["[X]", "str"]),
        (b"abc", ParameterError, ["[X]", "bytes"]),
        (Path("a.jpg"), ParameterError, ["[X]"]),
        (Image.new("RGB", (4, 4)), ParameterError, ["[X]"]),
        ({"path": ["a.jpg"]}, ParameterError, ["dict"]),
        (7, ParameterError, ["int"]),
        (np.array([["a.jpg", "cat"], ["b.jpg", "dog"]]), ParameterError, ["(2, 2)", "one column"]),
        (pd.DataFrame({"a": ["b"], "c": ["d"]}), ParameterError, ["(1, 2)", "one column"]),
        (pa.table({"a": ["b"], "c": ["d"]}), ParameterError, ["(1, 2)", "one column"]),
        (np.zeros((40, 36, 3), np.uint8), ImageError, ["one image or many", "(N, H, W, C)"]),
        (torch.zeros(40, 36, 3), ImageError, ["one image or many", "(N, C, H, W)"]),
    ],
)
def test_what_is_no_sequence_of_images_is_refused(
    X: Any, kind: type[VggfeatError], mentions: list[str]
) -> None:
    """One image, a table and an ambiguous shape are errors that say what to pass."""
    refuses(lambda: VGGFeatures(**SMALL).transform(X), kind, mentions)


def test_what_becomes_of_bad_images_is_one_of_two() -> None:
    """An image cannot be skipped by a transformer: there would be fewer rows than labels."""
    refuses(VGGFeatures(on_bad_image="skip").fit, ParameterError, ["on_bad_image", "'nan'", "skip"])
