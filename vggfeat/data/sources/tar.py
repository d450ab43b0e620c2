"""Images in tars, read from their middle: where each begins is found once, and remembered.

A tar holds images; samples as WebDataset keeps them, which are members that share a key
(``n01/7.jpg``, ``n01/7.cls`` and ``n01/7.json``, one after the other, are the sample ``n01/7``); or
a tar for each class, as ILSVRC's does. Only headers and labels are read here.
"""

from __future__ import annotations

import io
import json
import lzma
import os
import posixpath
import re
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Self, cast

import numpy as np
from numpy.typing import ArrayLike

from vggfeat._io.assets import home
from vggfeat._io.atomic import file_lock, make_folder, write_atomic
from vggfeat._io.download import Progress
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
from vggfeat.data.image import LACKING, ImageRef, Stamp
from vggfeat.data.left_out import LeftOut
from vggfeat.data.names import is_hidden
from vggfeat.data.sources.files import EncodedImages, Ints, Names, is_image
from vggfeat.data.sources.remote import changed_at, explain_unreadable, stamp_of
from vggfeat.errors import DataError, ImageError, StoreError, VggfeatError

PACKED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tar.lz4")
# Where a sample has its image in several formats, the first of these.
PREFERRED = ("jpg", "jpeg", "webp", "png")
LABELS = ("cls", "json", "txt")
LABEL_KEYS = ("label", "cls", "class")  # of the .json
LARGEST_LABEL = 1 << 16  # bytes
LONGEST_CLASS = 200  # characters; a longer .txt is a caption
HEADERS = 2 * tarfile.BLOCKSIZE  # bytes read at once: headers, not images
DAMAGED = (tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError, ValueError)
"""What reading a damaged tar, compressed or not, raises."""
_FORMAT = 5  # of the remembered index
_MASK = (1 << 64) - 1  # which makes a digest positive
_KEY = re.compile(r"((?:.*/)?[^./]+)\.([^/]+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class TarMember(ImageRef):
    """An image in a tar, which is at a path or an address."""

    archive: str
    offset: int
    size: int
    refusal: str = ""  # why it is not read, if it is not
    version: int = 0  # what tells the tar from others that have been there, where that is known

    def read(self) -> bytes:
        """Read the file of the image, whole."""
        if self.refusal:
            raise ImageError(self.refusal)
        try:
            if is_address(self.archive):
                return read_bytes(self.archive, self.offset, self.offset + self.size)
            with Path(self.archive).open("rb") as file:
                file.seek(self.offset)
                content = file.read(self.size)
        except (Unreachable, OSError) as error:
            if isinstance(error, OSError) and error.errno in LACKING:
                raise
            reason = error.strerror if isinstance(error, OSError) else error
            raise ImageError(f"its tar cannot be read: {reason}") from None
        if len(content) < self.size:
            raise ImageError("its tar ends within it")
        return content

    def stamp(self) -> Stamp:
        """Tell it from what else has, or had, its name, without reading it."""
        return digest(self.version, self.offset), self.size

    def __str__(self) -> str:
        return f"{redact(self.archive)} at byte {self.offset:,}"

    def __repr__(self) -> str:
        return f"TarMember({str(self)!r})"


@dataclass(frozen=True, eq=False)
class TarIndex(EncodedImages):
    """The images of a tar.

    Nothing is kept open, so that it may be sent to, or inherited by, any number of processes; and
    its arrays are compact, since each process has them (40 bytes and a name for an image).

    What lies beside the images is in ``left_out``. All arrays are (N,). Names are such as
    ``n01440764/n01440764_10026.JPEG``: the stem of a tar in the tar is the folder. Archive, version
    and refusals are those of each :class:`TarMember`.
    """

    archive: str
    version: int
    names: Names
    offsets: Ints
    sizes: Ints
    labels: Names  # empty where there is none
    refusals: Names
    left_out: LeftOut = field(default_factory=LeftOut)

    def label(self, row: int) -> str:
        """Return the label of an image; empty where it has none."""
        return os.fsdecode(bytes(self.labels[row]))

    def image(self, row: int) -> TarMember:
        """Return where an image lies."""
        refusal = bytes(self.refusals[row]).decode()
        offset, size = int(self.offsets[row]), int(self.sizes[row])
        return TarMember(self.archive, offset, size, refusal, self.version)

    def take(self, rows: ArrayLike) -> Self:
        """Keep these rows, in this order."""
        kept = np.asarray(rows, dtype=np.int64)
        return replace(self, **{name: getattr(self, name)[kept] for name in _ARRAYS})


_ARRAYS = ("names", "offsets", "sizes", "labels", "refusals")


def read_tar(
    archive: str | Path, progress: Progress | None = None, *, samples: bool = True
) -> TarIndex:
    """Find the images of a tar, in its order: in the index that is remembered, or by its headers.

    For the 138 GB of ILSVRC's training images the first call takes minutes; later ones, while the
    tar is the same, a second. An index at an address is remembered as well.

    A sample's image is the file that is called key.jpg (or .jpeg, .webp, .png, or another of
    the formats that are read); its others, such as key.mask.png, are left out. Where it has no
    such file, as in a tar that is none of WebDataset's, each image in it counts. Its label is
    what stands in key.cls; or the "label", "cls" or "class" of key.json; or the one line of
    key.txt, unless it is as long as a caption. A key may have dots: frame.000.jpg with
    frame.000.cls is a sample, and so is photo.1.jpg beside photo.jpg, where neither has more than
    images. Without `samples` every image counts, as in a folder, and has no label. Of members of
    one name the last counts, as it does where a tar is unpacked. A link, a device, or a file larger
    than any image is there with a refusal.

    Raises
    ------
    DataError
        If it is no tar, compressed, damaged, cut off, has a member whose name leads out of it, or
        two images of one name in two tars.
    DataNotFound, DownloadError
        If it cannot be read.
    """
    archive = os.fspath(archive)
    if archive.lower().endswith(PACKED):
        raise DataError(
            f"{redact(archive)} is compressed, so that no image can be read from its middle. "
            "Unpack it to a plain .tar: images are compressed already."
        )
    with explain_unreadable(archive, "tar"):
        identity = _identify(archive, samples)
        path = home() / "tars" / f"{identity.key}.npz"
        if (index := _recall(path, archive, identity)) is not None:
            return index
        with ExitStack() as lock:
            with suppress(OSError):  # of a folder that may not be written, _remember tells
                path.parent.mkdir(parents=True, exist_ok=True)
                lock.enter_context(file_lock(path))
            if (index := _recall(path, archive, identity)) is not None:
                return index  # of another process meanwhile
            index = _make_index(archive, identity.version, progress, samples)
            if identity.settled:
                _remember(path, index, identity)
            return index


class _Identity(NamedTuple):
    """What tells a tar from others: of its place, and of the file there."""

    key: str  # of the file of its index
    content: str  # as that file has it; empty if nothing is known
    version: int
    settled: bool  # whether it changes if the tar does


def _identify(archive: str, samples: bool) -> _Identity:
    kind = "" if samples else "-images"
    if is_address(archive):
        info = stat(archive)
        stamp = stamp_of(info)
        key = f"{digest(redact(archive)) & _MASK:016x}{kind}"
        if stamp is None:
            return _Identity(key, "", 0, False)
        settled = is_settled(changed_at(info) or 0)
        return _Identity(key, f"{_FORMAT} {stamp}", digest(*stamp), settled)
    path = Path(archive)
    status = path.stat()
    # A program can set the time of change as it likes, but not that of the file's own record.
    times = status.st_mtime_ns, status.st_ctime_ns
    key = f"{path.stem}-{digest(path.resolve()) & _MASK:016x}{kind}"
    content = " ".join(map(str, (_FORMAT, status.st_size, status.st_ino, *times)))
    version = digest(status.st_size, in_64_bits(status.st_mtime_ns))
    return _Identity(key, content, version, is_settled(*times))


def _recall(path: Path, archive: str, identity: _Identity) -> TarIndex | None:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            if not identity.content or str(stored["identity"]) != identity.content:
                return None
            arrays = {name: stored[name] for name in _ARRAYS}
            left_out = LeftOut.of_counts(json.loads(str(stored["left_out"])))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None  # not there, or damaged: it is made anew
    return TarIndex(archive, identity.version, **arrays, left_out=left_out)


def _remember(path: Path, index: TarIndex, identity: _Identity) -> None:
    content = io.BytesIO()
    arrays = {name: getattr(index, name) for name in _ARRAYS}
    left_out = json.dumps(index.left_out.counts())
    np.savez(content, identity=identity.content, left_out=left_out, **arrays)
    try:
        make_folder(path.parent)
        write_atomic(path, content.getvalue())
    except StoreError as error:
        warnings.warn(
            f"Where images lie in tars could not be remembered in {path.parent} "
            f"({error.__cause__}), and will be looked for at every start. Set VGGFEAT_HOME to a "
            "folder that may be written.",
            stacklevel=4,
        )


class _Member(NamedTuple):
    """A member of a tar that is called key.suffix."""

    name: str
    key: str
    suffix: str
    offset: int
    size: int
    refusal: str
    tar: str = ""  # within the tar, that it is in
    label: str = ""
    is_parallel: bool = False


def _make_index(archive: str, version: int, progress: Progress | None, samples: bool) -> TarIndex:
    images: dict[str, _Member] = {}
    left_out = LeftOut()
    with open_file(archive) if is_address(archive) else Path(archive).open("rb", HEADERS) as file:
        total = file.seek(0, os.SEEK_END)
        try:
            for image in _images(file, archive, 0, total, samples, left_out):
                earlier = images.pop(image.name, image)
                if earlier.tar != image.tar:
                    raise DataError(
                        f"{redact(archive)} has two images {image.name!r}, in "
                        f"{earlier.tar or 'a folder'} and in {image.tar or 'a folder'}. Give tars "
                        "in a tar names of their own."
                    )
                images[image.name] = image
                if progress and len(images) % 1000 == 0:
                    progress(image.offset + image.size, total)
        except VggfeatError:
            raise
        except (tarfile.TarError, EOFError, OverflowError, ValueError) as error:
            raise DataError(
                f"{redact(archive)} is no uncompressed tar, or damaged: {error}. Fetch or make it "
                "anew; if it is compressed, unpack it (gunzip, unxz)."
            ) from error
    if progress:
        progress(total, total)
    members = images.values()
    return TarIndex(
        archive,
        version,
        names=np.array([os.fsencode(each.name) for each in members], np.bytes_),
        offsets=np.array([each.offset for each in members], np.int64),
        sizes=np.array([each.size for each in members], np.int64),
        labels=np.array([os.fsencode(each.label) for each in members], np.bytes_),
        refusals=np.array([each.refusal.encode() for each in members], np.bytes_),
        left_out=left_out,
    )


def _images(
    file: BinaryIO,
    archive: str,
    start: int,
    end: int,
    samples: bool,
    left_out: LeftOut,
    tar: str = "",
) -> Iterator[_Member]:
    """Go through the images of the tar that lies in these bytes, and of tars in it.

    Other images of a sample, and members that belong to none, are counted in `left_out`.
    """
    folder = f"{Path(tar).stem}/" if tar else ""
    for _, group in groupby(_members(file, archive, start, end), lambda member: member.key):
        members = list({member.name: member for member in group}.values())
        images = [each for each in members if is_image(Path(each.name))]
        tars = [each for each in members if each.name.endswith(".tar") and not each.refusal]
        # Beside its own image a tar is of a sample: of its frames, say.
        if not tar and tars and not images and (not samples or len(tars) == len(members)):
            for inner in tars:
                last = inner.offset + inner.size
                yield from _images(file, archive, inner.offset, last, samples, left_out, inner.name)
            continue
        for member in members if not images else ():
            left_out.add_file(folder + member.name)
        for image in _label_samples(members, images, file) if samples else images:
            if image.is_parallel:
                left_out.add_parallel(folder + image.name)
            else:
                yield image._replace(name=folder + image.name, tar=tar)


def _label_samples(
    members: Sequence[_Member], images: Sequence[_Member], file: BinaryIO
) -> Iterator[_Member]:
    """Label the images of members that share a key up to its first dot, and mark what is none.

    An image that is called by the key alone is that of a sample, and what has more dots belongs to
    it, such as a mask, unless it has a label of its own; or, where nothing but images shares the
    key, unless it is of the same format, as photo.1.jpg beside photo.jpg is.
    """
    by_stem: dict[str, dict[str, _Member]] = {}
    for member in members:
        stem, _, ending = member.suffix.rpartition(".")
        by_stem.setdefault(stem, {})[ending.lower()] = member
    labels = {stem: _label(own, file) for stem, own in by_stem.items()} if images else {}
    exact = [member for member in images if "." not in member.suffix]
    first = min(exact, key=_rank, default=None)
    alone = len(exact) == len(by_stem.get("", ()))
    for image in images:
        stem, _, ending = image.suffix.rpartition(".")
        another = bool(labels[stem]) or (alone and first and _format(image) == _format(first))
        label = labels[stem] or labels.get("", "") * (first is None)
        is_own = first is None or image is first or bool(stem and another)
        yield image._replace(label=label, is_parallel=not is_own)


def _rank(member: _Member) -> int:
    suffix = member.suffix.lower()
    return PREFERRED.index(suffix) if suffix in PREFERRED else len(PREFERRED)


def _format(member: _Member) -> str:
    """Return the last suffix of a member, of those of one format the same."""
    ending = member.suffix.rpartition(".")[2].lower()
    return {"jpg": "jpeg", "tif": "tiff"}.get(ending, ending)


def _members(file: BinaryIO, archive: str, start: int, end: int) -> Iterator[_Member]:
    for member in _headers(file, start, end):
        name = posixpath.normpath(member.name)
        if name.startswith(("/", "../")) or name == "..":
            raise DataError(
                f"{redact(archive)} has a member {member.name!r}, whose name leads out of it. "
                "Pack it anew with relative names."
            )
        hidden = any(map(is_hidden, name.split("/")))
        if member.isdir() or hidden:
            continue
        parts = _KEY.fullmatch(name)
        key, suffix = parts.groups() if parts else (f"{name}/", "")  # which is of no sample
        yield _Member(name, key, suffix, member.offset_data, member.size, _refusal(member))


def _headers(file: BinaryIO, start: int, end: int) -> Iterator[tarfile.TarInfo]:
    """Read headers one after the other; what is no header and no end is damage."""
    file.seek(start)
    with tarfile.open(fileobj=file, mode="r:") as tar:  # its offsets are those of the file
        while (member := tar.next()) is not None:
            cast("Any", tar).members.clear()  # a million of them would fill the memory
            whole = member.isreg() and not member.issparse()
            if member.size < 0 or (whole and member.offset_data + member.size > end):
                raise tarfile.ReadError(f"it ends within {member.name}")
            yield member
        # tarfile takes a damaged header for the end as well.
        file.seek(tar.offset)
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError(f"it is cut off or damaged at byte {tar.offset:,}")


def _refusal(member: tarfile.TarInfo) -> str:
    if member.issym() or member.islnk():
        return "a link in a tar, which is not followed"
    if not member.isfile() or member.issparse():
        return "not a file, but a pipe, a device or sparse"
    if member.size > LARGEST and not member.name.endswith(".tar"):
        return f"its {member.size:,} bytes are more than the {LARGEST:,} allowed"
    return ""


def _label(members: dict[str, _Member], file: BinaryIO) -> str:
    """Return the label of a sample, whose members are known by their suffixes."""
    for suffix in LABELS:
        member = members.get(suffix)
        if member is None or member.refusal or member.size > LARGEST_LABEL:
            continue
        back = file.tell()
        file.seek(member.offset)
        text = file.read(member.size).decode("utf-8", "replace").strip()
        file.seek(back)
        if suffix == "json":
            text = _label_in_json(text)
        elif suffix == "txt" and (len(text) > LONGEST_CLASS or "\n" in text):
            continue
        if text:
            return text
    return ""


def _label_in_json(text: str) -> str:
    try:
        content: Any = json.loads(text)
    except (ValueError, RecursionError):
        return ""
    values = [content.get(key) for key in LABEL_KEYS] if isinstance(content, dict) else []
    return next((str(each) for each in values if isinstance(each, str | int) and each != ""), "")
