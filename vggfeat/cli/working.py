"""How a command works: where networks run, in how many processes, and what it says meanwhile."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vggfeat.cli.output import download_progress, note, work_progress

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from vggfeat.data.imagesets import ImageSet
    from vggfeat.data.schema import DatasetCard
    from vggfeat.features.extractor import DenseExtractor
    from vggfeat.recipe import Classifier
    from vggfeat.run.svm import Run
    from vggfeat.settings import Extraction, Features

ENGINES = ("local", "ray")
ON_BAD_IMAGE = ("skip", "error")


@dataclass(frozen=True)
class Work:
    """Nothing of it changes a result, but for the precision and what is done with bad pictures.

    Parameters
    ----------
    device, precision, on_bad_image, workers, quiet, jobs, jobs_backend, engine, address,
    deterministic
        As the options of these names.
    opened : dict
        The networks that are open, for all that is run.
    """

    device: str
    precision: str
    on_bad_image: str
    workers: int | None
    quiet: bool
    jobs: int = -1
    jobs_backend: str | None = None
    engine: str = "local"
    address: str | None = None
    deterministic: bool = False
    opened: dict[Extraction, DenseExtractor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what is none of the choices, before any picture is looked for."""
        from vggfeat.errors import ParameterError

        if self.engine not in ENGINES:
            raise ParameterError.not_one_of("engine", "vggfeat", ENGINES, self.engine)
        if self.address and "ray" not in (self.engine, self.jobs_backend):
            raise ParameterError(
                "--address is of a Ray cluster. Add --engine ray, or leave it out."
            )
        check_on_bad_image(self.on_bad_image)
        if not self.jobs:
            raise ParameterError.of("jobs", "vggfeat", "an int from 1 on, or -1 for all cores", 0)
        if self.engine == "local":  # a cluster's devices are others
            check_machine(self.device, self.precision)

    def dataset(
        self, name: str, root: Path | None, allow_partial: bool
    ) -> tuple[DatasetCard, ImageSet]:
        """Open a data set, showing a download if there is one."""
        from vggfeat.data.cards import card_names, load_card, open_dataset
        from vggfeat.errors import DataError

        if name in card_names() and load_card(name).protocol.kind == "ilsvrc":
            raise DataError(
                f"{name} is for classification by a whole network, not for an SVM on features. "
                "Train one with: vggfeat train"
            )
        with download_progress(quiet=self.quiet) as fetching:
            card, images = open_dataset(name, root, allow_partial=allow_partial, progress=fetching)
        if card.partial:
            note(f"Warning: {card.name} is partial: its figures compare with nothing published.")
        return card, images

    def network(self, features: Features, net: str) -> DenseExtractor:
        """Open a network, once for all settings that are alike but for scales and aggregation."""
        key = features.of(net).but(precision=self.precision)
        if key not in self.opened:
            self.opened[key] = self._open(key)
        self.opened[key].check_scales(features.Q)
        return self.opened[key]

    def run(
        self,
        card: DatasetCard,
        images: ImageSet,
        features: Features,
        classifier: Classifier,
        folder: Path | None,
    ) -> Run:
        """Test a linear SVM, with progress."""
        from vggfeat.learn.gram import DEVICE
        from vggfeat.run.svm import run_svm

        # A device of the cluster says nothing of this machine's.
        DEVICE.set("auto" if self.engine == "ray" else self.device)
        with work_progress("extract", quiet=self.quiet) as work, self.parallel():
            return run_svm(
                card,
                images,
                features,
                partial(self.network, features),
                classifier,
                folder=folder,
                on_bad_image=self.on_bad_image,
                workers=self.workers,
                deterministic=self.deterministic,
                n_jobs=self.jobs,
                progress=work.pictures,
                split_progress=work.splits,
            )

    def parallel(self) -> AbstractContextManager[object]:
        """Set joblib's backend, if one was named."""
        if self.jobs_backend is None:
            return nullcontext()
        from vggfeat.learn.backends import jobs_backend

        return jobs_backend(self.jobs_backend, self.address)

    def _open(self, extraction: Extraction) -> DenseExtractor:
        from vggfeat.features.extractor import DenseExtractor
        from vggfeat.features.pooling import check_pools
        from vggfeat.nets.table1 import resolve_layer
        from vggfeat.nets.weights import load
        from vggfeat.settings import Hardware

        net, layers = extraction.net, extraction.layers
        # Before weights of half a gigabyte are read.
        names = [resolve_layer(net, layer) for layer in layers]
        check_pools(extraction.pools, names, extraction.locations)
        with download_progress(quiet=self.quiet) as progress:
            weights = load(extraction.weights, net, layers, progress=progress)
        hardware = Hardware(device=self.device, deterministic=self.deterministic)
        extractor = DenseExtractor(extraction, hardware=hardware, weights=weights)
        self._tell(extractor, layers)
        return extractor

    def _tell(self, extractor: DenseExtractor, layers: Sequence[str]) -> None:
        made, weights = extractor.extraction, extractor.weights
        for asked, resolved in zip(layers, made.layers, strict=False):
            if asked != resolved:
                note(f"Layer {asked} is {resolved} of net {made.net}.", quiet=self.quiet)
        note(
            f"Net {made.net}, {', '.join(made.layers)}, weights {weights.source} "
            f"({weights.sha256[:12]}), {made.precision} on {extractor.device_name}",
            quiet=self.quiet,
        )


def check_machine(device: str, precision: str) -> None:
    """Refuse a device or a precision that there is not, or that this machine lacks.

    Raises
    ------
    ParameterError, DeviceError
        Naming it.
    """
    from vggfeat.features.device import resolve_device, resolve_precision

    resolve_precision(precision, resolve_device(device))


def check_on_bad_image(policy: str) -> None:
    """Refuse what is none of the choices.

    Raises
    ------
    ParameterError
        Naming them.
    """
    from vggfeat.errors import ParameterError

    if policy not in ON_BAD_IMAGE:
        raise ParameterError.not_one_of("on_bad_image", "vggfeat", ON_BAD_IMAGE, policy)


def settings(base: Features, **given: Any) -> Features:
    """Put what was typed over the settings of a data set, a store or a recipe.

    Raises
    ------
    ParameterError
        Naming the option that is none of its choices.
    """
    return base.but(**{name: value for name, value in given.items() if value != []})
