"""From a batch to descriptors, image by image, and from images to shards."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from vggfeat.data.batches import Batch
from vggfeat.features.aggregate import Matrix
from vggfeat.features.arithmetic import overflow
from vggfeat.features.extractor import DenseExtractor
from vggfeat.store.column import Descriptor


class Row(NamedTuple):
    """What became of an image at one scale: descriptors (D,), or the reason why it has none."""

    row: int
    arrays: dict[Descriptor, Matrix]
    reason: str = ""


def describe_batch(
    extractor: DenseExtractor,
    batch: Batch,
    dtype: str,
    wanted: Iterable[tuple[str, str]] | None = None,
) -> Iterator[Row]:
    """Describe a batch; what has no finite descriptor leaves as a reason, its neighbours as rows.

    Parameters
    ----------
    extractor : DenseExtractor
    batch : Batch
    dtype : {"float32", "float16"}
        In which the descriptors are to be kept.
    wanted : iterable of (layer, pooling), optional
        As for :meth:`DenseExtractor.describe`.

    Yields
    ------
    Row
        In the order of the batch.

    Examples
    --------
    >>> import torch
    >>> extractor = DenseExtractor("D", "pool1", weights="embedded")
    >>> batch = Batch(32, (7,), torch.zeros(1, 3, 32, 48, dtype=torch.uint8))
    >>> [row] = describe_batch(extractor, batch, "float32")
    >>> row.row, {key.path: array.shape for key, array in row.arrays.items()}, row.reason
    (7, {'/D/pool1/average/Q32': (64,)}, '')
    """
    kept, described = extractor.describe_finite(batch.pixels, wanted)
    net = extractor.extraction.net
    arrays = {Descriptor(net, *key, batch.Q): values.numpy() for key, values in described.items()}
    places = {place: n for n, place in enumerate(kept.tolist())}
    for place, row in enumerate(batch.rows):
        if place not in places:
            yield Row(row, {}, overflow(extractor.extraction.precision))
            continue
        own = {descriptor: values[places[place]] for descriptor, values in arrays.items()}
        if all(np.abs(values).max() <= np.finfo(dtype).max for values in own.values()):
            yield Row(row, own)
        else:
            reason = f"Its descriptor has numbers that {dtype} cannot hold. Use --dtype float32."
            yield Row(row, {}, reason)


def shards(
    complete: Mapping[int, Mapping[Descriptor, Matrix]],
) -> Iterator[tuple[list[int], dict[Descriptor, Matrix]]]:
    """Gather images into one shard for each set of columns that they lacked.

    Examples
    --------
    >>> column = Descriptor("D", "fc7", "average", 256)
    >>> [(rows, arrays)] = shards({4: {column: np.ones(1)}, 2: {column: np.zeros(1)}})
    >>> rows, arrays[column].tolist()
    ([2, 4], [[0.0], [1.0]])
    """
    alike: dict[tuple[Descriptor, ...], list[int]] = {}
    for row in sorted(complete):
        alike.setdefault(tuple(sorted(complete[row])), []).append(row)
    for columns, rows in alike.items():
        yield (
            rows,
            {column: np.stack([complete[row][column] for row in rows]) for column in columns},
        )
