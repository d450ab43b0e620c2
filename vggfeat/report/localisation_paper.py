"""The paper's errors of localisation, and whether a test's compare with them."""

from __future__ import annotations

from typing import NamedTuple

from vggfeat.data.datasets import load_card
from vggfeat.localization.judged import LocalisationResult
from vggfeat.report.words import count

CARD = "ilsvrc2012"
PAPER = (
    ("central", "Table 8", "S = 384, fc6–7 fine-tuned, one box", 36.4),
    ("central", "Table 8", "S = 384, fc6–7 fine-tuned, a box for each class", 34.3),
    ("central", "Table 8", "S = 384, all layers fine-tuned, a box for each class", 33.1),
    ("top5", "Table 9", "S = 256, Q = 256", 29.5),
    ("top5", "Table 9", "S = 384, Q = 384", 28.2),
    ("top5", "Table 9", "S = 384, Q = 352, 384", 27.5),
    ("top5", "Table 9", "both nets", 26.9),
    ("top5", "Table 10", "OverFeat", 30.0),
    ("test", "Table 10", "Krizhevsky et al., test", 34.2),
    ("test", "Table 10", "GoogLeNet, test", 26.7),
)
"""Errors of Tables 8 to 10, in percent, on ILSVRC's validation images, or on its test ones."""


class PaperRow(NamedTuple):
    """An error of the paper, in percent, and how much this one is above it."""

    table: str
    name: str
    error: float
    difference: str


def of_ilsvrc(result: LocalisationResult) -> bool:
    """Tell whether the classes are ILSVRC's."""
    return list(result.classes) == list(load_card(CARD).classes)


def lacking(result: LocalisationResult) -> list[str]:
    """Say what of the test images was not tested, if anything."""
    told = result.settings
    said = []
    if (limit := told.get("limit")) and limit < told["objects"]:
        said.append(f"the first {count(limit)} of {count(told['objects'])} objects (--limit)")
    for names, why in ((told.get("left_out", {}), "boxes cannot be placed"), (result.failed, "")):
        if names:
            images = "1 image" if len(names) == 1 else f"{count(len(names))} images"
            said.append(f"{images} left out{': ' * bool(why)}{why}")
    whole = load_card(CARD).counts["val"]
    if of_ilsvrc(result) and result.tested != whole:
        said.append(f"{count(result.tested)} of {count(whole)} validation images")
    return said


def compares(result: LocalisationResult) -> bool:
    """Tell whether the paper's errors are of the same images: all of ILSVRC's validation."""
    return of_ilsvrc(result) and not lacking(result)


def papers(result: LocalisationResult) -> list[PaperRow]:
    """Return the paper's errors by the protocols that were run, with differences if it compares."""
    every, same = result.errors()._asdict(), compares(result)
    rows = []
    for kind, table, name, error in PAPER:
        if result.dense or kind == "central":
            above = f"{100 * every[kind] - error:+.1f}" if same and kind != "test" else "–"
            rows.append(PaperRow(table, name, error, above.replace("-", "−")))
    return rows
