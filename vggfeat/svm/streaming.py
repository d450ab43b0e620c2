"""Linear SVMs over rows that are read block by block, all problems in every reading.

A problem is a column of targets and a C. With ``v = (w, b)`` and a constant 1 behind each row it
minimises what liblinear does with the squared hinge, ``½‖v‖² + Σ Cᵢ max(0, 1 - yᵢ v·xᵢ)²``, by
L-BFGS (Nocedal & Wright, Numerical Optimization, Algorithm 7.4). Memory holds a block of rows per
thread, one more, and some vectors of weights per problem, however many rows there are. Two things
save readings:

- L-BFGS starts from the inverse Hessian at v = 0, where every row is inside the margin:
  ``(I + 2C (n/m) XsᵀXs)⁻¹`` of a sample of m rows. It is held by the sample's leading eigenvectors
  and the mean of the other eigenvalues, as in Nyström preconditioning (Frangella, Tropp & Udell
  2023): one matrix (D, 128) serves every class and every C. With the whole D × D factor the noise
  of the sample's small eigenvalues costs more readings than it saves.
- A reading gives objective and gradient one step ahead. The objective is piecewise quadratic
  along the step, so its slope at several lengths, from the scores of the direction in the same
  reading, tells the best length where the step itself was too long or too short.
"""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.extmath import randomized_svd
from threadpoolctl import ThreadpoolController

from vggfeat.svm.rows import Floats, Ints, as_floats, block_ends, check_block

STATE_BYTES = 1 << 30  # of the vectors of problems that are solved together
SAMPLE_BYTES = 128 << 20  # of the sample, as float32
SAMPLE_ROWS = 8192
EIGENVECTORS = 128
PAIRS = 10  # steps, and changes of the gradient, that L-BFGS remembers
VECTORS = 2 * PAIRS + 12  # of the size of its weights that a problem needs, temporary ones included
MAX_READINGS = 500
MAX_THREADS = 8  # each holds a block and waits for the same memory
LENGTHS = np.array([0.03, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 4.0])  # of a step
FLAT = 0.9  # a step is taken where its slope has fallen to this share

Sums = TypeVar("Sums")


class StreamFit(NamedTuple):
    """Weights (P, D) and biases (P,) of P problems, and how often all rows were read."""

    coef: Floats
    intercept: Floats
    readings: int


def fit_stream(
    X: Any,
    targets: NDArray[np.int8],
    columns: Sequence[int] | Ints,
    C: Sequence[float] | Floats,
    tol: float = 1e-3,
    class_weight: str | None = None,
) -> StreamFit:
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
    tol : float
        A problem is solved where the next step is expected to lower its objective by half this
        share of it, times C where C is below 1 and over C where it is above: so that scores, and
        with them the ranking, are as sure at every C.
    class_weight : "balanced", optional
        Let positives and negatives of a column weigh the same in sum.

    Returns
    -------
    StreamFit

    Raises
    ------
    DataError
        If a descriptor is a NaN or an infinity.

    Warns
    -----
    ConvergenceWarning
        If a problem is not solved after ``MAX_READINGS`` readings.

    Examples
    --------
    >>> X = np.array([[1.0], [-1.0]])
    >>> fit = fit_stream(X, np.array([[1], [-1]], dtype=np.int8), [0, 0], [0.25, 5.0])
    >>> fit.coef.round(3).tolist(), fit.readings
    ([[0.5], [0.952]], 2)
    """
    columns, C = np.asarray(columns, dtype=np.int64), np.asarray(C, dtype=np.float64)
    together = max(1, STATE_BYTES // (8 * VECTORS * (X.shape[1] + 1)))
    weights, readings = np.empty((X.shape[1] + 1, len(C))), 0
    for first in range(0, len(C), together):
        group = slice(first, first + together)
        problems = _Problems(X, targets, columns[group], C[group], class_weight)
        weights[:, group] = _solve(problems, tol)
        readings += problems.readings
    return StreamFit(np.ascontiguousarray(weights[:-1].T), weights[-1].copy(), readings)


def class_weights(y: NDArray[Any], class_weight: str | None) -> tuple[float, float]:
    """Return the weights of C for negatives and positives.

    ``"balanced"`` is scikit-learn's: rows / (2 × rows of the sign).

    Examples
    --------
    >>> class_weights(np.array([1, -1, -1, -1, 0]), "balanced")
    (0.6666666666666666, 2.0)
    """
    if class_weight is None:
        return 1.0, 1.0
    negatives, positives = int((y < 0).sum()), int((y > 0).sum())
    rows = negatives + positives
    return rows / (2 * max(negatives, 1)), rows / (2 * max(positives, 1))


def _solve(problems: _Problems, tol: float) -> Floats:
    """Take L-BFGS steps until none expects to gain; return weights (D + 1, P)."""
    objective, gradient, hessian = problems.start()
    weights = np.zeros_like(gradient)
    direction = -hessian.solve(np.arange(len(objective)), gradient)
    length = np.ones(len(objective))
    lengths = np.repeat(LENGTHS[:, None], len(objective), axis=1)
    share = tol * np.minimum(problems.C, 1 / problems.C)
    while True:
        todo = np.flatnonzero(-_dot(gradient, direction) > share * objective)
        if not len(todo) or problems.readings >= MAX_READINGS:
            break
        steps = direction[:, todo]
        ahead = problems.look(todo, weights[:, todo], steps, length[todo], lengths[:, todo])
        slope = _dot(gradient[:, todo], steps)
        flat = np.abs(_dot(ahead.gradient, steps)) <= FLAT * np.abs(slope)
        for k in np.flatnonzero(~flat):  # look again, at another length
            p = todo[k]
            length[p], lengths[:, p] = _next_lengths(slope[k], lengths[:, p], ahead.slopes[:, k])
        taken = todo[flat]
        steps = length[taken] * steps[:, flat]
        change = ahead.gradient[:, flat] - gradient[:, taken]
        hessian.update(taken, steps, change, ahead.inside[flat])
        weights[:, taken] += steps
        objective[taken], gradient[:, taken] = ahead.objective[flat], ahead.gradient[:, flat]
        direction[:, taken] = -hessian.solve(taken, gradient[:, taken])
        length[taken], lengths[:, taken] = 1, LENGTHS[:, None]
    if len(todo):
        warnings.warn(
            f"{len(todo)} of {len(share)} linear SVMs were not solved to tol={tol:g} in "
            f"{problems.readings} readings of the descriptors. Take a smaller C or a larger tol.",
            ConvergenceWarning,
            stacklevel=3,
        )
    return weights


def _next_lengths(start_slope: float, lengths: Floats, slopes: Floats) -> tuple[float, Floats]:
    """Return the length of a step where its slope is zero, and lengths to take slopes at next.

    The slope grows with the length, from below zero; between two lengths it is interpolated. Where
    it is still below zero at the longest, that one is next, with lengths up to several times it.
    """
    lengths, slopes = np.append(0, lengths), np.append(start_slope, slopes)
    after_zero = int(np.searchsorted(slopes, 0))
    flattest = float(np.interp(0, slopes, lengths))
    if after_zero == len(lengths):
        return flattest, lengths[-1] * LENGTHS
    return flattest, np.linspace(lengths[after_zero - 1], lengths[after_zero], len(LENGTHS))


class _Ahead(NamedTuple):
    """Objective (P,) and gradient (D + 1, P) after a step, and slopes (K, P) at lengths of it."""

    objective: Floats
    gradient: Floats
    slopes: Floats
    inside: Floats


class _Problems:
    """Rows, read in blocks, and the P problems over them; ``which`` selects some of these."""

    def __init__(
        self,
        X: Any,
        targets: NDArray[np.int8],
        columns: Ints,
        C: Floats,
        class_weight: str | None,
    ) -> None:
        self.X, self.targets, self.columns, self.C = X, targets, columns, C
        self.readings = 0
        self.pools = ThreadpoolController().select(user_api="blas")
        allowed = max([1, *(pool["num_threads"] for pool in self.pools.info())])
        self.threads = min(allowed, MAX_THREADS)
        distinct, place = np.unique(columns, return_inverse=True)
        weights = [class_weights(targets[:, column], class_weight) for column in distinct]
        self.weights = C * np.array(weights).T[:, place]  # (2, P), of negatives and positives

    def read(
        self, which: Ints, work: Callable[[int, NDArray[Any], NDArray[Any]], Sums]
    ) -> Iterator[Sums]:
        """Read all rows once; yield what ``work`` makes of each block, in order.

        It takes the block's first row, its rows (B, D) and their targets (B, P). Blocks are read
        here, one after the other, and worked on side by side: products with few columns gain
        little from more threads of BLAS, and what lies between them nothing.
        """
        self.readings += 1

        def task(start: int, rows: NDArray[Any]) -> Sums:
            block = as_floats(rows)
            y = self.targets[start : start + len(rows), self.columns[which]]
            return work(start, block, y.astype(block.dtype))

        working: deque[Future[Sums]] = deque()
        with (
            self.pools.limit(limits=1, user_api="blas"),
            ThreadPoolExecutor(self.threads) as threads,
        ):
            for start, stop in block_ends(self.X, 2 * len(which)):
                if len(working) > self.threads:  # else memory would fill with blocks that wait
                    yield working.popleft().result()
                working.append(threads.submit(task, start, self.X[start:stop]))
            while working:
                yield working.popleft().result()

    def start(self) -> tuple[Floats, Floats, _Hessian]:
        """Return objective and gradient at v = 0, and the Hessian there, of a sample's rows."""
        n, D = self.X.shape
        size = min(n, SAMPLE_ROWS, max(1, SAMPLE_BYTES // (4 * D)))
        drawn = np.zeros(n, dtype=bool)
        drawn[np.random.default_rng(0).choice(n, size, replace=False)] = True
        sample, filled = np.ones((size, D + 1), np.float32), 0  # with the constant 1
        every = np.arange(len(self.C))
        objective, gradient = np.zeros(len(every)), np.zeros((D + 1, len(every)))

        def work(first: int, block: NDArray[Any], y: NDArray[Any]) -> tuple[Any, ...]:
            check_block(block, first)
            cost = self._cost(every, y)
            chosen = block[drawn[first : first + len(block)]]
            return cost.sum(axis=0, dtype=np.float64), _products(block, cost * y), chosen

        for cost, product, chosen in self.read(every, work):
            objective += cost
            gradient -= 2 * product
            sample[filled : filled + len(chosen), :-1] = chosen
            filled += len(chosen)
        with self.pools.limit(limits=1, user_api="blas"):  # the same bits on any number of cores
            # Where every row is inside the margin, the objective is the sum of all costs.
            return objective, gradient, _Hessian(sample, objective)

    def look(
        self, which: Ints, weights: Floats, steps: Floats, length: Floats, lengths: Floats
    ) -> _Ahead:
        """Evaluate after steps of a length, and their slopes at other lengths, in one reading."""
        P, there = len(which), weights + length * steps
        objective, gradient = _dot(there, there) / 2, there.copy()
        slopes = _dot(weights, steps) + lengths * _dot(steps, steps)
        both, inside = np.hstack([weights, steps]), np.zeros(P)

        def work(_: int, block: NDArray[Any], y: NDArray[Any]) -> _Ahead:
            precise = both.astype(block.dtype)
            scores = block @ precise[:-1] + precise[-1]
            slack, change = np.abs(y) - y * scores[:, :P], y * scores[:, P:]
            cost = self._cost(which, y)
            ahead = np.maximum(slack - length.astype(block.dtype) * change, 0)
            signed = cost * ahead
            added = _Ahead(
                (signed * ahead).sum(axis=0, dtype=np.float64),
                _products(block, signed * y),
                np.empty_like(slopes),
                (cost * (ahead > 0)).sum(axis=0, dtype=np.float64),
            )
            cost *= change
            for k, t in enumerate(lengths.astype(block.dtype)):
                ahead = np.maximum(slack - t * change, 0)
                added.slopes[k] = (cost * ahead).sum(axis=0, dtype=np.float64)
            return added

        for added in self.read(which, work):
            objective += added.objective
            gradient -= 2 * added.gradient
            slopes -= 2 * added.slopes
            inside += added.inside
        return _Ahead(objective, gradient, slopes, inside)

    def _cost(self, which: Ints, y: NDArray[Any]) -> NDArray[Any]:
        """C of each row (B, P), 0 for one that is left out."""
        negative, positive = self.weights[:, which].astype(y.dtype)
        return cast("NDArray[Any]", np.where(y > 0, positive, negative) * np.abs(y))


class _Hessian:
    """Hessians of P problems as L-BFGS knows them: one of a sample, then pairs of each problem."""

    def __init__(self, sample: NDArray[np.float32], costs: Floats) -> None:
        size, D = sample.shape
        rank = min(EIGENVECTORS, size, D)
        _, singular, vectors = randomized_svd(sample, rank, n_iter=2, random_state=0)
        self.vectors = vectors.T.astype(np.float32)  # (D, rank)
        total = float(np.einsum("nd,nd->", sample, sample, dtype=np.float64))
        rest = max(0.0, total - float(np.sum(singular**2))) / max(1, D - rank)
        self.values, self.others = 2 * singular[:, None] ** 2 / size, 2 * rest / size
        self.inside = costs.copy()  # C of the rows inside the margin, in sum
        self.steps = np.zeros((PAIRS, D, len(costs)))  # the newest first
        self.changes = np.zeros_like(self.steps)
        self.curvatures = np.zeros((PAIRS, len(costs)))  # 1 / step·change, 0 where there is none
        self.scale = np.ones(len(costs))

    def update(self, which: Ints, step: Floats, change: Floats, inside: Floats) -> None:
        """Remember a step and the change of the gradient that it brought."""
        self.inside[which] = inside
        for kept, newest in ((self.steps, step), (self.changes, change)):
            kept[1:, :, which] = kept[:-1, :, which]
            kept[0][:, which] = newest
        product = _dot(step, change)
        self.curvatures[1:, which] = self.curvatures[:-1, which]
        self.curvatures[0, which] = 1 / product
        self.scale[which] = product / _dot(change, self._solve_sample(which, change))

    def solve(self, which: Ints, gradient: Floats) -> Floats:
        """Multiply the inverse of the Hessians by one vector each, by the two-loop recursion."""
        solution, shares = gradient.copy(), np.empty((PAIRS, len(which)))
        curvatures = self.curvatures[:, which]
        pairs = int((curvatures > 0).any(axis=1).sum())
        for k in range(pairs):
            shares[k] = curvatures[k] * _dot(self.steps[k][:, which], solution)
            solution -= shares[k] * self.changes[k][:, which]
        solution = self.scale[which] * self._solve_sample(which, solution)
        for k in reversed(range(pairs)):
            product = curvatures[k] * _dot(self.changes[k][:, which], solution)
            solution += (shares[k] - product) * self.steps[k][:, which]
        return solution

    def _solve_sample(self, which: Ints, gradient: Floats) -> Floats:
        others = 1 + self.inside[which] * self.others
        inverse = 1 / (1 + self.inside[which] * self.values) - 1 / others
        along = self.vectors.T @ gradient.astype(np.float32)
        return cast("Floats", gradient / others + self.vectors @ (inverse * along))


def _dot(left: Floats, right: Floats) -> Floats:
    """Dot product of each column, shape (P,)."""
    return cast("Floats", np.einsum("dp,dp->p", left, right))


def _products(block: NDArray[Any], weights: NDArray[Any]) -> NDArray[Any]:
    """Multiply the rows and their constant 1, transposed, by (B, P)."""
    products = np.ascontiguousarray(weights.T) @ block  # twice as fast as block.T @ weights
    return np.vstack([products.T, weights.sum(axis=0, keepdims=True)])
