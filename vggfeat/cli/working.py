"""How a command works: where networks run, in how many processes, and what it says meanwhile."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from vggfeat.cli.output import download_progress, note
from vggfeat.data.datasets import card_names, load_card, open_dataset
from vggfeat.errors import DataError, ParameterError
from vggfeat.features.extractor import DenseExtractor
from vggfeat.features.pipeline import extract
from vggfeat.features.pooling import check_pools
from vggfeat.features.ray import extract_on_ray, resolve_precision_on_ray
from vggfeat.learn.backends import jobs_backend
from vggfeat.nets.config import resolve_layer
from vggfeat.nets.runtimes import resolve_device, resolve_precision
from vggfeat.nets.weights import load
from vggfeat.run.sources import has_store
from vggfeat.settings import OnBadImage
from vggfeat.store.store import FeatureStore

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from vggfeat.data.datasets.card import DatasetCard
    from vggfeat.data.imageset import ImageSet
    from vggfeat.features.pipeline import Summary
    from vggfeat.settings import Extraction, Features

ENGINES = ("local", "ray")


@dataclass(frozen=True)
class Work:
    """Nothing of it changes a result, but for the precision and what is done with bad images.

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
        """Refuse what is none of the choices, before any image is looked for."""
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

    def network(
        self, features: Features, net: str, store: FeatureStore | None = None
    ) -> DenseExtractor:
        """Open a network, once for all settings that are alike but for scales and aggregation.

        In the precision that a store has, unless another is asked for.
        """
        extraction = features.of(net).but(precision=self._precision(features, net, store))
        if extraction not in self.opened:
            self.opened[extraction] = self._open(extraction)
        self.opened[extraction].check_scales(features.Q)
        return self.opened[extraction]

    def network_for(
        self, features: Features, net: str, folder: Path | str | None
    ) -> DenseExtractor:
        """Open a network for a store that may be there already, or none."""
        there = folder is not None and has_store(folder)
        return self.network(features, net, FeatureStore(folder) if there else None)

    def extract(
        self,
        images: ImageSet,
        extractor: DenseExtractor,
        scales: Sequence[int],
        store: FeatureStore,
        **how: Any,
    ) -> Summary:
        """Compute what a store lacks, in this process or in a cluster."""
        if self.engine == "local":
            return extract(images, extractor, scales, store, **how)

        hardware = extractor.hardware.but(device=self.device)
        how |= {"address": self.address, "weights": extractor.weights}
        return extract_on_ray(images, extractor.extraction, hardware, scales, store, **how)

    def parallel(self) -> AbstractContextManager[object]:
        """Set joblib's backend, if one was named."""
        if self.jobs_backend is None:
            return nullcontext()

        return jobs_backend(self.jobs_backend, self.address)

    def _precision(self, features: Features, net: str, store: FeatureStore | None) -> str:
        held = store.index.columns if store else {}  # also those of a run that has just begun
        columns = [column for descriptor, column in held.items() if descriptor.net == net]
        columns.sort(key=lambda column: column.descriptor.layer not in features.layers)
        stored = [column.settings.get("precision", "auto") for column in columns]
        if self.engine == "ray":
            return resolve_precision_on_ray(self.precision, self.device, stored, self.address)
        return resolve_precision(self.precision, resolve_device(self.device), stored)

    def _open(self, extraction: Extraction) -> DenseExtractor:

        layers = [resolve_layer(extraction.net, name) for name in extraction.layers]
        # Before weights of half a gigabyte are read.
        check_pools(extraction.pools, layers, extraction.locations)
        with download_progress(quiet=self.quiet) as progress:
            weights = load(extraction.weights, extraction.net, layers, progress=progress)
        ours, device = extraction, self.device
        if self.engine == "ray":  # this machine may lack what the cluster has
            ours, device = extraction.but(precision="fp32"), "cpu"
        extractor = DenseExtractor(
            ours, weights=weights, device=device, deterministic=self.deterministic
        )
        # By what the cluster computes in, folders and columns are named.
        extractor.extraction = extractor.extraction.but(precision=extraction.precision)
        self._tell(extractor, extraction.layers)
        return extractor

    def _tell(self, extractor: DenseExtractor, layers: Sequence[str]) -> None:
        extraction, weights = extractor.extraction, extractor.weights
        for asked, resolved in zip(layers, extraction.layers, strict=False):
            if asked != resolved:
                note(f"Layer {asked} is {resolved} of net {extraction.net}.", quiet=self.quiet)
        where = f"{extraction.precision} on {extractor.device_name}"
        note(
            f"Net {extraction.net}, {', '.join(extraction.layers)}, weights {weights.source} "
            f"({weights.sha256[:12]}), {where if self.engine == 'local' else 'on Ray'}",
            quiet=self.quiet,
        )


def check_machine(device: str, precision: str) -> None:
    """Refuse a device or a precision that there is not, or that this machine lacks.

    Raises
    ------
    ParameterError, DeviceError
        Naming it.
    """
    resolve_precision(precision, resolve_device(device))


def check_on_bad_image(policy: str) -> None:
    """Refuse what is none of the choices.

    Raises
    ------
    ParameterError
        Naming them.
    """
    if policy not in (choices := get_args(OnBadImage)):
        raise ParameterError.not_one_of("on_bad_image", "vggfeat", choices, policy)


def settings(base: Features, **given: Any) -> Features:
    """Put what was typed over the settings of a data set, a store or a recipe.

    Raises
    ------
    ParameterError
        Naming the option that is none of its choices.
    """
    return base.but(**{name: value for name, value in given.items() if value != []})
