"""Run cases and write what they find: ``python -m golden.collect --out FOLDER [--case G11 …]``.

Of each case a JSON file and, where it has arrays, an ``.npz``; `golden.strict` compares two such
folders.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np

from golden.case import Case, Taken, select, take
from golden.inputs import Shared

ABOUT = "about.json"


def main(words: list[str] | None = None) -> int:
    """Run the cases; return the exit status."""
    import vggfeat

    parser = argparse.ArgumentParser(prog="python -m golden.collect", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--case", nargs="*", default=[], help="numbers or names; all by default")
    asked = parser.parse_args(words)
    asked.out.mkdir(parents=True, exist_ok=True)
    about = {"vggfeat": str(Path(vggfeat.__file__).resolve()), "version": vggfeat.__version__}
    (asked.out / ABOUT).write_text(json.dumps(about), "utf-8")
    with tempfile.TemporaryDirectory(prefix="golden-") as folder:
        shared = Shared(Path(folder))
        for case in select(asked.case):
            taken = take(case, shared)
            save(asked.out, case, taken)
            print(f"{case.name}  {taken.seconds:.1f} s", file=sys.stderr, flush=True)
    return 0


def save(folder: Path, case: Case, taken: Taken) -> None:
    """Write what one case found."""
    content = {
        "command": case.command,
        "inputs_sha256": taken.inputs_sha256,
        "margins": taken.margins,
        "tolerance": dict(case.tolerance),
        "values": taken.values,
    }
    text = json.dumps(content, indent=1, sort_keys=True)
    (folder / f"{case.name}.json").write_text(text, "utf-8")
    if taken.arrays:
        # Names of arrays have slashes, which a name in an archive may have too.
        np.savez(folder / f"{case.name}.npz", **taken.arrays)


if __name__ == "__main__":
    raise SystemExit(main())
