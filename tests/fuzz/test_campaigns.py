"""Every campaign in short, and that a campaign counts what it loses."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from fuzz import campaigns, running
from fuzz.campaign import OWNED, Campaign, Hostile
from fuzz.mutation import mutated

pytest.importorskip("resource", reason="limits of memory are POSIX's")
SHORT = {"weights": 25, "stores": 25, "names": 3}


def test_every_campaign_loses_nothing() -> None:
    """Crafted files first, then some mutated ones: each is read or refused, and does no harm."""
    wanted = {name: SHORT.get(name, 10) for name in campaigns.CAMPAIGNS}
    for tally in running.run(wanted):
        assert not tally.problems, f"{tally}\n{next(iter(tally.problems.values()))}"
        assert tally.tried == wanted[tally.name]


class Careless(Campaign):
    """Reads as no reader should."""

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


@pytest.mark.parametrize(
    ("touch", "crime"),
    [
        (lambda folder: (folder / "file").write_bytes(b"x"), "open"),
        (lambda folder: (folder / "new").mkdir(), "os.mkdir"),
        (lambda folder: (folder / "file").rename(folder / "other"), "os.rename"),
        (lambda folder: (folder / "file").unlink(), "os.remove"),
        (lambda folder: shutil.copyfile(__file__, folder / "new"), "open"),
        (lambda folder: (folder / "link").symlink_to(folder), "os.symlink"),
        (lambda folder: subprocess.run(["true"], cwd=folder), "subprocess.Popen"),
    ],
)
def test_the_guard_sees_what_is_done_outside(
    touch: Callable[[Path], object], crime: str, tmp_path: Path
) -> None:
    """A change beside the folder, also where the name begins alike; links and programs always."""
    for name in ("in", "in-beside"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    guard = running.Guard(tmp_path / "in")
    for place in ("in", "in-beside"):
        guard.on = True
        touch(tmp_path / place)
        guard.on = False  # Python forgets no hook
        if place == "in" and crime not in running.FORBIDDEN:
            assert guard.seen == []
    assert guard.seen
    assert guard.seen[0].startswith(crime)


def test_mutations_are_repeatable_and_differ() -> None:
    """The same dice make the same file; other dice another, of bounded size."""
    seeds = [bytes(range(256)), b"path,label\na.jpg,12\n"]
    made = [mutated(random.Random(number), seeds) for number in range(200)]
    assert made == [mutated(random.Random(number), seeds) for number in range(200)]
    assert len(set(made)) > 150
    assert max(map(len, made)) <= 1 << 20
