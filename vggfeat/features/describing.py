"""From a batch to descriptors, picture by picture, and from pictures to shards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from vggfeat.data.batches import Batch
from vggfeat.features.aggregate import Matrix
from vggfeat.features.arithmetic import overflow
from vggfeat.features.dense import DenseExtractor
from vggfeat.features.extraction import Part


class Picture(NamedTuple):
    """What became of a picture at one scale: descriptors (D,), or the reason why it has none."""

    row: int
    parts: dict[Part, Matrix]
    reason: str = ""


def described(extractor: DenseExtractor, batch: Batch, dtype: str) -> Iterator[Picture]:
    """Describe a batch; what has no finite descriptor leaves as a reason, its neighbours as rows.

    Parameters
    ----------
    extractor : DenseExtractor
    batch : Batch
    dtype : {"float32", "float16"}
        In which the descriptors are to be kept.

    Yields
    ------
    Picture
        In the order of the batch.

    Examples
    --------
    >>> import torch
    >>> extractor = DenseExtractor("D", "pool1", weights="embedded")
    >>> batch = Batch(32, (7,), torch.zeros(1, 3, 32, 48, dtype=torch.uint8))
    >>> [picture] = described(extractor, batch, "float32")
    >>> picture.row, [parts.shape for parts in picture.parts.values()], picture.reason
    (7, [(64,)], '')
    """
    kept, found = extractor.describe_finite(batch.pixels)
    arrays = {extractor.part(key, batch.Q): values.numpy() for key, values in found.items()}
    places = {place: n for n, place in enumerate(kept.tolist())}
    for place, row in enumerate(batch.rows):
        if place not in places:
            yield Picture(row, {}, overflow(extractor.extraction.precision))
            continue
        parts = {part: values[places[place]] for part, values in arrays.items()}
        if all(np.abs(one).max() <= np.finfo(dtype).max for one in parts.values()):
            yield Picture(row, parts)
        else:
            reason = f"Its descriptor has numbers that {dtype} cannot hold. Use --dtype float32."
            yield Picture(row, {}, reason)


def shards(
    complete: Mapping[int, Mapping[Part, Matrix]],
) -> Iterator[tuple[list[int], dict[Part, Matrix]]]:
    """Gather pictures into one shard for each set of scales; few stores have two.

    Only a store that grew by a scale has pictures of which another part was missing.

    Examples
    --------
    >>> part = Part("D", "fc7", "average", 256)
    >>> [(rows, arrays)] = shards({4: {part: np.ones(1)}, 2: {part: np.zeros(1)}})
    >>> rows, arrays[part].tolist()
    ([2, 4], [[0.0], [1.0]])
    """
    alike: dict[tuple[Part, ...], list[int]] = {}
    for row in sorted(complete):
        alike.setdefault(tuple(sorted(complete[row])), []).append(row)
    for parts, rows in alike.items():
        yield rows, {part: np.stack([complete[row][part] for row in rows]) for part in parts}
