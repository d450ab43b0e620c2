"""Classification by a whole network, which no SVM takes part in."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from numpy.typing import NDArray

from vggfeat.data.datasets.card import DatasetCard
from vggfeat.data.imageset import ImageSet
from vggfeat.errors import DataError
from vggfeat.settings import SVM
from vggfeat.svm.protocols.base import Evaluation, Progress, Protocol, register


@register
class WholeNetwork(Protocol):
    """One right class for every image, among the first or the first five (Section 4)."""

    kind: Literal["ilsvrc"] = "ilsvrc"
    metric: Literal["top-1 and top-5 error"] = "top-1 and top-5 error"
    measure: ClassVar[str] = "top5_error"

    def check(
        self, card: DatasetCard, images: ImageSet | None = None, svm: SVM | None = None
    ) -> None:
        """Refuse to train an SVM.

        Raises
        ------
        DataError
            Saying what the data set is for.
        """
        raise DataError(
            f"{card.name} is for classification by a whole network, not for an SVM on features. "
            "Train one with: vggfeat train"
        )

    def evaluate(
        self,
        card: DatasetCard,
        images: ImageSet,
        X: NDArray[Any],
        svm: SVM = SVM(),  # noqa: B008  # it does not change
        *,
        n_jobs: int | None = -1,
        device: str = "auto",
        progress: Progress | None = None,
    ) -> Evaluation:
        """Refuse: see :meth:`check`."""
        self.check(card, images)
        raise NotImplementedError(self.kind)
