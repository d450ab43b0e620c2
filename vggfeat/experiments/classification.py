"""Classification (Section 3.2): posteriors of images by one or several nets, and what they say."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from vggfeat.classification.classes import Classes, classes_of
from vggfeat.classification.evaluate import evaluate, top_k
from vggfeat.classification.modes import find_pools, find_test_scales, score
from vggfeat.classification.scores import (
    Floats,
    Scores,
    check_target,
    describe_origin,
    open_scores,
    posteriors,
    same_classes,
    same_images,
    write_fused,
)
from vggfeat.classification.validation import Validation, match_classes
from vggfeat.data.datasets.ilsvrc import LabelledImages
from vggfeat.data.imageset import ImageSet
from vggfeat.data.partition import WHOLE, Partition
from vggfeat.features.extractor import DenseExtractor
from vggfeat.features.pipeline import extract
from vggfeat.features.provenance import versions
from vggfeat.features.summary import Summary
from vggfeat.result import Result
from vggfeat.settings import Features, NetEvaluation

OpenNet = Callable[[Features, str], DenseExtractor]
"""Opens fc8 of one of the nets of some features."""


class LikelyClass(NamedTuple):
    """A class of an image, and how likely it is."""

    name: str
    key: str
    place: int
    probability: float

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON types."""
        return {
            "class": self.name,
            "key": self.key,
            "index": self.place,
            "probability": self.probability,
        }


class ClassifiedImage(NamedTuple):
    """An image, its likeliest classes, the likeliest first, and the true one, where it is known."""

    name: str
    likeliest: list[LikelyClass]
    true: str | None = None


@dataclass(frozen=True)
class FusedPosteriors:
    """Posteriors of images, averaged over nets (Section 4.4): each net counts the same.

    Parameters
    ----------
    scores : sequence of Scores
        Of the same images and classes.
    """

    scores: Sequence[Scores]

    @classmethod
    def open(
        cls,
        stores: Sequence[Path],
        scales: Sequence[int] | None = None,
        target: Path | None = None,
    ) -> FusedPosteriors:
        """Open stores of scores.

        Parameters
        ----------
        stores, scales
            As for :func:`~vggfeat.classification.scores.open_scores`.
        target : path, optional
            Where the averages are to be written.

        Raises
        ------
        StoreError
            If one of them cannot be used, or they would be written over.
        """
        if target is not None:
            check_target(target, stores)
        return cls([of_net for path in stores for of_net in open_scores(path, scales)])

    @cached_property
    def classes(self) -> Classes:
        """What the outputs are called.

        Raises
        ------
        StoreError
            If the nets have not the same classes, in the same order.
        """
        return same_classes(self.scores)

    @property
    def failed(self) -> dict[str, str]:
        """By name, why images could not be used."""
        return {name: reason for of_net in self.scores for name, reason in of_net.failed.items()}

    @property
    def counts(self) -> list[int]:
        """Of how many images each net has posteriors."""
        return [len(of_net.names) for of_net in self.scores]

    @property
    def origin(self) -> dict[str, Any]:
        """What the posteriors are made of, as plain JSON types."""
        return describe_origin(self.scores)

    def match(self, labelled: LabelledImages) -> Validation:
        """Match the classes of images to those of the posteriors.

        Raises
        ------
        DataError
            If one of them is none of the posteriors'.
        """
        return match_classes(labelled, self.classes)

    def likeliest(self, top: int) -> Iterator[ClassifiedImage]:
        """Go through all images with so many of their likeliest classes.

        Raises
        ------
        StoreError
            If the nets have not the same images, or none.
        """
        names, start = same_images(self.scores), 0
        for block in posteriors(self.scores, names):
            yield from self._classified(names[start : start + len(block)], block, top)
            start += len(block)

    def evaluate(
        self,
        validation: Validation,
        top: int = 1,
        watch: Callable[[ClassifiedImage], object] | None = None,
    ) -> Result:
        """Measure how often the posteriors are wrong.

        Parameters
        ----------
        validation : Validation
            The images and their classes.
        top : int
            How many of an image's likeliest classes `watch` is told.
        watch : callable, optional
            Is told each image.

        Raises
        ------
        DataError, StoreError
            As from :func:`~vggfeat.classification.evaluate.evaluate`.
        """

        def tell(names: Sequence[str], block: Floats) -> None:
            assert watch is not None
            labels = validation.labels_of(names).tolist()
            images = self._classified(names, block, top)
            for label, image in zip(labels, images, strict=True):
                watch(image._replace(true=self.classes.names[label]))

        return evaluate(self.scores, validation, watch=tell if watch else None)

    def write(self, folder: Path) -> int:
        """Write a store of the averages, and return the number of its images."""
        names = same_images(self.scores)
        write_fused(folder, self.scores, names, {"fused": self.origin, "versions": versions()})
        return len(names)

    def _classified(
        self, names: Sequence[str], block: Floats, top: int
    ) -> Iterator[ClassifiedImage]:
        classes = self.classes
        for name, row, places in zip(names, block, top_k(block, top).tolist(), strict=True):
            likeliest = [
                LikelyClass(classes.names[c], classes.keys[c], c, float(row[c])) for c in places
            ]
            yield ClassifiedImage(name, likeliest)


def compute_posteriors(
    images: ImageSet | LabelledImages,
    features: Features,
    evaluation: NetEvaluation,
    open_net: OpenNet,
    *,
    scales: Sequence[int] | None = None,
    folder: Path | None = None,
    share: Partition = WHOLE,
    extract: Callable[..., Summary] = extract,
) -> tuple[FusedPosteriors, Validation | None]:
    """Run whole nets over images; what a store has is not computed again.

    Parameters
    ----------
    images : ImageSet or LabelledImages
        With their true classes, these are matched to those of the first net before it is run.
    features : Features
        The nets and their weights.
    evaluation : NetEvaluation
        How they are applied.
    open_net : callable
        Opens one of them.
    scales : sequence of int, optional
        Test scales Q; by default each net's own.
    folder : Path, optional
        The store; by default one below the cache for each net.
    share : Partition
        Which share of the images to do.
    extract : callable
        As for :func:`~vggfeat.classification.modes.score`.

    Returns
    -------
    posteriors : FusedPosteriors
    validation : Validation or None
        The images with their true classes.

    Raises
    ------
    WeightsError
        If nothing says what the outputs of a net are called.
    DataError
        If a true class is none of the nets'.
    """
    features = features.but(layers=("fc8",), pool="+".join(find_pools(evaluation)))
    labelled = images if isinstance(images, LabelledImages) else None
    image_set = images.image_set() if isinstance(images, LabelledImages) else images
    validation: Validation | None = None
    scores: list[Scores] = []
    for net in features.nets:
        extractor = open_net(features, net)
        if labelled and validation is None:
            validation = match_classes(labelled, classes_of(extractor.weights))
        own = scales or find_test_scales(extractor.weights, multi_scale=evaluation.multi_scale)
        scores += score(image_set, extractor, own, folder, shard=share, extract=extract)[0]
    return FusedPosteriors(scores), validation
