"""HDF5 files of a store, and errors that say what to do about damaged ones."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import BinaryIO

import h5py

from vggfeat import hdf5
from vggfeat.errors import StoreDamaged, StoreError, VggfeatError

ASIDE = ".damaged"  # what the name of a file ends with that was moved out of its readers' way
HARMLESS = 64 << 20  # bytes that an array may promise, whatever it holds
RATIO = 1100  # of bytes promised to bytes held above that; no compression of HDF5 does better
OUR_FAULT = (  # says nothing of the file
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
)


@contextmanager
def opened(path: Path | str, content: BinaryIO | None = None) -> Iterator[h5py.File]:
    """Open an HDF5 file, or what was read of it, and say what to do if that fails."""
    try:
        with hdf5.opened(content or path) as file:
            yield file
    except VggfeatError:
        raise
    except OSError as error:
        if error.errno in OUR_FAULT:
            raise StoreError(f"{path} could not be read: {error}") from error
        foreign = "signature not found" in str(error)
        raise damaged(path, "it is no HDF5 file" if foreign else str(error)) from error
    except MemoryError as error:
        raise damaged(path, "it promises more than the memory holds") from error
    # What is of another kind than it should be makes h5py and numpy raise anything.
    except (LookupError, RuntimeError, TypeError, ValueError, AttributeError) as error:
        reason = error.args[0] if isinstance(error, KeyError) and error.args else error
        raise damaged(path, str(reason)) from error
    except (ArithmeticError, StopIteration) as error:
        raise damaged(path, str(error)) from error


def held(file: h5py.File, name: str) -> h5py.Dataset:
    """Return a dataset of a file whose numbers are in that file, as many as it says.

    Raises
    ------
    ValueError
        If it is none, or they are elsewhere: a stranger's file may show any other file here as
        its own, or promise terabytes and hold nothing.
    """
    dataset = hdf5.item(file, name)
    if not isinstance(dataset, h5py.Dataset):
        raise ValueError(f"{name} is no array")
    if dataset.is_virtual or dataset.external:
        raise ValueError(f"{name} takes its numbers from another file")
    if dataset.dtype.hasobject:
        raise ValueError(f"{name} holds no numbers, and no texts of one length")
    if dataset.nbytes > max(HARMLESS, RATIO * dataset.id.get_storage_size()):
        raise ValueError(f"{name} promises {dataset.nbytes:,} bytes and holds few")
    return dataset


def damaged(path: Path | str, reason: str) -> StoreDamaged:
    """Say which file is damaged and how to get its features back."""
    above = os.path.dirname(path)  # noqa: PTH120  # of an address as well
    if PurePath(above).name != "shards":
        return StoreDamaged(
            f"{path} cannot be used: {reason}. Name the folder that `vggfeat extract` wrote, or "
            "what `vggfeat store pack` makes of it."
        )
    folder = os.path.dirname(above)  # noqa: PTH120
    return StoreDamaged(
        f"The shard {path} is damaged: {reason}. Move aside all that is, with: vggfeat store "
        f"repair {folder}. Then run the same command again: it computes what is missing."
    )
