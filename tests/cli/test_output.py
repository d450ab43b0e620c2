"""What is shown while commands work."""

from __future__ import annotations

import io
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from helpers.cli import Ran, run, run_process
from packing import jpeg

from vggfeat import cli
from vggfeat._io import progress
from vggfeat.cli import console
from vggfeat.errors import DownloadError, FingerprintMismatch, MissingExtra, VggfeatError
from vggfeat.report.tables import render_facts

# Each ends a line, moves the cursor or turns the text round, somewhere.
HOSTILE = "y\nModel: safe.png\r\t\v\f\x1b[2J\x85\u2028\u2029\u202e[red][/]"
SHOWN = (
    r"y\nModel: safe.png\r\t\x0b\x0c\x1b[2J\x85\u2028\u2029\u202e[red][/]"  # as Python writes it
)


def test_progress_in_a_file_is_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where stderr is no terminal, as on a cluster, a log tells how far the work is meanwhile."""
    clock = iter(range(0, 1000, 20))
    monkeypatch.setattr(progress, "monotonic", lambda: next(clock))
    with console.count_progress("localize", quiet=False) as tell:
        assert tell is not None
        told = []
        for done in range(1, 5):
            tell(done, 9)
            told.append(capsys.readouterr().err)
    assert sum("/9" in line for line in told) in (1, 2, 3)
    assert all(line.count("\n") <= 1 for line in told)
    assert "localize" in "".join(told)


class _Terminal(io.StringIO):
    """Keeps what a terminal is sent."""

    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_one_bar_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bar within another's work takes its place meanwhile; notes have lines of their own."""
    terminal = _Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with console.count_progress("localize", quiet=False) as tell:
        assert tell is not None
        tell(1, 2)
        with console.download_progress(quiet=False):
            pass  # nothing was downloaded, and nothing is shown of it
        with console.work_progress("classify", quiet=False) as work:
            assert work.splits is not None
            work.splits(1, 2)
            console.note("Warning: bad")
        tell(2, 2)
    sent = re.sub(r"\x1b\[[0-9;]*m|\x1b\[\?25[hl]", "", terminal.getvalue())
    words = [
        set(re.findall("localize|train and test|Warning|download", line))
        for line in re.split(r"\n|\x1b\[2K", sent)
    ]
    assert {word for line in words for word in line} == {"localize", "train and test", "Warning"}
    assert all(len(line) <= 1 for line in words)


def test_a_result_has_lines_of_its_own_while_a_bar_is_drawn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A row of a table that is printed in the midst of the work does not go on behind the bar."""
    terminal = _Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with console.count_progress("localize", quiet=False) as tell:
        assert tell is not None
        console.show({}, "a row", as_json=False)
        console.show({"row": 1}, as_json=True)
        tell(1, 1)
    sent = re.sub(r"\x1b\[[0-9;]*m|\x1b\[\?25[hl]", "", terminal.getvalue())
    lines = re.split(r"\n|\x1b\[2K", sent)
    assert [line for line in lines if "row" in line] == ["a row", '  "row": 1']
    assert "1/1" in lines[-2]


def test_an_interrupted_download_says_no_more_than_what_is_kept(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Work that begins anew, as that of `localize`, is not said to go on where it stopped."""
    with pytest.raises(typer.Exit) as stop, console.download_progress(quiet=True):
        raise KeyboardInterrupt
    assert stop.value.exit_code == console.INTERRUPTED
    said = capsys.readouterr().err
    assert "where it stopped" not in said
    assert "goes on with a download" in said


def test_epochs_in_a_file_are_in_their_order(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is over stands above what follows it, and once; now and then a line between."""
    clock = iter(range(0, 1000, 40))
    monkeypatch.setattr(progress, "monotonic", lambda: next(clock))
    with console.progress_bar() as bar:
        for epoch in (1, 2, 3):
            console.settle(bar)
            task = bar.add_task(f"epoch {epoch}", total=2)
            for done in (1, 2):
                bar.update(task, completed=done)
    lines = [line.split()[1] for line in capsys.readouterr().err.splitlines() if "epoch" in line]
    assert lines == sorted(lines)
    assert set(lines) == {"1", "2", "3"}


def test_a_name_says_no_line_of_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In notes, errors, tables, results and progress all that acts in a name is an escape."""
    monkeypatch.setenv("COLUMNS", "300")
    console.note(f"Warning: {HOSTILE}: not an image")
    console.note_error(f"Error: {HOSTILE}", VggfeatError(f"{HOSTILE} is damaged.", "Remove it."))
    assert capsys.readouterr().err.splitlines() == [
        f"Warning: {SHOWN}: not an image",
        f"Error: {SHOWN}: {SHOWN} is damaged.",
        "Remove it.",
    ]
    parts = (HOSTILE, render_facts({HOSTILE: HOSTILE}), console.grid([HOSTILE], [[HOSTILE]]))
    console.show({}, *parts, as_json=False)
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    ruled = [line for line in lines if line and not set(line) <= {"\u2500"}]
    assert ruled == [SHOWN, f"{SHOWN}  {SHOWN}", SHOWN, SHOWN]
    monkeypatch.setenv("FORCE_COLOR", "1")  # a terminal, where it is seen that work goes on
    with console.spinner(f"Verifying {HOSTILE}", quiet=False):
        pass
    assert f"Verifying {SHOWN}" in capsys.readouterr().err


def test_what_has_several_lines_on_purpose_keeps_them(capsys: pytest.CaptureFixture[str]) -> None:
    """A list of facts has a line for each; so has an error, also one that another process sent."""
    console.show({}, render_facts({"files": ["one", "two"]}), as_json=False)
    assert [line.split()[-1] for line in capsys.readouterr().out.splitlines()] == ["one", "two"]
    for kind in (DownloadError, MissingExtra):
        error = pickle.loads(pickle.dumps(kind("a", "b\nc")))
        assert (error.lines, str(error)) == (("a", "b\nc"), "a\nb\nc")
    differ = pickle.loads(pickle.dumps(FingerprintMismatch("a\nb")))
    assert differ.lines == ("a", "b")


OF_MEMORY = [
    (MemoryError(), "MemoryError"),
    (RuntimeError("Check 'ptr' failed\nFailed to allocate 8 bytes of memory\n"), "Failed to"),
    (RuntimeError("[CPU] MaxPool can't alloc"), "--workers"),
    (ImportError("libtorch_cpu.so: failed to map segment from shared object"), "libraries"),
    (OSError("libgomp.so: failed to map segment from shared object"), "ulimit -v unlimited"),
]
OF_SOMETHING_ELSE = [
    ImportError("libx.so: cannot allocate memory in static TLS block"),
    RuntimeError("shapes do not match"),
]


def run_until(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> Ran:
    """Run a command line that ends with an error, and with status 1."""

    def app() -> None:
        raise error

    monkeypatch.setattr(cli, "app", app)
    return run(status=1)


@pytest.mark.parametrize(("error", "said"), OF_MEMORY, ids=[said for _, said in OF_MEMORY])
def test_a_lack_of_memory_is_told_in_a_line(
    error: BaseException, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each library says in its own words that memory ran out; the command says it in ours."""
    told = run_until(monkeypatch, error).err
    assert said in told
    assert told.count("\n") == 1


@pytest.mark.parametrize("error", OF_SOMETHING_ELSE, ids=str)
def test_an_error_of_another_kind_is_not_taken_for_it(
    error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What no advice about memory would help is shown as it is."""
    with pytest.raises(type(error)):
        run_until(monkeypatch, error)


def test_what_is_no_number_is_no_json() -> None:
    """Nothing is printed that a machine cannot read."""
    with pytest.raises(ValueError, match="JSON"):
        console.show({"error": float("nan")}, as_json=True)


ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
"""A locale in which Python takes names of files for ASCII."""


def test_names_are_the_same_in_every_locale(tmp_path: Path) -> None:
    """Those of files in UTF-8 and in no UTF-8, of folders and of lists; nothing is computed twice.

    A terminal that lacks a letter is shown an escape.
    """
    names = ["für/ä.jpg", os.fsdecode(b"caf\xe9.jpg")]
    for number, name in enumerate(names):
        (tmp_path / "d" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "d" / name).write_bytes(jpeg(number))
    (tmp_path / "d" / "ü.txt").touch()
    (tmp_path / "list.csv").write_text("path\nd/für/ä.jpg\n", "utf-8")
    words = ("--layer", "pool1", "--Q", "32", "--weights", "embedded", "--out", "st", "--json")
    here = run("extract", "d", *words, cwd=tmp_path)
    there = run_process("extract", "d", "list.csv", *words, cwd=tmp_path, env=ASCII)
    assert (there.json["present"], there.json["computed"]) == (2, 0)
    assert "d/ü.txt" in here.err
    run_process("store", "export", "st", "x.csv", "--quiet", cwd=tmp_path, env=ASCII)
    exported = (tmp_path / "x.csv").read_bytes()
    assert all(b"d/" + os.fsencode(name) in exported for name in names)
    code = "from vggfeat import find_images; assert find_images(['list.csv']).images[0].exists()"
    subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={**os.environ, **ASCII}, check=True
    )
