"""A feature store at an address: a bucket, or whatever fsspec writes to."""

from __future__ import annotations

import hashlib
import io
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import h5py

from vggfeat._io.atomic import TEMPORARY
from vggfeat._io.remote import (
    BLOCK,
    Info,
    Unreachable,
    list_folder,
    open_file,
    open_filesystem,
    read_bytes,
    redact,
    retry,
    split,
)
from vggfeat.data.remote import stat_of
from vggfeat.errors import StoreError
from vggfeat.features.files import ASIDE, damaged
from vggfeat.features.files import opened as opened_hdf5

T = TypeVar("T")

# Here an object is seen whole or not at all, and is safe once it was taken; elsewhere a file grows
# while it is written, and gets its name afterwards.
OBJECTS = ("s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "oss", "r2", "memory")
READ_ONLY = ("http", "https", "zip", "tar")
KEPT = 256 << 20  # bytes of shards that are kept after they were read: a block needs few of them
DEAD = 24 * 3600.0  # seconds after which nobody writes a temporary file any more


class RemotePlace:
    """Where the files of a store lie, as an address.

    A shard is fetched whole, its digest compared with its name, and read from memory.

    Parameters
    ----------
    address : str
        It need not exist yet; its bucket must.

    Examples
    --------
    >>> place = RemotePlace("memory://doctest/features")
    >>> place.write("manifest.json", b"{}")
    >>> place.names(), place.read("manifest.json"), place.write_new("manifest.json", b"")
    (['manifest.json'], b'{}', False)
    """

    def __init__(self, address: str) -> None:
        self.address = address.rstrip("/")
        self._shards: OrderedDict[str, bytes] = OrderedDict()

    def __str__(self) -> str:
        return redact(self.address)

    def __reduce__(self) -> tuple[type[RemotePlace], tuple[str]]:
        return RemotePlace, (self.address,)  # what was read stays here

    def create(self) -> None:
        """Make the place ready to be written."""
        if self._scheme in READ_ONLY:
            raise StoreError(
                f"{self} can be read and not written. Write to a folder or a bucket, such as "
                "s3://bucket/features."
            )
        if self._scheme not in OBJECTS:
            self._do("shards", "made", lambda fs, path: fs.makedirs(path, exist_ok=True))

    def names(self, folder: str = "") -> list[str]:
        """Return the bare names of what lies directly in a folder; nothing if it is absent."""
        return list(self._listed(folder))

    def read(self, name: str) -> bytes | None:
        """Return a file's content; None if it is absent."""
        with self._saying(name, "read"):
            try:
                return read_bytes(self._at(name))
            except Unreachable as error:
                if error.absent:
                    return None
                raise

    def write(self, name: str, content: bytes) -> None:
        """Write a file, seen whole or not at all and durable on return, in place of any other."""
        self._shards.pop(name, None)
        self._do(name, "written", lambda fs, path: self._put(fs, path, content))

    def write_new(self, name: str, content: bytes) -> bool:
        """Write likewise, unless the file is there: then leave it, and return False."""

        def put(fs: Any, path: str) -> bool:
            try:
                fs.pipe_file(path, content, mode="create")
            except FileExistsError:
                return False
            return True

        return self._do(name, "written", put)

    def remove(self, name: str) -> None:
        """Remove a file; it is no error if it is absent."""

        def away(fs: Any, path: str) -> None:
            if fs.exists(path):
                fs.rm_file(path)

        self._shards.pop(name, None)
        self._do(name, "removed", away)

    def set_aside(self, name: str) -> str:
        """Rename a file so that no reader takes it for one of the store's."""
        self._shards.pop(name, None)
        self._do(name, "renamed", lambda fs, path: fs.mv(path, path + ASIDE))
        return name + ASIDE

    @contextmanager
    def opened(self, name: str) -> Iterator[h5py.File]:
        """Open an HDF5 file for reading."""
        content = self._shards.pop(name, None) or self._fetched(name)
        self._shards[name] = content
        while len(self._shards) > 1 and sum(map(len, self._shards.values())) > KEPT:
            self._shards.popitem(last=False)
        with opened_hdf5(f"{self}/{name}", io.BytesIO(content)) as file:
            yield file

    def sha256(self, name: str) -> str:
        """Digest a file of any size."""
        found = hashlib.sha256()
        with self._saying(name, "read"), open_file(self._at(name)) as file:
            while some := file.read(BLOCK):
                found.update(some)
        return found.hexdigest()

    def nbytes(self, names: Iterable[str]) -> int:
        """Bytes of some files together; absent ones count nothing."""
        folders: dict[str, set[str]] = {}
        for name in names:
            folder, _, bare = name.rpartition("/")
            folders.setdefault(folder, set()).add(bare)
        return sum(
            int(found.get("size") or 0)
            for folder, wanted in folders.items()
            for bare, found in self._listed(folder).items()
            if bare in wanted
        )

    def leftovers(self) -> list[str]:
        """Name the temporary files of writers that are dead."""
        return [
            f"{folder}/{name}".lstrip("/")
            for folder in ("", "shards")
            for name, found in ({} if self._scheme in OBJECTS else self._listed(folder)).items()
            if name.startswith(TEMPORARY) and _age(found) > DEAD
        ]

    @property
    def _scheme(self) -> str:
        return split(self.address).scheme

    def _at(self, name: str) -> str:
        return f"{self.address}/{name}" if name else self.address

    def _do(self, name: str, action: str, what: Callable[[Any, str], T]) -> T:
        with self._saying(name, action):
            return retry(lambda: what(*open_filesystem(self._at(name))))

    def _put(self, fs: Any, path: str, content: bytes) -> None:
        if self._scheme in OBJECTS:
            fs.pipe_file(path, content)
            return
        digest = hashlib.sha256(content).hexdigest()[:16]
        folder, _, name = path.rpartition("/")
        temporary = f"{folder}/{TEMPORARY}{digest}-{time.time_ns():x}-{name[:16]}"
        fs.pipe_file(temporary, content)
        if fs.exists(path):
            fs.rm_file(path)
        fs.mv(temporary, path)

    def _listed(self, folder: str) -> dict[str, Info]:
        with self._saying(folder, "listed"):
            try:
                return list_folder(self._at(folder))
            except Unreachable as error:
                if error.absent:
                    return {}
                raise

    def _fetched(self, name: str) -> bytes:
        content = self.read(name)
        if content is None:
            raise damaged(f"{self}/{name}", "there is no such file")
        promised = name.removeprefix("shards/").removesuffix(".h5")
        if name.startswith("shards/") and hashlib.sha256(content).hexdigest() != promised:
            raise damaged(f"{self}/{name}", "its bytes are not those that were written")
        return content

    @contextmanager
    def _saying(self, name: str, action: str) -> Iterator[None]:
        try:
            yield
        except Unreachable as error:
            raise StoreError(
                f"{redact(self._at(name))} could not be {action}: {error}. What was written "
                "before is safe: run the same command again; it goes on from there."
            ) from None


def _age(found: Info) -> float:
    """Return the seconds since a file was changed; none where that is not known."""
    stat = stat_of(found)
    return time.time() - stat[1] / 1e9 if stat and stat[1] else 0.0
