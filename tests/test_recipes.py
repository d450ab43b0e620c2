"""Recipes of one's own: what they may say, what is refused, and how rows inherit."""

from __future__ import annotations

from pathlib import Path

import pytest

from vggfeat.data.datasets import load_card
from vggfeat.errors import DataError, DataNotFound, ParameterError
from vggfeat.recipes import (
    ClassificationRecipe,
    SVMRecipe,
    TrainingRecipe,
    open_recipe,
    open_svm_recipe,
    recipe_names,
)
from vggfeat.settings import GRID, SVM
from vggfeat.svm.protocols import protocol_of

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
    ("text", "said"),
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
        ('dataset = "sample"\n[features]\nweights = ["a", "b"]', "NET=FILE for each"),
        ("dataset = sample", "own.toml is not a recipe"),
    ],
)
def test_what_is_no_recipe_is_refused(text: str, said: str, tmp_path: Path) -> None:
    """Every mistake is a DataError that names the file and the key."""
    with pytest.raises(DataError, match="is not a recipe") as refused:
        open_svm_recipe(written(tmp_path, text))
    assert said in str(refused.value)
    assert str(tmp_path / "own.toml") in str(refused.value)


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
    with pytest.raises(DataError) as refused:
        open_recipe(written(tmp_path, text))
    first, *lines = refused.value.lines
    assert first == f"{tmp_path / 'own.toml'} is not a recipe:"
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
    """It is opened as such, refused where a table is asked for, and its mistakes are named too."""
    own = written(tmp_path, '[[links]]\nname = "a"\ntraining = { S = [256, 512] }')
    opened = open_recipe(own)
    assert isinstance(opened, TrainingRecipe)
    assert (opened.name, opened.runs()[0].settings.S) == ("own", (256, 512))
    with pytest.raises(DataError, match=r"trains networks and has no table.*vggfeat run"):
        open_svm_recipe(own)
    with pytest.raises(DataError, match=r"own\.toml is not a recipe") as refused:
        open_recipe(written(tmp_path, '[[links]]\nname = "a"\nfrom = "b"'))
    assert "begins from 'b', which is no link before" in str(refused.value)


TESTED = """
protocol = "classification"
[nets.mine]
net = "{net}"
S = [256, 512]
[[rows]]
name = "mine"
uses = [{{ net = "{used}", Q = [256] }}]
"""


def test_a_protocol_makes_a_recipe_that_tests(tmp_path: Path) -> None:
    """It is opened as such, refused where features are asked for, and its mistakes are named."""
    opened = open_recipe(written(tmp_path, TESTED.format(net="D", used="mine")))
    assert isinstance(opened, ClassificationRecipe)
    assert (opened.name, opened.nets["mine"].S, opened.rows[0].mode) == ("own", (256, 512), "dense")
    with pytest.raises(DataError, match=r"tests networks\. Run it with: vggfeat run"):
        open_svm_recipe(str(tmp_path / "own.toml"))
    for wrong, said in (
        (TESTED.format(net="F", used="mine"), "nets.mine.net"),
        (TESTED.format(net="D", used="yours"), "'mine' uses 'yours', which is none of the nets"),
        (TESTED.format(net="D", used="mine").replace("classification", "ranking"), "protocol"),
    ):
        with pytest.raises(DataError, match=r"own\.toml is not a recipe") as refused:
            open_recipe(written(tmp_path, wrong))
        assert said in str(refused.value)


def test_text_that_is_no_text_is_refused(tmp_path: Path) -> None:
    """A file of other bytes is no recipe either."""
    (tmp_path / "own.toml").write_bytes(b'dataset = "\xff"')
    with pytest.raises(DataError, match="is not a recipe"):
        open_svm_recipe(str(tmp_path / "own.toml"))


@pytest.mark.parametrize("name", ["table11-voc2099", "none.toml"])
def test_an_unknown_name_lists_the_shipped_ones(name: str) -> None:
    """Whoever mistypes sees what there is."""
    with pytest.raises(DataNotFound, match="table11-voc2007") as refused:
        open_svm_recipe(name)
    assert name in str(refused.value)
    assert all(shipped in str(refused.value) for shipped in recipe_names())


@pytest.mark.parametrize(
    ("setting", "named"), [({"shared_C": True}, "shared_C"), ({"difficult": "drop"}, "difficult")]
)
def test_settings_of_average_precision_belong_to_it(setting: dict[str, object], named: str) -> None:
    """Where every image has one class, there is nothing that they could mean."""
    voc, caltech = load_card("voc2007"), load_card("caltech101")
    protocol_of(voc).check(voc, svm=SVM(**setting))
    with pytest.raises(ParameterError, match=f"{named} .* caltech101"):
        protocol_of(caltech).check(caltech, svm=SVM(**setting))


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
