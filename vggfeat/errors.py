"""The exceptions of vggfeat.

Each is also the builtin that it resembles, so that ``except ValueError`` works
without knowing this module, and each has the exit status of its kind, so that a
shell script can tell them apart::

    VggfeatError                      exit status 1
    ├── ParameterError   (ValueError)         2   a setting out of its range, an unknown name
    ├── DataError        (ValueError)         3   a data set, list or label file that cannot be used
    │   ├── DataNotFound (FileNotFoundError)
    │   └── ImageError                          one image that cannot be read
    │       └── ImageTooSmall
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

from collections.abc import Iterable


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
    >>> VggfeatError("a\nb is no image.", "Remove it.").lines
    ('a\nb is no image.', 'Remove it.')
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
    parameter = ""
    expected = ""

    @classmethod
    def of(cls, parameter: str, owner: str, expected: str, got: object) -> ParameterError:
        """Say in one sentence which parameter is wrong and what would be right.

        Examples
        --------
        >>> print(ParameterError.of("C", "LinearSVM", "a float in (0, inf)", -1))
        The 'C' parameter of LinearSVM must be a float in (0, inf). Got -1 instead.
        """
        expected = f"must be {expected}. Got {got!r} instead."
        error = cls(f"The {parameter!r} parameter of {owner} {expected}")
        error.parameter = parameter
        error.expected = f"of {owner} {expected}" if owner.startswith("net ") else expected
        return error

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

    @classmethod
    def ignored(cls, parameter: str, where: str, purpose: str) -> ParameterError:
        """Say that a parameter would change nothing, and what it is for.

        Examples
        --------
        >>> print(ParameterError.ignored("difficult", "mine", "data sets such as voc2007"))
        difficult says nothing to mine. It is for data sets such as voc2007. Leave it out.
        """
        error = cls(f"{parameter} says nothing to {where}. It is for {purpose}. Leave it out.")
        error.parameter = parameter
        error.expected = str(error).removeprefix(f"{parameter} ")
        return error


class DataError(VggfeatError, ValueError):
    """A data set, a list of images or a file of labels cannot be used."""

    exit_status = 3


class DataNotFound(DataError, FileNotFoundError):
    """A data set or an image folder is not where it was looked for."""


class ImageError(DataError):
    """One image cannot be read; its message is the reason kept in ``failed.csv``."""

    name = ""
    reason = ""

    @classmethod
    def of(cls, name: str, reason: str) -> ImageError:
        """Name the image that ends a run.

        Examples
        --------
        >>> print(ImageError.of("a.jpg", "the file is empty"))
        a.jpg: the file is empty
        """
        error = cls(f"{name}: {reason}")
        error.name = name
        error.reason = reason
        return error


class ImageTooSmall(ImageError):
    """An image is too small for the layer asked for."""


class WeightsError(VggfeatError, ValueError):
    """A weights file is damaged, of an unknown format, or of another network."""

    exit_status = 4


class PixelsAssumedWarning(UserWarning):
    """A file of weights does not say which pixels its network takes; the usual ones are taken."""


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
