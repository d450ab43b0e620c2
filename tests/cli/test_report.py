"""The page of ``vggfeat svm --report``, on features that lie in a store."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from helpers.cli import run, run_process
from helpers.colours import two_classes
from helpers.networks import formula_weights, write_weights
from helpers.seams import no_downloads, published

from vggfeat.nets.registry import folder

MAP = "Scale of all maps"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Draw four images of each of two classes."""
    two_classes(tmp_path / "set", 4)
    return tmp_path


def test_files_are_written_whatever_the_terminal_can_show(images: Path) -> None:
    """Model, page and result come out where the encoding lacks what is printed."""
    next((images / "set").iterdir()).rename(images / "set" / "猫")
    how = ("--layer", "pool2", "--Q", "32", "--weights", "embedded", "--jobs", "1")
    words = ("svm", "--dataset", "set", *how, "--save", "model", "--report", "page.html")
    ran = run_process(*words, cwd=images, env={"PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"})
    assert {"model.safetensors", "page.html"} <= {path.name for path in images.iterdir()}
    assert "\\u732b" in ran.out
    assert "####" in ran.out


def test_no_weights_are_downloaded_to_draw_maps(images: Path) -> None:
    """With features from a store and weights that are not here, the page says what would do."""
    how = ("--net", "A", "--layer", "pool2", "--Q", "32", "--weights", "torchvision")
    words = ("svm", "--dataset", "set", *how, "--features", "f", "--jobs", "1", "--report")
    weights = write_weights(images / "a.safetensors", formula_weights("A", ["pool2"]))
    with published("torchvision", "A", weights):
        run(*words, "first.html", cwd=images)
        run(*words, "here.html", cwd=images)
        shutil.rmtree(folder())
        with no_downloads() as asked:
            ran = run(*words, "gone.html", cwd=images, env={"VGGFEAT_OFFLINE": ""})
    assert asked == []
    assert "No heat maps" in ran.err
    assert "vggfeat weights fetch torchvision --net A" in ran.err
    drawn = {path.stem: MAP in path.read_text() for path in images.glob("*.html")}
    assert drawn == {"first": True, "here": True, "gone": False}


RECIPE = """
dataset = "set"
[features]
weights = "embedded"
layers = ["pool1"]
Q = [32]
[[rows]]
name = "average"
[[rows]]
name = "highest"
[rows.features]
pool = "max"
"""


def test_a_measured_row_outlives_its_report(images: Path) -> None:
    """A page that cannot be written costs no figure: it is said, and the exit status is its own."""
    (images / "table.toml").write_text(RECIPE)
    (images / "r-average.html").mkdir()
    words = ("run", "table.toml", "--dataset", "set", "--jobs", "1", "--report", "r.html")
    ran = run(*words, "--json", cwd=images, status=5)
    first, second = ran.json["rows"]
    assert first["measures"]["mean_class_recall"]["value"] is not None
    assert first["failed"] == second["failed"] == ""
    assert [row["mean_class_recall"] for row in ran.json["paper"]] == [
        row["measures"]["mean_class_recall"]["value"] for row in (first, second)
    ]
    assert "r-average.html" in ran.err
    assert "<html" in (images / "r-highest.html").read_text("utf-8")


def test_a_report_that_fails_takes_nothing_with_it(images: Path) -> None:
    """The figure is printed and the model is there though a file of the report is a folder."""
    (images / "r" / "classes.csv").mkdir(parents=True)
    how = ("--layer", "pool1", "--Q", "32", "--jobs", "1", "--no-evidence")
    words = ("svm", "--dataset", "set", *how, "--save", "model", "--report", "r.html")
    ran = run(*words, "--json", cwd=images, status=5)
    assert ran.json["measures"]["mean_class_recall"]["value"] is not None
    assert "classes.csv" in ran.err
    assert (images / "model.safetensors").is_file()
    assert "<html" in (images / "r.html").read_text("utf-8")


@pytest.mark.parametrize("words", [("svm", "--dataset", "set"), ("run", "table.toml")])
def test_figures_go_into_no_folder_of_other_files(images: Path, words: tuple[str, ...]) -> None:
    """As those of set.html into the folder of the images, set/; another name is proposed."""
    (images / "table.toml").write_text(RECIPE)
    before = sorted(images.rglob("*"))
    err = run(*words, "--report", "set.html", status=5, cwd=images).err
    assert "set-report.html" in err
    assert sorted(images.rglob("*")) == before
