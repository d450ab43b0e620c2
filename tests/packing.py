"""Encoded images, and tars of them."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

from PIL import Image
from support import noise


def jpeg(seed: int, kind: str = "JPEG") -> bytes:
    """Encode a small image, which its seed makes what it is."""
    out = io.BytesIO()
    Image.fromarray(noise(24, 20, seed)).save(out, kind)
    return out.getvalue()


def pack(path: Path, files: dict[str, bytes], **settings: object) -> str:
    """Write a tar as `tar` does, with a time for each member."""
    with tarfile.open(path, "w", **settings) as tar:
        for number, (name, content) in enumerate(files.items()):
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(content), 1_700_000_000 + number
            tar.addfile(member, io.BytesIO(content))
    return str(path)
