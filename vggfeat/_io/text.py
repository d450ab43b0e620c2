"""Words of messages: counts, sizes, names, and what may be shown on a terminal."""

from __future__ import annotations

import errno
import re
from collections.abc import Sequence

# As torch, oneDNN, OpenVINO, the C++ library, the loader of libraries and Python's threads say it,
# each in its way. A library that finds no room of its own kind, static TLS, says almost the same.
_NO_MEMORY = re.compile(
    r"allocate memory(?! in static TLS)|failed to allocate|can't alloc|enough memory|"
    r"out of memory|bad_alloc|start new thread|create a primitive|failed to map|unable to mmap|"
    r"resource temporarily unavailable",
    re.IGNORECASE,
)

_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def counted(number: int, noun: str) -> str:
    """Count things in the words of messages.

    Examples
    --------
    >>> counted(1, "image"), counted(2000, "image"), counted(0, "other class")
    ('1 image', '2,000 images', '0 other classes')
    """
    ending = "" if number == 1 else "es" if noun.endswith("s") else "s"
    return f"{number:,} {noun}{ending}"


def shorten(value: float, digits: int = 3) -> str:
    """Write a number to some digits, with a power of ten only where it is tiny or vast.

    Examples
    --------
    >>> shorten(0.00316227766), shorten(1000.0), shorten(1e-5), shorten(-2.5e-7)
    ('0.00316', '1000', '10⁻⁵', '−2.5·10⁻⁷')
    """
    text = f"{value:.{digits}g}"
    if "e" in text and 1 <= abs(value) < 1e15:
        text = f"{value:.0f}"
    mantissa, _, exponent = text.replace("-", "−", 1 if value < 0 else 0).partition("e")
    if not exponent:
        return mantissa
    power = f"10{str(int(exponent)).translate(_RAISED)}"
    return power if mantissa == "1" else f"{mantissa}·{power}"


def signed(value: float, decimals: int = 2) -> str:
    """Write a number with its sign.

    Examples
    --------
    >>> signed(-0.2564), signed(2.0, 3)
    ('−0.26', '+2.000')
    """
    return f"{value:+.{decimals}f}".replace("-", "−")


def size(nbytes: float) -> str:
    """Write a number of bytes as a person reads it.

    Examples
    --------
    >>> size(29_431_880), size(512)
    ('29.4 MB', '512 B')
    """
    for unit in ("B", "kB", "MB", "GB"):
        if nbytes < 1000:
            return f"{nbytes:.3g} {unit}"
        nbytes /= 1000
    return f"{nbytes:.3g} TB"


def and_more(names: Sequence[str], noun: str) -> str:
    """Name the first of some things, and count the rest where there is one.

    Examples
    --------
    >>> and_more(["cat"], "class"), and_more(["cat", "dog", "emu"], "class")
    ("'cat'", "'cat' and 2 more classes")
    """
    first, *rest = names
    return f"{first!r} and {counted(len(rest), f'more {noun}')}" if rest else repr(first)


def printable(text: object) -> str:
    r"""Show control and direction characters as escapes; a stranger may have written the text.

    Ends of lines are among them: what has several lines on purpose is shown line by line.

    Examples
    --------
    >>> printable("a\nb\u202egpj.exe")
    'a\\nb\\u202egpj.exe'
    """
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode()
        for c in str(text)
    )


def short_of_memory(error: BaseException) -> str | None:
    r"""Return the line in which an error says that memory ran out; None if it says something else.

    Examples
    --------
    >>> short_of_memory(RuntimeError("Exception from a.cpp:224:\nFailed to allocate 8 bytes\n"))
    'Failed to allocate 8 bytes'
    >>> short_of_memory(RuntimeError("shapes do not match")) is None
    True
    """
    lines = str(error).strip().splitlines()
    number = getattr(error, "errno", None)
    if isinstance(error, MemoryError) or number == errno.ENOMEM:
        return lines[0] if lines else type(error).__name__
    if number is not None:  # what the system refuses has a number; EAGAIN may be a lock's
        return None
    return next((line.strip() for line in lines if _NO_MEMORY.search(line)), None)
