"""``vggfeat datasets`` as people type it."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from helpers.cli import Ran, run
from trees import write_classes

from vggfeat._io.assets import shared
from vggfeat.data.datasets import card_names


def datasets(*words: str | Path, status: int = 0) -> Ran:
    return run("datasets", *words, status=status)


def test_list_names_every_card() -> None:
    """For a person and as JSON."""
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
    """Table 11's row of the fusion stands in the card of VOC 2007."""
    assert "Table 11, D & E: 89.7 %" in datasets("show", "voc2007").out


def test_check_of_a_whole_data_set_is_quiet_success() -> None:
    """The shipped images are all there."""
    assert datasets("check", "sample", "--json").json["complete"] is True
    assert "whole" in datasets("check", "sample").out


def test_check_says_what_is_missing(tmp_path: Path) -> None:
    """Every class that differs is listed, and the exit status is that of bad data."""
    write_classes(tmp_path / "101_ObjectCategories", {"camera": 50, "crab": 70})
    (tmp_path / "101_ObjectCategories" / "crab" / "tmp").touch()
    done = datasets("check", "caltech101", "--root", tmp_path, status=3)
    assert "120 of 9,144 images" in done.out
    assert "crab: 70 of 73" in done.out
    assert "camera" not in done.out
    assert "crab/tmp" in done.out
    done = datasets("check", "caltech101", "--root", tmp_path, "--json", status=3)
    differences = done.json["differences"]
    assert {"split": "all", "label": "crab", "expected": 73, "found": 70} in differences


def test_fetch_of_what_ships_says_where_it_is() -> None:
    """Nothing is downloaded for sample; its folder is the answer."""
    done = datasets("fetch", "sample", "--quiet", "--json")
    assert Path(done.json["path"]).name == "clipart10"


def test_fetch_offline_fails_with_instructions(tmp_path: Path) -> None:
    """The error says what to put where: the archive of the part that is wanted, and no other."""
    done = datasets("fetch", "voc2012", "--root", tmp_path, "--split", "test", "-q", status=3)
    assert f"{tmp_path}/" in done.err
    assert "VOC2012test.tar" in done.err
    assert "trainval" not in done.err
