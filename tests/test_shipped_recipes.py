"""Every recipe that ships: the paper's settings and figures, and a header that says how."""

from __future__ import annotations

import re
from itertools import zip_longest
from pathlib import Path

import pytest
from check_wheel import WHEEL_HOLDS

from vggfeat.data.cards import load_card
from vggfeat.recipe import load_recipe, recipe_names

PIPELINES = Path(__file__).parents[1] / "pipelines"
# The figures of Tables 11 and 12, in percent, typed from the paper.
PAPER = {
    "table11-voc2007": {"D": 89.3, "E": 89.3, "D & E": 89.7},
    "table11-voc2012": {"D": 89.0, "E": 89.0, "D & E": 89.3},
    "table11-caltech101": {"D": 91.8, "E": 92.3, "D & E": 92.7},
    "table11-caltech256": {"D": 85.0, "E": 85.1, "D & E": 86.2},
    "table12-voc2012-action": {"D & E, whole image": 79.2, "D & E, image and box": 84.0},
}
SPREADS = {
    "table11-caltech101": ["1.0", "0.5", "0.5"],
    "table11-caltech256": ["0.2", "0.3", "0.3"],
}
VOC = ((256, 384, 512, 640, 768), "average")
CALTECH = ((256, 384, 512), "stack")


def header(name: str) -> str:
    """Take the comment at the top, without its hash signs."""
    lines = (PIPELINES / f"{name}.toml").read_text(encoding="utf-8").splitlines()
    top = lines[: next(i for i, line in enumerate(lines) if not line.startswith("#"))]
    return "\n".join(line.removeprefix("#").strip() for line in top)


def test_every_file_is_a_recipe_and_travels() -> None:
    """What lies in pipelines/ is listed, is one of the tables or --quality, and is in the wheel."""
    names = sorted(path.stem for path in PIPELINES.iterdir())
    assert all(path.suffix == ".toml" for path in PIPELINES.iterdir())
    assert recipe_names() == names == sorted([*PAPER, "embedded-best", "embedded-fast"])
    assert {f"vggfeat/_share/pipelines/{name}.toml" for name in names} <= set(WHEEL_HOLDS)


@pytest.mark.parametrize("name", recipe_names())
def test_it_loads_and_says_how_it_is_run(name: str) -> None:
    """The data set is a shipped card, and the header has the command that people type."""
    recipe = load_recipe(name)
    assert recipe.name == name
    assert load_card(recipe.dataset).name == recipe.dataset
    recipe.classifier.check(load_card(recipe.dataset))
    assert f"vggfeat run {name}" in header(name).splitlines()


@pytest.mark.parametrize("name", PAPER)
def test_figures_are_the_papers(name: str) -> None:
    """Row by row what the table has, in the recipe, in its header and in the data set's card."""
    recipe = load_recipe(name)
    assert {line.name: line.expected for line in recipe.table()} == PAPER[name]
    own = [row for row in load_card(recipe.dataset).paper if row.nets]
    assert [row.value for row in own] == list(PAPER[name].values())
    assert [row.nets for row in own] == [line.features.nets for line in recipe.table()]
    assert {row.table for row in own} == {int(name[5:7])}
    [expected] = re.findall(r"^Expected: (.*)$", header(name), re.MULTILINE)
    spreads = SPREADS.get(name, [])
    told = [f"{value:.1f}" for value in PAPER[name].values()]
    both = [one for pair in zip_longest(told, spreads) for one in pair if one]
    assert re.findall(r"\d+\.\d", expected) == both
    assert [f"{row.spread:.1f}" for row in own if row.spread is not None] == spreads
    assert "\nTime: " in header(name)


@pytest.mark.parametrize("name", PAPER)
def test_settings_are_the_papers(name: str) -> None:
    """Appendix B: fc7 of the authors' nets; VOC averages five scales, Caltech stacks three."""
    caltech = "caltech" in name
    for line in load_recipe(name).table():
        made = line.features
        assert (made.layers, made.weights, made.pool) == (("fc7",), ("authors",), "average")
        assert (made.flip, made.normalize, made.power) == (True, "descriptor", None)
        assert (made.Q, made.aggregate) == (CALTECH if caltech else VOC)
        boxes = line.name.endswith("box")
        assert made.views == (("image", "box") if boxes else ("image",))
    assert load_recipe(name).classifier.loss == "hinge"
