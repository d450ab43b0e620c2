"""Images in tars, as WebDataset keeps them: samples are members that share a key.

``n01/7.jpg``, ``n01/7.cls`` and ``n01/7.json``, one after the other, are the sample ``n01/7``. Only
headers and labels are read here; an image is read from the middle of its tar when it is decoded.
"""

from __future__ import annotations

import json
import os
import posixpath
import re
import tarfile
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from vggfeat._io.assets import home
from vggfeat._io.atomic import write_atomic
from vggfeat._io.remote import (
    LARGEST,
    Unreachable,
    is_address,
    open_file,
    read_bytes,
    redact,
    stat,
)
from vggfeat.data.identity import digest, in_64_bits, is_settled
from vggfeat.data.image import EXTENSIONS, ImageRef, Stamp
from vggfeat.data.sources import tarring
from vggfeat.data.sources.remote import changed_at, stamp_of
from vggfeat.errors import DataError, DataNotFound, PictureError, StoreError, VggfeatError

PACKED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tar.lz4")
# Where a sample has its image in several formats, the first of these.
PREFERRED = (".jpg", ".jpeg", ".webp", ".png")
LABELS = ("cls", "json", "txt")
LARGEST_LABEL = 1 << 16  # bytes
LONGEST_CLASS = 200  # characters; a longer .txt is a caption
_MASK = (1 << 64) - 1  # which makes a digest positive
_KEY = re.compile(r"((?:.*/)?[^./]+)\.([^/]+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class TarMember(ImageRef):
    """An image in a tar.

    Parameters
    ----------
    archive : str
        Path or address of the tar.
    offset, size : int
        First byte and number of bytes.
    refusal : str
        Why it is not read, if it is not.
    version : int
        What tells the tar from others that have been there, where that is known.
    """

    archive: str
    offset: int
    size: int
    refusal: str = ""
    version: int = 0

    def read(self) -> bytes:
        """Read the file of the image, whole."""
        if self.refusal:
            raise PictureError(self.refusal)
        try:
            if is_address(self.archive):
                return read_bytes(self.archive, self.offset, self.offset + self.size)
            with Path(self.archive).open("rb") as file:
                file.seek(self.offset)
                content = file.read(self.size)
        except (Unreachable, OSError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise PictureError(f"its tar cannot be read: {reason}") from None
        if len(content) < self.size:
            raise PictureError("its tar ends within it")
        return content

    def stamp(self) -> Stamp:
        """Tell it from what else has, or had, its name, without reading it."""
        return digest(self.version, self.offset), self.size

    def __str__(self) -> str:
        return f"{redact(self.archive)} at byte {self.offset:,}"

    def __repr__(self) -> str:
        return f"TarMember({str(self)!r})"


class Sample(NamedTuple):
    """An image of a tar, its name in it, and its label."""

    name: str
    image: TarMember
    label: str


class _File(NamedTuple):
    name: str
    key: str
    suffix: str
    image: TarMember


def samples(archive: str) -> Iterator[Sample]:
    """List the images of a tar, in its order.

    A sample's image is the file that is called key.jpg (or .jpeg, .webp, .png, or another of
    the formats that are read); its others, such as key.mask.png, are left out. Where it has no
    such file, as in a tar that is none of WebDataset's, each image in it counts. Its label is
    what stands in key.cls; or the "label", "cls" or "class" of key.json; or the one line of
    key.txt, unless it is as long as a caption.

    Parameters
    ----------
    archive : str
        Path or address of a tar, not compressed: its middle is read.

    Raises
    ------
    DataError
        If it is no tar, compressed, damaged, or has a member whose name leads out of it.
    DataNotFound, DownloadError
        If it cannot be read.

    Notes
    -----
    A link, a device, or a file larger than any image is a bad image.
    """
    if archive.lower().endswith(PACKED):
        raise DataError(
            f"{redact(archive)} is compressed, so that no picture can be read from its middle. "
            "Unpack it to a plain .tar: pictures are compressed already."
        )
    try:
        if is_address(archive):
            yield from _remembered(archive)
        else:
            with Path(archive).open("rb") as file:
                found = os.fstat(file.fileno())
                version = digest(found.st_size, in_64_bits(found.st_mtime_ns))
                yield from _samples(file, archive, version)
    except Unreachable as error:
        raise error.of(archive) from None
    except OSError as error:
        if isinstance(error, VggfeatError):
            raise
        raise DataNotFound(f"The tar {archive} cannot be read: {error.strerror}.") from error


def _remembered(archive: str) -> Iterator[Sample]:
    """List a tar at an address; what was listed is kept, since to list it is to load most of it."""
    info = stat(archive)
    stamp = stamp_of(info)
    version = 0 if stamp is None else digest(*stamp)
    known = home() / "tars" / f"{digest(redact(archive), stamp, 2) & _MASK:016x}.jsonl"
    if stamp is None or not known.is_file():
        with closing(open_file(archive)) as file:
            found = list(_samples(file, archive, version))
        if stamp is not None and is_settled(changed_at(info) or 0):
            _remember(known, found)
        yield from found
        return
    with known.open(encoding="utf-8") as lines:
        for name, label, offset, size, refusal in map(json.loads, lines):
            yield Sample(name, TarMember(archive, offset, size, refusal, version), label)


def _remember(path: Path, found: list[Sample]) -> None:
    lines = [
        json.dumps((name, label, one.offset, one.size, one.refusal)) + "\n"
        for name, one, label in found
    ]
    with suppress(OSError, StoreError):  # a home that cannot be written costs time, no more
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, "".join(lines).encode())


def _samples(file: BinaryIO, archive: str, version: int) -> Iterator[Sample]:
    for _, group in groupby(_files(file, archive, version), lambda one: one.key):
        files = list(group)
        images = [one for one in files if _is_picture(one)]
        if not images:
            continue
        label = _label({one.suffix.lower(): one.image for one in files}, file)
        exact = [one for one in images if "." not in one.suffix]
        for one in [min(exact, key=_rank)] if exact else images:
            yield Sample(one.name, one.image, label)


def _files(file: BinaryIO, archive: str, version: int) -> Iterator[_File]:
    for member in _members(file, archive):
        name = posixpath.normpath(member.name)
        if name.startswith(("/", "../")) or name == "..":
            raise DataError(
                f"{redact(archive)} has a member {member.name!r}, whose name leads out of it. "
                "Pack it anew with relative names."
            )
        hidden = "/." in f"/{name}"
        if member.isdir() or hidden or not (found := _KEY.fullmatch(name)):
            continue
        place = TarMember(archive, member.offset_data, member.size, _refusal(member), version)
        yield _File(name, found[1], found[2], place)


def _members(file: BinaryIO, archive: str) -> Iterator[tarfile.TarInfo]:
    """Read headers one after the other; what is no header and no end is damage."""
    try:
        with tarring.opened(file) as tar:
            yield from tarring.members(tar)
            file.seek(tar.offset)
            if any(file.read(tarfile.BLOCKSIZE)):
                raise tarfile.ReadError(f"no header at byte {tar.offset:,}")
    except (tarfile.TarError, EOFError, OverflowError, ValueError) as error:
        raise DataError(
            f"{redact(archive)} is no tar, or damaged: {error}. Fetch or make it anew."
        ) from error


def _refusal(member: tarfile.TarInfo) -> str:
    if member.issym() or member.islnk():
        return "a link in a tar, which is not followed"
    if not member.isfile():
        return "not a file, but a pipe or a device"
    if member.issparse():
        return "a sparse file, as which no picture is packed"
    if member.size > LARGEST:
        return f"its {member.size:,} bytes are more than the {LARGEST:,} allowed"
    return ""


def _is_picture(one: _File) -> bool:
    return "." + one.suffix.rpartition(".")[2].lower() in EXTENSIONS


def _rank(one: _File) -> int:
    suffix = "." + one.suffix.lower()
    return PREFERRED.index(suffix) if suffix in PREFERRED else len(PREFERRED)


def _label(files: dict[str, TarMember], file: BinaryIO) -> str:
    for suffix in LABELS:
        member = files.get(suffix)
        if member is None or member.refusal or member.size > LARGEST_LABEL:
            continue
        back = file.tell()
        file.seek(member.offset)
        content = file.read(member.size)
        file.seek(back)
        if label := _label_in(content.decode("utf-8", "replace").strip(), suffix):
            return label
    return ""


def _label_in(text: str, suffix: str) -> str:
    if suffix == "json":
        try:
            found: Any = json.loads(text)
        except (ValueError, RecursionError):
            return ""
        known = found if isinstance(found, dict) else {}
        labels = [known.get(key) for key in ("label", "cls", "class")]
        return next((str(one) for one in labels if isinstance(one, str | int) and one != ""), "")
    if suffix == "txt" and (len(text) > LONGEST_CLASS or "\n" in text):
        return ""
    return text
