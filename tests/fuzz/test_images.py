"""What hostile images were found to do, and do no more."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from fuzz.images import png
from vggfeat.data.image import MOST_RESCALED, decode, load
from vggfeat.errors import ImageError


def test_a_line_is_refused_and_a_panorama_is_not(tmp_path: Path) -> None:
    """1×9000 would become 64×576,000 and take net D minutes; 2000×20 is read up to Q = 384."""
    (tmp_path / "line.png").write_bytes(png(1, 9000, bytes(2 * 9000)))
    with pytest.raises(ImageError, match="become 64×576000 at Q = 64, more than the 16,777,216"):
        load(tmp_path / "line.png", [64])
    strip = Image.new("RGB", (2000, 20))
    assert load(strip, [384])[384].shape == (384, 38_400, 3)
    with pytest.raises(ImageError, match="512"):
        load(strip, [512])
    assert MOST_RESCALED >= 512 * 64 * 512


@pytest.mark.parametrize("name", ["x" * 5000 + ".jpg", "nul\0.jpg", "n/" * 3000])
def test_a_name_that_no_file_can_have_is_a_bad_image(name: str) -> None:
    """Python's own question whether such a file exists is an error, which ended the whole run."""
    with pytest.raises(ImageError) as caught:
        decode(name)
    assert str(caught.value).isprintable()
