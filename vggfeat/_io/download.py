"""Files from the network: resumed, verified, and either whole or absent."""

from __future__ import annotations

import hashlib
import http.client
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vggfeat._io.assets import offline
from vggfeat._io.atomic import file_lock, move_into_place
from vggfeat._io.remote import STALL, Unreachable, retry
from vggfeat.errors import DownloadError

Progress = Callable[[int, int | None], None]  # bytes so far, and in all where that is known

CHUNK = 1 << 18


@dataclass(frozen=True)
class Checksums:
    """What a file must be: its checksums in hexadecimal and its size in bytes, as far as known."""

    sha256: str | None = None
    md5: str | None = None
    sha256_prefix: str | None = None
    size: int | None = None

    def mismatch(self, path: Path) -> str:
        """Say what was expected of a file and what it is, or nothing if it is right."""
        size = path.stat().st_size
        if self.size is not None and size != self.size:
            return f"expected {self.size:,} bytes, got {size:,}"
        for kind in ("sha256", "md5", "sha256_prefix"):
            if expected := getattr(self, kind):
                with path.open("rb") as file:
                    digest = hashlib.file_digest(file, kind.partition("_")[0]).hexdigest()
                if not digest.startswith(expected.lower()):
                    return f"expected {kind.replace('_', ' ')} {expected}, got {digest}"
        return ""


ANY = Checksums()


def download(
    urls: str | Sequence[str],
    target: Path,
    checksums: Checksums = ANY,
    progress: Progress | None = None,
) -> Path:
    """Fetch a file from the first address that gives it, and verify it.

    The bytes go to ``<target>.part``, which an interrupted download leaves behind and the next
    one continues. Two processes that want one file wait for each other.

    Raises
    ------
    DownloadError
        If ``VGGFEAT_OFFLINE`` forbids it, every address failed, or the file is not the expected.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     download("file:///etc/hostname", Path(folder, "copy"))
    Traceback (most recent call last):
        ...
    vggfeat.errors.DownloadError: copy could not be downloaded.
      file:///etc/hostname: only http and https addresses are fetched
    """
    urls = [urls] if isinstance(urls, str) else urls
    if offline() and any(map(_is_http, urls)):
        raise DownloadError(
            f"{target.name} is not on this machine and VGGFEAT_OFFLINE forbids the network. "
            f"Unset it, or fetch {urls[0]} elsewhere and put it at {target}."
        )
    reasons = []
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with file_lock(target):
            if checksums != ANY and target.is_file() and not checksums.mismatch(target):
                return target  # another process fetched it meanwhile
            for url in urls:
                reason = _fetch(url, target, checksums, progress)
                if not reason:
                    return target
                reasons.append(f"  {url}: {reason}")
    except OSError as error:
        raise DownloadError(f"{target} could not be written: {error}") from error
    raise DownloadError(f"{target.name} could not be downloaded.", *reasons)


def _fetch(url: str, target: Path, checksums: Checksums, progress: Progress | None) -> str:
    """Fetch a file from one address; return why that failed, or nothing."""
    if not _is_http(url):
        return "only http and https addresses are fetched"
    part = target.with_name(target.name + ".part")
    try:
        retry(lambda: _complete(url, part, checksums.size, progress))
    except Unreachable as error:
        return str(error)
    if reason := checksums.mismatch(part):
        part.unlink()
        return reason
    move_into_place(part, target)
    return ""


def _complete(url: str, part: Path, size: int | None, progress: Progress | None) -> None:
    """Append what a part lacks; a connection that breaks may do so for as long as bytes come."""
    while True:
        before = _size(part)
        try:
            return _append(url, part, size, progress)
        except (OSError, http.client.HTTPException):
            if _size(part) <= before:
                raise


def _append(url: str, part: Path, size: int | None, progress: Progress | None) -> None:
    have = _size(part)
    if have == size:
        return
    headers = {"User-Agent": "vggfeat"} | ({"Range": f"bytes={have}-"} if have else {})
    request = urllib.request.Request(url, headers=headers)  # noqa: S310  # http, checked
    try:
        answer = urllib.request.build_opener(_Redirects).open(request, timeout=STALL)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code != http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        if error.headers.get("Content-Range") == f"bytes */{have}":
            return
        part.unlink()
        raise ConnectionError("the part was longer than the file") from error
    with answer:
        done = have if answer.status == http.client.PARTIAL_CONTENT else 0
        length = answer.headers.get("Content-Length")
        total = size if length is None else done + int(length)
        if size is not None and total != size:
            raise Unreachable(f"it offers {total:,} bytes, expected {size:,}")
        with part.open("ab" if done else "wb") as out:
            while chunk := answer.read1(CHUNK):
                done += out.write(chunk)
                if total is not None and done > total:
                    raise Unreachable(f"it sends more than {total:,} bytes")
                if progress:
                    progress(done, total)
    if total is not None and done < total:
        raise ConnectionError(f"it ended after {done:,} of {total:,} bytes")


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follow redirects to http and https only, and never from https back to http."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if not _is_http(newurl) or req.full_url.startswith("https:") > newurl.startswith("https:"):
            fp.close()
            raise Unreachable(f"it redirects to {newurl}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _is_http(url: str) -> bool:
    return url.lower().startswith(("http://", "https://"))


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
