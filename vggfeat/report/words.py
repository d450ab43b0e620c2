"""Numbers and names as people read them, the same on the page and on the terminal."""

from __future__ import annotations

import math

from vggfeat.learn.results import SVMResult


def percent(value: float, digits: int = 1) -> str:
    """Write a share in percent, without the sign; a dash where there is none.

    Examples
    --------
    >>> percent(0.9274), percent(1.0), percent(float("nan"))
    ('92.7', '100.0', '–')
    """
    return "–" if math.isnan(value) else f"{100 * value:.{digits}f}"


def headline(result: SVMResult) -> str:
    """Mean class recall ± standard deviation, in percent: ``"92.7 ± 0.5"``."""
    mean = percent(result.mean_class_recall)
    return mean if math.isnan(result.std) else f"{mean} ± {percent(result.std)}"


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


def printable(text: object) -> str:
    r"""Show what would act rather than print (control and direction characters) as an escape.

    Examples
    --------
    >>> printable("a\nb\u202egpj.exe")
    'a\\nb\\u202egpj.exe'
    """
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode()
        for c in str(text)
    )


def figure(value: float) -> str:
    """Write a figure, such as a C, to three digits.

    Examples
    --------
    >>> figure(0.00316227766), figure(1000.0)
    ('0.00316', '1000')
    """
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def chosen_C(result: SVMResult) -> str:
    """Name the C of every split, once where all chose the same."""
    choices = [" ".join(dict.fromkeys(map(figure, split.search.best))) for split in result.splits]
    return choices[0] if len(set(choices)) == 1 else ", ".join(choices)
