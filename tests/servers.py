"""A web server on this machine that serves what a test gives it, and fails as it is told."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit


class WebServer(ThreadingHTTPServer):
    """Serve files by path, and a page of links for each folder.

    ``failures`` holds, by path, the statuses of the answers that come before the right one;
    ``silent`` the paths that are never answered; ``ranged`` tells whether parts are given.
    """

    daemon_threads = True

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files = files
        self.failures: dict[str, list[int]] = {}
        self.silent: set[str] = set()
        self.ranged = True
        self.asked: Counter[str] = Counter()
        self.sent = 0
        self.release = threading.Event()

    def url(self, path: str = "") -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{path}"

    def page(self, path: str) -> bytes | None:
        """Make a page of links to what lies in a folder."""
        front = path.rstrip("/") + "/" if path.strip("/") else ""
        below = [name[len(front) :] for name in self.files if name.startswith(front)]
        if not below:
            return None
        links = {name.partition("/")[0] + ("/" if "/" in name else "") for name in below}
        return "".join(f'<a href="{link}">{link}</a>\n' for link in sorted(links)).encode()


class _Handler(BaseHTTPRequestHandler):
    server: WebServer

    def log_message(self, *args: Any) -> None:
        """Stay silent."""

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        path = unquote(urlsplit(self.path).path).lstrip("/")
        self.server.asked[path] += 1
        if path in self.server.silent:
            self.server.release.wait(20)
            return
        if waiting := self.server.failures.get(path):
            self._send(waiting.pop(0), b"", {}, body)
            return
        content = self.server.files.get(path)
        page = None if content is not None else self.server.page(path)
        if page is not None:
            self._send(200, page, {"Content-Type": "text/html"}, body)
        elif content is None:
            self._send(404, b"", {}, body)
        else:
            self._send_file(content, body)

    def _send_file(self, content: bytes, body: bool) -> None:
        headers = {"ETag": f'"{hashlib.md5(content).hexdigest()}"'}
        asked = self.headers.get("Range")
        if self.server.ranged:
            headers["Accept-Ranges"] = "bytes"
        if not (asked and self.server.ranged):
            self._send(200, content, headers, body)
            return
        first, _, last = asked.removeprefix("bytes=").partition("-")
        part = content[int(first) : int(last) + 1]
        headers["Content-Range"] = f"bytes {first}-{int(first) + len(part) - 1}/{len(content)}"
        self._send(206, part, headers, body)

    def _send(self, status: int, content: bytes, headers: dict[str, str], body: bool) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.server.sent += len(content)
            self.wfile.write(content)


@contextmanager
def web_server(files: dict[str, bytes]) -> Iterator[WebServer]:
    """Serve files while the block runs."""
    server = WebServer(files)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.release.set()
        server.shutdown()
        server.server_close()
        thread.join()
