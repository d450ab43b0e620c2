"""Tables 3 to 7: their recipes, run row by row, and which of their lines is of some nets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from vggfeat._io.text import counted
from vggfeat.classification.classes import classes_of, ilsvrc_classes
from vggfeat.classification.evaluate import Errors, errors_of, pools_of, score
from vggfeat.classification.scores import Scores, describe_origin, posteriors, same_images
from vggfeat.classification.validation import Validation, open_validation
from vggfeat.errors import DataError, VggfeatError
from vggfeat.features.extractor import DenseExtractor
from vggfeat.features.pipeline import Progress, Summary, extract
from vggfeat.recipes import (
    ClassificationRecipe,
    ClassificationRow,
    ErrorPair,
    Use,
    find_weights,
    open_recipe,
    recipe_names,
)

Open = Callable[[str, str, str, Path | None], DenseExtractor]
"""Opens fc8 of a net of Table 1 with some weights and a pooling, or several joined by +; in the
precision of a store, if there is one in the folder."""


def keeping_one(open_net: Open) -> Open:
    """Keep the network that was opened last, for as long as no other is asked for."""
    held: dict[tuple[str, str, str, Path | None], DenseExtractor] = {}

    def opener(net: str, source: str, pool: str, folder: Path | None) -> DenseExtractor:
        asked = (net, source, pool, folder)
        if asked not in held:
            held.clear()  # the next one needs the memory
            held[asked] = open_net(*asked)
        return held[asked]

    return opener


@dataclass(frozen=True)
class Outcome:
    """One row of a table, and what came of it.

    Parameters
    ----------
    row : ClassificationRow
    errors : Errors, optional
        None where there are none.
    partial : str
        Why they compare with nothing published.
    failed : VggfeatError, optional
        Why there are none.
    provenance : dict
        What stands behind the scores of each net.
    """

    row: ClassificationRow
    errors: Errors | None = None
    partial: str = ""
    failed: VggfeatError | None = None
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def measured(self) -> tuple[float, float] | None:
        """Top-1 and top-5 error, in percent."""
        return None if self.errors is None else (100 * self.errors.top1, 100 * self.errors.top5)

    @property
    def difference(self) -> tuple[float, float] | None:
        """Measured less the paper's, where both are figures of the same thing."""
        if self.measured is None or self.row.paper is None or self.partial:
            return None
        return (self.measured[0] - self.row.paper[0], self.measured[1] - self.row.paper[1])

    def to_dict(self) -> dict[str, Any]:
        """Return the row as plain JSON types."""
        return {
            "row": self.row.name,
            "top1": self.errors and self.errors.top1,
            "top5": self.errors and self.errors.top5,
            "images": self.errors.images if self.errors else 0,
            "paper": self.row.paper,
            "difference": self.difference,
            "partial": self.partial,
            "error": str(self.failed or ""),
            "provenance": self.provenance,
        }


def open_ilsvrc(root: Path, *, allow_partial: bool) -> Validation:
    """Open ILSVRC-2012's validation images.

    Raises
    ------
    DataNotFound
        If they are not there.
    DataError
        If they are not all there, and a part will not do.
    """
    found = open_validation(root, ilsvrc_classes())
    if found.partial and not allow_partial:
        raise DataError(
            f"{found.where} has {found.partial}. Restore the others, or use it as it is with "
            "--allow-partial."
        )
    return found


def run_table(
    table: ClassificationRecipe,
    data: Validation,
    opener: Open,
    *,
    runs: Path = Path("runs"),
    weights: Mapping[str, str] | None = None,
    folder: Path | None = None,
    on_bad_image: str = "skip",
    workers: int | None = None,
    progress: Callable[[str], Progress | None] = lambda row: None,
    extract: Callable[..., Summary] = extract,
) -> Iterator[Outcome]:
    """Test every row; no failure of one stops the others.

    Scores are computed once for each net, scale and mode, and shared by all rows and tables.

    Parameters
    ----------
    table : ClassificationRecipe
    data : Validation
        As from :func:`open_ilsvrc`.
    opener : callable
    runs, weights
        As for :func:`~vggfeat.recipes.find_weights`.
    folder : Path, optional
        Where scores are kept: a store for each net in it. In ``VGGFEAT_HOME`` by default.
    on_bad_image, workers
        As for :func:`~vggfeat.features.pipeline.extract`.
    progress : callable
        Makes what is told how a row goes on.
    extract : callable
        What computes, as :func:`~vggfeat.features.pipeline.extract` does.

    Yields
    ------
    Outcome
        After each row.
    """

    def scored(use: Use, source: str, mode: str, tell: Progress | None) -> list[Scores]:
        place = folder and folder / use.net
        extractor = opener(table.nets[use.net].net, source, "+".join(pools_of(mode)), place)
        if classes_of(extractor.weights).keys != data.classes.keys:
            raise DataError(f"{source} was not trained on ILSVRC's 1,000 classes.")
        found, _ = score(
            data.images,
            extractor,
            use.Q,
            place,
            on_bad_image=on_bad_image,
            workers=workers,
            progress=tell,
            extract=extract,
        )
        return found

    for row in table.rows:
        tell = progress(row.name)
        try:
            # All of them, before hours are spent on the first.
            sources = [find_weights(table.nets, use.net, runs, weights or {}) for use in row.uses]
            scores = [
                one
                for use, source in zip(row.uses, sources, strict=True)
                for one in scored(use, source, row.mode, tell)
            ]
            names = same_images(scores)
            errors = errors_of(posteriors(scores, names), data.labels_of(names), len(data.classes))
        except VggfeatError as error:
            yield Outcome(row, failed=error)
            continue
        partial = data.partial
        if not partial and (unread := len(data.images) - len(names)):
            partial = f"{counted(unread, 'image')} could not be read"
        yield Outcome(row, errors, partial, provenance=describe_origin(scores))


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


def find_published(nets: Sequence[EvaluatedNet], mode: str) -> dict[str, tuple[float, float]]:
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
            names = [(table.nets[use.net], frozenset(use.Q)) for use in row.uses]
            if (
                row.paper
                and row.mode == mode
                and Counter((net.net, Q, net.S) for net, Q in names) == tested
            ):
                key = tuple(sorted(use.net for use in row.uses))  # as Tables 6 and 7 have one line
                lines.setdefault(key, (f"{table.title}: {row.name}", row.paper))
    return dict(lines.values())
