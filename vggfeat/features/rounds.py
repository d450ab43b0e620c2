"""Which pictures of a list may be batched together."""

from __future__ import annotations

from collections.abc import Sequence

from vggfeat.features.crops import SIDE
from vggfeat.features.extraction import Extraction, crops_in

# Pictures at Q = 384, the work of a round. Batches never reach over its end, so that a run that
# was killed and resumed makes the same ones, and with them the same bits.
ROUND = {"cpu": 16, "cuda": 512, "mps": 64}


def round_size(device: str, extraction: Extraction, scales: Sequence[int]) -> int:
    """Count the pictures of a round: fewer where each takes more, as shards end with a round.

    Parameters
    ----------
    device : str
        Type of a device.
    extraction : Extraction
        Whose poolings say what is done with a picture.
    scales : sequence of int
        Test scales Q.

    Examples
    --------
    >>> round_size("cpu", Extraction("D", "ab12", ("fc7",)), [384])
    16
    >>> round_size("cpu", Extraction("D", "ab12", ("fc7",)), [256, 384, 512])
    4
    >>> round_size("cpu", Extraction("D", "ab12", ("fc8",), pool="crops5"), [384])
    1
    """
    grids = [crops_in(pool) for pool in extraction.pools]
    dense = sum(Q * Q for Q in scales) if not all(grids) else 0
    crops = sum(grid * grid for grid in grids) * SIDE * SIDE * len(scales)
    most = ROUND[device]
    return max(1, min(most, most * 384 * 384 // max(1, dense + crops)))
