"""Every campaign in short, and that a campaign counts what it loses."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fuzz import campaigns, running
from fuzz.campaign import OWNED, Campaign, Hostile
from fuzz.mutation import mutated

if TYPE_CHECKING:
    from fuzz.child import Guard

pytest.importorskip("resource", reason="limits of memory are POSIX's")
USUAL = 10
SHORT = {"weights": 25, "stores": 25, "names": 3, "downloads": 4}


def test_every_campaign_loses_nothing() -> None:
    """Crafted files first, then some mutated ones: each is read or refused within its limits."""
    wanted = [(name, SHORT.get(name, USUAL)) for name in campaigns.CAMPAIGNS]
    for tally in running.run(wanted):
        assert not tally.problems, f"{tally}\n{next(iter(tally.problems.values()))}"
        assert tally.tried == SHORT.get(tally.name, USUAL)


class Careless(Campaign):
    """Reads as no reader should: for ever, without bounds, with pickle, or not at all."""

    name = "careless"

    def prepare(self) -> list[bytes]:
        return [b""]

    def attempt(self, case: bytes) -> None:
        raise LookupError("a bare error")


def test_a_bare_error_and_code_that_is_run_are_lost(tmp_path: Path) -> None:
    """What is no error of vggfeat counts as lost, and so does a pickle that was loaded."""
    (tmp_path / "careless").mkdir()
    campaign = Careless(tmp_path / "careless")
    assert "LookupError: a bare error" in campaign.lost(0, 0)
    call, arguments = Hostile(campaign.folder).__reduce__()
    os.close(call(*arguments))
    assert (tmp_path / OWNED).exists()
    assert "code of the file was run" in campaign.lost(0, 1)
    assert not (tmp_path / OWNED).exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("crime", "word"),
    [
        ("while True: pass", "too long"),
        ("bytearray(8 << 30)", "MemoryError"),
        ("import os; os.abort()", "SIGABRT"),
        ("open('/tmp/vggfeat-escaped', 'w')", "wrote /tmp/vggfeat-escaped"),
        ("import subprocess; subprocess.run(['true'])", "subprocess.Popen"),
    ],
)
def test_limits_hold(
    crime: str, word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A case that takes for ever, all memory, the process or the file system is counted, alone."""
    (tmp_path / "sitecustomize.py").write_text(
        "import fuzz.texts\n"
        "class Bad(fuzz.texts.Xml):\n"
        "    seconds = 1.0\n"
        "    def attempt(self, case):\n"
        f"        if case == self.made[1]:\n            {crime}\n"
        "fuzz.texts.CAMPAIGNS[0].attempt = Bad.attempt\n"
        "fuzz.texts.CAMPAIGNS[0].seconds = 1.0\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    [tally] = running.run([("xml", 4)])
    assert str(tally) == "xml: tried 4, survived 3, lost 1"
    assert word in tally.problems[1]
    Path("/tmp/vggfeat-escaped").unlink(missing_ok=True)


@pytest.fixture
def guard(tmp_path: Path) -> Iterator[Guard]:
    """Watch what is done outside of the folder in/."""
    from fuzz.child import Guard  # which imports resource

    (tmp_path / "in").mkdir()
    (tmp_path / "in-beside").mkdir()
    for name in ("in/file", "in-beside/file"):
        (tmp_path / name).touch()
    guard = Guard(tmp_path / "in")
    yield guard
    guard.on = False  # Python forgets no hook


def renamed(folder: Path) -> None:
    (folder / "file").rename(folder / "other")


def renamed_by_number(folder: Path) -> None:
    number = os.open(folder, os.O_RDONLY)
    os.rename("file", "other", src_dir_fd=number, dst_dir_fd=number)
    os.close(number)


@pytest.mark.parametrize(
    ("touch", "times"),
    [
        (lambda folder: (folder / "file").write_bytes(b"x"), 1),
        (lambda folder: (folder / "new").mkdir(), 1),
        (renamed, 2),
        (renamed_by_number, 2),
        (lambda folder: (folder / "file").unlink(), 1),
        (lambda folder: (folder / "file").chmod(0o600), 1),
        (lambda folder: os.truncate(folder / "file", 3), 1),
        (lambda folder: os.utime(folder / "file", (1, 1)), 1),
        (lambda folder: shutil.copyfile(__file__, folder / "new"), 2),
        (lambda folder: shutil.rmtree(folder), 3),
    ],
)
def test_the_guard_sees_every_change_outside_and_none_inside(
    guard: Guard, touch: Callable[[Path], object], times: int, tmp_path: Path
) -> None:
    """Each change counts beside the folder, also where the name begins alike, and none in it."""
    for place, expected in (("in", 0), ("in-beside", times)):
        guard.on = True
        touch(tmp_path / place)
        guard.on = False
        assert len(guard.seen) == expected, guard.seen
        assert all(str(tmp_path / "in-beside") in one for one in guard.seen)


@pytest.mark.parametrize(("source", "target"), [("in", "in-beside"), ("in-beside", "in")])
def test_the_guard_sees_what_is_moved_out_or_in(
    guard: Guard, source: str, target: str, tmp_path: Path
) -> None:
    """Of a file's two names the one outside is noted."""
    guard.on = True
    (tmp_path / source / "file").replace(tmp_path / target / "file")
    guard.on = False
    assert guard.seen == [f"os.rename {tmp_path / 'in-beside' / 'file'}"]


def test_mutations_are_repeatable_and_differ() -> None:
    """The same dice make the same file; other dice another, of bounded size."""
    seeds = [bytes(range(256)), b"path,label\na.jpg,12\n"]
    made = [mutated(random.Random(number), seeds) for number in range(200)]
    assert made == [mutated(random.Random(number), seeds) for number in range(200)]
    assert len(set(made)) > 150
    assert max(map(len, made)) <= 1 << 20
