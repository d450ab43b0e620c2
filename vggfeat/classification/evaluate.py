"""Classification (Section 3.2): which posteriors make a result, and how often it is wrong.

In the paper's order the map of class scores is averaged over locations, then comes the soft-max;
then image and mirror image are averaged, then scales, modes and nets. All after the soft-max are
means of posteriors, whose order does not matter.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vggfeat._io.text import counted
from vggfeat.classification.classes import Classes, ilsvrc_classes
from vggfeat.classification.modes import find_mode
from vggfeat.classification.scores import (
    Floats,
    Scores,
    by_net,
    describe_origin,
    posteriors,
    same_classes,
    same_images,
    scales_of,
)
from vggfeat.classification.validation import Validation
from vggfeat.errors import DataError
from vggfeat.recipes import open_recipe, recipe_names
from vggfeat.recipes.classification import ClassificationRecipe
from vggfeat.recipes.networks import ErrorPair
from vggfeat.result import Measure, Published, Result, Table, TableColumn

TOP = 5

Ints = NDArray[np.int64]
Watch = Callable[[Sequence[str], Floats], None]
"""Is told the names of some images and their posteriors."""


def top_k(posteriors: Floats, k: int) -> Ints:
    """Return the k likeliest classes (n, k), the likeliest first; of equal ones the first.

    Examples
    --------
    >>> top_k(np.array([[0.1, 0.6, 0.3], [0.4, 0.2, 0.4]]), 2)
    array([[1, 2],
           [0, 2]])
    """
    return np.argsort(-posteriors, axis=1, kind="stable")[:, :k]


def ranks(posteriors: Floats, labels: Ints) -> Ints:
    """Count the classes (n,) that come before the true one, in the order of :func:`top_k`.

    Examples
    --------
    >>> ranks(np.array([[0.1, 0.6, 0.3], [0.4, 0.2, 0.4]]), np.array([2, 2]))
    array([1, 1])
    """
    true = np.take_along_axis(posteriors, labels[:, None], axis=1)
    before = np.arange(posteriors.shape[1]) < labels[:, None]
    likelier: Ints = ((posteriors > true) | ((posteriors == true) & before)).sum(axis=1)
    return likelier


@dataclass(frozen=True)
class ClassErrors:
    """How often the true class was not among the likeliest.

    Parameters
    ----------
    tested, wrong1, wrong5 : ndarray (C,) of int64
        Of each class: its images; those whose likeliest class is another; those whose five
        likeliest classes are others.

    Examples
    --------
    >>> errors = count_errors([np.array([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2]])], np.array([0, 1]), 3)
    >>> errors.top1, errors.top5, errors.images
    (0.5, nan, 2)
    """

    tested: Ints
    wrong1: Ints
    wrong5: Ints

    @property
    def images(self) -> int:
        """Number of images."""
        return int(self.tested.sum())

    @property
    def top1(self) -> float:
        """Top-1 error, a share from 0 to 1."""
        return float(self.wrong1.sum() / self.tested.sum())

    @property
    def top5(self) -> float:
        """Top-5 error, a share from 0 to 1; NaN where no class can be outside of five."""
        if len(self.tested) <= TOP:
            return float("nan")
        return float(self.wrong5.sum() / self.tested.sum())


def count_errors(blocks: Iterable[Floats], labels: Ints, classes: int) -> ClassErrors:
    """Count errors, block by block.

    Parameters
    ----------
    blocks : iterable of ndarray (n, C)
        Posteriors, as from :func:`~vggfeat.classification.scores.posteriors`.
    labels : ndarray (N,) of int64
        The true classes of all images.
    classes : int
        C.

    Raises
    ------
    DataError
        If there is no image.
    """
    if not len(labels):
        raise DataError("There is no image to test on.")
    counts = np.zeros((3, classes), np.int64)
    start = 0
    for block in blocks:
        true = labels[start : start + len(block)]
        start += len(block)
        rank = ranks(block, true)
        for row, wrong in zip(counts, (true, true[rank >= 1], true[rank >= TOP]), strict=True):
            row += np.bincount(wrong, minlength=classes)
    return ClassErrors(*counts)


def evaluate(
    scores: Sequence[Scores],
    data: Validation,
    *,
    paper: Mapping[str, ErrorPair] | None = None,
    watch: Watch | None = None,
) -> Result:
    """Fuse posteriors, and measure how often they are wrong.

    Parameters
    ----------
    scores : sequence of Scores
        Of the same images and classes; each net counts the same.
    data : Validation
        The images and their classes.
    paper : mapping of str to (float, float), optional
        The paper's errors in percent, by the name of their line; by default those of the same nets,
        scales and mode, if the classes are ILSVRC's.
    watch : callable, optional
        Is told all posteriors, block by block.

    Returns
    -------
    Result
        Top-1 and top-5 error, and the errors of each class.

    Raises
    ------
    DataError
        If there is no image, or one of the scores has no class.
    StoreError
        If the scores are not of the same images and classes.
    """
    classes, names = same_classes(scores), same_images(scores)
    if classes.keys != data.classes.keys:
        raise DataError(f"{data.where} was opened for other classes than those of the scores.")
    if paper is None:
        paper = _find_paper(scores) if classes.keys == ilsvrc_classes().keys else {}

    def blocks() -> Iterable[Floats]:
        start = 0
        for block in posteriors(scores, names):
            if watch:
                watch(names[start : start + len(block)], block)
            start += len(block)
            yield block

    errors = count_errors(blocks(), data.labels_of(names), len(classes))
    failed = {name: reason for one in scores for name, reason in one.failed.items()}
    tables = [_class_table(errors, classes)]
    if failed:
        columns = (TableColumn("image", "Image"), TableColumn("reason", "Reason"))
        tables.append(Table("failed", "Images left out", columns, tuple(failed.items()), shown=0))
    return Result(
        name=str(data.where),
        title=f"Classification, {data.where}",
        headline=make_headline((errors.top1, errors.top5), paper),
        about=f"{counted(errors.images, 'image')} in {data.where}",
        parts=tuple(tables),
        settings={"data": str(data.where), "images": errors.images, "nets": _describe_nets(scores)},
        provenance={"scores": describe_origin(scores)},
        partial=tuple(filter(None, (data.partial, *_lacking(data, names, failed)))),
    )


def make_headline(
    errors: tuple[float, float], paper: Mapping[str, ErrorPair]
) -> tuple[Measure, Measure]:
    """Put top-1 and top-5 error beside the paper's, which are in percent."""
    top1, top5 = (
        tuple(Published(name, pair[place] / 100) for name, pair in paper.items())
        for place in range(2)
    )
    return (
        Measure("top1", "top-1 error", errors[0], paper=top1),
        Measure("top5", "top-5 error", errors[1], paper=top5),
    )


class EvaluatedNet(NamedTuple):
    """A trained net, and how it was tested.

    Parameters
    ----------
    net : str
        Configuration of Table 1.
    Q : tuple of int
        Test scales.
    S : int or (int, int), optional
        Training scale, where its weights say it.
    source : str
        Where its weights are from, which may tell the training scale as well.
    """

    net: str
    Q: tuple[int, ...]
    S: int | tuple[int, int] | None = None
    source: str = ""


def find_published(nets: Sequence[EvaluatedNet], mode: str) -> dict[str, ErrorPair]:
    """Find what the paper measured with these nets, each at its own scales.

    Where a training scale is not known, nothing compares.

    Returns
    -------
    dict of str to (float, float)
        Top-1 and top-5 error in percent, by the table and its line.

    Examples
    --------
    >>> D = EvaluatedNet("D", (256, 384, 512), source="authors")
    >>> find_published([D], "both")
    {'Table 5, multi-crop evaluation: D, multi-crop & dense': (24.4, 7.2)}
    >>> find_published([D._replace(source="torchvision")], "dense")
    {}
    """
    tables = [
        recipe
        for recipe in map(open_recipe, recipe_names())
        if isinstance(recipe, ClassificationRecipe)
    ]
    # A source that stands in for a net of the tables was trained at its scale.
    sources = {
        (net.net, net.weights): net.S
        for table in tables
        for net in table.nets.values()
        if net.weights
    }
    tested = Counter(
        (net.net, frozenset(net.Q), net.S or sources.get((net.net, net.source))) for net in nets
    )
    lines: dict[tuple[str, ...], tuple[str, ErrorPair]] = {}
    for table in tables:
        for row in table.rows:
            used = [(table.nets[use.net], frozenset(use.Q)) for use in row.uses]
            same = Counter((net.net, Q, net.S) for net, Q in used) == tested
            if row.paper and row.mode == mode and same:
                key = tuple(sorted(use.net for use in row.uses))  # as Tables 6 and 7 share a line
                lines.setdefault(key, (f"{table.title}: {row.name}", row.paper))
    return dict(lines.values())


def _find_paper(scores: Sequence[Scores]) -> dict[str, ErrorPair]:
    """Find the paper's lines of these nets, each at its own scales, and of this mode."""
    nets = by_net(scores)
    scales = [scales_of(net) for net in nets]
    modes = {find_mode(list(pools)) for pools in scales}
    alike = all(len(set(pools.values())) == 1 for pools in scales)
    if len(modes) > 1 or not alike or not all(one.settings.get("flip", True) for one in scores):
        return {}
    sources = [net[0].provenance.get("weights", {}).get("source", "") for net in nets]
    tested = [
        EvaluatedNet(net[0].net, next(iter(pools.values())), net[0].S, source)
        for net, pools, source in zip(nets, scales, sources, strict=True)
    ]
    return find_published(tested, modes.pop())


def _class_table(errors: ClassErrors, classes: Classes) -> Table:
    columns = [
        TableColumn("class", "Class"),
        TableColumn("key", "Key"),
        TableColumn("images", "Images", "int"),
        TableColumn("top1_errors", "Top-1 errors", "int"),
    ]
    counts = [errors.tested, errors.wrong1]
    if len(classes) > TOP:
        columns.append(TableColumn("top5_errors", "Top-5 errors", "int"))
        counts.append(errors.wrong5)
    rows = zip(classes.names, classes.keys, *(row.tolist() for row in counts), strict=True)
    return Table("classes", "Errors of classes", tuple(columns), tuple(rows), shown=0)


def _describe_nets(scores: Sequence[Scores]) -> list[str]:
    """Say which nets are averaged, by which poolings and at which scales."""
    nets = []
    for net in by_net(scores):
        held = scales_of(net)
        for scales in dict.fromkeys(held.values()):
            pools = [pool for pool, own in held.items() if own == scales]
            nets.append(f"{net[0].net}, {' and '.join(pools)} at Q = {', '.join(map(str, scales))}")
    return nets


def _lacking(data: Validation, names: Sequence[str], failed: Mapping[str, str]) -> list[str]:
    """Say how many of the images have no scores, and why."""
    absent = set(data.images.names) - set(names)
    unread = len(absent & set(failed))
    rest = len(absent) - unread
    reasons = [f"{counted(unread, 'image')} could not be read"] if unread else []
    have = "has" if rest == 1 else "have"
    return reasons + ([f"{counted(rest, 'image')} {have} no scores"] if rest else [])
