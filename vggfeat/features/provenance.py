"""What stood behind a run: versions, machine and weights, kept with its result."""

from __future__ import annotations

import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from vggfeat.features.extractor import DenseExtractor

PACKAGES = ("vggfeat", "torch", "torchvision", "numpy", "pillow", "h5py", "scikit-learn")
ENGINES = ("openvino",)  # runtimes of packages of their own


def provenance(extractor: DenseExtractor) -> dict[str, Any]:
    """Describe where an extractor's descriptors come from, in plain JSON types.

    Examples
    --------
    >>> extractor = DenseExtractor("D", "conv1_1", weights="embedded")
    >>> provenance(extractor)["weights"]["source"]
    'embedded'
    """
    weights = extractor.weights
    return {
        "weights": {
            "source": weights.source,
            "origin": weights.origin,
            "licence": weights.licence,
            "sha256": weights.sha256,
        },
        "device": extractor.device_name,
        "precision": extractor.extraction.precision,
        "runtime": extractor.runtime,
        "deterministic": extractor.hardware.deterministic,
        "versions": versions(extractor),
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def name_network(extractor: DenseExtractor, where: str = "") -> str:
    """Say in a line what computes: net, layers, weights, precision and device.

    Examples
    --------
    >>> name_network(DenseExtractor("D", "pool1", weights="embedded", precision="fp32"))
    'Net D, pool1, weights embedded (...), fp32 on CPU (...)'
    """
    extraction, weights = extractor.extraction, extractor.weights
    return (
        f"Net {extraction.net}, {', '.join(extraction.layers)}, weights {weights.source} "
        f"({weights.sha256[:12]}), "
        + (where or f"{extraction.precision} on {extractor.device_name}")
    )


def versions(extractor: DenseExtractor | None = None) -> dict[str, str]:
    """Versions of Python and of the packages that make a result, a network's engine among them."""
    found = {"python": platform.python_version()}
    engines = [extractor.runtime] if extractor and extractor.runtime in ENGINES else []
    for package in (*PACKAGES, *engines):
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # run from sources that are not installed
            found[package] = "unknown"
    return found
