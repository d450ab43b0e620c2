"""Turn images into VGG features, and features into results.

The three lines that every surface of vggfeat goes through::

    store = FeatureStore(folder, mode="a")
    extract(images, extractor, scales, store)
    X = aggregate(store.read(), "average")

Names are imported when they are first used, so that ``import vggfeat`` is quick.
"""

from __future__ import annotations

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vggfeat.data.imageset import ImageSet, find_images
    from vggfeat.errors import VggfeatError
    from vggfeat.features.aggregate import aggregate
    from vggfeat.features.extractor import DenseExtractor
    from vggfeat.features.pipeline import extract
    from vggfeat.features.transformer import VGGFeatures
    from vggfeat.nets.vgg import VGG
    from vggfeat.nets.weights import Weights
    from vggfeat.nets.weights import load as load_weights
    from vggfeat.settings import Extraction, Features, Hardware
    from vggfeat.store.column import Column, Descriptor
    from vggfeat.store.store import FeatureStore
    from vggfeat.svm.linear import LinearSVM

_WHERE = {
    "Column": ("vggfeat.store.column", "Column"),
    "DenseExtractor": ("vggfeat.features.extractor", "DenseExtractor"),
    "Descriptor": ("vggfeat.store.column", "Descriptor"),
    "Extraction": ("vggfeat.settings", "Extraction"),
    "FeatureStore": ("vggfeat.store.store", "FeatureStore"),
    "Features": ("vggfeat.settings", "Features"),
    "Hardware": ("vggfeat.settings", "Hardware"),
    "ImageSet": ("vggfeat.data.imageset", "ImageSet"),
    "LinearSVM": ("vggfeat.svm.linear", "LinearSVM"),
    "VGG": ("vggfeat.nets.vgg", "VGG"),
    "VGGFeatures": ("vggfeat.features.transformer", "VGGFeatures"),
    "VggfeatError": ("vggfeat.errors", "VggfeatError"),
    "Weights": ("vggfeat.nets.weights", "Weights"),
    "aggregate": ("vggfeat.features.aggregate", "aggregate"),
    "extract": ("vggfeat.features.pipeline", "extract"),
    "find_images": ("vggfeat.data.imageset", "find_images"),
    "load_weights": ("vggfeat.nets.weights", "load"),
}

__all__ = [
    "VGG",
    "Column",
    "DenseExtractor",
    "Descriptor",
    "Extraction",
    "FeatureStore",
    "Features",
    "Hardware",
    "ImageSet",
    "LinearSVM",
    "VGGFeatures",
    "VggfeatError",
    "Weights",
    "aggregate",
    "extract",
    "find_images",
    "load_weights",
]
__version__ = "0.1.0"
logging.getLogger("vggfeat").addHandler(logging.NullHandler())  # whoever wants to hear it adds one


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'vggfeat' has no attribute {name!r}")
    module, attribute = _WHERE[name]
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
