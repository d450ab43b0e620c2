"""Servers that send what was not promised: less, more, other, nothing, or somewhere else."""

from __future__ import annotations

import contextlib
import hashlib
import random
import shutil
import socketserver
import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from fuzz.campaign import Campaign
from vggfeat._io import download as module
from vggfeat._io import remote
from vggfeat._io.download import Checksums, download
from vggfeat.errors import VggfeatError

DATA = random.Random(0).randbytes(300_000)
SHA256 = hashlib.sha256(DATA).hexdigest()
PLACES = ("file:///etc/passwd", "ftp://127.0.0.1/x", "data:,x", "gopher://127.0.0.1/", "//", "\\")
HEADERS = ("-1", "99999999999999999999", "1e9", "abc", "0", str(len(DATA)), "bytes 0-1/2", "*")


class Answer(NamedTuple):
    """How a server answers one request."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    how: str


def drawn_answer(dice: random.Random) -> Answer:
    """Draw an answer: what may come by accident, and what only malice sends."""
    body = dice.choice((DATA, DATA, DATA[: dice.randrange(len(DATA))], DATA[::-1], b"", DATA * 3))
    headers = [("Content-Length", str(len(body)))] if dice.random() < 0.7 else []
    more = dice.sample(("Content-Length", "Content-Range", "ETag", "Location"), 2)
    drawn = [(name, dice.choice(PLACES if name == "Location" else HEADERS)) for name in more]
    headers += [one for one in drawn if dice.random() < 0.4]
    status = dice.choice((200, 200, 200, 206, 206, 301, 302, 404, 416, 500, 503, 100, 999))
    return Answer(
        status, tuple(headers), body, dice.choice(("", "", "", "cut", "endless", "stall"))
    )


class Server(ThreadingHTTPServer):
    """Answers as it is told, then as a good server does."""

    daemon_threads = True
    answers: Sequence[Answer] = ()
    release = threading.Event()


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Server

    def log_message(self, *_: Any) -> None:
        """Stay silent."""

    def do_GET(self) -> None:
        with contextlib.suppress(OSError):
            if self.server.answers:
                answer, *self.server.answers = self.server.answers
                self._send(answer)
            else:
                self._good()

    def _good(self) -> None:
        start = int((self.headers.get("Range") or "bytes=0-")[6:-1])
        status = 206 if start else 200
        headers = [("Content-Length", str(len(DATA) - start))]
        headers += [("Content-Range", f"bytes {start}-{len(DATA) - 1}/{len(DATA)}")] * bool(start)
        self._send(Answer(status if start < len(DATA) else 416, tuple(headers), DATA[start:], ""))

    def _send(self, answer: Answer) -> None:
        self.send_response(answer.status)
        for name, value in answer.headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer.body[: len(answer.body) // 2] if answer.how else answer.body)
        while answer.how == "endless":
            self.wfile.write(answer.body or DATA)
        if answer.how == "stall":
            self.server.release.wait(0.3)
        self.close_connection = True


class Downloads(Campaign):
    """A file with a checksum, from a server whose first answers are hostile."""

    name = "downloads"
    cases = 1500
    memory = 256 << 20
    seconds = 60.0
    allowed = ("socket.connect", "socket.getaddrinfo")

    def prepare(self) -> Sequence[bytes]:
        import os

        os.environ["VGGFEAT_OFFLINE"] = ""
        os.environ["no_proxy"] = "*"
        remote.BACKOFF, module.STALL = 0.001, 0.1
        socketserver.TCPServer.request_queue_size = 64
        self.server = Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        return []

    def case(self, dice: random.Random, number: int) -> tuple[list[Answer], bool, bool]:
        answers = [drawn_answer(dice) for _ in range(dice.randrange(1, 7))]
        endless = any(answer.how == "endless" for answer in answers)  # ends where the size is known
        return answers, endless or dice.random() < 0.5, dice.random() < 0.3

    def attempt(self, case: tuple[list[Answer], bool, bool]) -> None:
        answers, sized, begun = case
        folder = self.folder / "cache"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        target = folder / "file.bin"
        if begun:
            (folder / "file.bin.part").write_bytes(DATA[::-1][:1000])
        self.server.answers = answers
        url = f"http://127.0.0.1:{self.server.server_address[1]}/file"
        try:
            download(url, target, Checksums(SHA256, size=len(DATA) if sized else None))
        except VggfeatError:
            assert not target.exists(), "what was refused has the final name"
            raise
        assert target.read_bytes() == DATA, "another file has the final name"


CAMPAIGNS = (Downloads,)
