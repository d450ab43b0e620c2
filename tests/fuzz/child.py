"""The process in which cases are tried: with limits, and no other process or network."""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any

from fuzz.campaign import OWNED, Campaign
from fuzz.campaigns import CAMPAIGNS

# Of sys.audit: what no file that is read may ever cause.
FORBIDDEN = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "subprocess.Popen")
FORBIDDEN += ("pickle.find_class", "socket.connect", "socket.getaddrinfo", "os.symlink", "os.link")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Guard:
    """Notes what an attempt did that no attempt may do."""

    def __init__(self, folder: Path) -> None:
        self.inside = (str(folder), os.environ["VGGFEAT_HOME"], "/dev/")
        self.owned = str(folder / OWNED)
        self.on = False
        self.allowed: tuple[str, ...] = ()
        self.seen: list[str] = []
        sys.addaudithook(self._heard)

    def _heard(self, event: str, args: tuple[Any, ...]) -> None:
        if not self.on:
            return
        if event in FORBIDDEN and event not in self.allowed:
            self.seen.append(f"{event} {args}"[:300])
        elif event == "open" and isinstance(args[2], int) and args[2] & WRITING:
            path = (
                "/dev/" if isinstance(args[0], int) else str(Path(os.fsdecode(args[0])).resolve())
            )
            if not path.startswith(self.inside):
                self.seen.append(f"wrote {path}")


def limit(memory: int) -> None:
    """Allow so much memory beyond what this process has now, and no core files."""
    with Path("/proc/self/statm").open() as file:
        pages = int(file.read().split()[0])
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + memory, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def tried(campaign: Campaign, first: int, cases: int, seed: int, guard: Guard, at: int) -> int:
    """Try cases one after the other; print those that are lost; return how many there were."""
    lost = 0
    guard.allowed = getattr(campaign, "allowed", ())
    limit(campaign.memory)
    for number in range(first, cases):
        # Where this process was, should it die: a signal leaves no time to say so.
        _tell(at, campaign.name, number)
        signal.setitimer(signal.ITIMER_REAL, campaign.seconds)
        guard.on = True
        problem = campaign.lost(seed, number)
        guard.on = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        if guard.seen:
            problem += f"it did what no file may cause: {guard.seen[:3]}"
            guard.seen.clear()
        if problem:
            lost += 1
            told = {"name": campaign.name, "number": number, "problem": problem}
            print(json.dumps(told), flush=True)
    return lost


def _tell(at: int, name: str, number: int) -> None:
    os.pwrite(at, f"{name} {number}".ljust(80).encode(), 0)


def main() -> None:
    """Try the campaigns of the plan on standard input: names with first case and number."""
    plan = json.load(sys.stdin)
    folder = Path(plan["folder"])
    at = os.open(folder / "at", os.O_RDWR | os.O_CREAT)
    guard = Guard(folder)
    for name, first, cases in plan["campaigns"]:
        own = folder / name.replace(" ", "-")
        own.mkdir(exist_ok=True)
        _tell(at, name, -1)
        tried(CAMPAIGNS[name](own), first, cases, plan["seed"], guard, at)
        _tell(at, name, cases)


if __name__ == "__main__":
    main()
