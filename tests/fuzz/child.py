"""The process in which cases are tried: with limits, and no other process or network."""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any

from fuzz.campaign import Campaign
from fuzz.campaigns import CAMPAIGNS

# Of sys.audit: what no file that is read may ever cause.
FORBIDDEN = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "subprocess.Popen")
FORBIDDEN += ("pickle.find_class", "socket.connect", "socket.getaddrinfo", "os.symlink", "os.link")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
# What else changes files, where it is allowed: at which places its arguments have a path, and the
# folder that a relative one is meant in, if there may be one.
CHANGING: dict[str, tuple[tuple[int, int | None], ...]] = {
    "os.chmod": ((0, 2),),
    "os.chown": ((0, 3),),
    "os.link": ((0, 2), (1, 3)),
    "os.mkdir": ((0, 2),),
    "os.remove": ((0, 1),),
    "os.removexattr": ((0, None),),
    "os.rename": ((0, 2), (1, 3)),
    "os.rmdir": ((0, 1),),
    "os.setxattr": ((0, None),),
    "os.truncate": ((0, None),),
    "os.utime": ((0, 3),),
    "shutil.chown": ((0, None),),
    "shutil.copyfile": ((1, None),),
    "shutil.copymode": ((1, None),),
    "shutil.copystat": ((1, None),),
    "shutil.copytree": ((1, None),),
    "shutil.make_archive": ((0, None),),
    "shutil.move": ((0, None), (1, None)),
    "shutil.rmtree": ((0, 1),),
    "shutil.unpack_archive": ((1, None),),
}


class Guard:
    """Notes what an attempt did that no attempt may do."""

    def __init__(self, folder: Path) -> None:
        inside = (folder, Path(os.environ["VGGFEAT_HOME"]), Path(os.devnull))
        self.inside = {*inside, *(path.resolve() for path in inside)}
        self.on = False
        self.allowed: tuple[str, ...] = ()
        self.seen: list[str] = []
        sys.addaudithook(self._heard)

    def _heard(self, event: str, args: tuple[Any, ...]) -> None:
        if not self.on:
            return
        if event in FORBIDDEN and event not in self.allowed:
            self.seen.append(f"{event} {args}"[:300])
        elif event == "open":
            # A number is a file that is open already: that was heard when it was opened.
            if isinstance(args[2], int) and args[2] & WRITING and not isinstance(args[0], int):
                self._touched("wrote", _meant(args[0]))
        else:
            for path, folder in CHANGING.get(event, ()):
                self._touched(event, _meant(args[path], None if folder is None else args[folder]))

    def _touched(self, how: str, path: Path) -> None:
        if not any(path.is_relative_to(place) for place in self.inside):
            self.seen.append(f"{how} {path}")


def _meant(path: int | str | bytes | os.PathLike[Any] | None, folder: int | None = None) -> Path:
    """Find the file that a call is about, which it may name by an open file's number."""
    if isinstance(path, int):
        return _opened(path)
    above = Path.cwd() if folder is None or folder < 0 else _opened(folder)
    # No link is followed, which takes seconds in deep trees: an attempt may make none.
    return Path(os.path.normpath(above / os.fsdecode(path or "")))


def _opened(number: int) -> Path:
    return Path(f"/proc/self/fd/{number}").readlink()


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
