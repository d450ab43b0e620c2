"""What localising needs: nets that predict boxes, and a system that says what images show."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open

from vggfeat.classification.classes import chosen, named
from vggfeat.cli.console import download_progress
from vggfeat.cli.experiment import open_networks
from vggfeat.cli.working import check_machine
from vggfeat.errors import ParameterError
from vggfeat.experiments.window_scores import SVMClassifier
from vggfeat.localization.evaluate import check_classes
from vggfeat.localization.outputs import FC8, Alike, NetClassifier, Restricted
from vggfeat.localization.predict import Localiser
from vggfeat.nets.registry import NAMES
from vggfeat.nets.weights import load
from vggfeat.recipes import BEST
from vggfeat.svm.model import load as load_model

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vggfeat.localization.outputs import Classifier
    from vggfeat.settings import Execution


def nets_of(
    models: list[str], Q: list[int] | None, execution: Execution
) -> tuple[list[Localiser], list[list[int]]]:
    """Open the nets, and take the test scales of each: its own, those of all, or its S."""
    check_machine(execution)
    nets, scales = [], []
    for model in models:
        path, own = _parted(model)
        net = Localiser.open(path, device=execution.device, precision=execution.precision)
        scales.append(own or Q or [net.S])
        net.extractor.check_scales(scales[-1])
        nets.append(net)
        check_classes(nets[0].classes, net.classes)
    return nets, scales


def _parted(model: str) -> tuple[Path, list[int]]:
    """Part MODEL@352,384 into a path and scales; a path may have an @ of its own."""
    path, _, told = model.rpartition("@")
    numbers = told.split(",")
    if path and all(map(str.isdecimal, numbers)) and not Path(model).expanduser().exists():
        return Path(path), [int(number) for number in numbers]
    return Path(model), []


def system_of(
    nets: Sequence[Localiser],
    classifier: str | None,
    classes: list[str] | None,
    execution: Execution,
    *,
    quiet: bool,
) -> Classifier:
    """Open the classification system, or say what images are known to show."""
    wanted = nets[0].classes
    known = chosen(classes or (), wanted, "localize predict")
    if bool(classifier) == bool(classes):
        raise ParameterError(
            "Localising needs labels: either those of a classification system, --classifier MODEL, "
            f"or the class that all images show, --class {named(wanted).names[0]!r}."
        )
    if classifier:
        return Restricted(_opened(classifier, nets[0], execution, quiet=quiet), wanted)
    return Alike(wanted, [wanted.index(key) for key in known])


def _opened(classifier: str, net: Localiser, execution: Execution, *, quiet: bool) -> Classifier:
    """Open a saved SVM, or a net with fc8."""
    if model := _saved_model(classifier):
        svm = load_model(model)
        return SVMClassifier(svm, open_networks(svm, execution.device, None, quiet=quiet))
    if classifier not in NAMES:
        path = Path(classifier).expanduser()
        file = path / BEST if path.is_dir() else path
        return NetClassifier.open(str(file), device=execution.device, precision=execution.precision)
    with download_progress(quiet=quiet) as progress:
        weights = load(classifier, net.extractor.extraction.net, [FC8], progress=progress)
    return NetClassifier.open(weights, device=execution.device, precision=execution.precision)


def _saved_model(classifier: str) -> Path | None:
    """Find the file of a saved SVM; weights are safetensors as well, and say something else."""
    path = Path(classifier).expanduser()
    for file in (path, Path(f"{path}.safetensors")):
        if file.is_file():
            try:
                with safe_open(file, "np") as opened:
                    told = (opened.metadata() or {}).get("vggfeat", "")
            except SafetensorError:
                return None
            return file if told.startswith("{") else None
    return None
