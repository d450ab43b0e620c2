"""A network on another machine: what it takes to open it there, and what is there."""

from __future__ import annotations

import socket
from dataclasses import dataclass, replace
from typing import Any

import torch

from vggfeat.errors import DeviceError
from vggfeat.features.dense import DenseExtractor
from vggfeat.features.device import describe_device, resolve_device, resolve_precision
from vggfeat.features.extraction import Extraction
from vggfeat.features.runtime import resolve_runtime
from vggfeat.nets.weights import Weights


@dataclass(frozen=True)
class Network:
    """How a worker opens the network that the driver has.

    Parameters
    ----------
    extraction : Extraction
        The settings that its descriptors must have.
    weights : Weights
        All but their numbers.
    numbers : ObjectRef
        Arrays by name, which lie in the object store once.
    device : str
        ``"cuda"``, or ``"cpu"``.
    threads : int
        Threads of torch on a CPU.
    pixel_budget : int or None
        That of the driver, where it computes on a device of the same kind.
    deterministic : bool
        Whether each picture goes through the network on its own.
    """

    extraction: Extraction
    weights: Weights
    numbers: Any
    device: str
    threads: int
    pixel_budget: int | None
    deterministic: bool

    def opened(self) -> DenseExtractor:
        """Open it.

        Raises
        ------
        DeviceError
            If this node's descriptors would have other settings, or it lacks the device.
        """
        import ray

        if self.device == "cpu":
            torch.set_num_threads(self.threads)
        arrays = ray.get(self.numbers)  # shared and read-only: torch wants its own
        state = {name: torch.tensor(array) for name, array in arrays.items()}
        made = self.extraction
        extractor = DenseExtractor(
            self.weights.net,
            made.layers,
            weights=replace(self.weights, state=state),
            flip=made.flip,
            pool=made.pool,
            locations=made.locations,
            exif=made.exif,
            device=self.device,
            precision=made.precision,
            deterministic=self.deterministic,
        )
        # An entry of scores has a name of its own: that of net and pooling.
        if replace(extractor.extraction, net=made.net) != made:
            raise DeviceError(
                f"The node {socket.gethostname()} would describe with other settings: "
                f"{extractor.extraction} instead of {made}. Install the same vggfeat on all nodes."
            )
        extractor.extraction = made
        extractor.pixel_budget = self.pixel_budget or extractor.pixel_budget
        return extractor


@dataclass(frozen=True)
class Probe:
    """What a node of the cluster computes with."""

    precision: str
    device: str
    runtime: str


def probe(device: str, precision: str) -> Probe:
    """Find out on a node what it computes with."""
    on = resolve_device(device)
    made = resolve_precision(precision, on)
    return Probe(made, describe_device(on), resolve_runtime("auto", on, made))
