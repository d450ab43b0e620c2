"""Images that would replace others of their names in a store: most of them at once is a mistake.

``x/photos`` and ``y/photos`` give the same names. A store takes an image that was edited in place
for the newer version of the one it has; a whole folder of other images it should not.
"""

from __future__ import annotations

from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from vggfeat.data.identity import id_of
from vggfeat.data.image import read_encoded
from vggfeat.data.imageset import ImageSet
from vggfeat.errors import ImageError, StoreError
from vggfeat.store.store import FeatureStore

READ = 32  # images that are read to tell other ones from equal copies with other stamps
FEW = 5  # fewer are computed again in seconds


def refuse_other_images(images: ImageSet, stamps: NDArray[np.int64], store: FeatureStore) -> None:
    """Refuse images most of which are others than the store has under their names.

    What is known by its stamp is not opened; of the rest at most ``READ`` are read, at even
    distances, and only where they could be most.

    Parameters
    ----------
    images : ImageSet
    stamps : ndarray (N, 2)
        Theirs.
    store : FeatureStore

    Raises
    ------
    StoreError
        Before anything is computed.
    """
    there = store.identify(images.names, noted=False)
    ids = store.recall(images.names, stamps)
    shared = there.any(axis=1)
    known = shared & ids.any(axis=1)
    others = np.flatnonzero(known & (ids != there).any(axis=1)).tolist()
    unknown = np.flatnonzero(shared & ~known)
    if len(others) + len(unknown) < max(FEW, shared.sum() / 2):
        return
    places = np.linspace(0, len(unknown) - 1, min(READ, len(unknown))).astype(int)
    read = {}
    for row in unknown[places].tolist():
        with suppress(ImageError):
            image = images.images[row]
            read[row] = id_of(image, read_encoded(image)) != tuple(there[row].tolist())
    differ = len(others) + len(unknown) * sum(read.values()) / max(1, len(read))
    if differ < FEW or differ <= shared.sum() / 2:
        return
    others += [row for row, is_other in read.items() if is_other]
    compared = int(known.sum()) + len(read)
    raise StoreError(
        f"{store.storage} has other images under these names: of {compared} that were compared "
        f"{len(others)} differ, {images.names[min(others)]} for one. Nothing was computed.",
        "To keep both, name these by more of their path, with --relative-to DIR, or name another "
        "--out. If all of these are new versions of the same images, name another --out as well.",
    )
