"""How a command works: where networks run, in how many processes, and what it says meanwhile."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vggfeat.cli.console import download_progress, note
from vggfeat.errors import ParameterError
from vggfeat.experiments.predict import advise_runtime
from vggfeat.experiments.sources import has_store
from vggfeat.features.extractor import DenseExtractor
from vggfeat.features.pipeline import extract
from vggfeat.features.pooling import check_pools
from vggfeat.features.provenance import name_network
from vggfeat.features.ray import extract_on_ray, resolve_precision_on_ray
from vggfeat.nets.config import resolve_layer
from vggfeat.nets.runtimes import check_machine, resolve_device, resolve_precision
from vggfeat.nets.weights import load
from vggfeat.store.store import FeatureStore

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vggfeat.data.imageset import ImageSet
    from vggfeat.features.summary import Summary
    from vggfeat.settings import Execution, Extraction, Features


@dataclass(frozen=True)
class Work:
    """Nothing of it changes a result, but for the precision and what is done with bad images.

    Parameters
    ----------
    execution : Execution
    quiet : bool
        As the option of this name.
    opened : dict
        The networks that are open, for all that is run.
    advised : set
        What was said that would make them faster.
    """

    execution: Execution
    quiet: bool
    opened: dict[Extraction, DenseExtractor] = field(default_factory=dict)
    advised: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Refuse what this machine lacks, before any image is looked for."""
        engine = self.execution.engine
        if self.execution.address and engine != "ray":
            raise ParameterError(
                "--address is of a Ray cluster. Add --engine ray, or leave it out."
            )
        if engine == "local":  # a cluster's devices are others
            check_machine(self.execution)

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
        if self.execution.engine == "local":
            return extract(images, extractor, scales, store, **how)

        hardware = extractor.hardware.but(device=self.execution.device)
        how |= {"address": self.execution.address, "weights": extractor.weights}
        return extract_on_ray(images, extractor.extraction, hardware, scales, store, **how)

    def _precision(self, features: Features, net: str, store: FeatureStore | None) -> str:
        held = store.index.columns if store else {}  # also those of a run that has just begun
        columns = [column for descriptor, column in held.items() if descriptor.net == net]
        columns.sort(key=lambda column: column.descriptor.layer not in features.layers)
        stored = [column.settings.get("precision", "auto") for column in columns]
        how = self.execution
        if how.engine == "ray":
            return resolve_precision_on_ray(how.precision, how.device, stored, how.address)
        return resolve_precision(how.precision, resolve_device(how.device), stored)

    def _open(self, extraction: Extraction) -> DenseExtractor:

        layers = [resolve_layer(extraction.net, name) for name in extraction.layers]
        # Before weights of half a gigabyte are read.
        check_pools(extraction.pools, layers, extraction.locations)
        with download_progress(quiet=self.quiet) as progress:
            weights = load(
                extraction.weights,
                extraction.net,
                layers,
                pixels=extraction.pixels,
                progress=progress,
            )
        ours, device = extraction, self.execution.device
        if self.execution.engine == "ray":  # this machine may lack what the cluster has
            ours, device = extraction.but(precision="fp32"), "cpu"
        extractor = DenseExtractor(
            ours, weights=weights, device=device, deterministic=self.execution.deterministic
        )
        # By what the cluster computes in, folders and columns are named.
        extractor.extraction = extractor.extraction.but(precision=extraction.precision)
        self._tell(extractor, extraction.layers)
        return extractor

    def _tell(self, extractor: DenseExtractor, layers: Sequence[str]) -> None:
        extraction, local = extractor.extraction, self.execution.engine == "local"
        for asked, resolved in zip(layers, extraction.layers, strict=False):
            if asked != resolved:
                note(f"Layer {asked} is {resolved} of net {extraction.net}.", quiet=self.quiet)
        note(name_network(extractor, "" if local else "on Ray"), quiet=self.quiet)
        advice = advise_runtime(extractor) if local else ""
        if advice and advice not in self.advised:
            self.advised.add(advice)
            note(advice, quiet=self.quiet)
