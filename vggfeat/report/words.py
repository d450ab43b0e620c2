"""Numbers as people read them, on pages."""

from __future__ import annotations

import math


def percent(value: float, digits: int = 1) -> str:
    """Write a share in percent, without the sign; a dash where there is none.

    Examples
    --------
    >>> percent(0.9274), percent(1.0), percent(float("nan"))
    ('92.7', '100.0', '–')
    """
    return "–" if math.isnan(value) else f"{100 * value:.{digits}f}"


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
