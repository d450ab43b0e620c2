"""Linear SVM by VOC's protocol against scikit-learn's LinearSVC: time, accuracy and memory.

Both sides do the same search: for each class 12 values of C, trained on train and judged by
11-point AP on val; then a fit on trainval with the best, and the test part. Each runs in a process
of its own, so that its peak of memory is its own, on the same float32 descriptors from one file.

    python benchmarks/linear_svm.py --D 4096
    python benchmarks/linear_svm.py --D 24576 --classes-sklearn 3
    python benchmarks/linear_svm.py --npz features.npz --full
    python benchmarks/linear_svm.py --D 24576 --full --free-bias

LinearSVC penalises the bias as one more weight, which SVC(kernel="linear"), and vggfeat with it,
does not; so at a small C it ranks rare classes worse. --free-bias therefore fits LinearSVC again,
at the C that vggfeat chose, with intercept_scaling=10, which makes that penalty a hundredth.

The file of --npz holds X (N, D), targets (N, C) of -1, 0 and +1, and row numbers train, val and
test. Without one, descriptors are made that resemble averaged VGG features: not negative, sparse
before they are averaged, of length 1, with as many positives per class as VOC 2007 has.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import tomllib
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import sklearn
from memory import Peak
from scipy.linalg import cholesky, solve_triangular
from sklearn.exceptions import ConvergenceWarning
from sklearn.svm import LinearSVC

import vggfeat
from vggfeat._io.assets import shared
from vggfeat.data.datasets.card import DatasetCard
from vggfeat.data.imageset import ImageSet
from vggfeat.settings import SVM
from vggfeat.svm.ap import average_precision_11point
from vggfeat.svm.linear import gram_matrix
from vggfeat.svm.protocols.voc import VOC

GRID = [float(C) for C in 10.0 ** np.linspace(-2, 3.5, 12)]
PARTS = ("train", "val", "test")


def main(told: Sequence[str] | None = None) -> dict:
    """Make or read descriptors, run both sides, print the table, return its figures."""
    args = arguments(told)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder)
        if args.npz is None:
            make(source, args)
        else:
            unpack(args.npz, source)
        _, targets, parts = read(source)
        chosen = spread_classes(targets, parts, args)
        ours = in_a_process(source, "ours", chosen)
        theirs = in_a_process(source, "LinearSVC", chosen)
        report(args, targets.shape[1], chosen, ours, theirs)
        if args.free_bias:
            at = [ours["C"][column] for column in chosen]
            report_free(chosen, ours, run_free(source, chosen, at))
    return {"chosen": chosen, "vggfeat": ours, "LinearSVC": theirs}


def arguments(told: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line, or what another script tells."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--n", type=int, default=9963, help="images, half of them for the test")
    parser.add_argument("--D", type=int, default=4096, help="dimensions")
    parser.add_argument("--classes", type=int, default=20)
    parser.add_argument("--even", action="store_true", help="one class an image, all as common")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--npz", type=Path, help="descriptors of your own")
    much = parser.add_mutually_exclusive_group()
    much.add_argument("--full", action="store_true", help="LinearSVC on all classes")
    much.add_argument("--classes-sklearn", type=int, default=2, help="LinearSVC on so many classes")
    parser.add_argument("--free-bias", action="store_true", help="LinearSVC on the same problem")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--source", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--columns", type=int, nargs="*", help=argparse.SUPPRESS)
    return parser.parse_args(told)


def make(folder: Path, args: argparse.Namespace) -> None:
    """Write descriptors: six noisy views of a scene and its objects, rectified and averaged."""
    rng = np.random.default_rng(args.seed)
    has = one_of(rng, args) if args.even else as_in_voc(rng, args)
    objects = sparse(rng, args.classes, args.D, 0.05)
    scenes = sparse(rng, 40, args.D, 0.1)
    signal = 70 / np.sqrt(args.D)  # so that mean average precision hardly depends on D
    X = np.lib.format.open_memmap(folder / "X.npy", "w+", np.float32, (args.n, args.D))
    for start in range(0, args.n, 1000):
        present = has[start : start + 1000]
        m = len(present)
        scene = scenes[rng.integers(0, len(scenes), m)]
        seen = 1.3 * (rng.random(present.shape) * present) @ objects + 0.9 * scene
        for _ in range(6):
            noise = rng.standard_normal((m, args.D), dtype=np.float32)
            view = 0.9 * noise - 0.5 + signal * seen * rng.random((m, 1))
            X[start : start + m] += np.maximum(view, 0)
        X[start : start + m] /= np.linalg.norm(X[start : start + m], axis=1, keepdims=True)
    targets = np.where(has, 1, -1)
    targets[rng.random(targets.shape) < 0.01] = 0
    np.save(folder / "targets.npy", targets)
    quarter = args.n * 2501 // 9963
    half = args.n * 5011 // 9963
    for part, rows in zip(PARTS, np.split(np.arange(args.n), [quarter, half]), strict=True):
        np.save(folder / f"{part}.npy", rows)


def as_in_voc(rng: np.random.Generator, args: argparse.Namespace) -> np.ndarray:
    """Draw which images show which classes, each as often as in VOC 2007."""
    card = tomllib.loads((shared("datasets") / "voc2007.toml").read_text(encoding="utf-8"))
    positives = np.resize(card["positives"]["trainval"], args.classes)
    return rng.random((args.n, args.classes)) < positives / card["counts"]["trainval"]


def one_of(rng: np.random.Generator, args: argparse.Namespace) -> np.ndarray:
    """Draw the one class of each image."""
    return rng.integers(0, args.classes, args.n)[:, None] == np.arange(args.classes)


def sparse(rng: np.random.Generator, n: int, D: int, share: float) -> np.ndarray:
    """Draw patterns, shape (n, D), with a share of their dimensions in use."""
    return (rng.random((n, D)) < share) * rng.random((n, D))


def unpack(npz: Path, folder: Path) -> None:
    """Write a user's arrays where both sides look for them."""
    with np.load(npz) as arrays:
        for name in ("X", "targets", *PARTS):
            np.save(folder / f"{name}.npy", arrays[name])


def read(folder: Path) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Open descriptors, targets and row numbers of the parts."""
    parts = {part: np.load(folder / f"{part}.npy") for part in PARTS}
    return np.load(folder / "X.npy", mmap_mode="r"), np.load(folder / "targets.npy"), parts


def spread_classes(
    targets: np.ndarray, parts: dict[str, np.ndarray], args: argparse.Namespace
) -> list[int]:
    """Choose LinearSVC's classes evenly from the rarest to the commonest."""
    order = np.argsort((targets[parts["train"]] > 0).sum(axis=0), kind="stable")
    count = len(order) if args.full else min(args.classes_sklearn, len(order))
    return [int(order[int((k + 0.5) * len(order) / count)]) for k in range(count)]


def in_a_process(source: Path, side: str, columns: list[int]) -> dict:
    """Run one side alone and read what it printed last."""
    told = ["--side", side, "--source", str(source), "--columns", *map(str, columns)]
    command = [sys.executable, __file__, *told]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)  # noqa: S603  # this very script
    return json.loads(done.stdout.splitlines()[-1])


def run_ours(source: Path, _columns: list[int]) -> dict:
    """Search, refit and test of all classes."""
    X, targets, parts = read(source)
    X = np.array(X)
    classes = [str(column) for column in range(targets.shape[1])]
    names = tuple(map(str, range(len(X))))
    card = DatasetCard(name="descriptors", reader="manifest", classes=classes)
    images = ImageSet(names, names, targets=targets, splits=parts)
    result = VOC(ap="ap11").evaluate(card, images, X, SVM(C=GRID)).result
    table = result.tables["classes"]
    return {"AP": table.column("ap11"), "C": table.column("C")}


def run_theirs(source: Path, columns: list[int]) -> dict:
    """Search, refit and test of some classes with LinearSVC as it comes."""
    X, targets, parts = read(source)
    X = np.array(X)
    found = {"AP": [], "C": [], "seconds each": [], "not converged": 0, "fits": 0}
    for column in columns:
        start = time.perf_counter()
        y = targets[:, column]
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ConvergenceWarning)
            val = [judged(X, y, parts["train"], parts["val"], C) for C in GRID]
            best = GRID[int(np.argmax(val))]
            both = np.union1d(parts["train"], parts["val"])
            found["AP"].append(judged(X, y, both, parts["test"], best))
        found["C"].append(best)
        found["fits"] += len(GRID) + 1
        found["not converged"] += sum(w.category is ConvergenceWarning for w in caught)
        found["seconds each"].append(time.perf_counter() - start)
        print(column, found["seconds each"][-1], file=sys.stderr, flush=True)
    return found


def judged(X: np.ndarray, y: np.ndarray, fit: np.ndarray, score: np.ndarray, C: float) -> float:
    """Average precision of a LinearSVC fitted on some rows, on others."""
    rows = fit[y[fit] != 0]
    svm = LinearSVC(C=C, loss="hinge", random_state=0).fit(X[rows], y[rows])
    return average_precision_11point(svm.decision_function(X[score]), y[score])


def run_free(source: Path, columns: list[int], chosen: list[float]) -> dict:
    """Fit and test of some classes with LinearSVC, its bias hardly penalised, at a given C."""
    X, targets, parts = read(source)
    both = np.union1d(parts["train"], parts["val"])
    fitted, unseen = rotated(X, both, parts["test"])
    found = {"AP": [], "not converged": 0}
    for column, C in zip(columns, chosen, strict=True):
        y, known = targets[both, column], targets[both, column] != 0
        svm = LinearSVC(C=C, loss="hinge", random_state=0, intercept_scaling=10, max_iter=10_000)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ConvergenceWarning)
            svm.fit(fitted[known], y[known])
        scores = svm.decision_function(unseen)
        found["AP"].append(average_precision_11point(scores, targets[parts["test"], column]))
        found["not converged"] += sum(w.category is ConvergenceWarning for w in caught)
    return found


def rotated(X: np.ndarray, fit: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates of rows to fit, and of others, in no more dimensions than rows to fit.

    A Cholesky factor of the Gram matrix holds the rows, rotated, which changes no solution.
    """
    if X.shape[1] <= len(fit):
        return np.array(X[fit]), np.array(X[score])
    K = gram_matrix(X)
    factor = cholesky(K[np.ix_(fit, fit)] + 1e-9 * np.eye(len(fit)), lower=True)
    others = solve_triangular(factor, K[np.ix_(fit, score)], lower=True).T
    return np.ascontiguousarray(factor), np.ascontiguousarray(others)


SIDES = {"ours": run_ours, "LinearSVC": run_theirs}


def timed(side: str, source: Path, columns: list[int]) -> None:
    """Run one side and print its figures as JSON."""
    peak = Peak()
    peak.start()
    start = time.perf_counter()
    found = SIDES[side](source, columns)
    found["seconds"] = time.perf_counter() - start
    found["peak"] = peak.gigabytes
    print(json.dumps(found))


def report(
    args: argparse.Namespace, n_classes: int, chosen: list[int], ours: dict, theirs: dict
) -> None:
    """Print the table."""
    per_class = [ours["seconds"] / n_classes, theirs["seconds"] / len(chosen)]
    same = [100 * float(np.mean(AP)) for AP in (np.array(ours["AP"])[chosen], theirs["AP"])]
    data = args.npz or f"{args.n} x {args.D}, seed {args.seed}"
    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
    print(f"data: {data}; {n_classes} classes, {len(GRID)} values of C, hinge, 11-point AP")
    print(
        f"vggfeat {vggfeat.__version__}, scikit-learn {sklearn.__version__}, NumPy "
        f"{np.__version__}, Python {platform.python_version()}, {os.cpu_count()} cores, load {load}"
    )
    print(f"{'':34}{'vggfeat':>10}{'LinearSVC':>12}")
    print(f"{'classes run':34}{n_classes:10}{len(chosen):12}")
    print(f"{'seconds':34}{ours['seconds']:10.1f}{theirs['seconds']:12.1f}")
    print(f"{'seconds per class':34}{per_class[0]:10.2f}{per_class[1]:12.2f}")
    print(f"{'ratio':34}{'':10}{per_class[1] / per_class[0]:12.1f}")
    print(f"{'mAP, all classes':34}{100 * np.nanmean(ours['AP']):10.2f}")
    print(f"{'mAP, the classes of both':34}{same[0]:10.2f}{same[1]:12.2f}")
    print(f"{'difference':34}{'':10}{same[0] - same[1]:+12.2f}")
    print(f"{'peak memory with workers, GB':34}{ours['peak']:10.2f}{theirs['peak']:12.2f}")
    unfinished = f"{theirs['not converged']} of {theirs['fits']}"
    print(f"{'fits that did not converge':34}{'':10}{unfinished:>12}")
    for column, C, AP in zip(chosen, theirs["C"], theirs["AP"], strict=True):
        mine = f"{100 * ours['AP'][column]:.2f} at C {ours['C'][column]:.3g}"
        print(f"class {column}: AP {mine}, LinearSVC {100 * AP:.2f} at C {C:.3g}")
    if len(chosen) < n_classes:
        print(
            f"LinearSVC ran its whole search for {len(chosen)} of {n_classes} classes: the ratio "
            "is of seconds per class, measured over those; --full runs them all."
        )


def report_free(chosen: list[int], ours: dict, free: dict) -> None:
    """Print the accuracy on the same problem."""
    mine = 100 * np.array(ours["AP"])[chosen]
    its = 100 * np.array(free["AP"])
    print(f"same C, bias hardly penalised: LinearSVC's mAP {its.mean():.2f}, ", end="")
    print(f"vggfeat's {mine.mean():.2f}, difference {mine.mean() - its.mean():+.2f}, of one class ")
    print(f"at most {np.abs(mine - its).max():.2f}; {free['not converged']} did not converge")


if __name__ == "__main__":
    known = arguments()
    if known.side:
        timed(known.side, known.source, known.columns)
    else:
        main()
