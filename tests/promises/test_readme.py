"""README and docs: the Python is run, every command parses, every option and target exists."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from helpers.commands import commands, named_options, parse, spellings, words_of
from helpers.documents import ROOT, Shown, blocks, documents, mentioned_commands, shell_lines
from sklearn.svm import SVC
from storing import FC7, make_store, vectors

from vggfeat.recipes import open_recipe

SMALL = {"(256, 384)": "(32, 48)", "[0.1, 1, 10]": "[1]"}
"""The two substitutions: scales at which an image takes milliseconds, and one C for all. Weights
stay as they are written: no block asks for a layer beyond pool5, which the embedded ones have."""

TYPED = shell_lines("vggfeat")
NAMED = list(mentioned_commands())
PYTHON = blocks("python")
ELLIPSIS = "…"


def place(shown: Shown) -> str:
    """Name a test after the line that it is of."""
    return shown.place


def run_block(about: str, **given: Any) -> dict[str, Any]:
    """Run the one Python block that has these words, with what its comment says is there."""
    [block] = [block for block in PYTHON if about in block.text]
    text = block.text
    for large, small in SMALL.items():
        text = text.replace(large, small)
    names = dict(given)
    exec(compile(text, block.place, "exec"), names)
    return names


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in an empty folder, as a reader does."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_no_python_is_left_out() -> None:
    """Each block is one of those that are run below."""
    about = ("GridSearchCV", "find_images", "StoreRows")
    assert len(PYTHON) == len(about)
    assert all(sum(word in block.text for block in PYTHON) == 1 for word in about)


def test_scikit_learn(here: Path, draw: Any) -> None:
    """The search runs, tells two classes apart, and describes each image once for each scale.

    Five images of each class: every fold needs one.
    """
    shapes = {"wide": (60, 34), "tall": (34, 60)}
    labels = [label for label in shapes for _ in range(5)]
    paths = [draw(f"{n}.png", *shapes[label], seed=n) for n, label in enumerate(labels)]
    search = run_block("GridSearchCV", paths=paths, labels=labels)["search"]
    assert list(search.predict(paths)) == labels
    assert set(search.best_params_) == {"vggfeatures__aggregate", "linearsvc__C"}
    written: Counter[tuple[str, str]] = Counter()
    for shard in (here / "cache").rglob("shards/*.h5"):
        with h5py.File(shard) as file:
            for layer, pools in file["D"].items():
                sizes = {(layer, Q): len(rows) for Q, rows in pools["average"].items()}
                written.update(sizes)
    assert written == {(layer, Q): 10 for layer in ("pool4", "pool5") for Q in ("Q32", "Q48")}


def test_library(here: Path, draw: Any) -> None:
    """The store and X are what the sentences around the block say they are."""
    for number in range(3):
        draw(f"images/{number}.png", seed=number)
    names = run_block("find_images")
    X, store = names["X"], names["store"]
    assert (X.shape, X.dtype) == ((3, 512), np.float32)
    assert tuple(store.names) == names["images"].names
    with h5py.File(here / "features" / "features.h5") as file:
        assert [name.decode() for name in file["names"]] == store.names
        small, large = (file[f"/D/pool5/average/Q{Q}"] for Q in (32, 48))
        assert small.shape == large.shape == (3, 512)
        mean = (_unit(small[:]) + _unit(large[:])) / 2
    assert pytest.approx(_unit(mean), abs=1e-6) == X  # Appendix B, by hand


def test_rows_of_a_store(here: Path) -> None:
    """An SVM takes rows that lie in a store, also few of them; libsvm takes the same in memory.

    Its objective is that of libsvm's solution, to the solver's own tolerance.
    """
    store, labels = make_store(here / "few"), [0, 1] * 6
    svm = run_block("StoreRows", labels=labels)["svm"]
    rows = _unit(vectors(store.names, FC7.descriptor))
    exact = SVC(kernel="linear", C=1.0, tol=1e-8).fit(rows, labels)
    reached = _hinge_objective(svm.coef_[1], svm.intercept_[1], rows, labels)
    assert reached == pytest.approx(
        _hinge_objective(exact.coef_[0], exact.intercept_[0], rows, labels), rel=svm.tol
    )


@pytest.mark.parametrize("shown", TYPED, ids=place)
def test_what_is_typed_parses(shown: Shown) -> None:
    """The command and its options exist, values have their types; recipes are those that ship."""
    words = words_of(shown.text)
    if ELLIPSIS in words:
        assert named_options(words)[1] == set()
        return
    name, given = parse(words)
    if name == "run" and not given["list_"]:
        assert open_recipe(given["recipe"]).name == given["recipe"]


@pytest.mark.parametrize("shown", NAMED, ids=place)
def test_what_is_named_exists(shown: Shown) -> None:
    """A command in the text is one, with these options."""
    words = words_of(shown.text)
    assert words
    assert named_options(words)[1] == set()


def test_options_in_the_text_exist() -> None:
    """An option that a page names belongs to some command."""
    known = {word for command in commands().values() for word in spellings(command)} | {"--version"}
    named = {
        (page.name, word)
        for page in documents()
        for word in re.findall(r"`(--[a-z][\w-]*)[^`]*`", page.read_text(encoding="utf-8"))
    } - {("scale.md", "--array")}  # of SLURM
    assert len(named) > 10
    assert not {(page, word) for page, word in named if word not in known}


def test_targets_and_scripts_exist() -> None:
    """What pages tell to make can be made; the scripts that they run lie there."""
    text = "\n".join(page.read_text(encoding="utf-8") for page in documents())
    targets = set(re.findall(r"(?:`|\$ )make ([a-z-]+)", text))
    there = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {"demo", "test"} <= targets <= there
    scripts = set(re.findall(r"\bpython (\S+\.py)", text))
    assert scripts
    assert not [script for script in scripts if not (ROOT / script).is_file()]


def test_imports_are_of_public_names() -> None:
    """What pages import from vggfeat itself is on the list of its names."""
    import vggfeat

    lines = re.findall(r"^from vggfeat import (.+)$", "".join(b.text for b in PYTHON), re.MULTILINE)
    imported = {name.strip() for line in lines for name in line.split(",")}
    assert imported
    assert imported <= set(vggfeat.__all__)


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _hinge_objective(w: np.ndarray, b: float, rows: np.ndarray, labels: list[int]) -> float:
    signs = np.where(np.array(labels) > 0, 1, -1)
    return float(w @ w / 2 + np.maximum(0, 1 - signs * (rows @ w + b)).sum())
