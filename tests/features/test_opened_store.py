"""A store that was opened for reading reads; whatever would change it is refused in a sentence."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.mistakes import refuses
from PIL import Image
from storing import NAMES, ONE, PART, filled
from support import noise

from vggfeat.data.imagesets import find_pictures
from vggfeat.errors import StoreError
from vggfeat.features.export import pack
from vggfeat.features.extract import extract
from vggfeat.features.extractor import DenseExtractor
from vggfeat.features.store import FeatureStore

READING: dict[str, Callable[[Any], object]] = {
    "open": lambda store: type(store).open,
    "open_all": lambda store: type(store).open_all,
    "check_deterministic": lambda store: store.check_deterministic(),
    "check_digests": lambda store: store.check_digests(),
    "read": lambda store: store.read([256], NAMES[:2], verify=True),
    "read_rows": lambda store: store.read_rows([256], np.arange(2)),
    "blocks": lambda store: list(store.blocks()),
    "gather": lambda store: store.gather(["/D/Q256"], np.arange(2)),
    "view_names": lambda store: store.view_names(),
    "scales": lambda store: store.scales,
    "dimensions": lambda store: store.dimensions,
    "nbytes": lambda store: store.nbytes,
    "rows": lambda store: store.rows([256], NAMES[:2]),
    "missing": lambda store: store.missing([256]),
    "others": lambda store: store.others,
}
WRITING: dict[str, Callable[[Any], object]] = {
    "check_writable": lambda store: store.check_writable(),
    "write": lambda store: store.write([0], {PART: np.ones((1, 5))}),
    "promise": lambda store: store.promise(deterministic=True),
    "fail": lambda store: store.fail(0, "torn"),
    "finish": lambda store: store.finish(),
    "meet_others": lambda store: store.meet_others(),
}


@pytest.fixture(params=["folder", "packed", "all"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> FeatureStore:
    """Open a store in each of the ways there are."""
    filled(tmp_path / "f", provenance={"deterministic": True})
    if request.param == "packed":
        pack(tmp_path / "f", tmp_path / "one.h5")
        return FeatureStore.open(tmp_path / "one.h5")
    if request.param == "all":
        return FeatureStore.open_all(tmp_path / "f")["D"]
    return FeatureStore.open(tmp_path / "f")


def test_every_public_name_is_tried() -> None:
    """The two lists have all that a store offers: who adds a method says here which kind it is."""
    public = {name for name, _ in inspect.getmembers(FeatureStore) if not name.startswith("_")}
    assert public == READING.keys() | WRITING.keys()


@pytest.mark.parametrize("name", READING)
def test_reading_works(opened: FeatureStore, name: str) -> None:
    """What only reads does so."""
    READING[name](opened)


@pytest.mark.parametrize("name", WRITING)
def test_writing_is_refused(opened: FeatureStore, name: str) -> None:
    """What would write says that the store can only be read, and how to open it otherwise."""
    refuses(lambda: WRITING[name](opened), StoreError, ["only be read", "FeatureStore(path, "])
    assert opened.failed == {}


def test_writing_works_where_it_was_opened_for_it(tmp_path: Path) -> None:
    """The same calls are no error of a store that was opened for writing."""
    for name, call in (*READING.items(), *WRITING.items()):
        store = filled(tmp_path / name, provenance={"deterministic": True}, extraction=ONE)
        call(store)


def test_extraction_into_an_opened_store_is_refused(tmp_path: Path) -> None:
    """Also where settings and pictures are the very same, and where they are not."""
    (tmp_path / "p").mkdir()
    Image.fromarray(noise(40, 40, 1)).save(tmp_path / "p" / "1.png")
    images = find_pictures([str(tmp_path / "p")])
    extractor = DenseExtractor("D", "conv1_1", weights="embedded", precision="fp32")
    store = FeatureStore(tmp_path / "f", extractor.extraction, images.names, stats=images.stats())
    assert extract(images, extractor, [32], store).computed == 1
    again = FeatureStore.open(tmp_path / "f")
    for some in (images, images.take([])):
        refuses(
            lambda: extract(some, extractor, [32], again),  # noqa: B023
            StoreError,
            ["only be read", "FeatureStore(path, "],
        )
