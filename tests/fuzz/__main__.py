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
        return _alone(names[0], asked.case, asked.seed)
    lost = 0
    with ThreadPoolExecutor(2) as pool:
        plans = [[(name, asked.cases or CAMPAIGNS[name].cases)] for name in names]
        for tallies in pool.map(lambda plan: run(plan, asked.seed), plans):
            print(tallies[0], flush=True)
            for number, problem in list(tallies[0].problems.items())[:5]:
                print(f"  case {number}: {problem.strip()}", file=sys.stderr)
            lost += len(tallies[0].problems)
    return 1 if lost else 0


def _alone(name: str, number: int, seed: int) -> int:
    with tempfile.TemporaryDirectory() as above:
        folder = Path(above, name.replace(" ", "-"))
        folder.mkdir()
        problem = CAMPAIGNS[name](folder).lost(seed, number)
    print(problem or "survived")
    return 1 if problem else 0


if __name__ == "__main__":
    sys.exit(main())
