"""The part of `golden.adapter` for SVMs: fits, metrics, models, tables of the paper."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from helpers.cli import run

Array = np.ndarray
CPU = ("--device", "cpu", "--workers", "1")
OTHERS = ("name", "class", "remark", "error")
"""Columns beside the scores of a table of predictions."""


def fit_svm(
    X: Array, y: Array, X_test: Array, *, C: float, loss: str, solver: str, tol: float
) -> tuple[Array, Array, Array]:
    """Train a linear SVM one-vs-rest: coefficients (classes, D), biases, scores of other rows."""
    from vggfeat.svm.linear import LinearSVM

    svm = LinearSVM(C=C, loss=loss, solver=solver, tol=tol, random_state=0, n_jobs=1).fit(X, y)
    return svm.coef_, svm.intercept_, svm.class_scores(X_test)


def search_svm(
    X: Array,
    y: Array,
    *,
    grid: Sequence[float],
    folds: Sequence[tuple[Array, Array]],
    per_class: bool,
    loss: str,
    solver: str,
    tol: float,
) -> tuple[list[float], Array]:
    """Search C: the choice, one or one a class, and the validation scores (C, classes).

    With `per_class`, targets are given and the score is the area under precision and recall;
    without it, labels are, and the score is recall.
    """
    from vggfeat.svm.ap import average_precisions
    from vggfeat.svm.linear import LinearSVM
    from vggfeat.svm.search import select_C

    score: Any = "recall"
    if per_class:
        score = lambda truth, scores: average_precisions(truth, scores, "area")  # noqa: E731
    svm = LinearSVM(loss=loss, solver=solver, tol=tol, random_state=0, n_jobs=1)
    found = select_C(svm, X, y, grid=grid, folds=folds, score=score, per_class=per_class)
    return list(found.best), found.per_class


def average_precisions(targets: Array, scores: Array, kind: str) -> Array:
    """Measure the average precision of each class, "ap11" or "area"; NaN where there is none."""
    from vggfeat.svm.ap import average_precisions

    return average_precisions(targets, scores, kind)


def precision_recall(targets: Array, scores: Array) -> tuple[Array, Array]:
    """Tell precision and recall at each positive of one class."""
    from vggfeat.svm.ap import precision_recall

    curve = precision_recall(scores, targets)
    return curve.precision, curve.recall


def rank(targets: Array, scores: Array, n: int) -> dict[str, list[list[list[float]]]]:
    """Rank the rows of each class: the first n, the first negatives, the last positives.

    Each is a list of (row, target, score, rank).
    """
    from vggfeat.svm.protocols.precisions import rank_rows

    names = {"first": "ranked", "worst negatives": "mistakes", "missed": "missed"}
    lists = [rank_rows(truth, column, n) for truth, column in zip(targets.T, scores.T, strict=True)]
    return {name: [list(map(list, of[own])) for of in lists] for name, own in names.items()}


def confusion(true: Array, predicted: Array, classes: int) -> tuple[Array, Array, float]:
    """Count which class is taken for which; the recall of each, and their mean."""
    from sklearn.metrics import confusion_matrix

    from vggfeat.svm.metrics import class_recalls

    recalls = class_recalls(true, predicted, classes)
    counts = confusion_matrix(true, predicted, labels=range(classes))
    return counts, recalls, float(np.nanmean(recalls))


@contextmanager
def plain_convolutions() -> Iterator[None]:
    """Let commands compute convolutions by torch alone.

    With AVX2 alone the faster runtimes lay out packed weights anew for many shapes of small maps,
    which takes ten times as long as the convolutions; G03 and G04 hold these runtimes.
    """
    with mock.patch("vggfeat.features.extractor.resolve_runtime", return_value="torch"):
        yield


FIXED = ("--precision", "fp32", "--workers", "1", "--jobs", "1")
"""What no case leaves to a default."""


def svm(dataset: str | Path, *more: str | Path, **options: object) -> dict[str, Any]:
    """Run ``vggfeat svm`` on the CPU, in fp32, and return its result in words that stay."""
    if options.pop("C", None) == "one":
        more = (*more, "--shared-C")
    if split := options.pop("habit", None):
        more = (*more, "--c-split", {"validation": "train-val"}.get(str(split), str(split)))
    words = words_of(options)
    ran = run("svm", "--dataset", dataset, *words, "--device", "cpu", *FIXED, *more, "--json", "-q")
    return of_run(ran.json)


def of_run(told: Mapping[str, Any]) -> dict[str, Any]:
    """Read what one run on a data set found, from its JSON."""
    tables, settings, measures = told["tables"], told["settings"], told["measures"]
    classes = tables["classes"]
    found = {
        "classes": [one["class"] for one in classes],
        "dims": settings["dimensions"],
        "images": settings.get("images", settings.get("persons")),
        "left out": sorted(told["skipped"]),
    }
    grid = list(dict.fromkeys(row["C"] for row in tables["validation"]))
    scores = [row["validation"] for row in tables["validation"]]
    curves = [list(curve) for curve in np.array(scores, object).reshape(-1, len(grid))]
    if "validation_mAP" in measures:
        parts = ("train", "val", "test")
        return found | {
            "C": [one["C"] for one in classes],
            "ap11": [one.get("ap11") for one in classes],
            "area": [one.get("area") for one in classes],
            "mAP": measures.get("mAP", {"value": None})["value"],
            "positives": [[one[part] for part in parts] for one in classes],
            "rows": {part: settings[f"images to {part}"] for part in parts},
            "grid": grid,
            "curve": [list(row) for row in zip(*curves, strict=True)],
            "validation mAP": measures["validation_mAP"]["value"],
        }
    splits = tables["splits"]
    recall = measures["mean_class_recall"]
    return found | {
        "C": [split["C"] for split in splits],
        "confusion": told["figures"]["confusion"]["values"],
        "curve": curves,
        "grid": grid,
        "mean": recall["value"],
        "means": [split["recall"] for split in splits],
        "recall": [one["recall"] for one in classes],
        "sizes": [[split["train"], split["test"]] for split in splits],
        "spread": recall["spread"],
    }


def of_report(page: Path) -> dict[str, Any]:
    """Read a page's figures from what is written beside it, and tell whether they agree.

    Of the page its headline, of the CSV the recalls, of the JSON all of `of_run`.
    """
    folder = page.with_suffix("")
    found = of_run(json.loads((folder / "result.json").read_text("utf-8")) | {"skipped": {}})
    with (folder / "classes.csv").open(encoding="utf-8") as file:
        table = [float(row["recall"]) for row in csv.DictReader(file)]
    headline = f"{100 * found['mean']:.1f}"
    return found | {"table": table, "headline": headline in page.read_text("utf-8")}


def about_model(model: Path) -> dict[str, Any]:
    """Say what a saved model holds."""
    from vggfeat.svm.model import load

    found = load(model)
    return {
        "C": list(found.C),
        "bias": found.intercept,
        "classes": list(found.classes),
        "coef": np.linalg.norm(found.coef, axis=1),
        "dims": found.coef.shape[1],
        "scales": list(found.scales),
    }


def predict(model: Path, images: Path, table: Path, top: int) -> dict[str, Any]:
    """Run ``vggfeat predict``: of each image its scores by class, and the best classes in order."""
    words = ("predict", model, images, "--top", top, "--csv", table, *CPU, "--json", "-q")
    told = run(*map(str, words)).json
    with table.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    scores = {
        base_name(row["name"]): {
            key: float(value) for key, value in row.items() if key not in OTHERS
        }
        for row in rows
    }
    order: dict[str, list[str]] = {}
    for one in told["tables"]["predictions"]:
        order.setdefault(base_name(one["image"]), []).append(one["class"])
    agree = all(order[base_name(row["name"])][0] == row["class"] for row in rows)
    return {"scores": scores, "order": order, "table agrees": agree}


def explain(model: Path, images: Sequence[Path], table: Path, drawn: Path) -> dict[str, Any]:
    """Run ``vggfeat explain``: by image and class score, sum, bias, and where it is strongest."""
    words = ("explain", model, *images, "--csv", table, "--out", drawn, "--device", "cpu", "-q")
    run(*map(str, words))
    found: dict[str, Any] = {}
    with table.open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            figures: dict[str, Any] = {
                key: float(row[key]) for key in ("score", "sum", "bias", "x", "y")
            }
            figures["exact"] = row["exact"] == "True"
            figures["gap"] = figures["sum"] + figures["bias"] - figures["score"]
            found.setdefault(base_name(row["image"]), {})[row["class"]] = figures
    return found


def evidence(model: Path, image: Path) -> dict[str, Array]:
    """Explain an image in Python: the map of each class over the upright image."""
    from vggfeat.attribution import explain
    from vggfeat.experiments.predict import model_extractors
    from vggfeat.svm.model import load

    loaded = load(model)
    found = explain(loaded, image, model_extractors(loaded, "cpu"))
    return dict(zip(found.classes, found.evidence, strict=True))


def base_name(name: str) -> str:
    """Name an image by its class folder and file, wherever it lies."""
    return "/".join(Path(name).parts[-2:])


def words_of(options: Mapping[str, object]) -> list[str]:
    """Write options as words: a list repeats its option, a bool is a switch."""
    words: list[str] = []
    for name, value in options.items():
        option = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            words.append(option if value else f"--no-{option[2:]}")
            continue
        for one in value if isinstance(value, tuple) else (value,):
            words += [option, str(one)]
    return words


def small_recipe(
    name: str, target: Path, *, weights: list[str], layer: str, Q: tuple[int, ...]
) -> Path:
    """Copy a shipped recipe of a table, with other weights, another layer and other scales."""
    from vggfeat._io.assets import shared

    text = (shared("pipelines") / f"{name}.toml").read_text("utf-8")
    for key, value in (("weights", weights), ("layers", [layer]), ("Q", list(Q))):
        text, found = re.subn(rf"^{key} = .*$", f"{key} = {json.dumps(value)}", text, flags=re.M)
        assert found == 1, key
    target.write_text(text, "utf-8")
    return target


def run_recipe(recipe: Path, card: Path, root: Path, *more: str | Path) -> dict[str, Any]:
    """Run ``vggfeat run`` on a data set of one's own: what each row found."""
    words = ("run", recipe, "--dataset", card, "--root", root, "--device", "cpu", *FIXED, *more)
    told = run(*words, "--json", "-q").json
    return {row["row"]: of_run(row) for row in told["rows"]}


def submitted(folder: Path) -> dict[str, dict[str, float]]:
    """Read what the evaluation server would: score by row and file, below the folder."""
    files = sorted(file for file in folder.rglob("*.txt"))
    return {
        file.relative_to(folder).as_posix(): {
            "#".join(words[:-1]): float(words[-1])
            for words in map(str.split, file.read_text("ascii").splitlines())
        }
        for file in files
    }
