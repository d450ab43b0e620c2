"""Compare the working tree with a version before it: ``make golden-ab [BASE=ref] [NEW=allowed]``.

The version is the commit that last changed tests/golden/GUARD. Its wheel is built and installed
beside the working tree, its own golden cases are run, then those of the working tree, in the same
Python with the same torch.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from golden.case import HERE
from golden.collect import ABOUT
from golden.environment import lacking
from golden.rules import Verdict, table
from golden.strict import strict

ROOT = HERE.parents[1]
GUARD = "tests/golden/GUARD"


def main(words: list[str]) -> int:
    """Build, collect twice, compare; return the exit status."""
    if lacking():
        print(f"Set {lacking()}, as make golden-ab does.", file=sys.stderr)
        return 1
    commit = guard_commit(words[0] if words else None)
    print(f"Comparing with {_git('log', '-1', '--format=%h %s', commit)}", flush=True)
    build = ROOT / "build" / "guard"
    checkout, site = install(commit, build)
    collect(checkout / "tests", site, build / "values")
    collect(ROOT / "tests", ROOT, build / "now")
    return conclude(strict(build / "values", build / "now"))


def conclude(verdicts: Mapping[str, list[Verdict]]) -> int:
    """Print what was found; return 1 if a value differs, or a whole case was not compared.

    With NEW=allowed in the environment, as make puts it there, a case may be new.
    """
    print(report(verdicts))
    new = [name for name, several in verdicts.items() if not several]
    if os.environ.get("NEW") == "allowed":
        new = []
    for name in new:
        print(
            f"{name}: the guard lacks it, so nothing was compared. Name a guard that has it with "
            "BASE=ref; if the case is newer than the guard: make golden-ab NEW=allowed"
        )
    return int(bool(new) or any(not v.holds for several in verdicts.values() for v in several))


def guard_commit(base: str | None) -> str:
    """Find the commit to compare with."""
    if base:
        return _git("rev-parse", "--verify", f"{base}^{{commit}}")
    return _git("log", "-1", "--format=%H", "--", GUARD)


def install(commit: str, build: Path) -> tuple[Path, Path]:
    """Check a commit out and install its wheel, unless that is done: checkout and site."""
    checkout, site, done = build / "checkout", build / "site", build / "commit"
    if done.exists() and done.read_text("utf-8") == commit:
        return checkout, site
    shutil.rmtree(build, ignore_errors=True)
    checkout.mkdir(parents=True)
    archive = build / "source.tar"
    _git("archive", "--format=tar", f"--output={archive}", commit)
    shutil.unpack_archive(archive, checkout, "tar", filter="data")
    dist = build / "dist"
    _python("-m", "build", "--wheel", "--no-isolation", "--outdir", dist, checkout)
    [wheel] = dist.glob("*.whl")
    _python("-m", "pip", "install", "--quiet", "--no-deps", "--target", site, wheel)
    done.write_text(commit, "utf-8")
    return checkout, site


def collect(tests: Path, site: Path, out: Path) -> None:
    """Run the cases of a checkout with the vggfeat of a folder.

    Raises
    ------
    RuntimeError
        If another vggfeat was imported.
    """
    shutil.rmtree(out, ignore_errors=True)
    environment = {**os.environ, "PYTHONPATH": str(site)}
    _python("-m", "golden.collect", "--out", out, cwd=tests, env=environment)
    imported = json.loads((out / ABOUT).read_text("utf-8"))["vggfeat"]
    if not Path(imported).is_relative_to(site.resolve()):
        raise RuntimeError(f"vggfeat was imported from {imported}, not from {site}.")


def report(verdicts: Mapping[str, list[Verdict]]) -> str:
    """Write a line for each case, and the first misses of all."""
    lines, missed = [], []
    for name, several in verdicts.items():
        misses = [verdict for verdict in several if not verdict.holds]
        missed += [Verdict(f"{name} {v.path}", v.kept, v.found, v.delta, v.allowed) for v in misses]
        most = max((v.used for v in several), default=0.0)
        said = f"{len(several):5} values, {len(misses)} misses, {most:.2g} of what is allowed"
        lines.append(f"{name:24} {said if several else 'new: not compared'}")
    return "\n".join([*lines, *([table(missed)] if missed else [])])


def _git(*words: str | Path) -> str:
    done = subprocess.run(["git", *words], cwd=ROOT, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def _python(*words: str | Path, cwd: Path = ROOT, env: Mapping[str, str] | None = None) -> None:
    subprocess.run([sys.executable, *words], cwd=cwd, env=env, check=True)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
