"""Ctrl-C and SIGTERM, once and twice, in processes of their own."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

# A thread that is not done would be waited for at the end of the process.
COMMAND = """
import threading, time, typer
from vggfeat.cli.console import interruptible
app = typer.Typer()
@app.command()
def work():
    with interruptible(), interruptible():
        threading.Thread(target=time.sleep, args=(60,)).start()
        print("at work", flush=True)
        time.sleep(60)
app()
"""
STATUSES = [(signal.SIGINT, 130, "Interrupted. "), (signal.SIGTERM, 143, "Terminated. ")]


@pytest.fixture
def running() -> Iterator[subprocess.Popen[str]]:
    """Start a command, and wait until it is at work."""
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", COMMAND], stdout=pipe, stderr=pipe, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "at work\n"
        yield process
        process.kill()


@pytest.mark.parametrize(("number", "status", "said"), STATUSES)
def test_second_signal_ends_at_once(
    running: subprocess.Popen[str], number: int, status: int, said: str
) -> None:
    """While threads are waited for, a second one ends the process without another word."""
    assert running.stderr is not None
    running.send_signal(number)
    assert running.stderr.readline().startswith(said)
    running.send_signal(number)
    assert running.wait(20) == status
    assert "".join(running.stderr.read().split("go on where it stopped.")).strip() == ""


@pytest.mark.parametrize(("number", "status", "said"), STATUSES)
def test_two_signals_at_once_bring_one_message(
    running: subprocess.Popen[str], number: int, status: int, said: str
) -> None:
    """Wherever the second one comes, before, within or after the message, that is there once."""
    assert running.stderr is not None
    while running.poll() is None:
        running.send_signal(number)
    text = running.stderr.read()
    assert running.returncode == status
    assert text.count(said) == 1
    assert "Traceback" not in text
