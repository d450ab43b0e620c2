"""I3: a tree of VOC 2007 with difficult objects, and one of VOC 2012 with persons who act."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from golden.inputs import made
from golden.making.textures import KINDS, mixed, write
from golden.making.whole import weights

EACH = 24
"""Images of a part."""
SIDE = 32
"""Pixels of one of the two squares that an image has."""
_CARD = """name = "{name}"
reader = "voc"
folder = "VOCdevkit/{year}"
classes = {classes}
[protocol]
kind = "voc"
task = "{task}"
ap = "{ap}"
{more}
"""
_OBJECT = (
    "<object><name>{name}</name><difficult>{difficult}</difficult><bndbox><xmin>{left}</xmin>"
    "<ymin>1</ymin><xmax>{right}</xmax><ymax>{bottom}</ymax></bndbox></object>"
)


@made("I3")
def trees(folder: Path) -> None:
    """Write both years, a card for each, and weights of net E up to pool2."""
    listed = "[" + ", ".join(f'"{kind}"' for kind in KINDS) + "]"
    years = {
        "VOC2007": ("classification", "ap11", ""),
        "VOC2012": ("action", "area", 'server_file = "comp10_action_test_{class}.txt"'),
    }
    for year, (task, ap, more) in years.items():
        card = _CARD.format(
            name=year.lower(), year=year, classes=listed, task=task, ap=ap, more=more
        )
        (folder / f"{year.lower()}.toml").write_text(card, "utf-8")
    _classification(folder / "VOCdevkit" / "VOC2007", np.random.RandomState(3))
    _actions(folder / "VOCdevkit" / "VOC2012", np.random.RandomState(4))
    shapes = {"conv1_1": (64, 3), "conv1_2": (64, 64), "conv2_1": (128, 64), "conv2_2": (128, 128)}
    state = {}
    for seed, (name, shape) in enumerate(shapes.items()):
        state[f"{name}.weight"] = weights((*shape, 3, 3), 50 + seed)
        state[f"{name}.bias"] = weights((shape[0], 24), 60 + seed)[:, 0] / 16
    save_file(state, folder / "net-E.safetensors")


def _classification(tree: Path, random: np.random.RandomState) -> None:
    """Write scenes of two objects; one in four is difficult, and faint."""
    every: dict[str, list[int]] = {}
    for part, first in (("train", 1), ("val", 101), ("test", 201)):
        rows: dict[str, list[int]] = {}
        for k in range(EACH):
            kinds = [KINDS[k % 4], KINDS[random.randint(4)]]
            faint = [False, random.randint(4) == 0 and kinds[0] != kinds[1]]
            shares = [int(random.randint(1, 4)), 1 if faint[1] else int(random.randint(1, 4))]
            name = f"{first + k:06}"
            _draw(tree, name, [[(kinds[i], shares[i])] for i in (0, 1)], first + k)
            hard = {kind for kind, difficult in zip(kinds, faint, strict=True) if difficult}
            rows[name] = [1 if c in set(kinds) - hard else 0 if c in hard else -1 for c in KINDS]
            _annotate(tree, name, list(zip(kinds, faint, strict=True)))
        _lists(tree / "ImageSets" / "Main", part, rows)
        every |= rows if part != "test" else {}
    _lists(tree / "ImageSets" / "Main", "trainval", every)


def _actions(tree: Path, random: np.random.RandomState) -> None:
    """Write scenes of two persons who do the same, or of one beside something else.

    Persons of one image have one descriptor of the whole image: did they differ in what they do,
    an SVM would have nothing to go by but rounding. The labels of the test part are withheld.
    """
    every: dict[str, list[int]] = {}
    for part, first in (("train", 1), ("val", 101), ("test", 201)):
        rows: dict[str, list[int]] = {}
        for k in range(EACH * 2 // 3):
            name, persons = f"2010_{first + k:06}", 1 + k % 2
            kind = KINDS[(k // 2 + k) % 4]
            shown = []
            for place in range(2):
                other = KINDS[random.randint(4)]
                share = int(random.randint(1, 5)) if place < persons else 0
                shown.append([(kind, share), (other, int(random.randint(1, 5)))])
                if share:
                    rows[f"{name} {place + 1}"] = [1 if c == kind else -1 for c in KINDS]
            _draw(tree, name, shown, 300 + first + k)
            _annotate(tree, name, [("person", False)] * persons)
        _lists(tree / "ImageSets" / "Action", part, rows, labelled=part != "test")
        every |= rows if part != "test" else {}
    _lists(tree / "ImageSets" / "Action", "trainval", every)


def _draw(tree: Path, name: str, squares: Sequence[Sequence[tuple[str, int]]], seed: int) -> None:
    drawn = [mixed(parts, SIDE, SIDE, 2 * seed + n) for n, parts in enumerate(squares)]
    write(tree / "JPEGImages" / f"{name}.jpg", np.concatenate(drawn, axis=1))


def _annotate(tree: Path, name: str, objects: Sequence[tuple[str, bool]]) -> None:
    boxes = [
        _OBJECT.format(
            name=kind,
            difficult=int(difficult),
            left=1 + SIDE * place,
            right=SIDE * (place + 1),
            bottom=SIDE,
        )
        for place, (kind, difficult) in enumerate(objects)
    ]
    (tree / "Annotations").mkdir(parents=True, exist_ok=True)
    text = f"<annotation><filename>{name}.jpg</filename>{''.join(boxes)}</annotation>"
    (tree / "Annotations" / f"{name}.xml").write_text(text, "utf-8")


def _lists(
    folder: Path, part: str, rows: Mapping[str, Sequence[int]], *, labelled: bool = True
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if not labelled:
        (folder / f"{part}.txt").write_text("".join(f"{row}\n" for row in rows), "utf-8")
        return
    names = dict.fromkeys(row.split()[0] for row in rows)
    (folder / f"{part}.txt").write_text("".join(f"{name}\n" for name in names), "utf-8")
    for c, kind in enumerate(KINDS):
        lines = "".join(f"{row} {values[c]:2d}\n" for row, values in rows.items())
        (folder / f"{kind}_{part}.txt").write_text(lines, "utf-8")
