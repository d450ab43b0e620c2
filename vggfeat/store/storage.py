"""Where the files of a store lie: a folder, an address, or memory. Six operations on names.

``manifest.json`` makes a place a store; it is written once and never changed.

Names are relative, with ``/`` between folder and file: ``manifest.json``, ``shards/….h5``. A file
that is written is seen whole or not at all, and is durable when the operation returns.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol, TypeVar

import h5py

from vggfeat._io import atomic, remote
from vggfeat._io.atomic import explain_os_errors
from vggfeat.errors import StoreDamaged, StoreError
from vggfeat.store.shard import DTYPES, FOLDER, VERSION, damaged, open_hdf5

T = TypeVar("T")

MANIFEST, VIEW = "manifest.json", "features.h5"
FORMAT = "vggfeat features"
FOLDERS = ("", FOLDER, "columns")
DAMAGED = ".damaged"  # what a file's name ends in that repairing has set aside

# Here an object is seen whole or not at all; elsewhere a file grows while it is written, and gets
# its name afterwards.
OBJECTS = ("s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "oss", "r2", "memory")
READ_ONLY = ("http", "https", "zip", "tar")
KEPT = 256 << 20  # bytes of shards that are kept after they were fetched: a block needs few


class Storage(Protocol):
    """Keeps files by name; its ``str`` is what a user would type to name it."""

    def read(self, name: str) -> bytes | None:
        """Return a file's content; None if it is absent."""

    def write(self, name: str, content: bytes) -> None:
        """Write a file in place of any other."""

    def write_new(self, name: str, content: bytes) -> bool:
        """Write a file unless it is there, also one that came at the same moment."""

    def list(self, folder: str = "") -> dict[str, int]:
        """Return the bytes of each file directly in a folder, by bare name."""

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""

    def open(self, name: str) -> AbstractContextManager[h5py.File]:
        """Open an HDF5 file for reading."""


def open_storage(where: Path | str | None) -> Storage:
    """Return the storage that a user named: a folder, an address, or memory for None.

    Examples
    --------
    >>> str(open_storage("features"))
    'features'
    """
    if where is None:
        return MemoryStorage()
    address = remote.address_of(where)
    return LocalStorage(Path(where)) if address is None else RemoteStorage(address)


def packed_file(path: Path | str | None) -> Path | None:
    """Return the path of a packed file; None for a folder, an address, or the view of a store."""
    if path is None or not Path(path).is_file():
        return None
    return None if _is_view(Path(path)) else Path(path)


def folder_of(path: Path | str | None) -> Path | str | None:
    """Return the folder of a store, also where its view is named."""
    return Path(path).parent if path is not None and _is_view(Path(path)) else path


def _is_view(path: Path) -> bool:
    return path.name == VIEW and (path.parent / FOLDER).is_dir()


def build_manifest(dtype: str) -> bytes:
    """Return the content of a store's manifest."""
    return json.dumps({"format": FORMAT, "version": VERSION, "dtype": dtype}).encode()


def read_manifest(storage: Storage) -> str | None:
    """Return the dtype that a store's manifest says, None where it is absent; refuse others."""
    content = storage.read(MANIFEST)
    return None if content is None else parse_manifest(content, storage)


def parse_manifest(content: bytes, storage: Storage) -> str:
    """Return the dtype that a manifest says; refuse one that is damaged or something else's."""
    where = f"{storage}/{MANIFEST}"
    anew = f"Make it anew of the shards with: vggfeat store repair {storage}."
    try:
        held = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise StoreDamaged(f"{where} is damaged: {error}. {anew}") from error
    if not isinstance(held, dict) or held.get("format") != FORMAT:
        raise StoreError(f"{where} belongs to something else. Choose another path.")
    if (version := held.get("version")) != VERSION and isinstance(version, int):
        age = "a newer" if version > VERSION else "an early"
        raise StoreError(
            f"{where} was written by {age} vggfeat (format {version}; this one reads {VERSION}). "
            "Extract into another folder."
        )
    if content not in map(build_manifest, DTYPES):
        raise StoreDamaged(
            f"{where} is damaged: its format, version and dtype are not what was written. {anew}"
        )
    return str(held["dtype"])


def list_leftovers(storage: Storage) -> list[Path]:
    """Return the temporary files that killed writers left in a folder."""
    if not isinstance(storage, LocalStorage):
        return []
    return [path for folder in FOLDERS for path in atomic.leftovers(storage.path / folder)]


def sweep(storage: Storage) -> None:
    """Remove what killed writers left half-written."""
    if isinstance(storage, LocalStorage):
        for folder in FOLDERS:
            atomic.sweep(storage.path / folder)


def list_shards(storage: Storage) -> list[str]:
    """Name all shards, sorted; what repairing has set aside is none."""
    names = sorted(storage.list(FOLDER))
    return [f"{FOLDER}/{n}" for n in names if n.endswith(".h5") and not n.startswith(".")]


def has_sound_bytes(storage: Storage, key: str) -> bool:
    """Tell whether a shard holds the bytes that its name promises."""
    content = storage.read(key)
    return content is not None and key == shard_key(content)


def shard_key(content: bytes) -> str:
    """Name a shard by its bytes."""
    return f"{FOLDER}/{hashlib.sha256(content).hexdigest()}.h5"


class LocalStorage:
    """A folder of the file system.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     storage = LocalStorage(Path(folder, "features"))
    ...     storage.write_new("a", b"one"), storage.write_new("a", b"two"), storage.list()
    (True, False, {'a': 3})
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __str__(self) -> str:
        return str(self.path)

    def read(self, name: str) -> bytes | None:
        """Return a file's content; None if it is absent."""
        with explain_os_errors(self.path / name, "read"):
            try:
                return (self.path / name).read_bytes()
            except (FileNotFoundError, NotADirectoryError):
                return None

    def write(self, name: str, content: bytes) -> None:
        """Write a file in place of any other; not where the folder of the store is gone."""
        path = self.path / name
        with explain_os_errors(path):
            if path.parent != self.path:
                path.parent.mkdir(exist_ok=True)
        atomic.write_atomic(path, content)

    def write_new(self, name: str, content: bytes) -> bool:
        """Write a file unless it is there; make its folder."""
        path = self.path / name
        with explain_os_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        return atomic.write_exclusive(path, content)

    def list(self, folder: str = "") -> dict[str, int]:
        """Return the bytes of each file directly in a folder, by bare name."""
        where = self.path / folder
        with explain_os_errors(where, "read"):
            if not where.is_dir():
                return {}
            sizes = {}
            with os.scandir(where) as entries:
                for entry in entries:
                    with suppress(FileNotFoundError):  # another writer has just renamed it
                        if entry.is_file():
                            sizes[entry.name] = entry.stat().st_size
            return sizes

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        with explain_os_errors(self.path / name, "removed"):
            (self.path / name).unlink(missing_ok=True)

    def open(self, name: str) -> AbstractContextManager[h5py.File]:
        """Open an HDF5 file for reading."""
        return open_hdf5(self.path / name)


class MemoryStorage:
    """Files that are gone with the object."""

    def __init__(self) -> None:
        self._files: dict[str, bytes] = {}

    def __str__(self) -> str:
        return "memory"

    def read(self, name: str) -> bytes | None:
        """Return a file's content; None if it is absent."""
        return self._files.get(name)

    def write(self, name: str, content: bytes) -> None:
        """Keep a file in place of any other."""
        self._files[name] = content

    def write_new(self, name: str, content: bytes) -> bool:
        """Keep a file unless it is there."""
        return self._files.setdefault(name, content) is content

    def list(self, folder: str = "") -> dict[str, int]:
        """Return the bytes of each file directly in a folder, by bare name."""
        start = f"{folder}/" if folder else ""
        return {
            name.removeprefix(start): len(content)
            for name, content in self._files.items()
            if name.startswith(start) and "/" not in name.removeprefix(start)
        }

    def remove(self, name: str) -> None:
        """Drop a file, if it is there."""
        self._files.pop(name, None)

    def open(self, name: str) -> AbstractContextManager[h5py.File]:
        """Open an HDF5 file for reading."""
        return open_hdf5(name, io.BytesIO(self._files[name]))


class RemoteStorage:
    """A bucket, or whatever fsspec writes to.

    A shard is fetched whole, its digest compared with its name, and read from memory.

    Examples
    --------
    >>> storage = RemoteStorage("memory://doctest/features")
    >>> storage.write("manifest.json", b"{}")
    >>> storage.list(), storage.read("manifest.json"), storage.write_new("manifest.json", b"")
    ({'manifest.json': 2}, b'{}', False)
    """

    def __init__(self, address: str) -> None:
        self.address = address.rstrip("/")
        self._scheme = remote.split(self.address).scheme
        self._fetched: OrderedDict[str, bytes] = OrderedDict()

    def __str__(self) -> str:
        return remote.redact(self.address)

    def __reduce__(self) -> tuple[type[RemoteStorage], tuple[str]]:
        return RemoteStorage, (self.address,)  # what was fetched stays here

    def read(self, name: str) -> bytes | None:
        """Return a file's content; None if it is absent."""
        return self._do("read", name, lambda fs, path: bytes(fs.cat_file(path)))

    def write(self, name: str, content: bytes) -> None:
        """Write a file in place of any other."""
        self._fetched.pop(name, None)
        self._do("written", name, lambda fs, path: self._put(fs, path, content))

    def write_new(self, name: str, content: bytes) -> bool:
        """Write a file unless it is there."""

        def put(fs: Any, path: str) -> bool:
            if self._scheme not in OBJECTS:
                fs.makedirs(path.rpartition("/")[0], exist_ok=True)
            try:
                fs.pipe_file(path, content, mode="create")
            except FileExistsError:
                return False
            return True

        return bool(self._do("written", name, put))

    def list(self, folder: str = "") -> dict[str, int]:
        """Return the bytes of each file directly in a folder, by bare name."""
        entries = self._do("listed", folder, lambda fs, path: fs.ls(path, detail=True)) or []
        files = {e["name"].rpartition("/")[2]: e for e in entries if e.get("type") == "file"}
        return {name: int(entry.get("size") or 0) for name, entry in files.items() if name}

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        self._fetched.pop(name, None)
        self._do("removed", name, lambda fs, path: fs.rm_file(path))

    @contextmanager
    def open(self, name: str) -> Iterator[h5py.File]:
        """Open an HDF5 file for reading."""
        content = self._fetched.pop(name, None) or self._fetch(name)
        self._fetched[name] = content
        while len(self._fetched) > 1 and sum(map(len, self._fetched.values())) > KEPT:
            self._fetched.popitem(last=False)
        with open_hdf5(f"{self}/{name}", io.BytesIO(content)) as file:
            yield file

    def _fetch(self, name: str) -> bytes:
        content = self.read(name)
        if content is None:
            raise damaged(f"{self}/{name}", "there is no such file")
        if name.startswith(FOLDER) and shard_key(content) != name:
            raise damaged(f"{self}/{name}", "its bytes are not those that were written")
        return content

    def _put(self, fs: Any, path: str, content: bytes) -> None:
        if self._scheme in OBJECTS:
            fs.pipe_file(path, content)
            return
        folder, _, name = path.rpartition("/")
        fs.makedirs(folder, exist_ok=True)
        temporary = f"{folder}/{atomic.TEMPORARY}{time.time_ns():x}-{name[:16]}"
        fs.pipe_file(temporary, content)
        if fs.exists(path):
            fs.rm_file(path)
        fs.mv(temporary, path)

    def _do(self, action: str, name: str, what: Callable[[Any, str], T]) -> T | None:
        """Do something with a file, again if that may help; None where there is none."""
        if action not in ("read", "listed") and self._scheme in READ_ONLY:
            raise StoreError(
                f"{self} can be read and not written. Write to a folder or a bucket, such as "
                "s3://bucket/features."
            )
        address = f"{self.address}/{name}" if name else self.address
        try:
            return remote.with_filesystem(address, what)
        except remote.Unreachable as error:
            if error.absent and action != "written":
                return None
            raise StoreError(
                f"{remote.redact(address)} could not be {action}: {error}. What was written before "
                "is safe: run the same command again; it goes on from there."
            ) from None
