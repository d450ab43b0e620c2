"""``vggfeat datasets`` as people type it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from trees import write_classes
from typer.testing import CliRunner, Result

from vggfeat.cli.datasets import datasets_app
from vggfeat.data.cards import card_names
from vggfeat.errors import DataNotFound


def datasets(*arguments: str, status: int = 0) -> Result:
    done = CliRunner().invoke(datasets_app, arguments, env={"COLUMNS": "120"})
    if status == 0 and done.exception:
        raise done.exception
    assert done.exit_code == status, done.output
    return done


def test_list_names_every_card() -> None:
    """For a person and as JSON."""
    shown = datasets("list").stdout
    assert all(name in shown for name in card_names())
    assert "911 MB" in shown
    told = json.loads(datasets("list", "--json").stdout)["datasets"]
    assert [one["name"] for one in told] == card_names()


@pytest.mark.parametrize("name", card_names())
def test_show_tells_what_a_card_says(name: str) -> None:
    """Metric, licence and source are shown; JSON is the whole card."""
    told = json.loads(datasets("show", name, "--json").stdout)
    shown = datasets("show", name).stdout
    assert told["protocol"]["metric"] in " ".join(shown.split())
    assert "licence" in shown
    assert f"{len(told['classes'])}: {told['classes'][0]}" in shown


def test_show_has_the_papers_figures() -> None:
    """Table 11's row of the fusion stands in the card of VOC 2007."""
    assert "Table 11, D & E: 89.7 %" in datasets("show", "voc2007").stdout


def test_check_of_a_whole_data_set_is_quiet_success() -> None:
    """The shipped pictures are all there."""
    assert json.loads(datasets("check", "sample", "--json").stdout)["complete"] is True
    assert "whole" in datasets("check", "sample").stdout


def test_check_says_what_is_missing(tmp_path: Path) -> None:
    """Every class that differs is listed, and the exit status is that of bad data."""
    write_classes(tmp_path / "101_ObjectCategories", {"camera": 50, "crab": 70})
    (tmp_path / "101_ObjectCategories" / "crab" / "tmp").touch()
    done = datasets("check", "caltech101", "--root", str(tmp_path), status=3)
    assert "120 of 9,144 pictures" in done.stdout
    assert "crab: 70 of 73" in done.stdout
    assert "camera" not in done.stdout
    assert "crab/tmp" in done.stdout
    told = datasets("check", "caltech101", "--root", str(tmp_path), "--json", status=3).stdout
    differences = json.loads(told)["differences"]
    assert {"part": "all", "label": "crab", "expected": 73, "found": 70} in differences


def test_fetch_of_what_ships_says_where_it_is() -> None:
    """Nothing is downloaded for sample; its folder is the answer."""
    done = datasets("fetch", "sample", "--quiet", "--json")
    assert Path(json.loads(done.stdout)["path"]).name == "clipart10"


def test_fetch_offline_fails_with_instructions(tmp_path: Path) -> None:
    """The error, which main() turns into one line and a status, says what to put where."""
    arguments = ["fetch", "voc2012", "--root", str(tmp_path), "--part", "test", "--quiet"]
    done = CliRunner().invoke(datasets_app, arguments)
    assert isinstance(done.exception, DataNotFound)
    assert "VOC2012test.tar" in str(done.exception)
    assert "trainval" not in str(done.exception)
