"""Tar and zip files with members that lead elsewhere, links and devices."""

from __future__ import annotations

import gzip
import io
import random
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from support import noise
from trees import OBJECT

from fuzz.campaign import Campaign
from fuzz.images import written
from fuzz.mutation import mutated
from vggfeat.data.datasets.annotations import read_annotations
from vggfeat.data.datasets.fetch import unpack, unwrap
from vggfeat.data.sources.tar import read_tar
from vggfeat.errors import ImageError, VggfeatError

NAMES = ("data/a.jpg", "../escaped", "/tmp/vggfeat-escaped", "data/../../escaped", "data/x/y.jpg")
NAMES += ("data", "data/", "data/a.jpg/b", "C:\\escaped", "data/\\..\\escaped", "..", ".", "")
NAMES += (
    "data/" + "x/" * 900 + "a.jpg",
    "data/" + "n" * 5000,
    "data/caf\udce9.jpg",
    "data/a\nb.jpg",
)
KINDS = (*[tarfile.REGTYPE] * 6, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE)
KINDS += (tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.GNUTYPE_SPARSE)
TARGETS = ("..", "/tmp", "/etc/passwd", "../../escaped", "a.jpg", ".")
TOKENS = (
    b"ustar\0",
    b"77777777777\0",
    b"\xff" * 12,
    b"\x80" + b"\0" * 11,
    b"30 path=../../escaped\n",
)
TOKENS += (b"17 size=99999999\n", b"9" * 3000, b" hdrcharset=BINARY\n", b"\0" * 512, b"../")
IMAGE = written(noise(24, 18), "JPEG", "RGB")
XML = f"<annotation>{OBJECT.format(name='cat', difficult=0, box=(1, 2, 3, 4))}</annotation>"


def drawn_tar(dice: random.Random) -> bytes:
    """Write a tar of members that are drawn: names, kinds, targets, sizes."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=dice.choice((0, 1, 2))) as archive:
        for _ in range(dice.randrange(1, 6)):
            info = tarfile.TarInfo(dice.choice(NAMES))
            info.type = dice.choice(KINDS)
            info.linkname = dice.choice(TARGETS)
            content = dice.choice((IMAGE, XML.encode(), b"cat", b""))
            info.size = len(content) if info.type == tarfile.REGTYPE else 0
            try:
                archive.addfile(info, io.BytesIO(content) if info.size else None)
            except ValueError:  # a name that this kind of tar cannot hold
                continue
    return out.getvalue()


class Archives(Campaign):
    """An archive that is unpacked, and read in place in each of the ways there are."""

    name = "archives"
    cases = 10_000
    tokens = TOKENS

    def prepare(self) -> Sequence[bytes]:
        dice = random.Random(1)
        plain = [drawn_tar(dice) for _ in range(20)]
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("inner.tar", plain[0])
        return [*plain, gzip.compress(plain[0]), packed.getvalue()]

    def crafted(self) -> Sequence[bytes]:
        return [b"", b"PK\5\6" + bytes(18)]

    def drawn(self, dice: random.Random) -> bytes:
        made = drawn_tar(dice)
        if dice.random() < 0.5:
            made = mutated(dice, [made, *self.seeds], self.tokens)
        return gzip.compress(made, 1) if dice.random() < 0.2 else made

    def attempt(self, case: bytes) -> None:
        inside = self.folder / "inside"
        shutil.rmtree(inside, ignore_errors=True)
        inside.mkdir()
        path = inside / "case.tar"
        path.write_bytes(case)
        refused: list[VggfeatError] = []
        uses: tuple[Callable[[Path], object], ...] = (self._unpacked, self._unwrapped)
        for use in (*uses, self._indexed, lambda path: read_annotations([path])):
            try:
                use(path)
            except VggfeatError as error:
                refused.append(error)
            left = {one.name for one in self.folder.iterdir()} - {"inside"}
            assert not left, f"it wrote {left}"
        reached = [
            one for one in inside.rglob("*") if not one.resolve().is_relative_to(self.folder)
        ]
        assert not reached, f"it left links to elsewhere: {reached}"

    def _unpacked(self, path: Path) -> None:
        unpack(path, "data", path.parent / "target")

    def _unwrapped(self, path: Path) -> None:
        unwrap(path, "inner.tar", path.parent / "inner.tar")

    def _indexed(self, path: Path) -> None:
        found = read_tar(path)
        for row in range(len(found)):
            with suppress(ImageError):
                found.read(row)


CAMPAIGNS = (Archives,)
