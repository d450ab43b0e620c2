"""Where commands hand over to what does the work: the one place here that knows names inside.

`recording` puts a recorder in the place of each function of SEAMS. It keeps the arguments of every
call; a row of the table in `option_rows` names the call and the argument where an option's value
must arrive. Some recorders call the real function, some answer with a stand-in, and the last one of
a command stops it, so that nothing is computed. `small_networks` lets commands really run, on
files of small nets. When functions move, only this file changes.
"""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from helpers.boxes import GRID_NET, box_weights
from helpers.networks import PIXELS, TINY, configured

from vggfeat import cli
from vggfeat.data.datasets import card_names, load_card, open_dataset
from vggfeat.localization.data import BoxSet, open_boxset
from vggfeat.localization.predict import Localizer
from vggfeat.nets.config import resolve_layer
from vggfeat.nets.weights import Weights
from vggfeat.result import Measure, Result
from vggfeat.settings import Extraction, Hardware

for _module in iter_modules(cli.__path__):  # one imported later would keep what stands in here
    import_module(f"vggfeat.cli.{_module.name}")

Arguments = Mapping[str, Any]
Answer = Callable[[Arguments], Any]
WHOLE = ("classify", "fuse", "train", "localize")
"""Commands of whole networks; the others describe with the embedded weights of the whole net D."""
SMALL_NETS = {"A": TINY, "D": GRID_NET, "E": TINY}
"""What Table 1 says of its nets while a command of `WHOLE` runs; D can tell boxes and colours."""


class Stopped(Exception):
    """The command has handed over; there is nothing more to see."""


class NotCalled(Exception):
    """A row is about a call that the command did not make."""


class Record(defaultdict[str, list[Arguments]]):
    """The arguments of each call of each seam."""

    def __init__(self) -> None:
        super().__init__(list)

    def value(self, place: str) -> Any:
        """Look up ``call.argument.attribute…`` in the last call, as plain lists and texts."""
        name, *path = place.split(".")
        if name not in self:
            raise NotCalled(f"{name} was not called; these were: {', '.join(self)}")
        found: Any = self[name][-1]
        for step in path:
            found = found[step] if isinstance(found, Mapping) else getattr(found, step)
        return _plain(found)


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, np.generic):
        return value.item()
    return value if isinstance(value, bool | int | float | str | None) else str(value)


@contextmanager
def small_networks(command: str) -> Iterator[None]:
    """Let a command of whole networks run with nets of few channels, named as those of Table 1."""
    with configured(SMALL_NETS if command.partition(" ")[0] in WHOLE else {}):
        yield


def _stop(_: Arguments) -> Any:
    raise Stopped


def _nothing(_: Arguments) -> None:
    return None


def _extractor(given: Arguments) -> Any:
    """Stand in for a network, with the settings that it was opened with."""
    extraction = given["extraction"]
    layers = [resolve_layer(extraction.net, name) for name in extraction.layers]
    return SimpleNamespace(
        extraction=extraction.but(layers=layers),
        hardware=Hardware(**given.get("fields", {})),
        weights=given["weights"],
        device=torch.device("cpu"),
        device_name="CPU",
        runtime="torch",
        check_scales=lambda scales: None,
    )


def _weights(given: Arguments) -> Weights:
    state = {f"conv1_1.{name}": torch.zeros(1) for name in ("weight", "bias")}
    return Weights(given["net"], state, PIXELS, str(given["weights"]), "none")


S288 = {"S": "288"}
"""What weights tell of a net that was trained at a fixed scale."""


def _dataset(given: Arguments) -> Any:
    """Open class folders; of a shipped card without its images, with those of the folders."""
    is_shipped = given["name"] in card_names()
    card, images = open_dataset("classes" if is_shipped else given["name"])
    if is_shipped:
        card = load_card(given["name"]).model_copy(update={"classes": card.classes})
        thirds = np.array_split(np.arange(len(images)), 3)
        parts = dict(zip(("train", "val", "test"), thirds, strict=True))
        targets = np.resize(np.array([[1, -1], [-1, 1]], np.int8), (len(images), 2))
        images = replace(images, targets=targets, splits=parts)
    return card, images


def _boxset(given: Arguments) -> BoxSet:
    """Open a tree that has its boxes itself, wherever they are said to be."""
    return open_boxset(given["root"], classes=given["classes"], parts=given["parts"])


def _localiser(_: Arguments) -> Localizer:
    """Open a net that sees red on this machine's CPU, whatever file and device are named."""
    with small_networks("localize"):
        return Localizer(box_weights(), device="cpu", precision="fp32")


def _described(given: Arguments) -> Any:
    """Open the networks, as whatever describes images does, and describe nothing."""
    for net in given["features"].nets:
        given["networks"](net, None)
    return SimpleNamespace()


def _run(_: Arguments) -> Any:
    """Stand in for a test of an SVM."""
    return SimpleNamespace(
        result=Result("classes", "", (Measure("mAP", "mAP", 0.5),)),
        background=dict,
        final_model=lambda n_jobs, device: (SimpleNamespace(C=()), ""),
    )


NETWORK = {
    "network": ("vggfeat.cli.working:Work.network", None),
    "load": ("vggfeat.cli.working:load", _weights),
    "DenseExtractor": ("vggfeat.cli.working:DenseExtractor", _extractor),
}


def _images(module: str) -> dict[str, tuple[str, Answer | None]]:
    return {"find_images": (f"vggfeat.cli.{module}:find_images", None)}


SVM = {
    **NETWORK,
    "open_dataset": ("vggfeat.cli.experiment:open_dataset", _dataset),
    "describe": ("vggfeat.cli.experiment:describe", _described),
    "evaluate": ("vggfeat.cli.experiment:evaluate", _run),
    "check_submission": ("vggfeat.svm.protocols.base:Protocol.check_submission", _nothing),
    "submit": ("vggfeat.cli.experiment:_submit", _nothing),
    "write_report": ("vggfeat.cli.experiment:_write_report", _nothing),
}
MONITORED = {
    "MonitoredTrainer": ("vggfeat.cli.training:MonitoredTrainer", None),
    "train": ("vggfeat.cli.watching:train", _stop),
}
BOXES = {
    "open_boxset": ("vggfeat.experiments.localization:open_boxset", _boxset),
    "BoxRegression": ("vggfeat.localization.training:BoxRegression.on", None),
    "begun": (
        "vggfeat.experiments.localization:init_from_classifier",
        lambda given: _weights({"net": "D", "weights": given["weights"].source}),
    ),
}
LOCALISING = {
    "Localiser": ("vggfeat.localization.predict:Localizer.open", _localiser),
}
MACHINE = {
    **{
        f"check_machine of {module}": (f"vggfeat.{module}:check_machine", _nothing)
        for module in ("cli.working", "cli.training", "experiments.localization")
    },
    "precision": (
        "vggfeat.cli.working:Work._precision",
        lambda given: given["self"].execution.precision,
    ),
}
"""Any device may be named here: it need not be in this machine."""
SEAMS: dict[str, dict[str, tuple[str, Answer | None]]] = {
    "extract": {
        **_images("extract"),
        **NETWORK,
        "Destination": ("vggfeat.cli.extract:Destination.of", None),
        "FeatureStore": ("vggfeat.cli.extract:FeatureStore", _nothing),
        "extract": ("vggfeat.cli.working:extract", _stop),
        "extract_on_ray": ("vggfeat.cli.working:extract_on_ray", _stop),
    },
    "svm": {
        **SVM,
        "save": ("vggfeat.cli.experiment:save", _nothing),
    },
    "run": {
        **SVM,
        "open_ilsvrc": (
            "vggfeat.cli.ilsvrc:open_ilsvrc",
            lambda _: SimpleNamespace(partial="", classes=SimpleNamespace(keys=())),
        ),
        "classify_rows": (
            "vggfeat.cli.ilsvrc:classify_rows",
            lambda given: (given["run"].opener("D", "authors", "softmax", None), _stop(given)),
        ),
        "open_boxset": ("vggfeat.cli.ilsvrc:open_boxset", _stop),
        "open_trainset": ("vggfeat.cli.training:open_trainset", None),
        "MonitoredTrainer": ("vggfeat.cli.training:MonitoredTrainer", None),
        "train_chain": ("vggfeat.cli.training:train_chain", _stop),
    },
    "predict": {
        **_images("predict"),
        "load": ("vggfeat.experiments.predict:load_model", None),
        "model_extractors": ("vggfeat.experiments.predict:model_extractors", lambda _: []),
        "predict": ("vggfeat.experiments.predict:predict", _stop),
    },
    "explain": {
        **_images("explain"),
        "load": ("vggfeat.experiments.predict:load_model", None),
        "model_extractors": (
            "vggfeat.experiments.predict:model_extractors",
            lambda _: [_extractor({"extraction": Extraction(layers="pool1"), "weights": None})],
        ),
        "explain": ("vggfeat.attribution:explain", _stop),
    },
    "classify": {
        **_images("classify"),
        **NETWORK,
        "load": ("vggfeat.cli.working:load", lambda given: replace(_weights(given), about=S288)),
        "read_val": ("vggfeat.cli.classify:read_val", None),
        "classes_of": ("vggfeat.experiments.classification:classes_of", _stop),
        "score": ("vggfeat.experiments.classification:score", _stop),
    },
    "fuse": {"open_scores": ("vggfeat.experiments.classification:open_scores", None)},
    "train": {
        "open_trainset": ("vggfeat.cli.training:open_trainset", None),
        "load": ("vggfeat.experiments.training:load", _weights),
        **MONITORED,
    },
    "localize train": {
        **BOXES,
        "open_boxset": ("vggfeat.cli.training:open_boxset", _boxset),
        "load": ("vggfeat.experiments.training:load", _weights),
        **MONITORED,
    },
    "localize predict": {
        **_images("localize"),
        **LOCALISING,
        "NetClassifier": ("vggfeat.localization.classifiers:NetClassifier.open", _stop),
        "system": ("vggfeat.experiments.localization:LocalizationSystem", None),
        "ConstantClassifier": ("vggfeat.experiments.localization:ConstantClassifier", None),
        "decode": ("vggfeat.experiments.localization:decode", None),
    },
    "localize evaluate": {
        **BOXES,
        **LOCALISING,
        "NetClassifier": (
            "vggfeat.localization.classifiers:NetClassifier.open",
            lambda _: SimpleNamespace(classes=("cat", "dog")),
        ),
        "StoredLabels": ("vggfeat.localization.classifiers:StoredLabels.open", _nothing),
        "system": ("vggfeat.experiments.localization:LocalizationSystem", None),
        "evaluate": ("vggfeat.experiments.localization:evaluate", _stop),
    },
    "datasets show": {"load_card": ("vggfeat.cli.datasets:load_card", None)},
    "datasets fetch": {
        "download_progress": ("vggfeat.cli.datasets:download_progress", None),
        "fetch_dataset": ("vggfeat.cli.datasets:fetch_dataset", _stop),
    },
    "datasets check": {"check_dataset": ("vggfeat.cli.datasets:check_dataset", _stop)},
    "weights fetch": {
        "download_progress": ("vggfeat.cli.weights:download_progress", None),
        "fetch": ("vggfeat.cli.weights:fetch", lambda _: Path("fetched")),
    },
    "weights show": {"describe": ("vggfeat.nets.weights:describe", None)},
    "weights convert": {"convert": ("vggfeat.nets.weights:convert", _stop)},
    "store info": {"info": ("vggfeat.cli.store:info", None)},
    "store verify": {"verify": ("vggfeat.cli.store:verify", None)},
    "store repair": {"repair": ("vggfeat.cli.store:repair", None)},
    "store merge": {"merge": ("vggfeat.cli.store:merge", None)},
    "store pack": {
        "check_file": ("vggfeat.cli.store:check_file", None),
        "pack": ("vggfeat.cli.store:pack", None),
    },
    "store export": {
        "check_file": ("vggfeat.cli.store:check_file", None),
        "Aggregation": ("vggfeat.features.aggregate:Aggregation", None),
        "choose_columns": ("vggfeat.cli.store:choose_columns", None),
        "export": ("vggfeat.cli.store:export", None),
    },
}


READING = (
    "vggfeat.cli.working:load",
    "vggfeat.cli.experiment:open_dataset",
    "vggfeat.experiments.training:load",
    "vggfeat.cli.training:open_trainset",
    "vggfeat.cli.training:open_boxset",
    "vggfeat.experiments.localization:open_boxset",
)
"""What takes minutes or a download: a wrong value is refused before."""


@contextmanager
def watching_reading() -> Iterator[Record]:
    """Record what is read, and let it be read."""
    record = Record()
    with pytest.MonkeyPatch.context() as patch:
        for target in READING:
            _replace(patch, record, target.rpartition(":")[2], target, None)
        yield record


@contextmanager
def recording(command: str) -> Iterator[Record]:
    """Record what a command calls; None as an answer calls the real function."""
    record = Record()
    with pytest.MonkeyPatch.context() as patch:
        for name, (target, answer) in {**MACHINE, **SEAMS.get(command, {})}.items():
            _replace(patch, record, name, target, answer)
        yield record


def _replace(
    patch: pytest.MonkeyPatch, record: Record, name: str, target: str, answer: Answer | None
) -> None:
    module, _, path = target.partition(":")
    *owners, attribute = path.split(".")
    owner = import_module(module)
    for step in owners:
        owner = getattr(owner, step)
    real = getattr(owner, attribute)
    signature = inspect.signature(real)

    def recorder(*given: Any, **named: Any) -> Any:
        bound = signature.bind(*given, **named)
        bound.apply_defaults()
        record[name].append(bound.arguments)
        return real(*given, **named) if answer is None else answer(bound.arguments)

    is_bound = owners and inspect.ismethod(real)
    patch.setattr(owner, attribute, staticmethod(recorder) if is_bound else recorder)
