"""What hostile pictures were found to do, and do no more."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from PIL import Image

from fuzz.pictures import many_scans, png
from vggfeat.data.bounds import MOST_RESCALED
from vggfeat.data.images import decode, load
from vggfeat.errors import PictureError
from vggfeat.train.augment import draw
from vggfeat.train.decode import crop


def test_a_line_is_refused_and_a_panorama_is_not(tmp_path: Path) -> None:
    """1×9000 would become 64×576,000 and take net D minutes; 2000×20 is read up to Q = 384."""
    (tmp_path / "line.png").write_bytes(png(1, 9000, bytes(2 * 9000)))
    with pytest.raises(PictureError, match="become 64×576000 at Q = 64, more than the 16,777,216"):
        load(tmp_path / "line.png", [64])
    strip = Image.new("RGB", (2000, 20))
    assert load(strip, [384])[384].shape == (384, 38_400, 3)
    with pytest.raises(PictureError, match="512"):
        load(strip, [512])
    assert MOST_RESCALED >= 512 * 64 * 512


def test_thousands_of_scans_are_not_drawn(tmp_path: Path) -> None:
    """A small file whose 2,000 scans each go over 36 million pixels took more than a minute."""
    path = tmp_path / "scans.jpg"
    path.write_bytes(many_scans(6000, 2000))
    start = time.perf_counter()
    with pytest.raises(PictureError, match=r"drawn in 2,0.. scans"):
        decode(path)
    with pytest.raises(PictureError, match="scans"):
        crop(path.read_bytes(), 256, draw(0, epoch=0, picture=0))
    assert time.perf_counter() - start < 5
    path.write_bytes(many_scans(300, 20))
    assert decode(path).size == (300, 300)


@pytest.mark.parametrize("name", ["x" * 5000 + ".jpg", "nul\0.jpg", "n/" * 3000])
def test_a_name_that_no_file_can_have_is_a_bad_picture(name: str) -> None:
    """Python's own question whether such a file exists is an error, which ended the whole run."""
    with pytest.raises(PictureError) as caught:
        decode(name)
    assert str(caught.value).isprintable()
