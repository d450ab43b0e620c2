"""Numbers and names as people read them, the same on the page and on the terminal."""

from __future__ import annotations

import math
from typing import NamedTuple

from vggfeat.svm.results import SVMResult
from vggfeat.svm.voc_results import APResult

Result = SVMResult | APResult
AP_NAMES = {"ap11": "11-point", "area": "area under the curve"}


def percent(value: float, digits: int = 1) -> str:
    """Write a share in percent, without the sign; a dash where there is none.

    Examples
    --------
    >>> percent(0.9274), percent(1.0), percent(float("nan"))
    ('92.7', '100.0', '–')
    """
    return "–" if math.isnan(value) else f"{100 * value:.{digits}f}"


class Headline(NamedTuple):
    """The one figure of a result, in percent, and what it is a figure of."""

    mean: str
    spread: str
    metric: str
    of: str

    @property
    def text(self) -> str:
        """The figure with its spread, as in ``"92.7 ± 0.5"``."""
        return f"{self.mean} ± {self.spread}" if self.spread else self.mean


def headline(result: Result) -> Headline:
    """Say what was measured; where test labels are not public, what validation gave."""
    if isinstance(result, APResult):
        return _headline_ap(result)
    n = len(result.splits)
    return Headline(
        percent(result.mean_class_recall),
        "" if math.isnan(result.std) else percent(result.std),
        "mean class recall",
        f"over {n} random split{'s' if n > 1 else ''} of {count(len(result.names))} images in "
        f"{len(result.class_names)} classes",
    )


def _headline_ap(result: APResult) -> Headline:
    shown = result.per_class if result.tested else result.validation_per_class
    known, every = sum(not math.isnan(one) for one in shown), len(shown)
    classes = f"over {every} classes" if known == every else f"over {known} of {every} classes"
    rows = count(len(result.parts["test"]))
    if not len(result.parts["test"]):
        about = f"{classes}; there are no test images"
        return Headline(percent(result.validation_mAP), "", "mAP in validation", about)
    if not result.tested:
        about = f"{classes}; the {rows} test images are scored, their labels are not public"
        return Headline(percent(result.validation_mAP), "", "mAP in validation", about)
    kind, other, figure = "11-point", "as area under the curve", result.mAP_area
    if result.ap == "area":
        kind, other, figure = "area", "by the 11-point rule", result.mAP11
    about = f"{classes} on {rows} test images; {percent(figure)} {other}"
    return Headline(percent(result.mAP), "", f"mAP ({kind})", about)


def count(number: int) -> str:
    """Write a count with its thousands apart.

    Examples
    --------
    >>> count(4952)
    '4,952'
    """
    return f"{number:,}"


def seconds(value: float) -> str:
    """Write a duration with as much detail as it deserves.

    Examples
    --------
    >>> seconds(0.0123), seconds(7.25), seconds(754)
    ('12 ms', '7.2 s', '12 min 34 s')
    """
    if value < 1:
        return f"{1000 * value:.0f} ms"
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def figure(value: float) -> str:
    """Write a figure, such as a C, to three digits.

    Examples
    --------
    >>> figure(0.00316227766), figure(1000.0)
    ('0.00316', '1000')
    """
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def chosen_C(result: Result) -> str:
    """Name the C of every split or class, once where all chose the same."""
    if isinstance(result, APResult):
        values = sorted(set(result.C[result.trained].tolist()))
        if len(values) == 1:
            return figure(values[0])
        return f"{figure(values[0])} to {figure(values[-1])}, one for each class"
    choices = [" ".join(dict.fromkeys(map(figure, split.search.best))) for split in result.splits]
    return choices[0] if len(set(choices)) == 1 else ", ".join(choices)
