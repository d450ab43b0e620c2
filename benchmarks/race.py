"""All contenders over the same work, one after another, several times over."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import contenders
import engines
import numpy as np
from contenders import Run, Skip, Work
from floor import matrix_rate

CONTENDERS: Mapping[str, Callable[[Work], Run]] = {
    "vggfeat": contenders.vggfeat,
    "vggfeat-forward": contenders.vggfeat_forward,
    "vggfeat-packed": lambda work: contenders.vggfeat(replace(work, runtime="packed")),
    "vggfeat-openvino": lambda work: contenders.vggfeat(replace(work, runtime="openvino")),
    "vggfeat-torch": lambda work: contenders.vggfeat(replace(work, runtime="torch")),
    "torchvision": contenders.torchvision_loop,
    "timm": contenders.timm_eager,
    "timm-compiled": contenders.timm_compiled,
    "openvino-forward": engines.openvino_forward,
    "onnxruntime-forward": engines.onnxruntime_forward,
}
OURS = ("vggfeat", "vggfeat-forward")
FLOOR = "floor"
AGREES = 0.9999


@dataclass
class Row:
    """One contender at one work.

    Parameters
    ----------
    name, net : str
        Of the contender; of the net.
    Q : list of int
        Smallest sides, in pixels.
    precision, shapes : str
        See :class:`contenders.Work`.
    images_per_s, tflops : float or None
        Of the fastest repetition; the operations are those of the convolutions.
    ratio : float or None
        To the first row, the floor: the share of the machine's matrix rate.
    spread : float or None
        By how much the slowest repetition took longer than the fastest, as a share of it.
    agreement : float or None
        Smallest cosine of an image's descriptor with vggfeat's in fp32.
    note : str
        Why there are no figures, or what to know about them.
    seconds : list of float
        Of all repetitions.
    """

    name: str
    net: str
    Q: list[int]
    precision: str
    shapes: str
    images_per_s: float | None = None
    tflops: float | None = None
    ratio: float | None = None
    spread: float | None = None
    agreement: float | None = None
    note: str = ""
    seconds: list[float] = field(default_factory=list)

    @classmethod
    def of(cls, name: str, work: Work, **told: Any) -> Row:
        """Begin a row."""
        return cls(name, work.net, list(work.scales), work.precision, work.shapes, **told)

    def to_dict(self) -> dict[str, Any]:
        """Return the row as plain JSON types."""
        return asdict(self)


def race(
    work: Work, names: Sequence[str], repeat: int, reference: np.ndarray, side: int | None = None
) -> list[Row]:
    """Run contenders in turn, so that what else the machine does meets all of them.

    Parameters
    ----------
    work : Work
        What they all do.
    names : sequence of str
        Of :data:`CONTENDERS`.
    repeat : int
        Repetitions, after a first run that is not counted.
    reference : ndarray (scales, N, D)
        Descriptors with which theirs must agree.
    side : int, optional
        Of the matrices of the floor.

    Returns
    -------
    list of Row
        The floor first.
    """
    rows = [Row.of(name, work) for name in names]
    runs = [begin(row, work, reference) for row in rows]
    rate = matrix_rate(work.precision, work.device, side)
    for _ in range(repeat):
        rate = max(rate, matrix_rate(work.precision, work.device, side))
        for row, run in zip(rows, runs, strict=True):
            if run is not None:
                start = time.perf_counter()
                run()
                row.seconds.append(time.perf_counter() - start)
    first = Row.of(FLOOR, work, seconds=[work.operations / rate])
    for row in (first, *rows):
        finish(row, work, first)
    del runs
    gc.collect()  # loaders and engines end their processes and threads
    return [first, *rows]


def begin(row: Row, work: Work, reference: np.ndarray) -> Run | None:
    """Prepare a contender and run it once; what goes wrong with one ends no others."""
    tell(f"{row.name}, {work.net}, Q {'+'.join(map(str, work.scales))}, {work.precision}")
    try:
        run = CONTENDERS[row.name](work)
        start = time.perf_counter()
        found = run()
        first = time.perf_counter() - start
    except Skip as reason:
        row.note = f"skipped: {reason}"
        return None
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        row.note = f"failed: {type(error).__name__}: {lines[0][:120]}"
        return None
    if row.name == "timm-compiled":
        row.note = f"first run, with compiling, {first:.1f} s"
    judge(row, found, reference)
    return run


def judge(row: Row, found: np.ndarray, reference: np.ndarray) -> None:
    """Say how well descriptors agree, and mark those of different work."""
    row.agreement = agreement(found, reference)
    if row.agreement is None or row.agreement < AGREES:
        row.note = "; ".join(filter(None, ["different work", row.note]))


def agreement(found: np.ndarray, reference: np.ndarray) -> float | None:
    """Smallest cosine between two descriptors of one image; None where there are others."""
    if found.shape != reference.shape:
        return None
    a, b = (np.asarray(x, np.float64) for x in (found, reference))
    lengths = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return float(((a * b).sum(-1) / np.maximum(lengths, 1e-30)).min())


def finish(row: Row, work: Work, first: Row) -> None:
    """Fill in the figures of a row whose seconds are known."""
    if not row.seconds:
        return
    best = min(row.seconds)
    row.images_per_s = len(work.images) / best
    row.tflops = work.operations / best / 1e12
    row.ratio = min(first.seconds) / best
    row.spread = max(row.seconds) / best - 1


def tell(what: str) -> None:
    """Say on the terminal what runs now."""
    print(f"… {what}", file=sys.stderr, flush=True)
