"""Files that are written whole or not at all, and errors that say what to do about them."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePath
from typing import BinaryIO

import h5py

from vggfeat import hdf5
from vggfeat.errors import StoreDamaged, StoreError, VggfeatError

TEMPORARY = ".tmp-"
ASIDE = ".damaged"  # what the name of a file ends with that was moved out of its readers' way
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS)
IN_THE_WAY = (errno.EEXIST, errno.ENOTDIR, errno.EISDIR)
HARMLESS = 64 << 20  # bytes that an array may promise, whatever it holds
RATIO = 1100  # of bytes promised to bytes held above that; no compression of HDF5 does better
OUR_FAULT = (*NOT_ALLOWED, errno.EMFILE, errno.ENFILE, errno.ENOMEM)  # says nothing of the file


@contextmanager
def opened(path: Path | str, content: BinaryIO | None = None) -> Iterator[h5py.File]:
    """Open an HDF5 file, or what was read of it, and say what to do if that fails."""
    try:
        with hdf5.opened(content or path) as file:
            yield file
    except VggfeatError:
        raise
    except OSError as error:
        if error.errno in OUR_FAULT:
            raise StoreError(f"{path} could not be read: {error}") from error
        foreign = "signature not found" in str(error)
        raise damaged(path, "it is no HDF5 file" if foreign else str(error)) from error
    except MemoryError as error:
        raise damaged(path, "it promises more than the memory holds") from error
    # What is of another kind than it should be makes h5py and numpy raise anything.
    except (LookupError, RuntimeError, TypeError, ValueError, AttributeError) as error:
        reason = error.args[0] if isinstance(error, KeyError) and error.args else error
        raise damaged(path, str(reason)) from error
    except (ArithmeticError, StopIteration) as error:
        raise damaged(path, str(error)) from error


def held(file: h5py.File, name: str) -> h5py.Dataset:
    """Return a dataset of a file whose numbers are in that file, as many as it says.

    Raises
    ------
    ValueError
        If it is none, or they are elsewhere: a stranger's file may show any other file here as
        its own, or promise terabytes and hold nothing.
    """
    dataset = hdf5.item(file, name)
    if not isinstance(dataset, h5py.Dataset):
        raise ValueError(f"{name} is no array")
    if dataset.is_virtual or dataset.external:
        raise ValueError(f"{name} takes its numbers from another file")
    if dataset.dtype.hasobject:
        raise ValueError(f"{name} holds no numbers, and no texts of one length")
    if dataset.nbytes > max(HARMLESS, RATIO * dataset.id.get_storage_size()):
        raise ValueError(f"{name} promises {dataset.nbytes:,} bytes and holds few")
    return dataset


def damaged(path: Path | str, reason: str) -> StoreDamaged:
    """Say which file is damaged and how to get its features back."""
    above = os.path.dirname(path)  # noqa: PTH120  # of an address as well
    if PurePath(above).name != "shards":
        return StoreDamaged(
            f"{path} cannot be used: {reason}. Name the folder that `vggfeat extract` wrote, or "
            "what `vggfeat store pack` makes of it."
        )
    folder = os.path.dirname(above)  # noqa: PTH120
    return StoreDamaged(
        f"The shard {path} is damaged: {reason}. Move aside all that is, with: vggfeat store "
        f"repair {folder}. It says which command then computes the lacking pictures, and no others."
    )


def seal(image: bytes) -> bytes:
    """Return what is appended to a file whose readers pass over it: the digest of all before it."""
    return _seal_of(hashlib.sha256(image).hexdigest())


def unsealed(content: bytes) -> bytes | None:
    """Return what was sealed; None if it is not, to the last bit, what was written."""
    image = content[: -len(seal(b""))]
    return image if content == image + seal(image) else None


def append_seal(path: Path) -> None:
    """Seal a file of any size."""
    with path.open("r+b") as file:
        mark = _seal_of(hashlib.file_digest(file, "sha256").hexdigest())
        file.write(mark)


def is_sealed(path: Path) -> bool:
    """Tell whether a file of any size is, to the last bit, what was sealed."""
    length = len(seal(b""))
    with refusals(path, "read"), path.open("rb") as file:
        left = path.stat().st_size - length
        digest = hashlib.sha256()
        while left > 0 and (some := file.read(min(left, 1 << 20))):
            digest.update(some)
            left -= len(some)
        return file.read() == _seal_of(digest.hexdigest())


def _seal_of(digest: str) -> bytes:
    return f"\nsha256 {digest}\n".encode()


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it is seen whole or not at all, and is on disk on return."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_new(path: Path, content: bytes) -> bool:
    """Write a file likewise, unless another is there, also one that came at the same moment.

    Returns
    -------
    bool
        Whether it was written.
    """
    with _temporary(path) as temporary, refusals(path):
        temporary.write_bytes(content)
        _sync(temporary, os.O_RDWR)
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        except OSError:  # a file system without links: nearly as good
            if path.exists():
                return False
            temporary.replace(path)
        _sync_folder(path)
        return True


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary name beside ``path``; what was written there takes its place at the end.

    Raises
    ------
    StoreError
        If the disk is full or the folder may not be written; the temporary file is removed.
    """
    with _temporary(path) as temporary, refusals(path):
        yield temporary
        _sync(temporary, os.O_RDWR)
        temporary.replace(path)
        _sync_folder(path)


def ready(folder: Path) -> None:
    """Make a folder that files are written to, without what killed writers left half-written.

    Raises
    ------
    StoreError
        If it cannot be made.
    """
    with refusals(folder):
        folder.mkdir(parents=True, exist_ok=True)
    sweep(folder)


def sweep(folder: Path) -> None:
    """Remove the temporary files of writers that were killed; they may be as large as a model."""
    for leftover in leftovers(folder):
        with suppress(OSError):
            leftover.unlink()


def leftovers(folder: Path) -> list[Path]:
    """Return the temporary files in a folder whose writers are dead."""
    return sorted(path for path in folder.glob(TEMPORARY + "*") if stale(path))


@contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """Give a name beside ``path`` that nobody else uses; what is left there is removed."""
    unique = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
    temporary = path.with_name(TEMPORARY + unique)
    try:
        yield temporary
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _sync_folder(path: Path) -> None:
    with suppress(OSError):  # some systems cannot sync a folder; the file itself is safe
        _sync(path.parent, os.O_RDONLY)


def _sync(path: Path, mode: int) -> None:
    handle = os.open(path, mode)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def refusals(path: Path, action: str = "written") -> Iterator[None]:
    """Turn a refusal of the operating system into a :class:`StoreError` that says what to do."""
    try:
        yield
    except OSError as error:
        safe = "What was written before is safe"
        if error.errno in NO_SPACE:
            advice = (
                f"No space is left for {path} ({error.strerror}). {safe}: free some space and "
                "run the same command again; it goes on from there."
            )
        elif error.errno == errno.EFBIG:
            advice = (
                f"{path} may not grow beyond the limit that this shell or file system sets on "
                f"files ({error.strerror}). {safe}: raise the limit (ulimit -f unlimited) or "
                "choose another place, and run the same command again."
            )
        elif error.errno in NOT_ALLOWED:
            advice = (
                f"{path} may not be {action} ({error.strerror}). {safe}: allow it, or choose "
                "another --out."
            )
        elif error.errno == errno.ENOENT and action == "written":
            advice = (
                f"{path} could not be written: its folder is gone. Run the same command again: "
                "what was in the folder is computed anew."
            )
        elif error.errno in IN_THE_WAY and action == "written":
            advice = (
                f"{path} could not be written: a file is where a folder should be, or a folder in "
                f"its place ({error.strerror}). {safe}: choose another place."
            )
        else:
            advice = f"{path} could not be {action}: {error}. {safe}: run the same command again."
        raise StoreError(advice) from error


def stale(path: Path) -> bool:
    """Tell whether a temporary file's writer is dead, or not of this machine and long silent."""
    host, pid = [*path.name.removeprefix(TEMPORARY).rsplit("-", 2), "", ""][:2]
    if host == socket.gethostname() and pid.isdigit() and os.name == "posix":
        return not _alive(int(pid))
    with suppress(OSError):
        return time.time() - path.stat().st_mtime > 24 * 3600
    return False


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)  # signal 0 is never delivered
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
