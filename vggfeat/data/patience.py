"""Trying again what may have failed for a moment, and saying why it failed in the end."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Callable
from typing import TypeVar

from vggfeat.data.addresses import public, without_secrets
from vggfeat.errors import DataError, DataNotFound, DownloadError, MissingExtra

T = TypeVar("T")

ATTEMPTS = 4
BACKOFF = 0.5  # seconds before the second attempt, doubled each time
_PASSING = {408, 425, 429}  # statuses of HTTP, and all from 500 on
# What another attempt would meet again.
_LASTING = (
    FileExistsError,
    FileNotFoundError,
    PermissionError,
    IsADirectoryError,
    NotADirectoryError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    NotImplementedError,
    ImportError,
)


class Unreachable(Exception):
    """An object could not be read; the message is the reason, without its address.

    Parameters
    ----------
    reason : str
        One line without credentials.
    absent : bool
        Whether there is nothing at the address.
    """

    def __init__(self, reason: str, *, absent: bool = False) -> None:
        super().__init__(reason)
        self.absent = absent

    def of(self, address: str) -> DataNotFound | DownloadError:
        """Make an error of it that names the address."""
        where = public(address)
        if self.absent:
            return DataNotFound(f"There is nothing at {where}. Check the spelling.")
        return DownloadError(f"{where} cannot be read: {self}.")


def patiently(action: Callable[[], T]) -> T:
    """Do what needs the network, again and again if the reason of a failure may pass.

    Raises
    ------
    Unreachable
        With the reason of the last attempt.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return action()
        except (MissingExtra, DataError, DownloadError):
            raise
        # fsspec's many implementations raise whatever their libraries do.
        except Exception as error:
            if attempt == ATTEMPTS or not _may_pass(error):
                absent = isinstance(error, FileNotFoundError)
                raise Unreachable(_reason(error), absent=absent) from None
        time.sleep(BACKOFF * 2 ** (attempt - 1) * random.uniform(0.5, 1.0))  # noqa: S311  # no secret
    raise AssertionError  # the last attempt returns or raises


def is_past_the_end(error: Exception) -> bool:
    """Tell whether a server has no bytes where some were asked for."""
    return _status(error) == 416 or "InvalidRange" in str(error) or "not satisfiable" in str(error)


def _status(error: Exception) -> int | None:
    """Find the HTTP status in an error of aiohttp, gcsfs or botocore."""
    answer = getattr(error, "response", None)
    if isinstance(answer, dict):
        answer = answer.get("ResponseMetadata", {}).get("HTTPStatusCode")
        return answer if isinstance(answer, int) else None
    for name in ("status", "code"):
        if isinstance(found := getattr(error, name, None), int):
            return found
    return None


def _may_pass(error: Exception) -> bool:
    # A host that is not found stays so: waiting for each of its pictures would only hide it.
    if isinstance(getattr(error, "os_error", error), socket.gaierror):
        return False
    if (status := _status(error)) is not None:
        return status in _PASSING or status >= 500
    return not isinstance(error, _LASTING)


def _reason(error: Exception) -> str:
    """Say in one line, without addresses and credentials, why an object could not be read."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, PermissionError):
        return "access denied"
    if isinstance(getattr(error, "os_error", error), socket.gaierror):
        return "its host is not found"
    if (status := _status(error)) is not None:
        return f"HTTP status {status}"
    if isinstance(error, TimeoutError) or "Timeout" in type(error).__name__:
        return "no answer in time"
    return " ".join(f"{type(error).__name__}: {without_secrets(str(error))}".split())
