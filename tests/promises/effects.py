"""Options whose value is seen in what a command prints or writes: a check for each.

Each command runs on a few small files (`inputs`), with small nets where it needs whole ones.
"""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from shutil import rmtree
from typing import Any

from helpers.cli import Ran, run
from PIL import Image

from vggfeat.store.store import FeatureStore

Check = Callable[[str], None]
SMALL = {
    "extract": "photos --weights embedded --layer pool1 --Q 32 --out kept",
    "svm": "--dataset classes --weights embedded --layer pool1 --Q 32 --jobs 1",
    "run": "table.toml --jobs 1",
    "predict": "model photos",
    "explain": "model photos/a.png --class cat",
    "classify": "photos --weights colours-D.safetensors --Q 224",
    "fuse": "scores-D --out fused",
    "train": "--data classes --out a --S 224 --batch 4 --epochs 1 --workers 0",
    "localize train": "--data VOC2007 --init colours-D.safetensors --out a --S 224 --batch 4 "
    "--epochs 1 --workers 0",
    "localize predict": "photos --model boxes.safetensors --class cat",
    "localize evaluate": "--data VOC2007 --model boxes.safetensors",
    "datasets list": "",
    "datasets show": "sample",
    "datasets fetch": "sample",
    "datasets check": "sample",
    "weights list": "",
    "weights show": "weights.safetensors",
    "weights convert": "weights.safetensors out.safetensors",
    "weights fetch": "embedded",
    "store info": "features",
    "store verify": "features",
    "store repair": "features",
    "store merge": "part-1 part-2 --out whole",
    "store pack": "features f.h5",
    "store export": "features f.csv",
}
"""Words with which each command does all that it does, in little time."""
TERMINAL = {"FORCE_COLOR": "1", "TERM": "xterm"}
"""Progress is shown as on a terminal."""
_CONTROL = re.compile(r"\x1b\[[\d;?]*\w")


def start(command: str, more: str = "", status: int = 0, **how: Any) -> Ran:
    """Run a command on small inputs."""
    return run(*command.split(), *SMALL[command].split(), *more.split(), status=status, **how)


def prints_json(command: str) -> None:
    """Print one JSON document with the option, and none without it."""
    plain = start(command).out
    try:
        json.loads(plain)
    except json.JSONDecodeError:
        pass
    else:
        raise AssertionError(f"{command} prints JSON unasked")
    remove_outputs()
    assert start(command, "--json").json


def is_quiet(command: str) -> None:
    """Show something on a terminal's standard error, and nothing with the option."""
    assert _said(start(command, env=TERMINAL).err)
    remove_outputs()
    assert _said(start(command, "--quiet", env=TERMINAL).err) == ""


def hides_the_lists(command: str) -> None:
    """Say what differs only without the option."""
    words = ("datasets", "check", "lacking.toml", "--root", ".")
    assert "differs" in run(*words, status=3).out
    assert "differs" not in run(*words, "--quiet", status=3).out


def shows_two_classes(command: str) -> None:
    """Show as many classes of each image as are asked for; without the option, not so many."""
    small = SMALL[command].replace("--class cat", "--classifier cats-E.safetensors")
    words = command.split() + small.split()
    some, two = (run(*words, *more, "--json").json for more in ([], ["--top", "2"]))
    assert _classes_of(two) == {2} != _classes_of(some)


def writes_a_table(command: str) -> None:
    """Write a row or more for each image."""
    start(command, "--csv t.csv")
    images = {row.get("name") or row["image"] for row in _rows(Path("t.csv"))}
    assert len(images) == {"fuse": 6, "explain": 1}.get(command, 2)


def writes_errors(command: str) -> None:
    """Write errors as JSON, and those of each class as CSV, into the folder."""
    small = SMALL[command].replace("photos ", "")
    run(command, *small.split(), "--data", "colours", "--results", "r")
    result = json.loads(Path("r/result.json").read_text())
    assert {"top1", "top5"} == result["measures"].keys()
    assert len(_rows(Path("r/classes.csv"))) == 6


def compares_with_the_truth(command: str) -> None:
    """Tell errors instead of images where the true classes are given."""
    assert "images" in start(command, "--json").json
    assert start(command, "--data colours --json").json["measures"]["top1"]["value"] == 0.0


def writes_a_store(command: str) -> None:
    """Keep the fused posteriors of all images in a store of their own."""
    start(command)
    assert len(FeatureStore("fused").names) == 6


def draws_into_a_folder(command: str) -> None:
    """Put a drawing of each image into the folder that is named, and none elsewhere."""
    out = {"explain": "maps", "localize predict": "drawn"}[command]
    start(command, f"--out {out}")
    drawings = sorted(path for path in Path(out).iterdir() if path.name[0] != ".")
    assert [path.stem for path in drawings] in (["a"], ["a", "b"])
    for path in drawings:
        with Image.open(path) as drawing:
            assert drawing.size[0] >= 40
    assert not Path({"explain": "evidence", "localize predict": "boxes"}[command]).exists()


def lists_the_recipes(command: str) -> None:
    """Name all that are shipped, without one that is to be run."""
    told = run(command, "--list", "--json").json["recipes"]
    assert {"embedded-best", "table11-voc2007", "train-a"} <= {each["recipe"] for each in told}


def writes_a_page(command: str) -> None:
    """Write the page, and its figures beside it."""
    start(command, "--report r.html")
    assert "<html" in Path("r.html").read_text(encoding="utf-8")
    assert any(Path("r").iterdir())


def tests_fewer_objects(command: str) -> None:
    """Count so many of the three objects."""
    results = [start(command, f"{more} --json").json for more in ("", "--limit 2")]
    assert [len(result["tables"]["objects"]) for result in results] == [3, 2]


def _said(text: str) -> str:
    return _CONTROL.sub("", text).strip()


def remove_outputs() -> None:
    """Let a command that refuses to write over something begin again."""
    for name in ("a", "fused"):
        rmtree(name, ignore_errors=True)
    for file in ("f.h5", "f.csv"):
        Path(file).unlink(missing_ok=True)


def _classes_of(told: Any) -> set[int]:
    if "tables" in told:
        [table] = told["tables"].values()
        return set(Counter(row["image"] for row in table).values())
    images = told["images"] if isinstance(told, dict) else told
    return {len(one["classes"]) for one in images}


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


EFFECTS: dict[tuple[str, str], Check] = {
    **{(command, "--json"): prints_json for command in SMALL},
    **{
        (command, "--quiet"): is_quiet
        for command in SMALL
        if command.partition(" ")[0] not in ("datasets", "weights") and command != "store info"
    },
    ("datasets check", "--quiet"): hides_the_lists,
    **{(command, "--top"): shows_two_classes for command in ("predict", "classify", "fuse")},
    ("localize predict", "--top"): shows_two_classes,
    **{
        (command, "--csv"): writes_a_table
        for command in ("predict", "explain", "classify", "fuse", "localize predict")
    },
    **{(command, "--results"): writes_errors for command in ("classify", "fuse")},
    ("fuse", "--data"): compares_with_the_truth,
    ("fuse", "--out"): writes_a_store,
    ("run", "--list"): lists_the_recipes,
    ("explain", "--out"): draws_into_a_folder,
    ("localize predict", "--out"): draws_into_a_folder,
    ("localize evaluate", "--report"): writes_a_page,
    ("localize evaluate", "--limit"): tests_fewer_objects,
}
