"""Pictures that are no files of their own: objects at addresses, and members of tars."""

from __future__ import annotations

import hashlib
import math
import time
from abc import ABC, abstractmethod

Stamp = tuple[int, int]
# What changed less than so many ns ago may change again, and its time, by its clock, stay as it is.
SETTLED = 2 * 10**9


class Stored(ABC):
    """Where the bytes of a picture are, and nothing of them: small, and picklable.

    A million of these wait in a list while a few are decoded, in a thread of this process or in
    a worker on another machine. Their texts, ``str`` and ``repr``, hold no credentials.
    """

    __slots__ = ()

    @abstractmethod
    def read(self) -> bytes:
        """Read the file of the picture, whole.

        Raises
        ------
        PictureError
            With the reason, if it cannot be read; whoever tries later may have more luck.
        """

    @abstractmethod
    def stamp(self) -> Stamp:
        """Tell it from what else has, or had, its name, without reading it: two int64."""


def digest(*known: object) -> int:
    """Make one number of 64 bits of what is known of a file.

    Examples
    --------
    >>> digest("etag", 120) == digest("etag", 120) != digest("etag", 121)
    True
    """
    content = "\0".join(map(str, known)).encode("utf-8", "surrogateescape")
    whole = hashlib.blake2b(content, digest_size=8).digest()
    return int.from_bytes(whole, "big", signed=True)


def in_64_bits(nanoseconds: int) -> int:
    """Bring a time into 64 bits: one before 1678 or after 2262 becomes another, always the same.

    Examples
    --------
    >>> in_64_bits(-(2**63)), in_64_bits(2**63 + 5) == 5 - 2**63
    (-9223372036854775808, True)
    """
    return (nanoseconds + 2**63) % 2**64 - 2**63


def nanoseconds(seconds: float) -> int:
    """Turn a time as an archive or a server says it into ns of 64 bits; 0 if it is none.

    Examples
    --------
    >>> nanoseconds(1.5), nanoseconds(float("nan"))
    (1500000000, 0)
    """
    return in_64_bits(round(seconds * 1e9)) if math.isfinite(seconds * 1e9) else 0


def is_settled(*times: int) -> bool:
    """Tell whether these times, in ns, will change if what they are of does."""
    now = time.time_ns()
    return all(abs(now - one) > SETTLED for one in times)
