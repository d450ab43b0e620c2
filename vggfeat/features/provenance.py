"""What stood behind a run: versions, machine and weights, kept with its result."""

from __future__ import annotations

import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from vggfeat.features.extractor import DenseExtractor

PACKAGES = ("vggfeat", "torch", "torchvision", "numpy", "pillow", "h5py", "scikit-learn")
ENGINES = {"openvino": ("openvino",)}
"""Packages of runtimes that are not torch's."""


def provenance(extractor: DenseExtractor) -> dict[str, Any]:
    """Describe where an extractor's descriptors come from.

    Returns
    -------
    dict
        Plain JSON types; of it the weights' digest and the precision alone are settings of columns.

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


def versions(extractor: DenseExtractor | None = None) -> dict[str, str]:
    """Versions of Python and of the packages that make a result, with those of a network's engine.

    Examples
    --------
    >>> "torch" in versions()
    True
    """
    found = {"python": platform.python_version()}
    engine = extractor.runtime if extractor else ""
    for package in (*PACKAGES, *ENGINES.get(engine, ())):
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # run from sources that are not installed
            found[package] = "unknown"
    return found
