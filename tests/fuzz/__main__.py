"""Run the campaigns: python -m fuzz [NAME …] [--cases N] [--seed S] [--case NUMBER]."""

from __future__ import annotations

import argparse
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fuzz.campaigns import CAMPAIGNS
from fuzz.running import run


def main() -> int:
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(CAMPAIGNS))
    parser.add_argument("--cases", type=int, help="of each campaign; its own number by default")
    parser.add_argument("--seed", type=int, default=0, help="another seed draws other cases")
    parser.add_argument("--case", type=int, help="try this case alone, here and without limits")
    asked = parser.parse_args()
    names = asked.names or list(CAMPAIGNS)
    if unknown := set(names) - set(CAMPAIGNS):
        parser.error(f"there is no campaign {min(unknown)!r}")
    if asked.case is not None:
        with tempfile.TemporaryDirectory() as folder:
            problem = CAMPAIGNS[names[0]](Path(folder)).lost(asked.seed, asked.case)
        print(problem or "survived")
        return bool(problem)
    lost = 0
    with ThreadPoolExecutor(2) as pool:
        plans = [{name: asked.cases or CAMPAIGNS[name].cases} for name in names]
        for [tally] in pool.map(lambda plan: run(plan, asked.seed), plans):
            print(tally, flush=True)
            for number, problem in list(tally.problems.items())[:5]:
                print(f"  case {number}: {problem.strip()}", file=sys.stderr)
            lost += len(tally.problems)
    return bool(lost)


if __name__ == "__main__":
    sys.exit(main())
