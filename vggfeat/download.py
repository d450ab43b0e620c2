"""Files from the network: resumed, verified, and either whole or absent."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import socket
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from vggfeat._io import assets
from vggfeat.errors import DownloadError

Progress = Callable[[int, int | None], None]

ATTEMPTS = 4  # without one more byte; a connection that drops but advances may drop for ever
BACKOFF = 0.5  # seconds before the second attempt, doubled each time
STALL = 30.0  # seconds without a byte
SLOWEST = 100  # bytes a second, after the first STALL seconds of an answer: less never ends
LEAST = 1 << 12  # bytes that an attempt must bring to count as an advance
CHUNK = 1 << 18
LARGEST = 8 << 30  # bytes; where the size is not known, an endless answer ends here
PASSING = {408, 425, 429, 500, 502, 503, 504}  # statuses that may be gone a moment later


@dataclass(frozen=True)
class Promise:
    """What a file must be: its size in bytes and its checksums, as far as they are known."""

    sha256: str | None = None
    md5: str | None = None
    sha256_prefix: str | None = None
    size: int | None = None

    def broken_by(self, path: Path) -> str:
        """Say what was expected of `path` and what was found, or nothing if it is right."""
        found = path.stat().st_size
        if self.size is not None and found != self.size:
            return f"expected {self.size:,} bytes, got {found:,}"
        for kind in ("sha256", "md5", "sha256_prefix"):
            expected = getattr(self, kind)
            if expected:
                got = _digest(path, kind.partition("_")[0])
                if not got.startswith(expected.lower()):
                    return f"expected {kind.replace('_', ' ')} {expected}, got {got}"
        return ""


def download(
    urls: str | Sequence[str],
    target: Path,
    *,
    sha256: str | None = None,
    md5: str | None = None,
    sha256_prefix: str | None = None,
    size: int | None = None,
    progress: Progress | None = None,
) -> Path:
    """Fetch a file from the first address that gives it, and verify it.

    The bytes go to ``<target>.part``, which an interrupted download leaves behind and the next
    one continues; the target appears by renaming, so it is whole whenever it exists. Two
    processes that want one file wait for each other.

    Parameters
    ----------
    urls : str or sequence of str
        Addresses of the same file, http or https, tried in order.
    target : Path
        Where the file goes; its folder is made.
    sha256, md5, sha256_prefix : str, optional
        Hexadecimal checksums it must have; the prefix is for files named by theirs.
    size : int, optional
        Its size in bytes; more is never accepted.
    progress : callable, optional
        Called with the bytes so far and the bytes in all, None where unknown.

    Returns
    -------
    Path
        The target.

    Raises
    ------
    DownloadError
        If ``VGGFEAT_OFFLINE`` forbids it, every address failed, or the file is not the promised.

    Examples
    --------
    >>> download("file:///etc/hostname", Path("copy"))
    Traceback (most recent call last):
        ...
    vggfeat.errors.DownloadError: copy could not be downloaded.
      file:///etc/hostname: only http and https addresses are fetched
    """
    addresses = [urls] if isinstance(urls, str) else list(urls)
    problems = [
        f"{url}: only http and https addresses are fetched"
        for url in addresses
        if _scheme(url) not in ("http", "https")
    ]
    allowed = [url for url in addresses if _scheme(url) in ("http", "https")]
    if allowed and assets.offline():
        raise DownloadError(
            f"{target.name} is not on this machine and VGGFEAT_OFFLINE forbids the network. "
            f"Unset it, or fetch {allowed[0]} elsewhere and put it at {target}."
        )
    promise = Promise(sha256, md5, sha256_prefix, size)
    try:
        if allowed:
            target.parent.mkdir(parents=True, exist_ok=True)
            with alone(target):
                if _done(target, promise) or _tried(allowed, target, promise, progress, problems):
                    return target
    except OSError as error:
        raise DownloadError(f"{target} could not be written: {error}") from error
    indented = [f"  {problem}" for problem in problems]
    raise DownloadError(f"{target.name} could not be downloaded.", *indented)


class _Dropped(Exception):
    """The connection failed in a way that may pass: it is tried again."""


class _Refused(Exception):
    """An address will not give the file: the next one is tried."""


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follow redirects to http and https only, and never from https back to http."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        allowed = ("https",) if _scheme(req.full_url) == "https" else ("http", "https")
        if _scheme(newurl) not in allowed:
            raise _Refused(f"it redirects to {newurl}, which is not {' or '.join(allowed)}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


@dataclass
class _Transfer:
    """One file from one address, in as many attempts as it takes."""

    url: str
    part: Path
    size: int | None
    progress: Progress | None
    validator: str = ""  # the server's name of the file's version
    resumed: bool = False  # whether the part may begin with bytes of another version

    def complete(self) -> None:
        """Attempt until the part is complete, or has not grown in several attempts."""
        failures = 0
        while True:
            before = _size(self.part)
            try:
                return self.attempt(before)
            except _Dropped as drop:
                failures = 1 if _size(self.part) >= before + LEAST else failures + 1
                if failures >= ATTEMPTS:
                    raise _Refused(f"{drop} ({ATTEMPTS} attempts)") from drop
                time.sleep(BACKOFF * 2 ** (failures - 1))

    def attempt(self, have: int) -> None:
        """Append what is missing to the `have` bytes of the part."""
        self.resumed |= have > 0
        if self.size is not None and have >= self.size:
            return
        with contextlib.closing(self.opened(have)) as answer:
            start = have if answer.status == http.client.PARTIAL_CONTENT else 0
            self.validator = answer.headers.get("ETag", "")
            total = _total(answer, start)
            limit = self.size if self.size is not None else LARGEST
            if total is not None and (total > limit or self.size not in (None, total)):
                raise _Refused(f"it offers {total:,} bytes, expected {limit:,}")
            done = self.written(answer, start, total if total is not None else self.size, limit)
        expected = total if total is not None else self.size
        if expected is not None and done < expected:
            raise _Dropped(f"the connection ended after {done:,} of {expected:,} bytes")

    def written(
        self, answer: http.client.HTTPResponse, start: int, total: int | None, limit: int
    ) -> int:
        """Write an answer to the part from byte `start` on; return the size of the part."""
        done, began = start, time.monotonic()
        with self.part.open("r+b" if start else "wb") as out:
            out.seek(start)
            for chunk in _chunks(answer):
                if done + len(chunk) > limit:
                    raise _Refused(f"it sends more than {limit:,} bytes")
                done += out.write(chunk)
                passed = time.monotonic() - began
                if passed > STALL and done - start < SLOWEST * passed:
                    raise _Refused(f"it sends fewer than {SLOWEST} bytes a second")
                if self.progress:
                    self.progress(done, total)
            out.flush()
            os.fsync(out.fileno())
        return done

    def opened(self, have: int) -> http.client.HTTPResponse:
        """Ask for the file from byte `have` on."""
        headers = {"User-Agent": "vggfeat"}
        if have:
            headers["Range"] = f"bytes={have}-"
            if self.validator.startswith('"'):  # weak validators do not promise equal bytes
                headers["If-Range"] = self.validator
        request = urllib.request.Request(self.url, headers=headers)  # noqa: S310  # http, checked
        try:
            answer: http.client.HTTPResponse = urllib.request.build_opener(_Redirects).open(
                request, timeout=STALL
            )
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and have:
                self.part.unlink()
                raise _Dropped("the server has fewer bytes than the part") from error
            kind = _Dropped if error.code in PASSING else _Refused
            raise kind(f"HTTP status {error.code} {error.reason}") from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = getattr(error, "reason", error)
            # A name that is not found means no network: waiting would only hide it.
            kind = _Refused if isinstance(reason, socket.gaierror) else _Dropped
            raise kind(f"no connection: {reason}") from error
        given = answer.headers.get("Content-Range", "")
        if answer.status == http.client.PARTIAL_CONTENT and not given.startswith(f"bytes {have}-"):
            answer.close()
            self.part.unlink(missing_ok=True)
            raise _Dropped("the server sent another range than was asked for")
        return answer


def _tried(
    urls: list[str], target: Path, promise: Promise, progress: Progress | None, problems: list[str]
) -> bool:
    """Try the addresses until the target is there; add to `problems` why each failed."""
    part = target.with_name(target.name + ".part")
    for url in urls:
        try:
            broken = _fetched(url, part, promise, progress)
        except _Refused as refusal:
            broken = str(refusal)
        if not broken:
            part.replace(target)
            _sync_folder(target.parent)
            return True
        problems.append(f"{url}: {broken}")
    return False


def _fetched(url: str, part: Path, promise: Promise, progress: Progress | None) -> str:
    """Complete the part from one address; return why it is not the promised file, if it is not.

    A part that breaks the promise is deleted, and fetched once more if an earlier run began it.
    """
    broken = ""
    for _ in range(2):
        transfer = _Transfer(url, part, promise.size, progress)
        transfer.complete()
        broken = promise.broken_by(part)
        if broken:
            part.unlink()
        if not broken or not transfer.resumed:
            break
    return broken


def _chunks(answer: http.client.HTTPResponse) -> Iterator[bytes]:
    try:
        while chunk := answer.read1(CHUNK):
            yield chunk
    except TimeoutError as error:
        raise _Dropped(f"no byte came for {STALL:g} s") from error
    except (OSError, http.client.HTTPException) as error:
        raise _Dropped(f"the connection broke: {error}") from error


def _total(answer: http.client.HTTPResponse, start: int) -> int | None:
    length = answer.headers.get("Content-Length", "")
    return start + int(length) if length.isdecimal() else None


def _done(target: Path, promise: Promise) -> bool:
    """Tell whether the promised file is there: another process may have fetched it meanwhile."""
    verifiable = promise.sha256 or promise.md5 or promise.sha256_prefix
    return bool(verifiable) and target.is_file() and not promise.broken_by(target)


def alone(target: Path) -> FileLock:
    """Make the lock of a file, so that two processes never do the same work on it at once.

    Its own file stays, empty: whoever deleted it might delete another's. All who may write in the
    folder may lock it, whatever the umask of the first.
    """
    return FileLock(target.with_name(target.name + ".lock"), mode=0o666)


def _digest(path: Path, algorithm: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _scheme(url: str) -> str:
    return urllib.parse.urlsplit(url).scheme.lower()


def _sync_folder(folder: Path) -> None:
    if os.name == "posix":  # a rename is on the disk only once its folder is
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
