"""Files that are written whole or not at all, locks, and errors that say what to do."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock

from vggfeat.errors import StoreError, VggfeatError

TEMPORARY = ".tmp-"
_SILENCE = 24 * 3600  # seconds after which a writer on another machine counts as dead
_HINTS = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f unlimited)",
    errno.EACCES: "allow it, or choose another place",
    errno.EPERM: "allow it, or choose another place",
    errno.EROFS: "choose another place",
    errno.EEXIST: "choose another place",
    errno.ENOTDIR: "choose another place",
    errno.EISDIR: "choose another place",
}


@contextmanager
def temporary_beside(path: Path) -> Iterator[Path]:
    """Give a name beside ``path`` that nobody else uses; the file or folder there is removed."""
    unique = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
    temporary = path.with_name(TEMPORARY + unique)
    try:
        yield temporary
    finally:
        _remove(temporary)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary name beside ``path``; what was written there takes its place at the end.

    Raises
    ------
    StoreError
        If the disk is full or the folder may not be written; the temporary file is removed.
    """
    with temporary_beside(path) as temporary, explain_os_errors(path):
        yield temporary
        move_into_place(temporary, path)


def move_into_place(source: Path, path: Path) -> None:
    """Rename a file that was written, once its bytes are on the disk."""
    _sync(source, os.O_RDWR)
    source.replace(path)
    _sync_folder(path.parent)


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file so that it is seen whole or not at all, and is on the disk on return."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_exclusive(path: Path, content: bytes) -> bool:
    """Write a file likewise, unless it is there already; return whether it was written."""
    with temporary_beside(path) as temporary, explain_os_errors(path):
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
        _sync_folder(path.parent)
        return True


def make_folder(path: Path) -> None:
    """Make a folder to write to, and remove what killed writers left half-written in it."""
    with explain_os_errors(path):
        path.mkdir(parents=True, exist_ok=True)
    sweep(path)


def sweep(folder: Path) -> None:
    """Remove the temporary files of writers that were killed; they may be large."""
    for leftover in leftovers(folder):
        _remove(leftover)


def leftovers(folder: Path) -> list[Path]:
    """Return the temporary files and folders in a folder whose writers are dead."""
    return sorted(path for path in folder.glob(TEMPORARY + "*") if is_stale(path))


def is_stale(path: Path) -> bool:
    """Tell whether a temporary file's writer is dead, or elsewhere and silent for a day."""
    host, pid = [*path.name.removeprefix(TEMPORARY).rsplit("-", 2), "", ""][:2]
    if host == socket.gethostname() and pid.isdigit() and os.name == "posix":
        return not _is_alive(int(pid))
    with suppress(OSError):
        return time.time() - path.stat().st_mtime > _SILENCE
    return False


def file_lock(path: Path) -> FileLock:
    """Make the lock of a file, for all who may write in its folder, whatever the umask.

    The lock's own file stays, empty: whoever deleted it might delete another's.
    """
    return FileLock(path.with_name(path.name + ".lock"), mode=0o666)


@contextmanager
def explain_os_errors(path: Path, action: str = "written") -> Iterator[None]:
    """Turn an error of the operating system into a :class:`StoreError` that says what to do."""
    try:
        yield
    except VggfeatError:
        raise
    except OSError as error:
        hint = _HINTS.get(error.errno or 0)
        raise StoreError(
            f"{path} could not be {action}: {error.strerror or error}. What was written before is "
            f"safe: {f'{hint}, and ' if hint else ''}run the same command again."
        ) from error


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink(missing_ok=True)
    shutil.rmtree(path, ignore_errors=True)


def _sync_folder(folder: Path) -> None:
    with suppress(OSError):  # some systems cannot sync a folder; the file itself is safe
        _sync(folder, os.O_RDONLY)


def _sync(path: Path, mode: int) -> None:
    handle = os.open(path, mode)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)  # signal 0 is never delivered
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
