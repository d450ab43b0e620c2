"""Every recipe that ships: the paper's settings and figures, and a header that says how."""

from __future__ import annotations

import math
import re
from itertools import zip_longest
from pathlib import Path
from typing import TypeVar

import pytest
from check_wheel import WHEEL_HOLDS

from vggfeat.data.datasets import load_card
from vggfeat.nets.config import layers_of
from vggfeat.recipes import open_recipe, open_svm_recipe, recipe_names
from vggfeat.recipes.classification import ClassificationRecipe
from vggfeat.recipes.localization import LocalizationRecipe
from vggfeat.recipes.quality import SHIPPED
from vggfeat.recipes.training import TrainingRecipe
from vggfeat.settings import Merging, Training
from vggfeat.svm.protocols import protocol_of

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
TABLE3 = {
    "a-256": (29.6, 10.4), "a-lrn-256": (29.7, 10.5), "b-256": (28.7, 9.9),
    "c-256": (28.1, 9.4), "c-384": (28.1, 9.3), "c-jitter": (27.3, 8.8),
    "d-256": (27.0, 8.8), "d-384": (26.8, 8.7), "d-jitter": (25.6, 8.1),
    "e-256": (27.3, 9.0), "e-384": (26.9, 8.7), "e-jitter": (25.5, 8.0),
}  # fmt: skip
TABLE4 = {
    "b-256": (28.2, 9.6),
    "c-256": (27.7, 9.2), "c-384": (27.8, 9.2), "c-jitter": (26.3, 8.2),
    "d-256": (26.6, 8.6), "d-384": (26.5, 8.6), "d-jitter": (24.8, 7.5),
    "e-256": (26.9, 8.7), "e-384": (26.7, 8.6), "e-jitter": (24.8, 7.5),
}  # fmt: skip
SEVEN = ("d-256", "d-384", "d-jitter", "c-256", "c-384", "e-256", "e-384")
TWO = ("d-jitter", "e-jitter")
# Tables 3 to 7: nets, mode, and top-1 and top-5 error in validation, typed from the paper.
ERRORS = {
    "table03-single-scale": [((net,), "dense", errors) for net, errors in sorted(TABLE3.items())],
    "table04-multi-scale": [((net,), "dense", errors) for net, errors in TABLE4.items()],
    "table05-multi-crop": [
        (("d-jitter",), "dense", (24.8, 7.5)),
        (("d-jitter",), "multicrop", (24.6, 7.5)),
        (("d-jitter",), "both", (24.4, 7.2)),
        (("e-jitter",), "dense", (24.8, 7.5)),
        (("e-jitter",), "multicrop", (24.6, 7.4)),
        (("e-jitter",), "both", (24.4, 7.1)),
    ],
    "table06-fusion": [
        (SEVEN, "dense", (24.7, 7.5)),
        (TWO, "dense", (24.0, 7.1)),
        (TWO, "multicrop", (23.9, 7.2)),
        (TWO, "both", (23.7, 6.8)),
    ],
    "table07-state-of-the-art": [
        (TWO, "both", (23.7, 6.8)),
        (("e-jitter",), "both", (24.4, 7.1)),
        (SEVEN, "dense", (24.7, 7.5)),
    ],
}
# Tables 8 to 10: the net of each row with its scales, and the error in validation.
BOXES = {
    "table08-box-regression": [
        ({"box-384-scr-fc": (384,)}, 36.4),
        ({"box-384-pcr-fc": (384,)}, 34.3),
        ({"box-384": (384,)}, 33.1),
    ],
    "table09-localisation": [
        ({"box-256": (256,)}, 29.5),
        ({"box-384": (384,)}, 28.2),
        ({"box-384": (352, 384)}, 27.5),
        ({"box-256": (256,), "box-384": (352, 384)}, 26.9),
    ],
    "table10-state-of-the-art": [({"box-256": (256,), "box-384": (352, 384)}, 26.9)],
}
TRAIN = ("train-a", "train-a-lrn", "train-b", "train-c-jitter", "train-d-jitter", "train-e-jitter")
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
    assert (
        recipe_names()
        == names
        == sorted([*PAPER, *ERRORS, *BOXES, *(f"embedded-{name}" for name in SHIPPED), *TRAIN])
    )
    assert {f"vggfeat/_share/pipelines/{name}.toml" for name in names} <= set(WHEEL_HOLDS)


@pytest.mark.parametrize("name", sorted(set(recipe_names()) - {*TRAIN, *ERRORS, *BOXES}))
def test_it_loads_and_says_how_it_is_run(name: str) -> None:
    """The data set is a shipped card, and the header has the command that people type."""
    recipe = open_svm_recipe(name)
    assert recipe.name == name
    card = load_card(recipe.dataset)
    assert card.name == recipe.dataset
    protocol_of(card).check(card, svm=recipe.classifier)
    assert f"vggfeat run {name}" in header(name).splitlines()


@pytest.mark.parametrize("name", PAPER)
def test_figures_are_the_papers(name: str) -> None:
    """Row by row what the table has, in the recipe, in its header and in the data set's card."""
    recipe = open_svm_recipe(name)
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
    for line in open_svm_recipe(name).table():
        made = line.features
        assert (made.layers, made.weights, made.pool) == (("fc7",), ("authors",), "average")
        assert (made.flip, made.normalize, made.power) == (True, "descriptor", None)
        assert (made.Q, made.aggregate) == (CALTECH if caltech else VOC)
        boxes = line.name.endswith("box")
        assert made.views == (("image", "box") if boxes else ("image",))
    assert open_svm_recipe(name).classifier.loss == "auto"  # the hinge, as long as it fits memory


Kind = TypeVar("Kind", TrainingRecipe, ClassificationRecipe, LocalizationRecipe)


def opened(name: str, kind: type[Kind]) -> Kind:
    recipe = open_recipe(name)
    assert isinstance(recipe, kind)
    return recipe


def trained_by(chain: str, key: str) -> tuple[str, object]:
    """Return net and S of a link of a chain."""
    [run] = [run for run in opened(chain, TrainingRecipe).runs() if run.name == key]
    return run.settings.net, run.settings.S


def flop(net: str, height: int, width: int) -> int:
    """Count two operations for each multiplication of a dense forward pass."""
    total = 0
    for layer in layers_of(net):
        if layer.kind == "pool":
            height, width = height // 2, width // 2
        if layer.kind in ("conv", "fc"):
            outside = layer.kernel - 1 if layer.kind == "fc" else 0
            height, width = height - outside, width - outside
            total += 2 * math.prod(layer.shape) * height * width
    return total


def forward(net: str) -> int:
    """Count those of one crop."""
    return flop(net, 224, 224)


def dense(net: str, Q: int) -> int:
    """Count those of an image of Q × 4/3 Q."""
    return flop(net, Q, Q * 4 // 3)


@pytest.mark.parametrize("name", TRAIN)
def test_chains_are_the_papers(name: str) -> None:
    """A at 256; then the net from A, at 384 from 256 and jittered from 384, both at rate 1e-3."""
    net = name.removeprefix("train-").removesuffix("-jitter")
    ends = ["256", "384", "jitter"] if name.endswith("jitter") else ["256"]
    own = [f"{net}-{end}" for end in ends]
    names = own if net in ("a", "a-lrn") else ["a-256", *own]
    runs = opened(name, TrainingRecipe).runs()
    assert [(run.name, run.origin) for run in runs] == list(
        zip(names, ["", *names[:-1]], strict=True)
    )
    scales = {"256": 256, "384": 384, "jitter": (256, 512)}
    for run in runs:
        of, _, end = run.name.rpartition("-")
        rate = 1e-2 if end == "256" else 1e-3
        # All else is Section 3.1's, which is what Training is where nothing is said.
        assert run.settings == Training(net=of.upper(), S=scales[end], learning_rate=rate)
        assert run.paper == TABLE3[run.name]


@pytest.mark.parametrize("name", TRAIN)
def test_a_chains_header_has_command_errors_and_work(name: str) -> None:
    """Table 3's errors in order, and 3 × forward FLOP × 1,281,167 images × 74 epochs."""
    runs = opened(name, TrainingRecipe).runs()
    told = header(name)
    assert f"vggfeat run {name} --data ILSVRC_ROOT --out runs" in told.splitlines()
    errors = re.findall(r"([a-e](?:-lrn)?-\w+)\s(\d+\.\d)/(\d+\.\d)", told)
    assert errors == [(run.name, *(f"{one:.1f}" for one in TABLE3[run.name])) for run in runs]
    work = re.findall(r"net (\S+): 3 × (.*) GFLOP × 1,281,167 × 74 = (.*) EFLOP", told)
    nets = [run.settings.net for run in runs]
    exa = {net: 3e-18 * forward(net) * 1_281_167 * 74 for net in nets}
    assert work == [(net, f"{forward(net) / 1e9:.1f}", f"{exa[net]:.1f}") for net in exa]
    [total] = re.findall(r"In all (\d+\.\d) EFLOP", told)
    assert total == f"{sum(exa[net] for net in nets):.1f}"
    assert "not the same protocol" in told
    assert "no GPU to measure" in told


@pytest.mark.parametrize("name", ERRORS)
def test_tables_of_errors_are_the_papers(name: str) -> None:
    """Row by row nets, mode and errors; scales by Section 3.2's rule; every net's chain trains it.

    Table 3 has one scale, S itself or the middle of a range; all others have three.
    """
    table = opened(name, ClassificationRecipe)
    found = [(tuple(use.net for use in row.uses), row.mode, row.paper) for row in table.rows]
    assert found == ERRORS[name]
    assert len({row.name for row in table.rows}) == len(table.rows)
    for row in table.rows:
        for use in row.uses:
            S = table.nets[use.net].S
            three = (S - 32, S, S + 32) if isinstance(S, int) else (S[0], sum(S) // 2, S[1])
            assert (three[1:2] if name.startswith("table03") else three) == use.Q
    assert set(table.nets) == {use.net for row in table.rows for use in row.uses}
    for key, net in table.nets.items():
        assert trained_by(net.chain, key) == (net.net, net.S)
        assert net.weights == ("authors" if key in TWO else "")


@pytest.mark.parametrize("name", ERRORS)
def test_a_tables_header_has_command_errors_and_work(name: str) -> None:
    """All rows with their errors, and the work of every net, scale and mode, each counted once."""
    table, told = opened(name, ClassificationRecipe), header(name)
    [command] = re.findall(r"^vggfeat run .*$", told, re.MULTILINE)
    trained = any(not net.weights for net in table.nets.values())
    assert command == f"vggfeat run {name} --data ILSVRC_ROOT" + " --runs runs" * trained
    for row in table.rows:
        assert f"\n{row.name}: {row.paper[0]:.1f}/{row.paper[1]:.1f}\n" in told
    once = {
        (use.net, Q, mode)
        for row in table.rows
        for use in row.uses
        for Q in use.Q
        for mode in (("dense", "multicrop") if row.mode == "both" else (row.mode,))
    }
    nets = {name: net.net for name, net in table.nets.items()}
    work = sum(
        dense(nets[net], Q) if mode == "dense" else 25 * forward(nets[net]) for net, Q, mode in once
    )
    [peta] = re.findall(r"^Time: ([\d.]+) PFLOP", told, re.MULTILINE)
    assert peta == f"{work * 2 * 50_000 / 1e15:.1f}"


@pytest.mark.parametrize("name", BOXES)
def test_tables_of_localisation_are_the_papers(name: str) -> None:
    """Nets, scales and errors row by row; D at its own S; labels of the best system of Table 6."""
    recipe = opened(name, LocalizationRecipe)
    assert [({use.net: use.Q for use in row.uses}, row.paper) for row in recipe.rows] == BOXES[name]
    assert set(recipe.boxes) == {use.net for row in recipe.rows for use in row.uses}
    for key, net in recipe.boxes.items():
        regression = "scr" if "scr" in key else "pcr"
        freeze = "conv" if key.endswith("fc") else "none"
        assert (net.net, net.init, net.S) == ("D", f"d-{net.S}", int(key.split("-")[1]))
        assert (net.regression, net.freeze) == (regression, freeze)
    for key, trained in recipe.nets.items():
        assert trained_by(trained.chain, key) == (trained.net, trained.S)
    assert recipe.merging == Merging()
    assert (recipe.measure == "central") == name.startswith("table08")
    if recipe.labels:
        best = opened("table06-fusion", ClassificationRecipe).rows[-1]
        assert (recipe.labels.uses, recipe.labels.mode) == (best.uses, best.mode)
    others = {other.name: (other.paper, other.unlike) for other in recipe.others}
    of_test = "on test images"
    assert others == (
        {"OverFeat": (30.0, ""), "GoogLeNet": (26.7, of_test), "Krizhevsky et al.": (34.2, of_test)}
        if name.startswith("table10")
        else {}
    )


@pytest.mark.parametrize("name", BOXES)
def test_a_localisation_tables_header_has_commands_errors_and_work(name: str) -> None:
    """How it is run, how its nets are trained, all errors, and the work of nets and labels."""
    recipe, text = opened(name, LocalizationRecipe), header(name)
    assert f"vggfeat run {name} --data ILSVRC_ROOT --runs runs" in text.splitlines()
    for key, net in recipe.boxes.items():
        assert net.training_command(key, Path("runs")) in " ".join(text.replace("\\", "").split())
    assert not recipe.decoding.exif  # ILSVRC's annotations state the stored size
    for row in recipe.rows:
        assert f"\n{row.name}: {row.paper:.1f}\n" in text
    work = forward("D") * len(recipe.rows)  # the central crop
    labels = 0
    if recipe.labels:
        scales = [[Q for use in row.uses for Q in use.Q] for row in recipe.rows]
        work += sum(dense("D", Q) for row in scales for Q in (*row, *set(row)))
        labels = 2 * sum(
            dense(recipe.nets[use.net].net, Q) + 25 * forward(recipe.nets[use.net].net)
            for use in recipe.labels.uses
            for Q in use.Q
        )
        assert f"{labels * 5e4 / 1e15:.1f} PFLOP of it are the labels' scores" in text
    [peta] = re.findall(r"^Time: ([\d.]+) PFLOP", text, re.MULTILINE)
    assert peta == f"{(work + labels) * 5e4 / 1e15:.1f}"
