"""Pictures that are no files of their own: objects at addresses, and members of tars."""

from __future__ import annotations

import hashlib
import struct
from abc import ABC, abstractmethod

Stat = tuple[int, int]


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
    def stat(self) -> Stat:
        """Tell it from what else has, or had, its name, without reading it over a network.

        Returns
        -------
        (int, int)
            The first 16 bytes of the SHA-256 of its content, where that is on this machine; else a
            digest of what is known of it, and the time of its last change in ns, 0 if unknown.
        """


def identity(sha256: bytes) -> Stat:
    r"""Make a stat of the digest of a content.

    Examples
    --------
    >>> identity(bytes(15) + b"\1" + bytes(16))
    (0, 1)
    """
    first, second = struct.unpack(">qq", sha256[:16])
    return first, second


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
