"""Tables 3 to 7: their recipes, run row by row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vggfeat.classification.classes import classes_of, ilsvrc_classes
from vggfeat.classification.evaluate import evaluate, make_headline
from vggfeat.classification.modes import find_pools, score
from vggfeat.classification.scores import Scores
from vggfeat.classification.validation import Validation, open_validation
from vggfeat.errors import DataError, VggfeatError
from vggfeat.features.extractor import DenseExtractor
from vggfeat.features.pipeline import extract
from vggfeat.features.summary import Progress, Summary
from vggfeat.recipes.classification import ClassificationRecipe, ClassificationRow
from vggfeat.recipes.networks import TrainedNet, Use, find_weights
from vggfeat.result import Measure, Result
from vggfeat.settings import Mode, NetEvaluation

Open = Callable[[str, str, str, Path | None], DenseExtractor]
"""Opens fc8 of a net of Table 1 with some weights and a pooling, or several joined by +; in the
precision of a store, if there is one in the folder."""


def keeping_last(open_net: Open) -> Open:
    """Keep the network that was opened last, for as long as no other is asked for."""
    last: dict[tuple[str, str, str, Path | None], DenseExtractor] = {}

    def opener(net: str, source: str, pool: str, folder: Path | None) -> DenseExtractor:
        key = (net, source, pool, folder)
        if key not in last:
            last.clear()  # the next one needs the memory
            last[key] = open_net(*key)
        return last[key]

    return opener


@dataclass(frozen=True)
class TableRun:
    """What a table is run on, and with.

    Scores are computed once for each net, scale and mode, and shared by all rows and tables.

    Parameters
    ----------
    data : Validation
        As from :func:`open_ilsvrc`.
    opener : callable
    runs, weights
        As for :func:`~vggfeat.recipes.networks.find_weights`.
    folder : Path, optional
        Where scores are kept: a store for each net in it. In ``VGGFEAT_HOME`` by default.
    progress : callable
        Makes what is told how a row goes on.
    extract : callable
        What computes, as :func:`~vggfeat.features.pipeline.extract` does.
    """

    data: Validation
    opener: Open
    runs: Path = Path("runs")
    weights: Mapping[str, str] = field(default_factory=dict)
    folder: Path | None = None
    progress: Callable[[str], Progress | None] = lambda row: None
    extract: Callable[..., Summary] = extract

    def score(
        self,
        nets: Mapping[str, TrainedNet],
        uses: Sequence[Use],
        mode: Mode,
        progress: Progress | None,
    ) -> list[Scores]:
        """Run some nets over the images; what stores have is not computed again.

        Raises
        ------
        WeightsNotFound
            If one of them is not trained.
        DataError
            If one of them was not trained on ILSVRC's classes.
        """
        # All of them, before hours are spent on the first.
        sources = [find_weights(nets, use.net, self.runs, self.weights) for use in uses]
        pool = "+".join(find_pools(NetEvaluation(mode=mode)))
        scores: list[Scores] = []
        for use, source in zip(uses, sources, strict=True):
            place = self.folder and self.folder / use.net
            extractor = self.opener(nets[use.net].net, source, pool, place)
            if classes_of(extractor.weights).keys != self.data.classes.keys:
                raise DataError(f"{source} was not trained on ILSVRC's 1,000 classes.")
            scores += score(
                self.data.images, extractor, use.Q, place, progress=progress, extract=self.extract
            )[0]
        return scores


def open_ilsvrc(root: Path, *, allow_partial: bool) -> Validation:
    """Open ILSVRC-2012's validation images.

    Raises
    ------
    DataNotFound
        If they are not there.
    DataError
        If they are not all there, and a part will not do.
    """
    data = open_validation(root, ilsvrc_classes())
    if data.partial and not allow_partial:
        raise DataError(
            f"{data.where} has {data.partial}. Restore the others, or use it as it is with "
            "--allow-partial."
        )
    return data


def classify_rows(
    recipe: ClassificationRecipe, run: TableRun
) -> Iterator[tuple[ClassificationRow, Result, VggfeatError | None]]:
    """Test every row; no failure of one stops the others.

    Yields
    ------
    row, result, error
        After each row; one that failed has a result without figures.
    """
    for row in recipe.rows:
        paper = {row.name: row.paper} if row.paper else {}
        try:
            scores = run.score(recipe.nets, row.uses, row.mode, run.progress(row.name))
            result = evaluate(scores, run.data, paper=paper)
        except VggfeatError as error:
            headline = make_headline((float("nan"), float("nan")), paper)
            yield row, failed_row(row.name, headline, error), error
        else:
            yield row, result, None


def failed_row(name: str, headline: tuple[Measure, ...], error: VggfeatError) -> Result:
    """Make the result of a row that could not be measured."""
    return Result(name, name, headline, failed=str(error))
