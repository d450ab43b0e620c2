"""Files that are seen whole or not at all, whoever writes them and whatever the disk says."""

from __future__ import annotations

import errno
import os
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from vggfeat._io.atomic import (
    TEMPORARY,
    explain_os_errors,
    file_lock,
    is_stale,
    leftovers,
    make_folder,
    replacing,
    temporary_beside,
    write_atomic,
    write_exclusive,
)
from vggfeat.errors import DataNotFound, StoreError


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    """A writer that fails leaves the file that was there, and nothing beside it."""
    path = tmp_path / "a"
    write_atomic(path, b"old")
    with pytest.raises(StoreError), replacing(path) as temporary:
        (temporary.parent / "absent" / "b").write_bytes(temporary.write_bytes(b"ne") * b"w")
    assert path.read_bytes() == b"old"
    with replacing(path) as temporary:
        temporary.write_bytes(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert [found.name for found in tmp_path.iterdir()] == ["a"]


def test_of_several_exclusive_writers_one_writes(tmp_path: Path) -> None:
    """The others are told so, and the file is that of the one, whole."""
    path, written = tmp_path / "a", []
    start = threading.Barrier(8)

    def write(number: int) -> None:
        start.wait()
        if write_exclusive(path, b"%d" % number * 1000):
            written.append(number)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    [winner] = written
    assert path.read_bytes() == b"%d" % winner * 1000
    assert [found.name for found in tmp_path.iterdir()] == ["a"]


def test_without_links_a_file_is_still_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some file systems have no hard links."""

    def refuse(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "no links")

    monkeypatch.setattr(os, "link", refuse)
    assert write_exclusive(tmp_path / "a", b"one")
    assert not write_exclusive(tmp_path / "a", b"two")
    assert (tmp_path / "a").read_bytes() == b"one"


def test_what_dead_writers_left_is_removed(tmp_path: Path) -> None:
    """Files and folders of this machine's dead processes go; those of living ones stay."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    dead = f"{TEMPORARY}{socket.gethostname()}-{child.pid}-00"
    alive = tmp_path / f"{TEMPORARY}{socket.gethostname()}-{os.getpid()}-00"
    (tmp_path / dead).write_bytes(b"x")
    (tmp_path / (dead + "1")).mkdir()
    (tmp_path / (dead + "1") / "a").touch()
    alive.touch()
    assert [path.name for path in leftovers(tmp_path)] == [dead, dead + "1"]
    make_folder(tmp_path)
    assert list(tmp_path.iterdir()) == [alive]
    elsewhere = tmp_path / f"{TEMPORARY}elsewhere-1-00"
    elsewhere.touch()
    assert not is_stale(elsewhere)
    os.utime(elsewhere, (1, 1))
    assert is_stale(elsewhere)


def test_a_temporary_folder_is_removed(tmp_path: Path) -> None:
    """Whatever lies in it."""
    with temporary_beside(tmp_path / "a") as temporary:
        (temporary / "b").mkdir(parents=True)
        (temporary / "b" / "c").touch()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("number", "hint"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EACCES, "allow it"),
        (errno.EFBIG, "ulimit"),
        (errno.EIO, "run the same command again"),
    ],
)
def test_errors_of_the_system_say_what_to_do(number: int, hint: str) -> None:
    """They name the file, what the system said, and that what was written is safe."""
    with pytest.raises(StoreError) as caught, explain_os_errors(Path("a/b"), "renamed"):
        raise OSError(number, os.strerror(number))
    for words in ("a/b could not be renamed", os.strerror(number), hint, "is safe"):
        assert words in str(caught.value)


def test_our_own_errors_are_not_explained_again() -> None:
    """A DataNotFound is an OSError too."""
    with pytest.raises(DataNotFound, match="gone"), explain_os_errors(Path("a")):
        raise DataNotFound("gone")


@pytest.mark.skipif(os.name != "posix", reason="this system has no umask")
def test_other_users_may_lock_too(tmp_path: Path) -> None:
    """Whatever the umask of the first: the file of a lock stays, and would lock them out."""
    before = os.umask(0o077)
    try:
        with file_lock(tmp_path / "a"):
            pass
    finally:
        os.umask(before)
    [lock] = tmp_path.iterdir()
    assert stat.S_IMODE(lock.stat().st_mode) == 0o666
