"""Campaigns in processes of their own, begun anew where one died, and counted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

TESTS = Path(__file__).parents[1]
ROOT = TESTS.parent
Plan = list[tuple[str, int, int]]


@dataclass
class Tally:
    """What came of a campaign."""

    name: str
    tried: int = 0
    problems: dict[int, str] = field(default_factory=dict)

    def __str__(self) -> str:
        lost = len(self.problems)
        return f"{self.name}: tried {self.tried:,}, survived {self.tried - lost:,}, lost {lost}"


def run(wanted: Sequence[tuple[str, int]], seed: int = 0) -> list[Tally]:
    """Try so many cases of each campaign, one campaign after the other."""
    tallies = {name: Tally(name) for name, _ in wanted}
    plan: Plan = [(name, 0, cases) for name, cases in wanted]
    while plan:
        plan = _rest(plan, tallies, seed)
    return list(tallies.values())


def _rest(plan: Plan, tallies: dict[str, Tally], seed: int) -> Plan:
    """Go on with a plan until it is done or its process dies; return what is left of it."""
    with tempfile.TemporaryDirectory(prefix="vggfeat-fuzz-") as folder:
        status, said, complaint = _child(plan, folder, seed)
        at = _where(Path(folder, "at"))
    for line in said:
        told = json.loads(line)
        tallies[told["name"]].problems[told["number"]] = told["problem"]
    if status == 0:
        for name, first, cases in plan:
            tallies[name].tried += cases - first
        return []
    name, number = at
    if number < 0:
        raise RuntimeError(f"the campaign {name} could not begin:\n{complaint}")
    place = [one for one, _, _ in plan].index(name)
    for done, first, cases in plan[:place]:
        tallies[done].tried += cases - first
    tallies[name].tried += number + 1 - plan[place][1]
    tallies[name].problems[number] = f"the process died: {_death(status)}\n{complaint[-1500:]}"
    return [(name, number + 1, plan[place][2]), *plan[place + 1 :]]


def _where(told: Path) -> tuple[str, int]:
    """Read at which case a process was."""
    if not told.exists():
        return "", -1
    name, _, number = told.read_text().strip().rpartition(" ")
    return name, int(number)


def _child(plan: Plan, folder: str, seed: int) -> tuple[int, list[str], str]:
    home = Path(folder, "home")
    home.mkdir()
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(TESTS), os.environ.get("PYTHONPATH", "")]),
        "VGGFEAT_HOME": str(home),
        "VGGFEAT_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "MALLOC_ARENA_MAX": "2",  # of each thread's, or the limit counts what nobody uses
    }
    asked = json.dumps({"folder": folder, "campaigns": plan, "seed": seed})
    done = subprocess.run(
        # No attempt may write a file: what one imports leaves no byte code.
        [sys.executable, "-B", "-X", "faulthandler", "-m", "fuzz.child"],
        input=asked,
        capture_output=True,
        text=True,
        errors="replace",
        env=environment,
        cwd=folder,
    )
    return done.returncode, done.stdout.splitlines(), done.stderr


def _death(status: int) -> str:
    if status == -signal.SIGALRM:
        return "it took too long"
    return signal.Signals(-status).name if status < 0 else f"exit status {status}"
