"""The rest of `golden.adapter`: the SVM, what is measured of it, training, classes and boxes."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from helpers.cli import run

Array = np.ndarray
CPU = ("--device", "cpu", "--workers", "1")


def fit_svm(
    X: Array, y: Array, X_test: Array, *, C: float, loss: str, solver: str, tol: float
) -> tuple[Array, Array, Array]:
    """Train a linear SVM one-vs-rest: coefficients (classes, D), biases, scores of other rows."""
    from vggfeat.learn.svm import LinearSVM

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
    from vggfeat.learn.ap import average_precisions
    from vggfeat.learn.search import search_C

    score: Any = "recall"
    if per_class:
        score = lambda truth, scores: average_precisions(truth, scores, "area")  # noqa: E731
    found = search_C(
        X, y, grid=grid, folds=folds, score=score, per_class=per_class, loss=loss, solver=solver,
        tol=tol, random_state=0, n_jobs=1,
    )  # fmt: skip
    return list(found.best), found.per_class


def average_precisions(targets: Array, scores: Array, kind: str) -> Array:
    """Measure the average precision of each class, "ap11" or "area"; NaN where there is none."""
    from vggfeat.learn.ap import average_precisions

    return average_precisions(targets, scores, kind)


def precision_recall(targets: Array, scores: Array) -> tuple[Array, Array]:
    """Tell precision and recall at each positive of one class."""
    from vggfeat.learn.ap import precision_recall

    curve = precision_recall(scores, targets)
    return curve.precision, curve.recall


def rank(targets: Array, scores: Array, n: int) -> dict[str, list[list[list[float]]]]:
    """Rank the rows of each class: the first n, the first negatives, the last positives.

    Each is a list of (row, target, score, rank).
    """
    from vggfeat.learn.rankings import rankings

    found = rankings(targets, scores, np.arange(len(targets)), n)
    names = {"first": found.ranked, "worst negatives": found.worst, "missed": found.missed}
    return {name: [list(map(list, of)) for of in classes] for name, classes in names.items()}


def confusion(true: Array, predicted: Array, classes: int) -> tuple[Array, Array, float]:
    """Count which class is taken for which; the recall of each, and their mean."""
    from vggfeat.learn.metrics import confusion_matrix, mean_class_recall, recall_per_class

    every = range(classes)
    return (
        confusion_matrix(true, predicted, every),
        recall_per_class(true, predicted, every),
        mean_class_recall(true, predicted, every),
    )


@contextmanager
def plain_convolutions() -> Iterator[None]:
    """Let commands compute convolutions by torch alone.

    With AVX2 alone the faster runtimes lay out packed weights anew for many shapes of small maps,
    which takes ten times as long as the convolutions; G03 and G04 hold these runtimes.
    """
    with mock.patch("vggfeat.features.dense.resolve_runtime", lambda *_: "torch"):
        yield


FIXED = ("--precision", "fp32", "--workers", "1", "--jobs", "1")
"""What no case leaves to a default."""


def svm(dataset: str | Path, *more: str | Path, **options: object) -> dict[str, Any]:
    """Run ``vggfeat svm`` on the CPU, in fp32, and return its result in words that stay."""
    words = _words(options)
    ran = run("svm", "--dataset", dataset, *words, "--device", "cpu", *FIXED, *more, "--json", "-q")
    return of_run(ran.json)


def of_run(told: Mapping[str, Any]) -> dict[str, Any]:
    """Read what one run on a data set found, from its JSON."""
    result = told["result"]
    found = {
        "classes": result["class_names"],
        "dims": told["dimensions"],
        "images": told["pictures"],
        "left out": sorted(told["skipped"]),
    }
    if result["metric"] == "mAP":
        every = result["classes"]
        return found | {
            "C": [one["C"] for one in every],
            "ap11": [one["ap11"] for one in every],
            "area": [one["area"] for one in every],
            "mAP": result["mAP"],
            "positives": [list(one["positives"].values()) for one in every],
            "rows": result["rows"],
            "grid": result["validation"]["grid"],
            "curve": result["validation"]["per_class"],
            "validation mAP": result["validation_mAP"],
        }
    splits = result["splits"]
    return found | {
        "C": [split["search"]["best"][0] for split in splits],
        "confusion": result["confusion"],
        "curve": [split["search"]["scores"] for split in splits],
        "grid": splits[0]["search"]["grid"],
        "mean": result["mean_class_recall"],
        "recall": result["recalls"],
        "sizes": [[split["n_train"], split["n_test"]] for split in splits],
        "spread": result["std"],
    }


def of_report(page: Path) -> dict[str, Any]:
    """Read a page's figures from what is written beside it, and tell whether they agree.

    Of the page its headline, of the CSV the recalls, of the JSON all of `of_run`.
    """
    folder = page.with_suffix("")
    found = of_run(json.loads((folder / "results.json").read_text("utf-8")))
    with (folder / "classes.csv").open(encoding="utf-8") as file:
        table = [float(row["recall"]) for row in csv.DictReader(file)]
    headline = f"{100 * found['mean']:.1f}"
    return found | {"table": table, "headline": headline in page.read_text("utf-8")}


def about_model(model: Path) -> dict[str, Any]:
    """Say what a saved model holds."""
    from vggfeat.learn.model import load

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
            key: float(value) for key, value in row.items() if key not in ("name", "class", "error")
        }
        for row in rows
    }
    order = {base_name(one["picture"]): list(one["classes"]) for one in told}
    agree = all(order[base_name(row["name"])][0] == row["class"] for row in rows)
    return {"scores": scores, "order": order, "table agrees": agree}


def explain(model: Path, images: Sequence[Path], table: Path, drawn: Path) -> dict[str, Any]:
    """Run ``vggfeat explain``: by image and class score, sum, bias, and where it is strongest."""
    words = ("explain", model, *images, "--csv", table, "--out", drawn, "--device", "cpu", "-q")
    run(*map(str, words))
    found: dict[str, Any] = {}
    with table.open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            figures: dict[str, Any] = {key: float(row[key]) for key in ("score", "sum", "bias", "x", "y")}
            figures["exact"] = row["exact"] == "True"
            figures["gap"] = figures["sum"] + figures["bias"] - figures["score"]
            found.setdefault(base_name(row["picture"]), {})[row["class"]] = figures
    return found


def evidence(model: Path, image: Path) -> dict[str, Array]:
    """Explain an image in Python: the map of each class over the upright image."""
    from vggfeat.learn.model import load
    from vggfeat.run.explain import explain
    from vggfeat.run.predict import model_extractors

    loaded = load(model)
    found = explain(loaded, image, model_extractors(loaded, "cpu"))
    return dict(zip(found.classes, found.evidence, strict=True))


def base_name(name: str) -> str:
    """Name an image by its class folder and file, wherever it lies."""
    return "/".join(Path(name).parts[-2:])


def _words(options: Mapping[str, object]) -> list[str]:
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
    from vggfeat.resources import shared

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


def show_weights(file: Path) -> dict[str, Any]:
    """Run ``vggfeat weights show``: what a file holds."""
    return _told_of_weights(run("weights", "show", file, "--json").json)


def convert_weights(file: Path, target: Path, *more: str) -> dict[str, Any]:
    """Run ``vggfeat weights convert``: what the new file holds."""
    return _told_of_weights(run("weights", "convert", file, target, *more, "--json").json)


def _told_of_weights(told: Mapping[str, Any]) -> dict[str, Any]:
    keys = ("format", "net", "layers", "parameters", "dtype", "sha256", "pixels", "assumed")
    return {key: told[key] for key in (*keys, "licence", "ignored")}


def classify(
    data: Path, weights: Path, out: Path, table: Path, *more: str, Q: tuple[int, ...], **options: Any
) -> dict[str, Any]:
    """Run ``vggfeat classify`` on labelled images with net A: errors, and shares by image."""
    words = ["classify", "--data", data, "--net", "A", "--weights", weights, "--out", out]
    words += ["--csv", table, *_words({"Q": Q, **options}), *more]
    words += ["--precision", "fp32", *CPU]
    return _classified(run(*words, "--json", "-q").json, table)


def fuse(stores: Sequence[Path], data: Path, table: Path) -> dict[str, Any]:
    """Run ``vggfeat fuse``: errors, and shares by image."""
    told = run("fuse", *stores, "--data", data, "--csv", table, "--top", "3", "--json", "-q").json
    return _classified(told, table)


def _classified(told: Mapping[str, Any], table: Path) -> dict[str, Any]:
    with table.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    shares: dict[str, dict[str, float]] = {}
    order: dict[str, list[str]] = {}
    for row in rows:
        ranks = range(1, 1 + sum(key.startswith("class ") for key in row))
        found = [(row[f"class {k}"], float(row[f"share {k}"])) for k in ranks]
        shares[Path(row["name"]).name] = dict(found)
        order[Path(row["name"]).name] = [label for label, _ in found]
    errors = {name: told[name] for name in ("top1", "top5")}
    return {"errors": errors, "images": told["pictures"], "shares": shares, "order": order}


def stored_posteriors(store: Path) -> dict[str, dict[str, Array]]:
    """Read what ``classify --out`` keeps: posteriors by pooling with scale, then by image."""
    import h5py

    found: dict[str, dict[str, Array]] = {}
    with h5py.File(store / "features.h5") as file:
        names = [Path(name.decode()).name for name in file["names"][:]]
        for net, group in file.items():
            if isinstance(group, h5py.Group):
                pool = net.partition("-")[2] or "softmax"
                for scale, values in group.items():
                    found[f"{pool} {scale}"] = dict(zip(names, values[:], strict=True))
    return found


def errors_of(posteriors: Array, labels: Array) -> tuple[float, float, Array]:
    """Count top-1 and top-5 error of posteriors (N, classes), and the five likeliest classes."""
    from vggfeat.ilsvrc.classify import errors_of, top_k

    errors = errors_of([posteriors], labels, posteriors.shape[1])
    return errors.top1, errors.top5, top_k(posteriors, 5)


# Boxes


def to_frame(boxes: Array, size: tuple[int, int], place: Any, *, flip: bool) -> Array:
    """Write boxes (edges in pixels) in the frame of a crop at a place (size, offset)."""
    from vggfeat.ilsvrc.boxes import to_frame
    from vggfeat.train.augment import Place

    return to_frame(boxes, size, Place(*place), flip=flip)


def from_frame(framed: Array, size: tuple[int, int], place: Any) -> Array:
    """Write boxes in the frame of a crop as edges in pixels of the image."""
    from vggfeat.ilsvrc.boxes import from_frame
    from vggfeat.train.augment import Place

    return from_frame(framed, size, Place(*place))


def window_boxes(dense_map: Array, size: tuple[int, int], Q: int) -> Array:
    """Read the boxes (windows, K, 4) that a dense map (4 K, h, w) predicts."""
    from vggfeat.ilsvrc.boxes import window_boxes

    return window_boxes(dense_map, size, Q)


def merge(boxes: Array, scores: Array, **how: Any) -> dict[str, Any]:
    """Merge boxes of windows greedily."""
    from vggfeat.ilsvrc.merging import merge

    merged = merge(boxes, scores, **how)
    return {"boxes": merged.boxes, "scores": merged.scores, "counts": merged.counts}


def box_loss(tree: Path, regression: str, S: int | tuple[int, int], scores: Array) -> dict[str, Any]:
    """Measure predictions for the training images of a tree, at their first crops and centrally.

    Scores are (images, outputs); their columns beyond the task's are left out.
    """
    import torch

    from vggfeat.ilsvrc.boxset import open_boxset
    from vggfeat.ilsvrc.regression import BoxRegression
    from vggfeat.train.augment import draw

    task = BoxRegression.on(open_boxset(tree), regression, S)
    labels = torch.from_numpy(task.train.part.labels)
    rows = torch.arange(len(labels))
    predicted = torch.from_numpy(scores[: len(labels), : task.outputs].astype(np.float32))
    draws = [draw(0, 0, int(row)) for row in rows]
    targets, counted = task._targets(rows, draws, torch.device("cpu"))
    return {
        "targets": targets.numpy(),
        "counted": counted.numpy(),
        "loss": float(task.losses(predicted, labels, rows, draws)),
        "iou": task.counts(predicted, labels, rows, draws).numpy(),
        "mean box": task.mean_boxes(),
    }


def judge_boxes(
    tree: Path,
    classes: tuple[str, ...],
    nets: Mapping[str, Callable[[Array], Array]],
    say: Callable[[Array, int], tuple[Array, Array, Array]] | None,
    scales: Sequence[int],
) -> dict[str, Any]:
    """Test localisation on a tree by protocol 1, and with `say` by protocol 2.

    Parameters
    ----------
    tree : Path
    classes : tuple of str
    nets : mapping
        By regression, "pcr" or "scr": what turns an image (H, W, 3) into a map (4 K, h, w).
    say : callable, optional
        Says of an image (H, W, 3) at a scale: posteriors (C,), class outputs of windows (C, h, w),
        posteriors of other classes (K,).
    scales : sequence of int
        Test scales of each net.
    """
    from vggfeat.ilsvrc.boxset import open_boxset
    from vggfeat.ilsvrc.judging import judge
    from vggfeat.ilsvrc.outputs import Outputs, pixels_of

    class Said:
        def __init__(self) -> None:
            self.classes = classes

        def outputs(self, image: Any, at: Sequence[int]) -> Outputs:
            told = {Q: say(_pixels(pixels_of(image, Q)), Q) for Q in at}  # type: ignore[misc]
            first = told[at[0]]
            return Outputs(first[0], {Q: one[1] for Q, one in told.items()}, first[2])

    result = judge(
        open_boxset(tree).test,
        classes,
        [_localiser(see, regression, classes) for regression, see in nets.items()],
        classifier=Said() if say else None,
        scales=[scales] * len(nets),
    ).to_dict()
    keys = ("true", "central", "rank", "box", "iou", "score", "windows", "boxes_left", "single")
    return {
        "errors": result["errors"],
        "by class": {one["key"]: {k: one[k] for k in result["errors"]} for one in result["classes"]},
        "images": {
            f"{Path(one['picture']).stem} {one['key']}": {k: one[k] for k in keys if k in one}
            for one in result["pictures"]
        },
    }


def _localiser(see: Callable[[Array], Array], regression: str, classes: tuple[str, ...]) -> Any:
    """Open a localisation net that is a function."""
    import torch

    from vggfeat.ilsvrc.localize import Localiser
    from vggfeat.nets.pixels import PixelConvention
    from vggfeat.nets.weights import Weights

    class Extractor:
        def __init__(self, *_: Any, **__: Any) -> None:
            self.done = 0

        def check_scales(self, scales: Sequence[int]) -> None:
            assert min(scales) >= 224

        def maps(self, pixels: Any) -> dict[str, Any]:
            return {"fc8": torch.from_numpy(see(_pixels(pixels)).astype(np.float32))[None]}

    about = {"kind": "localisation", "regression": regression, "S": "256"}
    about["classes"] = json.dumps(classes)
    pixels = PixelConvention("RGB", 255.0, (120.0, 120.0, 120.0))
    with mock.patch("vggfeat.ilsvrc.localize.DenseExtractor", Extractor):
        return Localiser(Weights("D", {}, pixels, "red", "none", about=about))


def _pixels(batch: Any) -> Array:
    """Turn a batch of one image (1, 3, H, W) into (H, W, 3)."""
    return batch[0].permute(1, 2, 0).numpy()


# Training


class Training:
    """A tiny network that learns two classes: the settings, the set, and where runs lie.

    Parameters
    ----------
    images : Path
        Folder of class folders.
    make : callable
        Makes the network (a torch module) that every run begins with.
    settings
        Of the run, by their names.
    """

    def __init__(self, images: Path, make: Callable[[int], Any], **settings: Any) -> None:
        from vggfeat.train.settings import Training
        from vggfeat.train.trainset import open_trainset

        self.settings = Training(net="A", **settings)
        self.data = open_trainset(images, val_fraction=0.25, seed=self.settings.seed)
        self.make = make

    def run(self, out: Path, *, stop_after: int = 0, resume: bool = False) -> list[dict[str, Any]]:
        """Train, or stop after so many updates; return what each epoch came to."""
        from vggfeat.train.loop import train
        from vggfeat.train.start import Start
        from vggfeat.train.words import Engine

        def begin(net: str, *, num_classes: int, **_: Any) -> Start:
            return Start(self.make(num_classes), (), ())

        seen: list[Any] = []

        def progress(told: Any) -> None:
            seen.append(told)
            if len(seen) == stop_after:
                raise KeyboardInterrupt

        engine = Engine(device="cpu", workers=0, minutes=0.0)
        with (
            mock.patch("vggfeat.train.loop.CHECK", 1),
            mock.patch("vggfeat.train.loop._Run._write_best", lambda run: None),
        ):
            try:
                done = train(
                    self.settings, self.data, out, engine=engine, begin=begin, resume=resume,
                    progress=progress,
                )  # fmt: skip
            except KeyboardInterrupt:
                return []
        keys = ("learning_rate", "loss", "top1", "val_loss", "val_top1")
        return [{key: row[key] for key in keys} for row in done.history]

    def state(self, out: Path) -> dict[str, Array]:
        """Read weights and velocities of a run's last checkpoint."""
        from safetensors.numpy import load_file

        return load_file(out / "last.safetensors")

    def weights(self, out: Path) -> dict[str, Array]:
        """Read the weights alone, by the network's own names."""
        state = self.state(out)
        return {name[4:]: value for name, value in state.items() if name.startswith("net.")}

    def batches(self, epoch: int) -> Iterator[tuple[list[str], Array, Array]]:
        """Go through an epoch's batches: names, crops (B, 3, 224, 224) of uint8, labels."""
        for batch in self._batches(epoch):
            names = [self._name(int(row)) for row in batch.rows]
            yield names, batch.pixels.numpy(), batch.labels.numpy()

    def draws(self, epoch: int) -> dict[str, list[Any]]:
        """Tell by name how each image is drawn in an epoch: rescaled size, offset, mirrored."""
        from vggfeat.train.augment import crop_of, draw

        found = {}
        for row in range(len(self.data.train)):
            drawn = draw(self.settings.seed, epoch, row)
            place = crop_of(256, 288, self.settings.S, drawn)
            found[self._name(row)] = [*place.size, *place.offset, drawn.flip]
        return found

    def inputs(self, epoch: int, out: Path) -> Iterator[tuple[Any, Any]]:
        """Go through what the network sees in an epoch of a run: x (B, 3, 224, 224), labels."""
        from vggfeat.nets.pixels import PixelConvention
        from vggfeat.train.augment import draw, to_input
        from vggfeat.train.checkpoint import read
        from vggfeat.train.colours import Colours

        told = read(out / "last.safetensors")[1]
        colours = Colours.from_dict(told["colours"])
        pixels = PixelConvention.from_json(told["pixels"])
        for batch in self._batches(epoch):
            draws = [draw(self.settings.seed, epoch, int(row)) for row in batch.rows]
            yield to_input(batch.pixels, pixels, draws, colours), batch.labels

    def _batches(self, epoch: int) -> Iterator[Any]:
        from vggfeat.train.loader import Loader

        how = {"batch_size": self.settings.batch, "S": self.settings.S, "seed": self.settings.seed}
        with Loader(self.data.train, **how) as loader:
            yield from loader.batches(epoch)

    def _name(self, row: int) -> str:
        return base_name(self.data.train.name(row))


def learning_rates(accuracies: Sequence[float], **settings: Any) -> list[float]:
    """Follow a schedule through validation accuracies: the rate of each epoch."""
    from vggfeat.train.settings import Training

    schedule = Training(epochs=len(accuracies), **settings).new_schedule()
    rates = []
    for accuracy in accuracies:
        if schedule.finished:
            break
        rates.append(schedule.learning_rate)
        schedule.step(accuracy)
    return rates


# Settings


def card_settings() -> dict[str, Any]:
    """Tell of each shipped card how it is tested, and what describes its images by default."""
    from vggfeat.data.cards import card_names, load_card

    found = {}
    for name in card_names():
        card = load_card(name)
        found[name] = {
            "classes": len(card.classes),
            "reader": card.reader,
            "counts": dict(card.counts),
            "protocol": card.protocol.model_dump(mode="json"),
            "features": card.defaults.model_dump(mode="json"),
        }
    return found


def quality_settings(quality: str, card: str) -> dict[str, Any]:
    """Resolve ``--quality`` for a card, where no authors' weights are at hand."""
    from vggfeat.data.cards import load_card
    from vggfeat.run.quality import quality as resolve

    return resolve(quality, load_card(card).defaults).model_dump(mode="json")


def recipe_settings() -> dict[str, Any]:
    """Resolve every shipped recipe: rows of tables, or links of a chain, with all settings."""
    from vggfeat.recipe import Recipe, open_recipe, recipe_names
    from vggfeat.train.chain import Chain

    found: dict[str, Any] = {}
    for name in recipe_names():
        recipe = open_recipe(name)
        if isinstance(recipe, Recipe):
            found[name] = {
                "dataset": recipe.dataset,
                "classifier": recipe.classifier.model_dump(mode="json"),
                "rows": {
                    line.name: line.features.model_dump(mode="json") | {"paper": line.expected}
                    for line in recipe.table()
                },
            }
        elif isinstance(recipe, Chain):
            found[name] = {
                link.name: link.settings.model_dump(mode="json") | {"paper": link.paper}
                for link in recipe.runs()
            }
        else:
            found[name] = recipe.model_dump(mode="json", exclude={"name", "title"})
    return found


def command_defaults() -> dict[str, dict[str, Any]]:
    """Tell of every command the default of every option that has one."""
    from typer.main import get_command

    from vggfeat.cli import app

    found: dict[str, dict[str, Any]] = {}

    def walk(command: Any, name: str) -> None:
        for sub, other in sorted(getattr(command, "commands", {}).items()):
            walk(other, f"{name} {sub}".strip())
        if not hasattr(command, "commands"):
            options = {max(one.opts, key=len): one.default for one in command.params}
            found[name] = {
                option: str(value) if isinstance(value, Path) else value
                for option, value in sorted(options.items())
                if option.startswith("--") and value is not None and value is not False
            }

    walk(get_command(app), "")
    return found


def mistake(words: Sequence[str], folder: Path, names: Sequence[str]) -> dict[str, Any]:
    """Type a mistake in a folder: how the command ends, what it names, how much it says."""
    before = sorted(folder.rglob("*"))
    with mock.patch("helpers.cli._checked", lambda ran, *_: ran):  # any status will do
        ran = run(*words, cwd=folder)
    return {
        "status": ran.status,
        "names": {name: name in ran.err for name in names},
        "traceback": "Traceback" in ran.err,
        "printed": bool(ran.out.strip()),
        "written": [path.name for path in sorted(folder.rglob("*")) if path not in before],
    }
