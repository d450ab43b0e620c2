"""``vggfeat datasets`` as people type it."""

from __future__ import annotations

import tomllib
from functools import partial
from pathlib import Path

import pytest
from helpers.cli import run
from trees import write_classes

from vggfeat._io.assets import shared
from vggfeat.data.datasets import card_names

datasets = partial(run, "datasets")


def test_list_names_every_card() -> None:
    shown = datasets("list").out
    assert all(name in shown for name in card_names())
    assert "911 MB" in shown
    told = datasets("list", "--json").json["datasets"]
    assert [one["name"] for one in told] == card_names()


@pytest.mark.parametrize("name", card_names())
def test_show_tells_what_a_card_says(name: str) -> None:
    """Metric, classes, licence and source are those of the card's own file."""
    card = tomllib.loads((shared("datasets") / f"{name}.toml").read_text())
    told = datasets("show", name, "--json").json
    shown = " ".join(datasets("show", name).out.split())
    for key in ("licence", "classes", "title"):
        assert told[key] == card[key]
    classes = f"{len(card['classes'])}: {card['classes'][0]}"
    for part in (card["licence"], card["source"], classes, told["protocol"]["metric"]):
        assert part in shown


def test_show_has_the_papers_figures() -> None:
    assert "Table 11, D & E: 89.7 %" in datasets("show", "voc2007").out


def test_what_ships_is_whole_and_where_it_is_said() -> None:
    """Nothing is downloaded for it."""
    assert datasets("check", "sample", "--json").json["complete"] is True
    assert "whole" in datasets("check", "sample").out
    assert Path(datasets("fetch", "sample", "-q", "--json").json["path"]).name == "clipart10"


def test_check_says_what_is_missing(tmp_path: Path) -> None:
    """Every class that differs is listed, and the exit status is that of bad data."""
    write_classes(tmp_path / "101_ObjectCategories", {"camera": 50, "crab": 70})
    (tmp_path / "101_ObjectCategories" / "crab" / "tmp").touch()
    words = ("check", "caltech101", "--root", tmp_path)
    done = datasets(*words, status=3)
    for part in ("120 of 9,144 images", "crab: 70 of 73", "crab/tmp"):
        assert part in done.out
    assert "camera" not in done.out
    differences = datasets(*words, "--json", status=3).json["differences"]
    assert {"split": "all", "label": "crab", "expected": 73, "found": 70} in differences


def test_fetch_offline_fails_with_instructions(tmp_path: Path) -> None:
    """The error says what to put where: the archive of the part that is wanted, and no other."""
    done = datasets("fetch", "voc2012", "--root", tmp_path, "--split", "test", "-q", status=3)
    assert f"{tmp_path}/" in done.err
    assert "VOC2012test.tar" in done.err
    assert "trainval" not in done.err
