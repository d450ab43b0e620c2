"""A result as tables on the terminal."""

from __future__ import annotations

import numpy as np
from rich.bar import Bar
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from vggfeat._io.text import printable
from vggfeat.report.words import (
    AP_NAMES,
    Result,
    chosen_C,
    figure,
    headline,
    percent,
    seconds,
)
from vggfeat.svm.results import SVMResult
from vggfeat.svm.voc_results import APResult


def summary(result: Result, pairs: int = 5) -> RenderableType:
    """Everything about a result that fits a screen: classes, confusions, C, times, headline.

    Parameters
    ----------
    result : SVMResult or APResult
    pairs : int
        How many pairs of confused classes to list.

    Returns
    -------
    rich renderable

    Examples
    --------
    >>> from rich.console import Console
    >>> from vggfeat.svm.protocols import evaluate, random_splits
    >>> X, labels = np.repeat(np.eye(2), 8, axis=0), np.repeat([0, 1], 8)
    >>> result = evaluate(X, labels, ["cat", "dog"], random_splits(labels))
    >>> Console(width=72, color_system=None).print(headline_line(result))
    Mean class recall 100.0 ± 0.0 %  (3 random splits, C = 1)
    """
    parts: list[RenderableType]
    if isinstance(result, APResult):
        parts = [precision_table(result)]
    else:
        parts = [class_table(result)]
        if result.most_confused(1):
            parts.append(confusion_table(result, pairs))
    parts.append(times_line(result))
    parts += [Text(printable(warning), style="yellow") for warning in result.warnings]
    parts.append(headline_line(result))
    return Group(*[Padding(part, (0, 0, 1, 0)) for part in parts[:-1]], parts[-1])


def class_table(result: SVMResult) -> Table:
    """Recall of each class, with a bar."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("class", overflow="ellipsis", no_wrap=True, max_width=28)
    table.add_column("recall %", justify="right")
    table.add_column("")
    table.add_column("test", justify="right")
    images = result.confusion.sum(axis=1)
    for name, recall, tested in zip(result.class_names, result.recalls, images, strict=True):
        bar = Bar(1, 0, float(np.nan_to_num(recall)), width=24, color="cyan")
        table.add_row(Text(printable(name)), percent(float(recall)), bar, str(tested))
    return table


def precision_table(result: APResult) -> Table:
    """Both average precisions of each class, or the one in validation, with a bar and its C."""
    shown = result.per_class if result.tested else result.validation_per_class
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("class", overflow="ellipsis", no_wrap=True, max_width=28)
    table.add_column("AP %" if result.tested else "validation %", justify="right")
    table.add_column("")
    if result.tested:
        other, figures = ("area", result.area) if result.ap == "ap11" else ("ap11", result.ap11)
        table.add_column(AP_NAMES[other].split(" ")[0], justify="right")
    table.add_column("C", justify="right")
    table.add_column("positives", justify="right")
    positives = result.positives["test" if result.tested else "val"]
    for c, name in enumerate(result.class_names):
        bar = Bar(1, 0, float(np.nan_to_num(shown[c])), width=24, color="cyan")
        beside = [percent(float(figures[c]))] if result.tested else []
        chosen = figure(float(result.C[c])) if result.trained[c] else "–"
        precision = percent(float(shown[c]))
        table.add_row(Text(printable(name)), precision, bar, *beside, chosen, str(positives[c]))
    return table


def confusion_table(result: SVMResult, n: int) -> Table:
    """List the most frequent confusions."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("most confused", "taken for"):
        table.add_column(heading, overflow="ellipsis", no_wrap=True, max_width=28)
    table.add_column("images", justify="right")
    for pair in result.most_confused(n):
        true, predicted = (
            Text(printable(result.class_names[c])) for c in (pair.true, pair.predicted)
        )
        table.add_row(true, predicted, f"{pair.images} of {pair.of}")
    return table


def times_line(result: Result) -> Text:
    """Time of each stage, and the solver."""
    stages = ", ".join(f"{stage} {seconds(value)}" for stage, value in result.seconds.items())
    search = result.search if isinstance(result, APResult) else result.splits[0].search
    return Text(f"linear SVM ({search.solver}, {result.settings['loss']}): {stages}", style="dim")


def headline_line(result: Result) -> Text:
    """Say the metric, its figure, what it was measured on, and with which C."""
    told = headline(result)
    if isinstance(result, APResult):
        name, about = told.metric, told.of
    else:
        n = len(result.splits)
        name, about = told.metric.capitalize(), f"{n} random split{'s' if n > 1 else ''}"
    line = Text(f"{name} ").append(f"{told.text} %", style="bold cyan")
    return line.append(f"  ({about}, C = {chosen_C(result)})", style="dim")
