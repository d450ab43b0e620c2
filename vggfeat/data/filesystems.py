"""The fsspec file system of an address."""

from __future__ import annotations

import os
from typing import Any

from vggfeat._io.assets import offline
from vggfeat.data.addresses import is_address, public, split, without_secrets
from vggfeat.errors import DataError, DownloadError, MissingExtra

PATIENCE = 120.0  # seconds that one attempt to read may take
CONNECT, STALL = 10.0, 30.0  # seconds until a server answers at all, and without a byte
HTTP = ("http", "https")
_HERE = ("memory", "file", "local")
_PACKED = ("s3", "s3a", *HTTP)  # schemes of the extra `remote`

# fsspec makes a file system for each thread, and with it connections and clients of their own. One
# that does its work in a loop serves all threads of a process: many decode pictures side by side.
_shared: dict[tuple[int, str, str], Any] = {}


def opened(address: str) -> tuple[Any, str]:
    """Return the fsspec file system of an address, and the path of the object in it.

    Raises
    ------
    MissingExtra
        If what reads such addresses is not installed.
    DownloadError
        If ``VGGFEAT_OFFLINE`` forbids the network.
    DataError
        If there are no such addresses.
    """
    link = split(address)
    if offline() and not _is_here(address):
        raise DownloadError(
            f"{public(address)} is not on this machine and VGGFEAT_OFFLINE forbids the network. "
            "Unset it, or name pictures that are here."
        )
    # A connection belongs to a host, or to an account; on the web it is found by each address.
    place = (os.getpid(), link.scheme, "" if link.scheme in HTTP else link.host)
    if not link.rest and place in _shared:
        fs = _shared[place]
        return fs, str(fs._strip_protocol(address))
    try:
        from fsspec.asyn import AsyncFileSystem
        from fsspec.core import url_to_fs

        # No listing is kept: one of a million objects would fill the memory.
        fs, path = url_to_fs(address, use_listings_cache=False, **_options(link.scheme))
    except ImportError as error:
        raise _missing(link.scheme, error) from None
    except (ValueError, TypeError) as error:
        raise DataError(
            f"{public(address)} is no address that can be read: {without_secrets(str(error))}"
        ) from None
    if isinstance(fs, AsyncFileSystem) and not link.rest:
        _shared[place] = fs
    return fs, str(path)


def _is_here(address: str) -> bool:
    last = address.split("::")[-1]
    return not is_address(last) or split(last).scheme in _HERE


def _options(scheme: str) -> dict[str, Any]:
    """Bound the time of a request where the file system does not do so itself."""
    if scheme not in HTTP:
        return {}
    from aiohttp import ClientTimeout

    timeout = ClientTimeout(total=PATIENCE, sock_connect=CONNECT, sock_read=STALL)
    return {"client_kwargs": {"timeout": timeout, "trust_env": True}}


def _missing(scheme: str, error: ImportError) -> MissingExtra:
    what = f"Reading from {scheme}:// addresses"
    if scheme in ("gs", "gcs"):
        return MissingExtra.of(what, "gcsfs", "gcs")
    if scheme in _PACKED or error.name == "fsspec":
        return MissingExtra.of(what, "fsspec, aiohttp and s3fs", "remote")
    return MissingExtra(f"{what} needs another package: {error}")
