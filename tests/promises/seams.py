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
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from helpers.boxes import GRID_NET, box_weights
from helpers.networks import PIXELS, TINY, configured

from vggfeat.data.datasets import card_names, load_card, open_dataset
from vggfeat.ilsvrc.boxset import BoxSet, open_boxset
from vggfeat.ilsvrc.localize import Localiser
from vggfeat.nets.config import resolve_layer
from vggfeat.nets.weights import Weights
from vggfeat.settings import Extraction, Hardware

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
        check_scales=lambda scales: None,
    )


def _weights(given: Arguments) -> Weights:
    state = {f"conv1_1.{name}": torch.zeros(1) for name in ("weight", "bias")}
    return Weights(given["net"], state, PIXELS, str(given["weights"]), "none")


def _dataset(given: Arguments) -> Any:
    """Open class folders; of a shipped card without its images, with those of the folders."""
    is_shipped = given["name"] in card_names()
    card, images = open_dataset("classes" if is_shipped else given["name"])
    if is_shipped:
        card = load_card(given["name"]).model_copy(update={"classes": card.classes})
        images = replace(images, targets=np.zeros((len(images), 2)))
    return card, images


def _boxset(given: Arguments) -> BoxSet:
    """Open a tree that has its boxes itself, wherever they are said to be."""
    return open_boxset(given["root"], classes=given["classes"], parts=given["parts"])


def _localiser(_: Arguments) -> Localiser:
    """Open a net that sees red on this machine's CPU, whatever file and device are named."""
    with small_networks("localize"):
        return Localiser(box_weights(), device="cpu", precision="fp32")


def _described(given: Arguments) -> Any:
    """Open the networks, as whatever describes images does, and describe nothing."""
    for net in given["features"].nets:
        given["networks"](net, None)
    return SimpleNamespace(
        images=given["images"],
        X=np.zeros((len(given["images"]), 1)),
        columns=(),
        summary=None,
        failed={},
        folders=(),
        provenance={},
        seconds={},
    )


def _result(_: Arguments) -> Any:
    return SimpleNamespace(seconds={}, to_dict=dict)


NETWORK = {
    "network": ("vggfeat.cli.working:Work.network", None),
    "load": ("vggfeat.nets.weights:load", _weights),
    "DenseExtractor": ("vggfeat.features.extractor:DenseExtractor", _extractor),
}
IMAGES = {"find_images": ("vggfeat.data.imageset:find_images", None)}
SVM = {
    **NETWORK,
    "open_dataset": ("vggfeat.data.datasets:open_dataset", _dataset),
    "describe": ("vggfeat.run.svm:describe", _described),
    "evaluate": ("vggfeat.run.svm:evaluate", _result),
    "evaluate_voc": ("vggfeat.run.svm:evaluate_voc", _result),
    "jobs_backend": ("vggfeat.learn.backends:jobs_backend", lambda _: nullcontext()),
    "check_submission": ("vggfeat.run.submission:check_submission", _nothing),
}
WATCHED = {"train": ("vggfeat.train.loop:train", _stop)}
BOXES = {
    "open_boxset": ("vggfeat.ilsvrc.boxset:open_boxset", _boxset),
    "BoxRegression": ("vggfeat.ilsvrc.regression:BoxRegression.on", None),
    "begun": (
        "vggfeat.ilsvrc.begin:begun",
        lambda given: _weights({"net": "D", "weights": given["weights"].source}),
    ),
}
LOCALISING = {
    "Localiser": ("vggfeat.ilsvrc.localize:Localiser.open", _localiser),
    "Merging": ("vggfeat.ilsvrc.localize:Merging", None),
}
MACHINE = {
    "check_machine": ("vggfeat.cli.working:check_machine", _nothing),
    "precision": ("vggfeat.cli.working:Work._precision", lambda given: given["self"].precision),
}
"""Any device may be named here: it need not be in this machine."""
SEAMS: dict[str, dict[str, tuple[str, Answer | None]]] = {
    "extract": {
        **IMAGES,
        **NETWORK,
        "FeatureStore": ("vggfeat.store.store:FeatureStore", _nothing),
        "extract": ("vggfeat.features.pipeline:extract", _stop),
        "extract_on_ray": ("vggfeat.features.ray:extract_on_ray", _stop),
    },
    "svm": {
        **SVM,
        "show_run": ("vggfeat.cli.svm:show_run", _nothing),
        "final_model": ("vggfeat.run.svm:final_model", lambda _: SimpleNamespace(C=())),
        "save": ("vggfeat.learn.model:save", _nothing),
        "submit": ("vggfeat.cli.svm:submit", _nothing),
        "write_report": ("vggfeat.cli.svm:write_report", _nothing),
    },
    "run": {
        **SVM,
        "show_run": ("vggfeat.cli.run:show_run", _nothing),
        "headline": ("vggfeat.report.words:headline", _nothing),
        "comparison": ("vggfeat.cli.run:comparison", lambda _: ""),
        "submit": ("vggfeat.cli.run:submit", _nothing),
        "write_report": ("vggfeat.cli.run:write_report", _nothing),
        "open_ilsvrc": ("vggfeat.ilsvrc.tables:open_ilsvrc", lambda _: SimpleNamespace(partial="")),
        "run_table": (
            "vggfeat.ilsvrc.tables:run_table",
            lambda given: (given["opener"]("D", "authors", "softmax", None), _stop(given)),
        ),
        "open_trainset": ("vggfeat.train.trainset:open_trainset", None),
        "Watched": ("vggfeat.cli.run:Watched", None),
        "train_chain": ("vggfeat.train.chain:train_chain", _stop),
    },
    "predict": {
        **IMAGES,
        "load": ("vggfeat.learn.model:load", None),
        "model_extractors": ("vggfeat.run.predict:model_extractors", lambda _: []),
        "predict": ("vggfeat.run.predict:predict", _stop),
    },
    "explain": {
        **IMAGES,
        "load": ("vggfeat.learn.model:load", None),
        "model_extractors": (
            "vggfeat.run.predict:model_extractors",
            lambda _: [_extractor({"extraction": Extraction(layers="pool1"), "weights": None})],
        ),
        "explain": ("vggfeat.run.explain:explain", _stop),
    },
    "classify": {
        **IMAGES,
        **NETWORK,
        "read_val": ("vggfeat.data.datasets.ilsvrc:read_val", None),
        "classes_of": ("vggfeat.ilsvrc.classes:classes_of", _stop),
        "score": ("vggfeat.ilsvrc.classify:score", _stop),
    },
    "fuse": {"open_scores": ("vggfeat.ilsvrc.scores:open_scores", None)},
    "train": {
        "open_trainset": ("vggfeat.train.trainset:open_trainset", None),
        "load": ("vggfeat.nets.weights:load", _weights),
        "Watched": ("vggfeat.cli.train:Watched", None),
        **WATCHED,
    },
    "localize train": {
        **BOXES,
        "load": ("vggfeat.nets.weights:load", _weights),
        "Watched": ("vggfeat.cli.localize:Watched", None),
        **WATCHED,
    },
    "localize predict": {
        **IMAGES,
        **LOCALISING,
        "NetClassifier": ("vggfeat.ilsvrc.outputs:NetClassifier.open", _stop),
        "windows_of": ("vggfeat.ilsvrc.localize:windows_of", None),
        "locate": ("vggfeat.ilsvrc.localize:locate", None),
    },
    "localize evaluate": {
        **BOXES,
        **LOCALISING,
        "NetClassifier": (
            "vggfeat.ilsvrc.outputs:NetClassifier.open",
            lambda _: SimpleNamespace(classes=("cat", "dog")),
        ),
        "StoredLabels": ("vggfeat.ilsvrc.labels:StoredLabels.open", _nothing),
        "judge": ("vggfeat.ilsvrc.judging:judge", _stop),
    },
    "datasets show": {"load_card": ("vggfeat.data.datasets:load_card", None)},
    "datasets fetch": {
        "download_progress": ("vggfeat.cli.datasets:download_progress", None),
        "fetch_dataset": ("vggfeat.data.datasets:fetch_dataset", _stop),
    },
    "datasets check": {"check_dataset": ("vggfeat.data.datasets:check_dataset", _stop)},
    "weights fetch": {
        "download_progress": ("vggfeat.cli.weights:download_progress", None),
        "fetch": ("vggfeat.nets.registry:fetch", lambda _: Path("fetched")),
    },
    "weights show": {"describe": ("vggfeat.nets.weights:describe", None)},
    "weights convert": {"convert": ("vggfeat.nets.weights:convert", _stop)},
    "store info": {"info": ("vggfeat.store.maintenance:info", None)},
    "store verify": {"verify": ("vggfeat.store.maintenance:verify", None)},
    "store repair": {"repair": ("vggfeat.store.maintenance:repair", None)},
    "store merge": {"merge": ("vggfeat.store.merge:merge", None)},
    "store pack": {"pack": ("vggfeat.store.export:pack", None)},
    "store export": {
        "Aggregation": ("vggfeat.features.aggregate:Aggregation", None),
        "choose_columns": ("vggfeat.store.export:choose_columns", None),
        "export": ("vggfeat.store.export:export", None),
    },
}


READING = (
    "vggfeat.nets.weights:load",
    "vggfeat.train.trainset:open_trainset",
    "vggfeat.ilsvrc.boxset:open_boxset",
    "vggfeat.data.datasets:open_dataset",
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
