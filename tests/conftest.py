"""What several tests share: a home of their own, drawn images, the genuine ones if present."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: the tests run two at a time

import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from PIL import Image
from support import noise

pytest_plugins = ["pytester", "helpers.fixtures", "helpers.skips"]

hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None, max_examples=40)
hypothesis.settings.load_profile("repeatable")

S3_KEYS = {"AWS_ACCESS_KEY_ID": "AKIATEST", "AWS_SECRET_ACCESS_KEY": "SECRETTEST"}
REAL = Path(__file__).parents[2] / "shared" / "data"


def pytest_configure() -> None:
    """Listen to Ctrl-C: a shell that runs the tests in the background has it ignored by all."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep every test away from the user's cache and from the network."""
    # Not by mktemp, which looks through all of the homes of earlier tests.
    homes = tmp_path_factory.getbasetemp() / "homes"
    homes.mkdir(exist_ok=True)
    monkeypatch.setenv("VGGFEAT_HOME", tempfile.mkdtemp(dir=homes))
    monkeypatch.setenv("VGGFEAT_OFFLINE", "1")


@pytest.fixture(autouse=True)
def _own_signals() -> Iterator[None]:
    """Take back what an interrupted command leaves, whose process would be about to end."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def real_images() -> Path:
    """Genuine images beside the checkout; they may not be shipped."""
    if not REAL.is_dir():
        pytest.skip(f"genuine images are not at {REAL}")
    return REAL


@pytest.fixture
def draw(tmp_path: Path) -> Callable[..., Path]:
    """Draw a smooth random image to a file; its seed makes it what it is."""

    def to_file(name: str, width: int = 60, height: int = 44, seed: int = 0) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise(width, height, seed)).save(path)
        return path

    return to_file


@pytest.fixture(scope="session")
def _s3_server() -> Iterator[str]:
    moto = pytest.importorskip("moto.server", reason="moto[server] is not installed")
    pytest.importorskip("s3fs")
    server = moto.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(_s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a file system with the bucket ``pics``, as a user's environment leads to it."""
    import s3fs

    monkeypatch.delenv("VGGFEAT_OFFLINE")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", _s3_server)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    for name, value in S3_KEYS.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    fs = s3fs.S3FileSystem(use_listings_cache=False)
    if fs.exists("pics"):
        fs.rm("pics", recursive=True)
    fs.mkdir("pics")
    return fs
