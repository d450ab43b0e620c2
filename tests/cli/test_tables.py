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
