"""The command line as a user types it: in this process, or in one of its own."""

from __future__ import annotations

import contextvars
import io
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack, chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

WIDTH = {"COLUMNS": "200"}
"""Wide enough that no line of a message is broken."""


@dataclass(frozen=True)
class Ran:
    """What a command printed and how it ended."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Parse standard output."""
        return json.loads(self.out)


def run(
    *words: str | Path,
    status: int = 0,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: bytes = b"",
) -> Ran:
    """Run ``vggfeat WORDS`` in this process, through `main`, and check its exit status."""
    from vggfeat.cli import main

    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    with ExitStack() as stack:
        stack.enter_context(mock.patch.dict(os.environ, {**WIDTH, **(env or {})}))
        stack.enter_context(mock.patch.object(sys, "argv", ["vggfeat", *map(str, words)]))
        stack.enter_context(
            mock.patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), "utf-8"))
        )
        if cwd is not None:
            stack.enter_context(chdir(cwd))
        stack.enter_context(redirect_stdout(out))
        stack.enter_context(redirect_stderr(err))
        try:
            # A context of its own: what a command sets for itself ends with it.
            contextvars.copy_context().run(main)
        except SystemExit as ended:
            ended_with = ended.code if isinstance(ended.code, int) else int(bool(ended.code))
        else:
            ended_with = 0
    out.seek(0)
    err.seek(0)
    return _checked(Ran(ended_with, out.read(), err.read()), status, words)


def run_process(
    *words: str | Path,
    status: int = 0,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: bytes = b"",
) -> Ran:
    """Run ``vggfeat WORDS`` in a process of its own; for signals, start-up and encodings."""
    done = subprocess.run(
        [sys.executable, "-m", "vggfeat", *map(str, words)],
        cwd=cwd,
        env={**os.environ, **WIDTH, **(env or {})},
        input=stdin,
        capture_output=True,
    )
    ran = Ran(done.returncode, done.stdout.decode(), done.stderr.decode())
    return _checked(ran, status, words)


def _checked(ran: Ran, status: int, words: tuple[str | Path, ...]) -> Ran:
    assert ran.status == status, f"vggfeat {' '.join(map(str, words))}\n{ran.out}{ran.err}"
    return ran
