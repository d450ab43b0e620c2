"""Localisation judged by the paper's two protocols (Appendix A)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

from vggfeat.errors import DataError, ImageError
from vggfeat.localization.boxed import Boxed
from vggfeat.localization.boxes import Floats
from vggfeat.localization.judged import Judged, LocalisationResult
from vggfeat.localization.labels import StoredLabels
from vggfeat.localization.outputs import Classifier, Outputs
from vggfeat.localization.predict import TOP, Localiser, Merging, Windows, locate, windows_of


def judge(
    tested: Boxed,
    classes: Sequence[str],
    localisers: Sequence[Localiser],
    *,
    classifier: Classifier | None = None,
    labels: StoredLabels | None = None,
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
        Test images.
    classes : sequence of str
        What the numbers of their labels mean.
    localisers : sequence of Localiser
        Nets whose boxes are united; protocol 1 is that of the first.
    classifier : Classifier, optional
        Whose labels and class outputs count; without one there is protocol 1 alone, which takes
        the class as given.
    labels : StoredLabels, optional
        Whose labels count instead of the classifier's.
    scales : sequence of sequence of int, optional
        Test scales Q of each net in protocol 2; its training scale by default.
    merging : Merging, optional
        How boxes are merged.
    keep : collection of int
        Rows whose windows' boxes are kept, to be drawn.
    settings : mapping, optional
        How it was tested, for the result to hold.
    progress : callable, optional
        Called with images done and all images.

    Returns
    -------
    LocalisationResult

    Raises
    ------
    DataError
        If a net, or the classification system, knows other classes, or no image can be read.

    Notes
    -----
    A label is right if fewer than five classes of the classification system are likelier, be they
    localised or not. A box is correct if its intersection over union with any object of the class
    is more than 0.5. An image of VOC that shows two classes counts once for each of them.
    """
    for net in localisers:
        check_classes(classes, net.classes)
    if classifier is not None:
        check_classes(classes, classifier.classes)
    own = [[net.S] for net in localisers] if scales is None else scales
    looked = _Looked(tested, localisers, own, classifier, labels, merging)
    judged: list[Judged] = []
    kept: dict[int, Floats] = {}
    failed: dict[str, str] = {}
    known = len(classes)
    images = list(tested.images())
    for done, (name, rows) in enumerate(images, 1):
        try:
            seen = looked.at(name, rows[0])
        except ImageError as error:
            failed[name] = str(error)
        else:
            for row in rows:
                label = int(tested.part.labels[row])
                if row in keep and seen.windows:
                    kept[len(judged)] = seen.windows.of(label)[0]
                judged.append(looked.judged(seen, row, name, label))
            if seen.outputs:
                known = seen.outputs.known
        if progress is not None:
            progress(done, len(images))
    if not judged:
        reason = next(iter(failed.values()), "there are none")
        raise DataError(f"No test image can be used: {reason}.")
    return LocalisationResult(
        tuple(classes),
        tuple(judged),
        classifier is not None,
        min(TOP, known),
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
            f"The images have the classes {', '.join(wanted[:5])}{' …' * (len(wanted) > 5)}, the "
            f"model others, or in another order: see {others[0]!r}. Name the same ones with "
            "--class as when it was trained."
        )


class _Seen(NamedTuple):
    """What is known of one image."""

    central: Floats
    outputs: Outputs | None = None
    windows: Windows | None = None


class _Looked(NamedTuple):
    """How images are looked at."""

    tested: Boxed
    localisers: Sequence[Localiser]
    scales: Sequence[Sequence[int]]
    classifier: Classifier | None
    labels: StoredLabels | None
    merging: Merging | None

    def at(self, name: str, row: int) -> _Seen:
        """Look at an image, whatever it shows."""
        image = self.tested.open(row)
        central = self.localisers[0].central(image)
        if self.classifier is None:
            return _Seen(central)
        every = sorted({Q for some in self.scales for Q in some})
        outputs = self.classifier.outputs(image, every)
        if self.labels is not None:
            own, others = self.labels.of(name)
            outputs = outputs._replace(posteriors=own, others=others)
        return _Seen(central, outputs, windows_of(image, self.localisers, self.scales, outputs))

    def judged(self, seen: _Seen, row: int, name: str, label: int) -> Judged:
        """Judge what was found of one class."""
        box, truths = seen.central[self.localisers[0].column(label)], self.tested.boxes[row]
        if seen.outputs is None or seen.windows is None:
            return Judged(name, label, truths, box, 0, None, label)
        width, height = self.tested.sizes[row].tolist()
        said = seen.outputs
        [found] = locate(
            seen.windows, said.posteriors, (width, height), labels=[label], merging=self.merging
        )
        first = int(said.posteriors.argmax())
        return Judged(name, label, truths, box, said.rank(label), found, first)
