"""Caltech-101 and Caltech-256: a folder for each class, among them the background."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vggfeat.data.datasets.card import DatasetCard, Reader, register
from vggfeat.data.datasets.parts import name_below
from vggfeat.data.image import EXTENSIONS
from vggfeat.data.imageset import ImageSet, one_hot
from vggfeat.data.left_out import LeftOut
from vggfeat.data.names import is_hidden
from vggfeat.errors import DataError


@register("caltech")
class CaltechReader(Reader):
    """A folder for each class of the card, and nothing else."""

    needs_classes = True
    expects_each_class = True

    def read(self, card: DatasetCard, tree: Path) -> ImageSet:
        """Read the images, with targets."""
        return read_caltech(tree, card.classes)


def read_caltech(tree: Path, classes: Sequence[str]) -> ImageSet:
    """Read the images of the named class folders of ``101_ObjectCategories``, say, class by class.

    Background is among the classes: Appendix B counts 102 and 257. What is neither an image in a
    class folder nor such a folder is left out and named in ``left_out``: a folder inside a class
    folder repeats images of other classes.

    Raises
    ------
    DataError
        If there is not one image.
    """
    labels: list[str] = []
    images: list[Path] = []
    strays = [path for path in _listed(tree) if path.name not in set(classes)]
    for label in classes:
        for path in _listed(tree / label):
            if path.suffix.lower() in EXTENSIONS and path.is_file():
                labels.append(label)
                images.append(path)
            else:
                strays.append(path)
    if not images:
        raise DataError(
            f"{tree} has no images in class folders such as {classes[0]}. Restore it from the "
            "original archive."
        )
    return ImageSet(
        names=tuple(path.relative_to(tree).as_posix() for path in images),
        images=tuple(images),
        labels=tuple(labels),
        targets=one_hot(labels, classes),
        left_out=LeftOut(beside=[name_below(tree, path) for path in strays]),
    )


def _listed(folder: Path) -> list[Path]:
    """List a folder, sorted, without hidden files, which are nobody's images."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if not is_hidden(path.name))
