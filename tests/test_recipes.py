"""Recipes of one's own: what they may say, what is refused, and how rows inherit."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.mistakes import refuses

from vggfeat.errors import DataError, DataNotFound
from vggfeat.recipes import open_recipe, open_svm_recipe, recipe_names
from vggfeat.recipes.classification import ClassificationRecipe
from vggfeat.recipes.svm import SVMRecipe
from vggfeat.recipes.training import TrainingRecipe
from vggfeat.settings import GRID, SVM

TESTED = """
protocol = "classification"
[nets.mine]
net = "{net}"
S = [256, 512]
[[rows]]
name = "mine"
uses = [{{ net = "{used}", Q = [256] }}]
"""
OWN = """
dataset = "voc2007"
[features]
layers = ["pool5"]
Q = [256, 384]
[classifier]
shared_C = true
C = [0.1, 1.0]
[[rows]]
name = "small"
expected = 50.5
features = { Q = [256] }
[[rows]]
features = { nets = ["D", "E"] }
"""


def written(folder: Path, text: str) -> str:
    path = folder / "own.toml"
    path.write_text(text)
    return str(path)


def test_rows_have_the_recipes_settings_and_their_own(tmp_path: Path) -> None:
    """A row changes what it names alone; without a name it is called by its nets."""
    recipe = open_svm_recipe(written(tmp_path, OWN))
    small, both = recipe.table()
    assert (recipe.name, recipe.dataset) == ("own", "voc2007")
    assert (small.name, small.expected, small.features.Q) == ("small", 50.5, (256,))
    assert (both.name, both.expected, both.features.Q) == ("D & E", None, (256, 384))
    assert {line.features.layers for line in (small, both)} == {("pool5",)}
    assert (recipe.classifier.shared_C, recipe.classifier.C) == (True, (0.1, 1.0))


def test_rows_of_one_net_have_names_of_their_own(tmp_path: Path) -> None:
    """Else the report of one would take the place of another's."""
    text = 'dataset = "sample"\n[[rows]]\n[[rows]]\nfeatures = { Q = [96] }'
    assert [row.name for row in open_svm_recipe(written(tmp_path, text)).table()] == ["D", "D (2)"]


def test_a_data_set_alone_is_a_recipe(tmp_path: Path) -> None:
    """All else has a default: one row, of net D."""
    recipe = open_svm_recipe(written(tmp_path, 'dataset = "sample"'))
    [line] = recipe.table()
    assert (line.name, line.expected, line.features.layers) == ("D", None, ("fc7",))
    assert recipe.classifier == SVM()
    assert recipe.classifier.C == GRID


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('title = "no data"', "dataset"),
        ('dataset = "sample"\nlayers = ["pool5"]', "layers"),
        ('dataset = "sample"\n[features]\nscales = [256]', "features.scales"),
        ('dataset = "sample"\n[classifier]\nloss = "log"', "classifier.loss"),
        ('dataset = "sample"\n[classifier]\nC = []', "classifier.C"),
        ('dataset = "sample"\nrows = []', "rows"),
        ('dataset = "sample"\n[[rows]]\nlayers = ["pool5"]', "rows.0.layers"),
        ('dataset = "sample"\n[[rows]]\n[[rows]]\nfeatures = { aggregate = "mean" }', "aggregate"),
        ('dataset = "sample"\n[[rows]]\nfeatures = { Qs = [256] }', "Qs"),
        ('dataset = "sample"\n[features]\nweights = ["a", "b"]', "NET=FILE"),
        ("dataset = sample", "own.toml"),
        ('[[links]]\nname = "a"\nfrom = "b"', "'b'"),
        (TESTED.format(net="F", used="mine"), "nets.mine.net"),
        (TESTED.format(net="D", used="yours"), "'yours'"),
        (TESTED.format(net="D", used="mine").replace("classification", "ranking"), "protocol"),
        (b'dataset = "\xff"', "own.toml"),
    ],
)
def test_what_is_no_recipe_is_refused(text: str | bytes, named: str, tmp_path: Path) -> None:
    """Of every kind, with the names of the file and of the key."""
    path = tmp_path / "own.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    refuses(lambda: open_recipe(str(path)), DataError, [str(path), "not a recipe", named])


def test_each_wrong_field_has_a_line(tmp_path: Path) -> None:
    """Types, lists, alternatives and what is absent, in the file's words, without links."""
    text = """
    protocol = "classification"
    [nets.mine]
    S = "wide"
    [[rows]]
    name = 3
    uses = [{ net = "mine", Q = ["a"] }]
    paper = [9.5]
    flap = true
    """
    _, *lines = refuses(lambda: open_recipe(written(tmp_path, text)), DataError).lines
    fields = {
        "nets.mine.net": "is missing",
        "nets.mine.S": "an integer or a list. Got 'wide'",
        "rows.0.name": "Got 3",
        "rows.0.uses.0.Q.0": "'a'",
        "rows.0.paper.1": "is missing",
        "rows.0.flap": "name, uses, mode, paper",
    }
    for field, said in fields.items():
        [line] = [line for line in lines if line.startswith(f"  {field} ")]
        assert said in line, field
    assert all(len(line.splitlines()) == 1 for line in lines)


def test_links_make_a_recipe_that_trains(tmp_path: Path) -> None:
    path = written(tmp_path, '[[links]]\nname = "a"\ntraining = { S = [256, 512] }')
    opened = open_recipe(path)
    assert isinstance(opened, TrainingRecipe)
    assert (opened.name, opened.runs()[0].settings.S) == ("own", (256, 512))
    refuses(lambda: open_svm_recipe(path), DataError, ["trains networks", "vggfeat run"])


def test_a_protocol_makes_a_recipe_that_tests(tmp_path: Path) -> None:
    path = written(tmp_path, TESTED.format(net="D", used="mine"))
    opened = open_recipe(path)
    assert isinstance(opened, ClassificationRecipe)
    assert (opened.name, opened.nets["mine"].S, opened.rows[0].mode) == ("own", (256, 512), "dense")
    refuses(lambda: open_svm_recipe(path), DataError, ["tests networks", "vggfeat run"])


@pytest.mark.parametrize("name", ["table11-voc2099", "none.toml"])
def test_an_unknown_name_lists_the_shipped_ones(name: str) -> None:
    refuses(lambda: open_svm_recipe(name), DataNotFound, [name, *recipe_names()])


def test_what_is_typed_stands_over_the_recipe_and_over_its_rows() -> None:
    """What is not typed is each row's own, and no figure is expected any more."""
    typed = ["features.Q=[64, 96]", "features.aggregate=stack", "classifier.loss=squared_hinge"]
    own, other = open_recipe("table11-voc2007"), open_recipe("table11-voc2007", typed)
    assert isinstance(own, SVMRecipe)
    assert isinstance(other, SVMRecipe)
    for before, after in zip(own.table(), other.table(), strict=True):
        assert after.features == before.features.but(Q=(64, 96), aggregate="stack")
        assert (after.name, after.expected) == (before.name, None)
    assert other.classifier == SVM(loss="squared_hinge")
    nets = open_recipe("table11-voc2007", ["features.nets=A"])
    assert isinstance(nets, SVMRecipe)
    assert {line.features.nets for line in nets.table()} == {("A",)}


def test_what_is_typed_stands_over_a_chain_and_over_its_links() -> None:
    """A chain is trained for fewer epochs, at one scale."""
    own, other = (open_recipe("train-a", typed) for typed in ((), ("training.epochs=2",)))
    assert isinstance(own, TrainingRecipe)
    assert isinstance(other, TrainingRecipe)
    for before, after in zip(own.runs(), other.runs(), strict=True):
        assert after.settings == before.settings.but(epochs=2)
        assert (after.name, after.origin) == (before.name, before.origin)
        assert after.paper is None
