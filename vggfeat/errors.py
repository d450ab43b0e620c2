"""The exceptions of vggfeat.

Each is also the builtin that it resembles, so that ``except ValueError`` works
without knowing this module, and each has the exit status of its kind, so that a
shell script can tell them apart::

    VggfeatError                      exit status 1
    ├── ParameterError   (ValueError)         2   a setting out of its range, an unknown name
    ├── DataError        (ValueError)         3   a data set, list or label file that cannot be used
    │   ├── DataNotFound (FileNotFoundError)
    │   └── PictureError                          one picture that cannot be read
    │       └── PictureTooSmall
    ├── WeightsError     (ValueError)         4   a weights file that cannot be used
    │   └── WeightsNotFound (FileNotFoundError)
    ├── StoreError       (ValueError)         5   a feature store or model that cannot be used
    │   ├── FingerprintMismatch                   it was made with other settings
    │   └── StoreDamaged                          its bytes are not those that were written
    ├── DeviceError      (RuntimeError)       6   a device or precision that this machine lacks
    ├── DownloadError    (OSError)            7   a download that failed or was refused
    └── MissingExtra     (ImportError)        8   an optional dependency that is not installed

    Terminated           (KeyboardInterrupt) 143  SIGTERM came while a command was at work
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable, Sequence

# As torch, oneDNN, OpenVINO, the C++ library, the loader of libraries and Python's threads say it,
# each in its way. A library that finds no room of its own kind, static TLS, says almost the same.
_NO_MEMORY = re.compile(
    r"allocate memory(?! in static TLS)|failed to allocate|can't alloc|enough memory|"
    r"out of memory|bad_alloc|start new thread|create a primitive|failed to map|unable to mmap|"
    r"resource temporarily unavailable",
    re.IGNORECASE,
)


class VggfeatError(Exception):
    r"""Base of all errors that vggfeat raises on purpose.

    Parameters
    ----------
    said : object
        What was wrong, what would be right, what to do next.
    *more : object
        Further lines. A line's own text may have ends of lines too, in the name of a file: shown
        on a terminal, they are escaped, so that nobody's file says a line of its own.

    Examples
    --------
    >>> VggfeatError("a\nb is no picture.", "Remove it.").lines
    ('a\nb is no picture.', 'Remove it.')
    """

    exit_status = 1

    def __init__(self, said: object = "", *more: object) -> None:
        self.lines = (str(said), *map(str, more))
        super().__init__("\n".join(self.lines))


class Terminated(KeyboardInterrupt):
    """SIGTERM came, as a cluster sends it; what is complete is kept, as at Ctrl-C."""

    exit_status = 143


class ParameterError(VggfeatError, ValueError):
    """A setting is out of its range, or names something that does not exist."""

    exit_status = 2

    @classmethod
    def of(cls, parameter: str, owner: str, expected: str, got: object) -> ParameterError:
        """Say in one sentence which parameter is wrong and what would be right.

        Examples
        --------
        >>> print(ParameterError.of("C", "LinearSVM", "a float in (0, inf)", -1))
        The 'C' parameter of LinearSVM must be a float in (0, inf). Got -1 instead.
        """
        return cls(
            f"The {parameter!r} parameter of {owner} must be {expected}. Got {got!r} instead."
        )

    @classmethod
    def not_one_of(
        cls, parameter: str, owner: str, choices: Iterable[object], got: object
    ) -> ParameterError:
        """Say which choices there are.

        Examples
        --------
        >>> print(ParameterError.not_one_of("pool", "Extraction", ["average", "max"], "mean"))
        The 'pool' parameter of Extraction must be one of 'average', 'max'. Got 'mean' instead.
        """
        return cls.of(parameter, owner, "one of " + ", ".join(map(repr, choices)), got)


class DataError(VggfeatError, ValueError):
    """A data set, a list of pictures or a file of labels cannot be used."""

    exit_status = 3


class DataNotFound(DataError, FileNotFoundError):
    """A data set or a picture folder is not where it was looked for."""


class PictureError(DataError):
    """One picture cannot be read; its message is the reason kept in ``failed.csv``."""


class PictureTooSmall(PictureError):
    """A picture is too small for the layer asked for."""


class WeightsError(VggfeatError, ValueError):
    """A weights file is damaged, of an unknown format, or of another network."""

    exit_status = 4


class WeightsNotFound(WeightsError, FileNotFoundError):
    """Weights are not on this machine and may not, or cannot, be downloaded."""


class StoreError(VggfeatError, ValueError):
    """A feature store or a saved model cannot be used."""

    exit_status = 5


class FingerprintMismatch(StoreError):
    """A store holds features that were made with other settings; a line names each of them."""

    def __init__(self, said: object = "") -> None:
        super().__init__(*str(said).split("\n"))


class StoreDamaged(StoreError):
    """A file of a store does not hold the bytes that were written."""


class DeviceError(VggfeatError, RuntimeError):
    """The machine lacks the device or the precision asked for."""

    exit_status = 6


class DownloadError(VggfeatError, OSError):
    """A download failed, was refused, or did not have the promised checksum."""

    exit_status = 7


class MissingExtra(VggfeatError, ImportError):
    """An optional dependency is not installed; the message has the command that installs it."""

    exit_status = 8

    @classmethod
    def of(cls, feature: str, package: str, extra: str) -> MissingExtra:
        """Name the feature, the package and the command that installs it.

        Examples
        --------
        >>> print(MissingExtra.of("Parquet export", "pyarrow", "parquet"))
        Parquet export needs pyarrow. Install it with: pip install 'vggfeat[parquet]'
        """
        return cls(f"{feature} needs {package}. Install it with: pip install 'vggfeat[{extra}]'")


def short_of_memory(error: BaseException) -> str | None:
    r"""Return the line in which an error says that memory ran out; None if it says something else.

    Parameters
    ----------
    error : BaseException
        Of Python or any library, whose compiled parts raise RuntimeErrors of many lines.

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


def counted(number: int, noun: str) -> str:
    """Count things in the words of messages.

    Examples
    --------
    >>> counted(1, "picture"), counted(2000, "picture"), counted(0, "other class")
    ('1 picture', '2,000 pictures', '0 other classes')
    """
    ending = "" if number == 1 else "es" if noun.endswith("s") else "s"
    return f"{number:,} {noun}{ending}"


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
    r"""Show what would act rather than print (control and direction characters) as an escape.

    Ends of lines are among them: what has several lines on purpose is shown line by line.

    Parameters
    ----------
    text : object
        What a file is called, or says; a stranger may have written it.

    Examples
    --------
    >>> printable("a\nb\u202egpj.exe")
    'a\\nb\\u202egpj.exe'
    """
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode()
        for c in str(text)
    )
