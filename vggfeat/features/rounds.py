"""Which images of a list may be batched together."""

from __future__ import annotations

from collections.abc import Sequence

from vggfeat.features.crops import SIDE
from vggfeat.features.pooling import crops_in

# Images at Q = 384, the work of a round. Batches never reach over its end, so that a run that
# was killed and resumed makes the same ones, and with them the same bits.
ROUND = {"cpu": 16, "cuda": 512, "mps": 64}


def round_size(device: str, scales: Sequence[int], pools: Sequence[str] = ("average",)) -> int:
    """Count the images of a round: fewer where each takes more.

    Parameters
    ----------
    device : str
        Type of a device.
    scales : sequence of int
        Test scales Q.
    pools : sequence of str
        All poolings of the extraction, of which crops alone count.

    Examples
    --------
    >>> round_size("cpu", [384])
    16
    >>> round_size("cpu", [256, 384, 512])
    4
    >>> round_size("cpu", [384], ["crops5"])
    1
    """
    grids = [crops_in(pool) for pool in pools]
    dense = sum(Q * Q for Q in scales) if not all(grids) else 0
    crops = sum(grid * grid for grid in grids) * SIDE * SIDE * len(scales)
    most = ROUND[device]
    return max(1, min(most, most * 384 * 384 // max(1, dense + crops)))
