"""Downloads against a server on this machine that misbehaves in every way asked of it."""

from __future__ import annotations

import hashlib
import io
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from helpers.windows import keep_open_files

from vggfeat._io import download as module
from vggfeat._io import remote
from vggfeat._io.download import Checksums, download
from vggfeat._io.remote import Unreachable
from vggfeat.errors import DownloadError

DATA = bytes(range(256)) * 4000
SHA256 = hashlib.sha256(DATA).hexdigest()
RIGHT = Checksums(SHA256)
OTHER = DATA[::-1]


class Server(ThreadingHTTPServer):
    """Serve DATA under paths that name how; keep what was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.ranges: list[str | None] = []
        self.paths: list[str] = []
        self.release = threading.Event()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{path}"


class Handler(BaseHTTPRequestHandler):
    """Answer as the first part of the path says."""

    server: Server

    def log_message(self, *args: Any) -> None:
        """Stay silent."""

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.ranges.append(asked)
        self.server.paths.append(self.path)
        getattr(self, "answer_" + self.path.strip("/").split("/")[0])(asked)

    def head(self, status: int, **headers: object) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def ranged(self, asked: str | None, data: bytes = DATA, limit: int | None = None) -> None:
        """Answer as a good server does; with `limit`, drop the connection after so many bytes."""
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        if start >= len(data):
            self.head(416, Content_Range=f"bytes */{len(data)}", Content_Length=0)
            return
        headers = {"Content_Length": len(data) - start}
        if asked:
            headers["Content_Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        self.head(206 if asked else 200, **headers)
        self.wfile.write(data[start:][:limit])

    def answer_file(self, asked: str | None) -> None:
        self.ranged(asked)

    def answer_other(self, asked: str | None) -> None:
        self.ranged(asked, OTHER)

    def answer_dropping(self, asked: str | None) -> None:
        self.ranged(asked, limit=300_000)

    def answer_dead(self, asked: str | None) -> None:
        self.head(200, Content_Length=len(DATA))

    def answer_norange(self, asked: str | None) -> None:
        self.head(200, Content_Length=len(DATA))
        self.wfile.write(DATA)

    def answer_endless(self, asked: str | None) -> None:
        self.head(200)
        try:
            while True:
                self.wfile.write(DATA)
        except OSError:
            self.close_connection = True

    def answer_stalling(self, asked: str | None) -> None:
        self.head(200, Content_Length=len(DATA))
        self.wfile.write(DATA[:1000])
        self.server.release.wait(20)

    def answer_slow(self, asked: str | None) -> None:
        self.head(200, Content_Length=len(DATA))
        for at in range(0, len(DATA), len(DATA) // 10):
            self.wfile.write(DATA[at : at + len(DATA) // 10])
            time.sleep(0.02)

    def answer_busy(self, asked: str | None) -> None:
        if self.server.paths.count(self.path) < 3:
            self.head(503, Content_Length=0)
        else:
            self.ranged(asked)

    def answer_gone(self, asked: str | None) -> None:
        self.head(404, Content_Length=0)

    def answer_to(self, asked: str | None) -> None:
        target = self.path.split("/", 2)[2]
        self.head(302, Location=target, Content_Length=0)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.delenv("VGGFEAT_OFFLINE", raising=False)
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(remote, "BACKOFF", 0.001)
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.release.set()
        running.shutdown()
        thread.join()


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "file.bin"


def part_of(target: Path) -> Path:
    return target.with_name(target.name + ".part")


def files_beside(target: Path) -> list[str]:
    """List the files of a folder without the empty one of the lock, which may stay."""
    return sorted(path.name for path in target.parent.iterdir() if path.suffix != ".lock")


def leave_part(target: Path, data: bytes) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    part_of(target).write_bytes(data)


def test_whole_file(server: Server, target: Path) -> None:
    """A file comes whole, progress ends at its size, and nothing else is left in the folder."""
    seen: list[tuple[int, int | None]] = []
    path = download(
        server.url("file"), target, Checksums(SHA256, size=len(DATA)), lambda *now: seen.append(now)
    )
    assert path == target
    assert target.read_bytes() == DATA
    assert seen[-1] == (len(DATA), len(DATA))
    assert seen == sorted(seen)
    assert files_beside(target) == ["file.bin"]


@pytest.mark.parametrize("have", [500_000, len(DATA)])
def test_continues_a_part(have: int, server: Server, target: Path) -> None:
    """What an earlier run left behind is not asked for again, be it the whole file."""
    leave_part(target, DATA[:have])
    download(server.url("file"), target, RIGHT)
    assert server.ranges == [f"bytes={have}-"]
    assert target.read_bytes() == DATA


def test_dropped_connections(server: Server, target: Path) -> None:
    """Drops that each time bring new bytes are continued for as often as it takes."""
    download(server.url("dropping"), target, RIGHT)
    assert server.ranges == [None, "bytes=300000-", "bytes=600000-", "bytes=900000-"]
    assert target.read_bytes() == DATA


def test_gives_up_without_progress(server: Server, target: Path) -> None:
    """A server that sends nothing is asked four times, not for ever."""
    with pytest.raises(DownloadError, match="0 of 1,024,000 bytes"):
        download(server.url("dead"), target, RIGHT)
    assert len(server.ranges) == 4


def test_server_without_ranges(server: Server, target: Path) -> None:
    """A server that ignores the range starts the file anew."""
    leave_part(target, b"x" * 1000)
    download(server.url("norange"), target, RIGHT)
    assert target.read_bytes() == DATA


def test_a_part_that_is_too_long_is_fetched_anew(server: Server, target: Path) -> None:
    """It is of another file, as the server's answer tells."""
    leave_part(target, b"x" * (len(DATA) + 5))
    download(server.url("file"), target, RIGHT)
    assert target.read_bytes() == DATA


@pytest.mark.parametrize(
    "checksums",
    [
        RIGHT,
        Checksums(md5=hashlib.md5(DATA).hexdigest()),
        Checksums(sha256_prefix=SHA256[:8]),
    ],
)
def test_wrong_checksum(checksums: Checksums, server: Server, target: Path) -> None:
    """Another file of the same size is refused with both checksums, and its part is deleted."""
    kind, expected = next((k, v) for k, v in vars(checksums).items() if v)
    got = hashlib.new(kind.partition("_")[0], OTHER).hexdigest()
    with pytest.raises(DownloadError, match=f"expected .*{expected}, got {got}"):
        download(server.url("other"), target, checksums)
    assert files_beside(target) == []
    download(server.url("file"), target, checksums)
    assert target.read_bytes() == DATA


def test_mirrors(server: Server, target: Path) -> None:
    """The first address that has the right file is enough; those before it are tried."""
    addresses = [server.url(name) for name in ("gone", "other", "file", "never")]
    download(addresses, target, RIGHT)
    assert server.paths == ["/gone", "/other", "/file"]
    assert target.read_bytes() == DATA


def test_every_failure_is_told(server: Server, target: Path) -> None:
    """When no address works, the error has the reason of each."""
    closed = socket.socket()
    closed.bind(("127.0.0.1", 0))
    port = closed.getsockname()[1]
    closed.close()
    with pytest.raises(DownloadError) as caught:
        download([server.url("gone"), f"http://127.0.0.1:{port}/x", "ftp://h/x"], target)
    for reason in ("HTTP status 404", "Connection refused", "only http and https"):
        assert reason in str(caught.value)


def test_no_network(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where names are not resolved, the error comes at once and not after four attempts."""
    asked = []

    def unknown(*args: object, **options: object) -> None:
        asked.append(args)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.delenv("VGGFEAT_OFFLINE", raising=False)
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(DownloadError, match="its host is not found"):
        download("http://nowhere.invalid/x", target)
    assert len(asked) == 1


def test_busy_server(server: Server, target: Path) -> None:
    """A server that says it is busy is asked again."""
    download(server.url("busy"), target, RIGHT)
    assert len(server.paths) == 3


def test_no_more_bytes_than_the_size_are_taken(server: Server, target: Path) -> None:
    """An answer without end ends there, and one that announces another size is refused."""
    with pytest.raises(DownloadError, match="sends more than 1,024,000 bytes"):
        download(server.url("endless"), target, Checksums(SHA256, size=len(DATA)))
    part_of(target).unlink()
    with pytest.raises(DownloadError, match="offers 1,024,000 bytes, expected 5"):
        download(server.url("file"), target, Checksums(size=5))
    assert not target.exists()


def test_stalling_server(server: Server, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection without bytes ends after the time set, not never."""
    monkeypatch.setattr(module, "STALL", 0.1)
    monkeypatch.setattr(remote, "ATTEMPTS", 1)
    with pytest.raises(DownloadError, match="no answer in time"):
        download(server.url("stalling"), target, RIGHT)


@pytest.mark.parametrize("place", ["file:///etc/hostname", "ftp://127.0.0.1/x", "data:,x"])
def test_redirects_elsewhere(place: str, server: Server, target: Path) -> None:
    """A redirect to a file of this machine, or any other scheme, is not followed."""
    with pytest.raises(DownloadError, match="could not be downloaded"):
        download(server.url("to/" + place), target)
    assert files_beside(target) == []


def test_redirects_within_http(server: Server, target: Path) -> None:
    """A redirect to another http address is followed, and keeps the range."""
    leave_part(target, DATA[:1000])
    download(server.url("to/" + server.url("file")), target, RIGHT)
    assert server.ranges == ["bytes=1000-", "bytes=1000-"]


def test_https_never_becomes_http() -> None:
    """A redirect from https to http is refused before any request."""
    request = urllib.request.Request("https://example.org/a")
    redirects = module._Redirects()
    with pytest.raises(Unreachable, match="redirects to http:"):
        redirects.redirect_request(request, io.BytesIO(), 302, "Found", {}, "http://example.org/a")
    assert redirects.redirect_request(
        request, io.BytesIO(), 302, "Found", {}, "https://example.org/b"
    )


def test_offline_opens_no_socket(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """VGGFEAT_OFFLINE stops before a socket is made, and says where the file could be put."""

    def refuse(*args: object, **options: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setenv("VGGFEAT_OFFLINE", "1")
    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    with pytest.raises(DownloadError, match=r"http://h/x elsewhere and put it at .*file\.bin"):
        download("http://h/x", target, RIGHT)
    assert not target.parent.exists()


def test_two_downloads_of_one_file(server: Server, target: Path) -> None:
    """Of several at once one fetches and the others wait and take its file."""
    results: list[Path] = []

    def fetch() -> None:
        results.append(download(server.url("slow"), target, RIGHT))

    threads = [threading.Thread(target=fetch) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [target] * 4
    assert server.paths == ["/slow"]
    assert target.read_bytes() == DATA
    assert files_beside(target) == ["file.bin"]


def test_two_processes_download_a_file_once(server: Server, target: Path) -> None:
    """The second waits for the first, and takes its file."""
    fetch = (
        "import sys, pathlib; from vggfeat._io.download import Checksums, download; "
        "print(download(sys.argv[1], pathlib.Path(sys.argv[2]), Checksums(sys.argv[3])))"
    )
    words = [sys.executable, "-c", fetch, server.url("slow"), str(target), SHA256]
    processes = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate()[0].strip() for process in processes] == [str(target)] * 2
    assert server.paths == ["/slow"]
    assert target.read_bytes() == DATA


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open files are listed on Linux")
def test_open_files_need_not_be_deleted(
    server: Server, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no open file can be deleted or renamed, as on Windows, a file is downloaded as well."""
    keep_open_files(monkeypatch)
    assert download(server.url("file"), target, RIGHT) == target
    assert target.read_bytes() == DATA


def test_unwritable_folder(server: Server, tmp_path: Path) -> None:
    """A folder that cannot be made is an error of ours that names the file."""
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DownloadError, match="could not be written"):
        download(server.url("file"), tmp_path / "file" / "x", RIGHT)


def test_checksums(tmp_path: Path) -> None:
    """They match the right bytes, and say what else they found."""
    path = tmp_path / "x"
    path.write_bytes(b"abc")
    # FIPS 180-2, example of "abc"
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert Checksums(sha256=known.upper(), size=3).mismatch(path) == ""
    assert Checksums(sha256_prefix="ba78").mismatch(path) == ""
    assert Checksums(size=4).mismatch(path) == "expected 4 bytes, got 3"
    assert Checksums(sha256_prefix="ba79").mismatch(path).endswith(known)
