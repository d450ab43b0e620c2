"""Campaigns in processes of their own, watched, begun anew where one died, and counted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fuzz.campaigns import CAMPAIGNS

TESTS = Path(__file__).parents[1]
MEMORY = 4 << 30  # bytes that a process may take beyond what it has at first
# Of sys.audit: what no file that is read may ever cause, and what may change files in its folder.
FORBIDDEN = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "subprocess.Popen")
FORBIDDEN += ("pickle.find_class", "socket.connect", "socket.getaddrinfo", "os.symlink", "os.link")
CHANGING = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.truncate")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


@dataclass
class Tally:
    """What came of a campaign; it stopped at files that never end, which no reader need survive."""

    name: str
    tried: int = 0
    stopped: int = 0
    problems: dict[int, str] = field(default_factory=dict)

    def __str__(self) -> str:
        lost = len(self.problems)
        told = f"{self.name}: tried {self.tried:,}, survived {self.tried - lost:,}, lost {lost}"
        return told + f", of which {self.stopped} never ended" * bool(self.stopped)


def run(wanted: dict[str, int], seed: int = 0) -> list[Tally]:
    """Try so many cases of each campaign, one campaign after the other."""
    tallies = {name: Tally(name) for name in wanted}
    plan = [(name, 0, cases) for name, cases in wanted.items()]
    while plan:
        status, lines, complaint = _run_child(plan, seed)
        for told in map(json.loads, lines):
            tally = tallies[told["name"]]
            if "problem" in told:
                tally.problems[told["number"]] = told["problem"]
            else:
                tally.tried += 1
        if status == 0:
            break
        if not lines:
            raise RuntimeError(f"the campaigns could not begin:\n{complaint}")
        name, number = told["name"], told["number"]
        if status == -signal.SIGALRM:
            tallies[name].stopped += 1
        else:
            why = signal.Signals(-status).name if status < 0 else f"exit status {status}"
            tallies[name].problems[number] = f"the process died: {why}\n{complaint[-1500:]}"
        place = [one for one, _, _ in plan].index(name)
        plan = [(name, number + 1, plan[place][2]), *plan[place + 1 :]]
    return list(tallies.values())


def _run_child(plan: list[tuple[str, int, int]], seed: int) -> tuple[int, list[str], str]:
    with tempfile.TemporaryDirectory(prefix="vggfeat-fuzz-") as folder:
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS), *sys.path]),
            "VGGFEAT_HOME": folder,
            "VGGFEAT_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            "MALLOC_ARENA_MAX": "2",  # of each thread's, or the limit counts what nobody uses
        }
        done = subprocess.run(
            # No attempt may write a file: what one imports leaves no byte code.
            [sys.executable, "-B", "-X", "faulthandler", "-m", "fuzz.running"],
            input=json.dumps([plan, seed]),
            capture_output=True,
            text=True,
            errors="replace",
            env=environment,
            cwd=folder,
        )
    return done.returncode, done.stdout.splitlines(), done.stderr


class Guard:
    """Notes what an attempt did that no attempt may do."""

    def __init__(self, folder: Path) -> None:
        self.inside = (folder, Path(os.devnull))
        self.on = False
        self.allowed: tuple[str, ...] = ()
        self.seen: list[str] = []
        sys.addaudithook(self._hear)

    def _hear(self, event: str, args: tuple[Any, ...]) -> None:
        if not self.on:
            return
        writes = event == "open" and isinstance(args[2], int) and args[2] & WRITING
        if event in FORBIDDEN and event not in self.allowed:
            self.seen.append(f"{event} {args}"[:300])
        # A number is a file that is open already: that was heard when it was opened.
        elif (writes or event in CHANGING) and not isinstance(args[0], int):
            path = Path(os.path.abspath(os.fsdecode(args[0])))  # noqa: PTH100  # follows no link
            if not any(path.is_relative_to(place) for place in self.inside):
                self.seen.append(f"{event} {path}")


def _try_all(plan: list[tuple[str, int, int]], seed: int) -> None:
    """Try cases one after the other in this process; print where it is, and what was lost."""
    import resource

    folder = Path.cwd()
    guard = Guard(folder)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for name, first, cases in plan:
        (folder / name).mkdir()
        campaign = CAMPAIGNS[name](folder / name)
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))
        guard.allowed = campaign.allowed
        for number in range(first, cases):
            told = {"name": name, "number": number}
            print(json.dumps(told), flush=True)
            signal.setitimer(signal.ITIMER_REAL, campaign.seconds)
            guard.on = True
            problem = campaign.lost(seed, number)
            guard.on = False
            signal.setitimer(signal.ITIMER_REAL, 0)
            if guard.seen:
                problem += f"it did what no file may cause: {guard.seen[:3]}"
                guard.seen.clear()
            if problem:
                print(json.dumps({**told, "problem": problem}), flush=True)


if __name__ == "__main__":
    _try_all(*json.load(sys.stdin))
