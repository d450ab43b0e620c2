"""A table of linear SVMs that is interrupted prints the rows that are finished."""

from __future__ import annotations

import re
from pathlib import Path
from unittest import mock

import pytest
from helpers.cli import run
from PIL import Image
from support import noise

from vggfeat.cli import experiment
from vggfeat.recipes import recipe_names

RECIPE = """
dataset = "set"
[features]
weights = "embedded"
layers = ["pool1"]
Q = [32]
[[rows]]
name = "average"
expected = 50.0
[[rows]]
name = "highest"
[rows.features]
pool = "max"
"""


@pytest.mark.parametrize("as_json", [False, True])
def test_finished_rows_are_printed_at_an_interrupt(tmp_path: Path, *, as_json: bool) -> None:
    """Ctrl-C in the second row leaves the first one beside its figure, and its status."""
    for label, seed in (("dark", 0), ("light", 40)):
        (tmp_path / "set" / label).mkdir(parents=True)
        for number in range(4):
            image = Image.fromarray(noise(32, 32, seed=seed + number))
            image.save(tmp_path / "set" / label / f"{number}.png")
    (tmp_path / "table.toml").write_text(RECIPE)
    evaluate, rows = experiment.evaluate, iter(range(2))

    def interrupted(*given: object, **more: object) -> object:
        if next(rows):
            raise KeyboardInterrupt
        return evaluate(*given, **more)  # type: ignore[arg-type]  # as the command gave them

    with mock.patch("vggfeat.cli.experiment.evaluate", interrupted):
        words = ("run", "table.toml", "--jobs", "1", "-q", *["--json"] * as_json)
        ran = run(*words, status=130, cwd=tmp_path)
    if as_json:
        [row] = ran.json["paper"]
        assert [record["row"] for record in ran.json["rows"]] == ["average"]
        assert row["mean_class_recall_paper"] == 0.5
    else:
        [heading] = re.findall(r"^row .*paper.*$", ran.out, re.MULTILINE)
        assert "average" in ran.out.partition(heading)[2]
        assert "highest" not in ran.out


def test_an_error_of_several_rows_is_shown_once_and_names_what_run_has(tmp_path: Path) -> None:
    """Instead of options of `svm` the settings that `--set` takes; the second row points back."""
    for label in ("dark", "light"):
        (tmp_path / "set" / label).mkdir(parents=True)
        for number in range(4):
            Image.fromarray(noise(32, 32)).save(tmp_path / "set" / label / f"{number}.png")
    lacking = RECIPE.replace('"embedded"', '"authors"').replace("pool1", "pool5")
    (tmp_path / "table.toml").write_text(lacking)
    err = run("run", "table.toml", "--jobs", "1", "-q", status=4, cwd=tmp_path).err
    assert err.count("is not on this machine") == 1
    assert "highest" in err
    assert "--layer" not in err
    assert "--set features.layers=pool5" in err


def test_recipes_are_listed_and_one_must_be_named() -> None:
    """Each shipped recipe has a row, with its title and its data."""
    rows = run("run", "--list", "--json").json["recipes"]
    assert [row["recipe"] for row in rows] == recipe_names()
    assert all(row["title"] and row["kind"] and row["data"] for row in rows)
    assert "table11-voc2007" in run("run", "--list").out
    assert "--list" in run("run", status=2).err
