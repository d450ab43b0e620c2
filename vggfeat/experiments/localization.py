"""Localisation (Appendix A): what is trained, applied to images, and tested on a data set."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from PIL import Image
from safetensors import SafetensorError, safe_open

from vggfeat._io.download import Progress
from vggfeat.classification.classes import Classes, chosen, named
from vggfeat.data.image import decode
from vggfeat.data.imageset import ImageSet
from vggfeat.errors import ImageError, ParameterError
from vggfeat.experiments.predict import open_networks
from vggfeat.experiments.training import default_batch, net_of_init
from vggfeat.localization.boxes import as_annotated
from vggfeat.localization.classifiers import (
    FC8,
    Classifier,
    ClassSubset,
    ConstantClassifier,
    NetClassifier,
    StoredLabels,
    SVMClassifier,
)
from vggfeat.localization.data import BoxSet, open_boxset
from vggfeat.localization.evaluate import evaluate
from vggfeat.localization.predict import Detection, LocalizationSystem, Localizer
from vggfeat.localization.training import BoxRegression, init_from_classifier
from vggfeat.nets.config import layers_of
from vggfeat.nets.registry import NAMES
from vggfeat.nets.runtimes import check_machine
from vggfeat.nets.weights import Weights, load
from vggfeat.recipes.networks import BEST
from vggfeat.result import BoxMark, Cell, Result, Table, TableColumn
from vggfeat.settings import BoxTraining, Decoding, Execution, Localization, Merging
from vggfeat.svm.model import load as load_model

UPDATES = 4  # in an epoch of a small set, at least
WAITED = 50  # updates without a gain before the learning rate drops, at least
COLUMNS = (
    TableColumn("image", "Image"),
    TableColumn("class", "Class"),
    TableColumn("key", "Key"),
    TableColumn("posterior", "Posterior", "number"),
    TableColumn("score", "Score", "number"),
    TableColumn("windows", "Windows", "int"),
    *(TableColumn(edge, edge, "number") for edge in ("xmin", "ymin", "xmax", "ymax")),
    TableColumn("drawing", "Drawing"),
    TableColumn("error", "Error"),
)
SHOWN = ("image", "class", "posterior", "xmin", "ymin", "xmax", "ymax")
"""Columns that fit a terminal."""
Tell = Callable[[str], object]
"""Is told, in words, what runs where."""


class TrainingStart(NamedTuple):
    """What a net that predicts boxes learns, and the weights that it begins with."""

    task: BoxRegression
    weights: Weights


def choose_net(init: str, training: BoxTraining, typed: Set[str]) -> str:
    """Name the net of the classification net to begin from, which is the one that is trained.

    Raises
    ------
    ParameterError
        If there is no such net or file, or another net was typed than that of the file.

    Examples
    --------
    >>> choose_net("embedded", BoxTraining(), set())
    'D'
    """
    layers_of(training.net)  # which refuses a net that there is not
    net = net_of_init(init, training.net, "localize train") or training.net
    if "net" in typed and net != training.net:
        raise ParameterError(
            f"--net {training.net}: the file {init} is of net {net}. Leave out --net."
        )
    return net


def complete_training(training: BoxTraining, images: int, typed: Set[str]) -> BoxTraining:
    """Choose the batch and the patience that were not typed by the number of images to train with.

    Examples
    --------
    >>> settings = complete_training(BoxTraining(), 64, set())
    >>> settings.batch, settings.patience
    (16, 12)
    """
    if "batch" not in typed:
        training = training.but(batch=default_batch(images, UPDATES))
    if "patience" not in typed:
        updates = max(1, images // training.batch)
        training = training.but(patience=max(BoxTraining().patience, WAITED // updates))
    return training


def begin_training(
    data: BoxSet,
    classifying: Weights,
    training: BoxTraining,
    localization: Localization,
    device: str,
) -> TrainingStart:
    """Make the task of some images with boxes, and the first weights of a classification net's.

    Raises
    ------
    DataError
        If none of the images that activations are measured on can be read.
    """
    task = BoxRegression.on(data, localization.regression, training.S, localization.visible)
    weights = init_from_classifier(
        classifying, task, balanced=localization.balanced, seed=training.seed, device=device
    )
    return TrainingStart(task, weights)


def open_predictor(
    models: Sequence[str],
    scales: Sequence[int],
    execution: Execution,
    *,
    classifier: str | None = None,
    classes: Sequence[str] = (),
    merging: Merging | None = None,
    tell: Tell,
    progress: Progress | None = None,
) -> tuple[LocalizationSystem, int]:
    """Open a system that localises objects in new images.

    Parameters
    ----------
    models : sequence of str
        Runs of training, or files of weights; ``MODEL@352,384`` for test scales of its own.
    scales : sequence of int
        Test scales Q of all others; by default each net's S.
    execution : Execution
        Device and precision.
    classifier : str, optional
        What labels the images: a saved SVM, a run of training, weights with fc8, or their source.
    classes : sequence of str
        What all images show, where there is no classifier.
    merging : Merging, optional
        How boxes are merged.
    tell : callable
        Is told, in words, what runs where.
    progress : callable, optional
        Called with bytes done and all bytes of a download.

    Returns
    -------
    system : LocalizationSystem
    labels : int
        How many labels all images have; 0 where the classifier says which.

    Raises
    ------
    ParameterError
        If there is neither a classifier nor a class, or both, or no such class.
    WeightsError, DeviceError
        If a net cannot be opened.
    """
    nets, net_scales = open_localizers(models, scales, execution)
    keys = nets[0].classes
    wanted = chosen(classes, keys, "localize predict")
    if bool(classifier) == bool(classes):
        raise ParameterError(
            "Localising needs labels: either those of a classification system, --classifier MODEL, "
            f"or the class that all images show, --class {named(keys).names[0]!r}."
        )
    labels: Classifier = ConstantClassifier(keys, [keys.index(key) for key in wanted])
    if classifier:
        labels = open_classifier(classifier, nets[0], execution, tell=tell, progress=progress)
    system = LocalizationSystem(nets, net_scales, labels, merging=merging or Merging())
    return system, len(wanted)


class LocalizedImage(NamedTuple):
    """An image and the objects in it, the likeliest first, or why it could not be read."""

    name: str
    classes: Classes
    image: Image.Image | None = None
    detections: Sequence[Detection] = ()
    reason: str = ""

    def marks(self) -> list[BoxMark]:
        """Mark the boxes in a drawing, the likeliest last, so that it is on top."""
        marks = []
        for detection in reversed(self.detections):
            left, top, right, bottom = detection.box.tolist()
            label = self.classes.names[detection.label]
            marks.append(BoxMark((left, top, right, bottom), "predicted", label))
        return marks

    def rows(self, drawing: str) -> list[tuple[Cell, ...]]:
        """Lay out the boxes as rows of :func:`box_table`, in pixels from 1 on, ends included."""
        if self.image is None:
            return [(self.name, *[None] * (len(COLUMNS) - 2), self.reason)]
        rows: list[tuple[Cell, ...]] = []
        for detection in self.detections:
            label = detection.label
            figures = (detection.posterior, detection.score, detection.windows)
            box = as_annotated(detection.box)
            names = (self.name, self.classes.names[label], self.classes.keys[label])
            rows.append((*names, *figures, *box, drawing, ""))
        return rows


def localize(
    images: ImageSet, system: LocalizationSystem, top: int, decoding: Decoding
) -> Iterator[LocalizedImage]:
    """Find the boxes of the likeliest labels of images.

    Parameters
    ----------
    images : ImageSet
    system : LocalizationSystem
    top : int
        Labels of an image.
    decoding : Decoding
        How images are read.

    Yields
    ------
    LocalizedImage
        One for every image, bad ones with their reason.
    """
    classes = named(system.classes)
    for name, ref in zip(images.names, images.images, strict=True):
        try:
            image = decode(ref, decoding)
            detections = system.predict(image, top)
        except ImageError as error:
            yield LocalizedImage(name, classes, reason=str(error))
        else:
            yield LocalizedImage(name, classes, image, detections)


def box_table(rows: Sequence[tuple[Cell, ...]], names: Sequence[str] = ()) -> Table:
    """Lay out boxes, in pixels from 1 on, ends included; all columns, or those named."""
    places = [place for place, column in enumerate(COLUMNS) if not names or column.name in names]
    cells = tuple(tuple(row[place] for place in places) for row in rows)
    return Table("boxes", "Boxes", tuple(COLUMNS[place] for place in places), cells)


def open_tested(
    models: Sequence[str],
    scales: Sequence[int],
    execution: Execution,
    *,
    classifier: str | None = None,
    labels: Sequence[Path] = (),
    merging: Merging | None = None,
    tell: Tell,
    progress: Progress | None = None,
) -> LocalizationSystem:
    """Open a system to test; without a classifier it is tested by protocol 1 alone.

    Parameters
    ----------
    models, scales, execution, classifier, merging, tell, progress
        As for :func:`open_predictor`.
    labels : sequence of path
        Stores of scores of the test images, whose labels count instead of the classifier's.

    Raises
    ------
    ParameterError
        If several nets, scales or merging are asked for, and there is no classifier.
    WeightsError, DeviceError
        If a net cannot be opened.
    StoreError, DataError
        If a store holds no scores, or those of other classes.
    """
    if not classifier:
        _refuse_settings_of_windows(models, scales, merging)
    nets, net_scales = open_localizers(models, scales, execution)
    system = None
    if classifier:
        system = open_classifier(
            classifier,
            nets[0],
            execution,
            windows_only=bool(labels),
            tell=tell,
            progress=progress,
        )
    stored = StoredLabels.open(labels, nets[0].classes) if labels else None
    return LocalizationSystem(nets, net_scales, system, stored, merging or Merging())


def _refuse_settings_of_windows(
    models: Sequence[str], scales: Sequence[int], merging: Merging | None
) -> None:
    """Refuse what says nothing where one box, of the central crop, is judged (protocol 1)."""
    where, purpose = "the central crop of one net", "windows of whole images, with --classifier"
    if len(models) > 1 or split_scales(models[0])[1]:
        raise ParameterError(
            f"Without --classifier {where} is judged, at its S. Name one --model, without test "
            "scales, or a --classifier."
        )
    ignored = ["Q"] if scales else sorted(merging.model_fields_set if merging else ())
    if ignored:
        raise ParameterError.ignored(ignored[0], where, purpose)


@dataclass(frozen=True)
class LocalizationTest:
    """A localisation system, and the images that it is tested on.

    Parameters
    ----------
    system : LocalizationSystem
    data : BoxSet
        With test images.
    labels_from : str
        What the classification system is called.
    """

    system: LocalizationSystem
    data: BoxSet
    labels_from: str

    def evaluate(
        self, limit: int | None = None, progress: Callable[[int, int], None] | None = None
    ) -> Result:
        """Test as :func:`~vggfeat.localization.evaluate.evaluate` does."""
        return evaluate(
            self.data, self.system, limit=limit, labels_from=self.labels_from, progress=progress
        )

    def open_image(self, name: str) -> Image.Image:
        """Open one of the test images."""
        return self.data.test.open(self._rows[name])

    @cached_property
    def _rows(self) -> Mapping[str, int]:
        return {name: rows[0] for name, rows in self.data.test.images()}


def open_test(
    data: str,
    system: LocalizationSystem,
    labels_from: str,
    *,
    boxes: Sequence[Path] = (),
    decoding: Decoding,
    progress: Progress | None = None,
) -> LocalizationTest:
    """Open the test images of a data set, with their boxes.

    Parameters
    ----------
    data : str
        As for :func:`~vggfeat.localization.data.open_boxset`.
    system : LocalizationSystem
    labels_from : str
        What its classification system is called.
    boxes : sequence of path
        Where ILSVRC's XML files lie, if elsewhere.
    decoding : Decoding
        How images are read.
    progress : callable, optional
        Called with bytes done and all bytes of a download.

    Raises
    ------
    DataError
        If there are no test images with boxes of the system's classes.
    """
    boxset = open_boxset(
        data,
        classes=system.classes,
        boxes=boxes,
        parts=("test",),
        decoding=decoding,
        progress=progress,
    )
    return LocalizationTest(system, boxset, labels_from)


def open_localizers(
    models: Sequence[str], scales: Sequence[int], execution: Execution
) -> tuple[list[Localizer], list[list[int]]]:
    """Open nets that predict boxes, and take the test scales of each: its own, those of all, or S.

    Parameters
    ----------
    models, scales, execution
        As for :func:`open_predictor`.
    """
    check_machine(execution)
    nets, net_scales = [], []
    for model in models:
        path, typed = split_scales(model)
        net = Localizer.open(path, device=execution.device, precision=execution.precision)
        net_scales.append(typed or list(scales) or [net.S])
        nets.append(net)
    return nets, net_scales


def split_scales(model: str) -> tuple[Path, list[int]]:
    """Split ``MODEL@352,384`` into a path and scales; a path may have an @ of its own.

    Examples
    --------
    >>> path, scales = split_scales("runs/a@b@352,384")
    >>> path.as_posix(), scales
    ('runs/a@b', [352, 384])
    """
    path, _, typed = model.rpartition("@")
    numbers = typed.split(",")
    if path and all(map(str.isdecimal, numbers)) and not Path(model).expanduser().exists():
        return Path(path), [int(number) for number in numbers]
    return Path(model), []


def open_classifier(
    name: str,
    net: Localizer,
    execution: Execution,
    *,
    windows_only: bool = False,
    tell: Tell,
    progress: Progress | None = None,
) -> ClassSubset:
    """Open a saved SVM, or a net with fc8, of which some classes are localised.

    Parameters
    ----------
    name : str
        What ``vggfeat svm --save`` wrote, a run of training, a file of weights, or their source.
    net : Localizer
        What knows the classes that are localised; of a source, the net of the same configuration.
    execution : Execution
        Device and precision.
    windows_only : bool
        Whether images are not classified, since their labels are from elsewhere.
    tell, progress
        As for :func:`open_predictor`.

    Raises
    ------
    DataError
        If it lacks one of the classes.
    WeightsError, DeviceError
        If it cannot be opened.
    """
    if model := _find_model(name):
        svm = load_model(model)
        extractors = open_networks(svm, execution.device, tell=tell)
        return ClassSubset(SVMClassifier(svm, extractors), net.classes)
    weights: str | Weights
    if name in NAMES:
        weights = load(name, net.extractor.extraction.net, [FC8], progress=progress)
    else:
        path = Path(name).expanduser()
        weights = str(path / BEST if path.is_dir() else path)
    whole = NetClassifier.open(
        weights,
        windows_only=windows_only,
        device=execution.device,
        precision=execution.precision,
    )
    return ClassSubset(whole, net.classes)


def _find_model(classifier: str) -> Path | None:
    """Find the file of a saved SVM; weights are safetensors as well, and say something else."""
    path = Path(classifier).expanduser()
    for file in (path, Path(f"{path}.safetensors")):
        if file.is_file():
            try:
                with safe_open(file, "np") as opened:
                    about = (opened.metadata() or {}).get("vggfeat", "")
            except SafetensorError:
                return None
            return file if about.startswith("{") else None
    return None
