"""What VOC's evaluation server takes, where it alone has the test labels."""

from __future__ import annotations

from pathlib import Path

from vggfeat.data.datasets.card import DatasetCard, VocProtocol
from vggfeat.data.datasets.voc import LISTS
from vggfeat.data.imageset import ImageSet
from vggfeat.errors import DataError
from vggfeat.experiments.svm import SVMRun
from vggfeat.svm.submission import write_comp2, write_comp10
from vggfeat.svm.voc_results import APResult


def check_submission(card: DatasetCard, images: ImageSet) -> None:
    """Refuse a data set that has no server, or no test images, before anything is computed.

    Raises
    ------
    DataError
        Saying which.
    """
    if not isinstance(card.protocol, VocProtocol) or not card.protocol.server_file:
        raise DataError(
            f"The test labels of {card.name} are public; there is nothing to submit. Leave out "
            "--submission."
        )
    if not len(images.splits.get("test", ())):
        raise DataError(
            f"There are no test images of {card.name} in {card.root}. Put its test archive "
            "there, and run the same command again."
        )


def write_submission(run: SVMRun, folder: Path) -> list[Path]:
    """Write what the evaluation server takes, where test labels are not public.

    Parameters
    ----------
    run : SVMRun
        With a test part.
    folder : Path
        Where the tree ``results/VOC2012/…`` goes that the server wants in its archive.

    Returns
    -------
    list of Path
        ``comp2_cls_test_<class>.txt``, or ``comp10_action_test_<action>.txt``.

    Raises
    ------
    DataError
        If the data set's test labels are public, or its test images are not here.
    """
    card, result = run.card, run.result
    check_submission(card, run.images)
    assert isinstance(card.protocol, VocProtocol)
    assert isinstance(result, APResult)
    task = card.protocol.task
    inside = folder / "results" / Path(card.folder).name / LISTS[task]
    names = [result.names[row] for row in result.parts["test"]]
    if task == "classification":
        return write_comp2(inside, result.class_names, names, result.scores)
    images, _, persons = zip(*(name.rpartition("#") for name in names), strict=True)
    numbers = [int(person) for person in persons]
    return write_comp10(inside, result.class_names, images, numbers, result.scores)


def lacking(run: SVMRun) -> list[str]:
    """Name what a submission has no score of: images of the lists that are absent or damaged.

    Some may be of another part than test: the lists of a partial tree do not say.
    """
    return sorted({*run.images.missing, *run.failed})
