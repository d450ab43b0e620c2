"""Localisation judged by the paper's two protocols (Appendix A)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from vggfeat.errors import DataError, PictureError
from vggfeat.ilsvrc.boxes import Floats
from vggfeat.ilsvrc.boxset import Boxed
from vggfeat.ilsvrc.judged import Judged, LocalisationResult
from vggfeat.ilsvrc.localize import TOP, Localiser, Merging, Windows, locate, windows_of
from vggfeat.ilsvrc.outputs import Classifier, Outputs


def judge(
    tested: Boxed,
    classes: Sequence[str],
    localisers: Sequence[Localiser],
    *,
    classifier: Classifier | None = None,
    scales: Sequence[Sequence[int]] | None = None,
    merging: Merging | None = None,
    keep: Collection[int] = (),
    settings: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> LocalisationResult:
    """Test localisation by protocol 1, and with a classification system by protocol 2.

    Parameters
    ----------
    tested : Boxed
        Test pictures.
    classes : sequence of str
        What the numbers of their labels mean.
    localisers : sequence of Localiser
        Nets whose boxes are united; protocol 1 is that of the first.
    classifier : Classifier, optional
        Whose labels and class outputs count; without one there is protocol 1 alone, which takes
        the class as given.
    scales : sequence of sequence of int, optional
        Test scales Q of each net in protocol 2; its training scale by default.
    merging : Merging, optional
        How boxes are merged.
    keep : collection of int
        Rows whose windows are kept, to be drawn.
    settings : mapping, optional
        How it was tested, for the result to hold.
    progress : callable, optional
        Called with pictures done and all pictures.

    Returns
    -------
    LocalisationResult

    Raises
    ------
    DataError
        If a net, or the classification system, knows other classes, or no picture can be read.

    Notes
    -----
    A box is correct if its intersection over union with any object of the class is more than 0.5.
    A picture of VOC that shows two classes counts once for each of them.
    """
    for net in localisers:
        check_classes(classes, net.classes)
    if classifier is not None:
        check_classes(classes, classifier.classes)
    own = [[net.S] for net in localisers] if scales is None else scales
    every = sorted({Q for some in own for Q in some})
    judged: list[Judged] = []
    kept: dict[int, Windows] = {}
    failed: dict[str, str] = {}
    pictures = list(tested.pictures())
    for done, (name, rows) in enumerate(pictures, 1):
        try:
            image = tested.open(rows[0])
        except PictureError as error:
            failed[name] = str(error)
            continue
        central = localisers[0].central(image)
        outputs = windows = None
        if classifier is not None:
            outputs = classifier.outputs(image, every)
            windows = windows_of(image, localisers, own, outputs)
        for row in rows:
            if row in keep and windows:
                kept[len(judged)] = windows
            judged.append(
                _judged(tested, row, name, localisers[0], central, outputs, windows, merging)
            )
        if progress is not None:
            progress(done, len(pictures))
    if not judged:
        reason = next(iter(failed.values()), "there are none")
        raise DataError(f"No test picture can be used: {reason}.")
    return LocalisationResult(
        tuple(classes),
        tuple(judged),
        classifier is not None,
        min(TOP, len(classes)),
        settings or {},
        failed,
        kept,
    )


def check_classes(wanted: Sequence[str], known: Sequence[str]) -> None:
    """Refuse a net or a classification system of other classes.

    Raises
    ------
    DataError
        Naming one that it lacks, or has besides.
    """
    if list(wanted) != list(known):
        others = sorted(set(wanted) ^ set(known)) or list(known)
        raise DataError(
            f"The pictures have the classes {', '.join(wanted[:5])}{' …' * (len(wanted) > 5)}, the "
            f"model others, or in another order: see {others[0]!r}. Name the same ones with "
            "--class as when it was trained."
        )


def _judged(
    tested: Boxed,
    row: int,
    name: str,
    net: Localiser,
    central: Floats,
    outputs: Outputs | None,
    windows: Windows | None,
    merging: Merging | None,
) -> Judged:
    label = int(tested.part.labels[row])
    box, truths = central[net.column(label)], tested.boxes[row]
    if outputs is None or windows is None:
        return Judged(name, label, truths, box, 0, None, label)
    width, height = tested.sizes[row].tolist()
    [found] = locate(windows, outputs.posteriors, (width, height), labels=[label], merging=merging)
    order = np.argsort(-outputs.posteriors, kind="stable")
    rank = int(np.flatnonzero(order == label)[0])
    return Judged(name, label, truths, box, rank, found, int(order[0]))
