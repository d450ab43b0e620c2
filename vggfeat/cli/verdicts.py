"""What posteriors come to: the likeliest classes of images, or how often they are wrong."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vggfeat._io.atomic import make_folder, replacing
from vggfeat._io.text import counted
from vggfeat.classification.classes import ilsvrc_classes
from vggfeat.classification.evaluate import errors_of, mode_of, top_k, write_errors
from vggfeat.classification.scores import (
    by_net,
    describe_origin,
    posteriors,
    same_classes,
    same_images,
    scales_of,
)
from vggfeat.classification.tables import EvaluatedNet, find_published
from vggfeat.cli.console import grid, note, show, warn_of_failures
from vggfeat.cli.targets import check_file, check_folder
from vggfeat.errors import DataError, ParameterError
from vggfeat.report.tables import render_facts

if TYPE_CHECKING:
    from vggfeat.classification.classes import Classes
    from vggfeat.classification.evaluate import Errors
    from vggfeat.classification.scores import Floats, Scores
    from vggfeat.classification.validation import Validation

SHOWN = 100  # images that are printed; --csv and --json have all

Best = list[tuple[int, float]]
"""Classes and their probabilities, the likeliest first."""


@dataclass(frozen=True)
class Asked:
    """What is shown and written, as the options of these names."""

    top: int
    table: Path | None
    results: Path | None
    out: Path | None
    quiet: bool
    as_json: bool

    def check(self, data: Path | None, *, made_first: Path | None = None) -> None:
        """Refuse, before anything is computed, what needs the true classes or cannot be written.

        Parameters
        ----------
        data : Path, optional
            Where the true classes are.
        made_first : Path, optional
            A folder that the command makes before the table, which may lie in it.

        Raises
        ------
        ParameterError
            If results are to be written without them.
        StoreError
            If a file or folder cannot be written.
        """
        if self.results and data is None:
            raise ParameterError(
                "--results is for errors, which need the true classes: add --data."
            )
        check_folder("--out", self.out)
        check_file("--csv", self.table, made_by=(self.results, made_first))
        check_folder("--results", self.results)


def tell_images(scores: Sequence[Scores], asked: Asked) -> None:
    """Print the likeliest classes of every image."""
    classes, failed = same_classes(scores), _failed(scores)
    names = _names(scores, failed)
    best: list[Best] = []  # of those that are printed
    with _table(asked, classes, failed, None) as write:
        start = 0
        for block in posteriors(scores, names):
            some = _best(block, asked.top)
            write(names[start : start + len(some)], some)
            best += some if asked.as_json else some[: max(0, SHOWN - start)]
            start += len(some)
    shown = list(zip(names, best, strict=False))
    if asked.as_json:
        images: list[dict[str, Any]] = [
            {"image": name, "classes": [_plain(classes, *one) for one in found]}
            for name, found in shown
        ]
        images += [{"image": name, "error": why} for name, why in failed.items()]
        show({"images": images, "scores": describe_origin(scores)}, as_json=True)
    else:
        lines: list[list[object]] = [
            [name if not rank else "", classes.names[place], f"{100 * share:.1f}"]
            for name, found in shown
            for rank, (place, share) in enumerate(found)
        ]
        show({}, grid(["image", "class", "%"], lines), as_json=False)
        if len(names) > SHOWN:
            note(f"And {len(names) - SHOWN:,} more images; --csv FILE writes all.")
    warn_of_failures(failed)


def tell_errors(scores: Sequence[Scores], data: Validation, asked: Asked) -> None:
    """Print top-1 and top-5 error, beside what the paper has for the same."""
    classes, failed = same_classes(scores), _failed(scores)
    if classes.keys != data.classes.keys:
        raise DataError(f"{data.where} was opened for other classes than those of the scores.")
    names = _names(scores, failed)
    labels = data.labels_of(names)
    with _table(asked, classes, failed, [data.classes.names[label] for label in labels]) as write:

        def passing() -> Iterator[Floats]:
            start = 0
            for block in posteriors(scores, names):
                write(names[start : start + len(block)], _best(block, asked.top))
                start += len(block)
                yield block

        errors = errors_of(passing(), labels, len(classes))
    partial = ", ".join(filter(None, (data.partial, *_lacking(data, names, failed))))
    paper = _paper(scores) if classes.keys == ilsvrc_classes().keys else {}
    about = {
        "data": str(data.where),
        "partial": partial,
        "paper": paper,
        "failed": failed,
        "scores": describe_origin(scores),
    }
    told = {"top1": errors.top1, "top5": errors.top5, "images": errors.images, **about}
    show(
        told,
        render_facts(_settings(scores, data, errors, partial, asked)),
        _beside(errors, paper, partial),
        as_json=asked.as_json,
    )
    if asked.results:
        written = write_errors(asked.results, errors, classes, about)
        note(f"Results: {', '.join(map(str, written))}", quiet=asked.quiet)
    warn_of_failures(failed)


def _settings(
    scores: Sequence[Scores], data: Validation, errors: Errors, partial: str, asked: Asked
) -> dict[str, object]:
    nets = []
    for net in by_net(scores):
        held = scales_of(net)
        for scales in dict.fromkeys(held.values()):
            pools = [pool for pool, own in held.items() if own == scales]
            nets.append(f"{net[0].net}, {' and '.join(pools)} at Q = {', '.join(map(str, scales))}")
    rows: dict[str, object] = {
        "images": f"{errors.images:,} in {data.where}",
        "nets": "; ".join(nets),
    }
    if partial:
        rows["partial"] = f"{partial}: the errors compare with nothing published"
    if asked.out:
        rows["scores"] = asked.out
    return rows


def _beside(errors: Errors, paper: Mapping[str, tuple[float, float]], partial: str) -> Any:
    """Lay out the errors, above the paper's with the difference where there are such."""
    columns = ["", "top-1 error %", "top-5 error %"]
    mine = (100 * errors.top1, 100 * errors.top5)
    here = ["here", f"{mine[0]:.1f}", f"{mine[1]:.1f}" if errors.has_top5 else "–"]
    if not paper:
        return grid(columns, [[*here]])
    rows: list[list[object]] = [[*here, ""]]
    for line, figures in paper.items():
        away = "/".join(f"{a - b:+.1f}" for a, b in zip(mine, figures, strict=True))
        rows.append([line, *(f"{one:.1f}" for one in figures), "" if partial else away])
    return grid([*columns, "difference"], rows)


def _paper(scores: Sequence[Scores]) -> dict[str, tuple[float, float]]:
    """Find the paper's lines of these nets, each at its own scales, and of this mode."""
    nets = by_net(scores)
    held = [scales_of(net) for net in nets]
    modes = {mode_of(list(pools)) for pools in held}
    alike = all(len(set(pools.values())) == 1 for pools in held)
    if len(modes) > 1 or not alike or not all(one.settings.get("flip", True) for one in scores):
        return {}
    sources = [net[0].provenance.get("weights", {}).get("source", "") for net in nets]
    known = [
        EvaluatedNet(net[0].net, next(iter(pools.values())), net[0].S, source)
        for net, pools, source in zip(nets, held, sources, strict=True)
    ]
    return find_published(known, modes.pop())


def _lacking(data: Validation, names: Sequence[str], failed: Mapping[str, str]) -> list[str]:
    """Say how many of the images have no scores, and why."""
    absent = set(data.images.names) - set(names)
    unread = len(absent & set(failed))
    rest = len(absent) - unread
    reasons = [f"{counted(unread, 'image')} could not be read"] if unread else []
    have = "has" if rest == 1 else "have"
    return reasons + ([f"{counted(rest, 'image')} {have} no scores"] if rest else [])


def _names(scores: Sequence[Scores], failed: dict[str, str]) -> list[str]:
    """Return the images that have scores, if there are any."""
    if failed and not any(one.names for one in scores):
        warn_of_failures(failed)
        raise DataError("No image could be read, so that there is nothing to tell.")
    return same_images(scores)


def _failed(scores: Sequence[Scores]) -> dict[str, str]:
    return {name: why for one in scores for name, why in one.failed.items()}


def _best(block: Floats, top: int) -> list[Best]:
    places = top_k(block, top)
    return [
        [(int(place), float(row[place])) for place in some]
        for row, some in zip(block, places, strict=True)
    ]


def _plain(classes: Classes, place: int, probability: float) -> dict[str, Any]:
    return {
        "class": classes.names[place],
        "key": classes.keys[place],
        "index": place,
        "probability": probability,
    }


@contextmanager
def _table(
    asked: Asked, classes: Classes, failed: dict[str, str], true: Sequence[str] | None
) -> Iterator[Callable[[Sequence[str], Sequence[Best]], None]]:
    """Open the CSV of the likeliest classes; it is there whole or not at all."""
    if asked.table is None:
        yield lambda names, best: None
        return

    shown = min(asked.top, len(classes))
    known = iter(true or ())
    make_folder(asked.table.parent)  # that of the results is written to when the table is complete
    with (
        replacing(asked.table) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv.writer(file)
        heads = [f"{what} {rank}" for rank in range(1, shown + 1) for what in ("class", "share")]
        writer.writerow(["name", *(["true"] if true else []), *heads, "error"])

        def write(names: Sequence[str], best: Sequence[Best]) -> None:
            for name, found in zip(names, best, strict=True):
                cells = [cell for place, p in found for cell in (classes.names[place], p)]
                writer.writerow([name, *([next(known)] if true else []), *cells, ""])

        yield write
        blanks = [""] * (2 * shown + bool(true))
        writer.writerows([name, *blanks, why] for name, why in failed.items())
