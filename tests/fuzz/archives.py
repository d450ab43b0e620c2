"""Tar and zip files with members that lead elsewhere, links, devices and bombs."""

from __future__ import annotations

import gzip
import io
import random
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

from support import noise
from trees import OBJECT

from fuzz.campaign import Campaign
from fuzz.mutation import mutated
from fuzz.pictures import written
from vggfeat.data.datasets.archives import unpack, unwrap
from vggfeat.data.datasets.ilsvrc import read_annotations, read_tar
from vggfeat.data.sources.tar import samples
from vggfeat.errors import PictureError, VggfeatError

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
PICTURE = written(noise(24, 18), "JPEG", "RGB")
XML = f"<annotation>{OBJECT.format(name='cat', difficult=0, box=(1, 2, 3, 4))}</annotation>"


def drawn_tar(dice: random.Random) -> bytes:
    """Write a tar of members that are drawn: names, kinds, targets, sizes."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=dice.choice((0, 1, 2))) as archive:
        for _ in range(dice.randrange(1, 6)):
            info = tarfile.TarInfo(dice.choice(NAMES))
            info.type = dice.choice(KINDS)
            info.linkname = dice.choice(TARGETS)
            content = dice.choice((PICTURE, XML.encode(), b"cat", b""))
            info.size = len(content) if info.type == tarfile.REGTYPE else 0
            try:
                archive.addfile(info, io.BytesIO(content) if info.size else None)
            except ValueError:  # a name that this kind of tar cannot hold
                continue
    return out.getvalue()


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    """Write a header alone, whatever it promises."""
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


def bombs() -> list[bytes]:
    """Make archives that unpack to gigabytes, or whose headers take for ever."""
    zeros = bytes(24 << 20)
    plain = header("data/a.jpg", len(zeros)) + zeros
    endless = header("data/long", 1 << 19, tarfile.XHDTYPE) + b"9" * (1 << 19)
    return [
        gzip.compress(plain, 6),
        gzip.compress(header("x", 1 << 33, tarfile.XHDTYPE) + zeros, 6),
        gzip.compress(header("x", 1 << 30, tarfile.GNUTYPE_LONGNAME) + zeros, 6),
        header("x", 1 << 62, tarfile.XHDTYPE),
        header("data/a.jpg", 1 << 62),
        header("data/a.jpg", -(1 << 40)) + bytes(1024),
        endless + header("data/a.jpg", 0),
        header("data/inner.tar", 2048) + header("inner/inner.tar", 1024) * 4,
        header("data/1.xml", 3 << 20) + b"<a>" * (1 << 20),
    ]


class Archives(Campaign):
    """An archive that is unpacked, and read in place in each of the three ways there are."""

    name = "archives"
    cases = 10_000
    memory = 512 << 20
    tokens = TOKENS

    def prepare(self) -> Sequence[bytes]:
        dice = random.Random(1)
        plain = [drawn_tar(dice) for _ in range(20)]
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("inner.tar", plain[0])
        return [*plain, gzip.compress(plain[0]), packed.getvalue()]

    def crafted(self) -> Sequence[bytes]:
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("inner.tar", bytes(64 << 20))
        return [*bombs(), packed.getvalue(), b"", b"PK\5\6" + bytes(18)]

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
        for use in (*uses, self._samples, self._indexed, read_annotations):
            try:
                use(path)
            except VggfeatError as error:
                refused.append(error)
            left = {one.name for one in self.folder.iterdir()} - {"inside"}
            assert not left, f"it wrote {left}"
        links = [one for one in inside.rglob("*") if one.is_symlink() or not one.exists()]
        assert not links, f"it left links: {links}"

    def _unpacked(self, path: Path) -> None:
        unpack(path, "data", path.parent / "target")

    def _unwrapped(self, path: Path) -> None:
        unwrap(path, "inner.tar", path.parent / "inner.tar", None)

    def _samples(self, path: Path) -> None:
        for sample in samples(str(path)):
            try:
                sample.picture.read()
            except PictureError:
                continue

    def _indexed(self, path: Path) -> None:
        found = read_tar(path)
        for row in range(len(found)):
            found.read(row)


CAMPAIGNS = (Archives,)
