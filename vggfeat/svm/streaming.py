"""Linear SVMs over rows that are read block by block, many problems in every reading.

A problem is a column of targets and a C. With ``v = (w, b)`` and a constant 1 behind each row it
minimises what liblinear does, ``P(v) = ½‖v‖² + C Σ loss(yᵢ v·xᵢ)``, by Newton's method with
conjugate gradients: products with the Hessian are sums over rows, so that memory holds one block of
rows and a few vectors of weights per problem, however many rows there are. Nothing is random.

The hinge is rounded off within ``mu`` of its kink, and ``mu`` shrinks until that no longer matters.
How far P is from its minimum is known at every point: with ``g`` the gradient of the rounded
problem, C times the slopes of its losses is feasible in the dual, and the duality gap of the
problem itself is ``½‖g‖² + C Σ (lossᵢ - slopeᵢ (1 - yᵢ v·xᵢ))``, whose sum is zero beyond the
rounding. For the squared hinge, which needs none, the gap is ``½‖g‖²``.

The squared hinge takes tens of readings. The hinge takes hundreds where C is large, as liblinear
takes thousands of sweeps.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning

from vggfeat.svm.rows import as_floats, block_ends
from vggfeat.svm.solvers import Floats, Ints

STATE_BYTES = 1 << 30  # of the weights, gradients and steps of problems that are solved together
VECTORS = 16  # of the size of its weights that a problem needs at once, temporary ones included
MAX_READINGS = 1000  # of all rows
WIDE = 2.0  # mu at first: v = 0, where every shortfall is 1, lies within the rounding
FINER = 0.3  # what mu is multiplied by
ENOUGH = 0.3  # share of the gradient at which Newton's equations count as solved
PRODUCTS = 60  # with the Hessian, at most, for one step
SHORTER = 0.5 ** np.array([1, 2, 3, 4, 6, 8, 11, 15, 20, 26])  # lengths of a step that goes too far
UNUSED = -9.0  # the shortfall of a row that is none of the problem's: beyond every rounding


class _Point(NamedTuple):
    """Where P problems stand: weights and gradient (D + 1, P), the rest (P,)."""

    weights: Floats
    gradient: Floats
    objective: Floats
    rounding: Floats

    @property
    def unsolved(self) -> Floats:
        """What is left of the gap when rounding is taken as it is."""
        return cast("Floats", np.sum(self.gradient**2, axis=0) / 2)

    @property
    def gap(self) -> Floats:
        return self.unsolved + self.rounding

    def only(self, which: Ints) -> _Point:
        return _Point(*(values[..., which] for values in self))

    def put(self, which: Ints, other: _Point) -> None:
        for mine, its in zip(self, other, strict=True):
            mine[..., which] = its


@dataclass
class _Problems:
    """Rows, read in blocks, and the P problems over them; ``which`` selects some of these."""

    X: Any
    targets: NDArray[np.int8]
    columns: Ints
    C: Floats
    squared: bool
    mu: Floats
    readings: int = 0

    def blocks(self, which: Ints) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        """Read rows (B, D) with targets (B, P); rows that no problem uses are left out."""
        self.readings += 1
        columns = self.columns[which]
        for start, stop in block_ends(self.X, len(which)):
            known = self.targets[start:stop, np.unique(columns)]
            used = known.any(axis=1)
            if used.any():
                block = as_floats(self.X[start:stop])
                block = block if used.all() else block[used]
                yield block, self.targets[start:stop, columns][used].astype(block.dtype)

    def at(self, which: Ints, weights: Floats) -> _Point:
        """Evaluate the rounded problems."""
        pull = np.zeros_like(weights)
        losses, rounding = np.zeros(len(which)), np.zeros(len(which))
        for block, y in self.blocks(which):
            slope, loss, more = self._loss(which, _shortfall(block, y, weights))
            losses += loss.sum(axis=0, dtype=np.float64)
            rounding += more.sum(axis=0, dtype=np.float64)
            pull += _columns(block, slope * y)
        C, half = self.C[which], np.sum(weights**2, axis=0) / 2
        return _Point(weights, weights - C * pull, half + C * losses, C * rounding)

    def bent(self, which: Ints, weights: Floats, along: Floats) -> Floats:
        """Multiply the Hessian at ``weights`` by one vector per problem."""
        total = np.zeros_like(along)
        for block, y in self.blocks(which):
            curvature = self._curvature(which, _shortfall(block, y, weights))
            total += _columns(block, curvature * _scores(block, along))
        return along + self.C[which] * total

    def shorter(self, which: Ints, weights: Floats, step: Floats) -> Floats:
        """Cut each problem's step to the best of some lengths, in one reading."""
        found = np.array([np.sum((weights + t * step) ** 2, axis=0) / 2 for t in SHORTER])
        for block, y in self.blocks(which):
            shortfall, change = _shortfall(block, y, weights), y * _scores(block, step)
            for k, t in enumerate(SHORTER.astype(block.dtype)):
                _, loss, _ = self._loss(which, shortfall - t * change)
                found[k] += self.C[which] * loss.sum(axis=0, dtype=np.float64)
        return cast("Floats", SHORTER[found.argmin(axis=0)] * step)

    def _loss(self, which: Ints, shortfall: NDArray[Any]) -> tuple[NDArray[Any], ...]:
        """Slope, rounded loss, and part of the gap, of ``shortfall = 1 - y v·x``."""
        short = np.maximum(shortfall, 0)
        if self.squared:
            return 2 * short, short**2, np.zeros_like(short)
        mu = self.mu[which].astype(shortfall.dtype)
        slope = np.clip((shortfall + mu) / (2 * mu), 0, 1)
        return slope, slope * (shortfall + mu * (1 - slope)), short - slope * shortfall

    def _curvature(self, which: Ints, shortfall: NDArray[Any]) -> NDArray[Any]:
        if self.squared:
            return 2 * (shortfall > 0).astype(shortfall.dtype)
        mu = self.mu[which].astype(shortfall.dtype)
        return cast("NDArray[Any]", (np.abs(shortfall) < mu) / (2 * mu))


def fit_stream(
    X: Any,
    targets: NDArray[np.int8],
    columns: Sequence[int] | Ints,
    C: Sequence[float] | Floats,
    loss: str = "hinge",
    tol: float = 1e-3,
) -> tuple[Floats, Floats]:
    """Solve P problems over the same rows, reading these block by block.

    As many problems as ``STATE_BYTES`` holds are solved in the same readings.

    Parameters
    ----------
    X : array, shape (N, D)
        Anything that slices by rows: a memory map, an HDF5 data set, an array.
    targets : array, shape (N, T), of -1, 0 and +1
        0 leaves a row out.
    columns : sequence of int, length P
        Column of the targets that each problem separates.
    C : sequence of float, length P
    loss : "hinge" or "squared_hinge"
    tol : float
        Duality gap at which a problem is solved, as a share of its objective where C is 1 or more,
        and of C times its objective below: scores, and what tells them apart, shrink with C.

    Returns
    -------
    coef : array, shape (P, D)
    intercept : array, shape (P,)

    Warns
    -----
    ConvergenceWarning
        If a problem is not solved after ``MAX_READINGS`` readings.

    Examples
    --------
    >>> X = np.array([[1.0], [-1.0]])
    >>> coef, intercept = fit_stream(X, np.array([[1], [-1]], dtype=np.int8), [0, 0], [0.1, 9.0])
    >>> coef.round(3).tolist(), intercept.round(3).tolist()
    ([[0.2], [1.0]], [0.0, 0.0])
    """
    D = X.shape[1]
    where, bounds = np.asarray(columns, dtype=np.int64), np.asarray(C, dtype=np.float64)
    together = max(1, STATE_BYTES // (8 * VECTORS * (D + 1)))
    weights = np.empty((D + 1, len(bounds)))
    for first in range(0, len(bounds), together):
        group = slice(first, first + together)
        mu = np.full(len(bounds[group]), WIDE)
        squared = loss == "squared_hinge"
        problems = _Problems(X, targets, where[group], bounds[group], squared, mu)
        weights[:, group] = _solve(problems, tol)
    return np.ascontiguousarray(weights[:-1].T), weights[-1].copy()


def _solve(problems: _Problems, tol: float) -> Floats:
    """Take Newton steps until every problem's gap is small; return weights (D + 1, P)."""
    todo = np.arange(len(problems.C))
    point = problems.at(todo, np.zeros((problems.X.shape[1] + 1, len(todo))))
    goal = tol * np.minimum(1, problems.C)
    while True:
        todo = todo[point.gap[todo] > goal[todo] * point.objective[todo]]
        if not len(todo) or problems.readings >= MAX_READINGS:
            break
        rounded = todo[point.unsolved[todo] < point.rounding[todo]]
        if len(rounded):
            problems.mu[rounded] *= FINER
            point.put(rounded, problems.at(rounded, point.weights[:, rounded]))
        point.put(todo, _stepped(problems, todo, point.only(todo)))
    if len(todo):
        warnings.warn(
            f"{len(todo)} of {len(goal)} linear SVMs were not solved to tol={tol:g} in "
            f"{problems.readings} readings of the descriptors. Take a smaller C, a larger tol or "
            "loss='squared_hinge'.",
            ConvergenceWarning,
            stacklevel=3,
        )
    return point.weights


def _stepped(problems: _Problems, which: Ints, here: _Point) -> _Point:
    """Take one step with every problem; the objective falls."""
    step = _newton_step(problems, which, here)
    there = problems.at(which, here.weights + step)
    promised = np.sum(here.gradient * step, axis=0)
    far = np.flatnonzero(there.objective > here.objective + 1e-4 * promised)
    if len(far):
        start = here.weights[:, far]
        short = problems.shorter(which[far], start, step[:, far])
        there.put(far, problems.at(which[far], start + short))
    return there


def _newton_step(problems: _Problems, which: Ints, here: _Point) -> Floats:
    """Solve Newton's equations by conjugate gradients, each problem until it has enough."""
    step, residual = np.zeros_like(here.weights), -here.gradient
    along, size = residual.copy(), np.sum(residual**2, axis=0)
    enough = ENOUGH**2 * size
    left = np.flatnonzero(size > 0)
    for _ in range(PRODUCTS):
        if not len(left):
            break
        bent = problems.bent(which[left], here.weights[:, left], along[:, left])
        length = size[left] / np.sum(along[:, left] * bent, axis=0)
        step[:, left] += length * along[:, left]
        residual[:, left] -= length * bent
        now = np.sum(residual[:, left] ** 2, axis=0)
        along[:, left] = residual[:, left] + now / size[left] * along[:, left]
        size[left] = now
        left = left[now > enough[left]]
    return step


def _scores(block: NDArray[Any], weights: Floats) -> NDArray[Any]:
    precise = weights.astype(block.dtype)
    return cast("NDArray[Any]", block @ precise[:-1] + precise[-1])


def _shortfall(block: NDArray[Any], y: NDArray[Any], weights: Floats) -> NDArray[Any]:
    shortfall = 1 - y * _scores(block, weights)
    shortfall[y == 0] = UNUSED
    return cast("NDArray[Any]", shortfall)


def _columns(block: NDArray[Any], signed: NDArray[Any]) -> NDArray[Any]:
    """Multiply the rows and their constant 1, transposed, by (B, P)."""
    return np.vstack([block.T @ signed, signed.sum(axis=0, keepdims=True)])
