"""Which columns a store takes in: what it lacks, and what has its settings and its type."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from helpers.mistakes import refuses
from storing import (
    FC7,
    NAMES,
    POOL5,
    check,
    column,
    fill,
    make_store,
    write,
)

from vggfeat.errors import FingerprintMismatch, StoreError
from vggfeat.store.store import FeatureStore


def test_another_dtype_is_refused(tmp_path: Path) -> None:
    """Numbers of two precisions are not mixed in one store; an empty store takes either."""
    FeatureStore(tmp_path / "empty", "a", dtype="float16")
    assert FeatureStore(tmp_path / "empty", "a").dtype == "float32"
    make_store(tmp_path / "full")
    refuses(
        lambda: FeatureStore(tmp_path / "full", "a", dtype="float16"),
        StoreError,
        ["float32", "float16"],
    )


def test_scales_of_a_layer_have_the_same_settings(tmp_path: Path) -> None:
    """They are averaged: one with other settings is refused, of whatever Q."""
    make_store(tmp_path / "s")
    other = column(Q=384, flip=False)
    store = FeatureStore(tmp_path / "s", "a")
    refuses(lambda: store.add_columns([other]), FingerprintMismatch, ["Q256", "flip"])
    make_store(tmp_path / "s", [column("pool4", flip=False)])


def test_other_settings_are_refused(tmp_path: Path) -> None:
    """The refusal names each differing setting with both values; the store stays as it was."""
    make_store(tmp_path / "s")
    before = {path: path.read_bytes() for path in (tmp_path / "s").rglob("*") if path.is_file()}
    refuses(
        lambda: FeatureStore(tmp_path / "s", "a").add_columns([column(flip=False)]),
        FingerprintMismatch,
        ["/D/fc7/average/Q256", "flip", "True", "False", "another path"],
    )
    after = {path: path.read_bytes() for path in (tmp_path / "s").rglob("*") if path.is_file()}
    assert before == after


def test_settings_without_a_row_bind_nobody(tmp_path: Path) -> None:
    """The column of a run that kept nothing takes the settings of the next."""
    FeatureStore(tmp_path / "s", "a").add_columns([FC7])
    make_store(tmp_path / "s", [column(flip=False)])
    [held] = FeatureStore(tmp_path / "s").columns.values()
    assert held.settings["flip"] is False


def test_new_columns_leave_the_index_as_it_is(tmp_path: Path) -> None:
    """It takes half a second at a million rows, and a new column has no rows yet."""
    make_store(tmp_path / "s", size=4)
    store = FeatureStore(tmp_path / "s", "a")
    index = store.index
    store.add_columns([FC7, POOL5])
    assert store.index is index
    assert index.columns.keys() == {FC7.descriptor, POOL5.descriptor}
    assert fill(store, [FC7, POOL5]) == len(NAMES)
    check(store, [FC7, POOL5], NAMES)
    store.add_columns([replace(FC7, outputs=tuple("vwxyz"))])
    assert store.columns[FC7.descriptor].outputs == tuple("vwxyz")


def test_another_writers_settings_are_met_before_a_shard(tmp_path: Path) -> None:
    """Two first writers of one column: the second is refused before it writes."""
    one, two = FeatureStore(tmp_path / "s", "a"), FeatureStore(tmp_path / "s", "a")
    one.add_columns([FC7])
    two.storage.remove(FC7.descriptor.file)  # as if it had looked before the first wrote
    two.add_columns([column(flip=False)])
    refuses(lambda: write(one, NAMES), FingerprintMismatch, ["flip"])
    assert write(two, NAMES) is None


def test_settings_with_rows_of_a_run_at_once_bind(tmp_path: Path) -> None:
    """What another run has written since a store was opened is not replaced by other settings."""
    one, two = FeatureStore(tmp_path / "s", "a"), FeatureStore(tmp_path / "s", "a")
    fill(one)
    refuses(lambda: two.add_columns([column(flip=False)]), FingerprintMismatch, ["flip"])
    check(FeatureStore(tmp_path / "s"), [FC7], NAMES)


def test_columns_of_others_are_their_own_affair(tmp_path: Path) -> None:
    """Settings that another run gives a column of its own, without rows so far, stop nobody."""
    FeatureStore(tmp_path / "s", "a").add_columns([POOL5])
    store = FeatureStore(tmp_path / "s", "a")
    store.add_columns([FC7])
    FeatureStore(tmp_path / "s", "a").add_columns([column("pool5", flip=False)])
    store.refresh()
    write(store, NAMES)
    check(FeatureStore(tmp_path / "s"), [FC7], NAMES)


def test_types_are_not_mixed_by_runs_that_begin_together(tmp_path: Path) -> None:
    """The run whose type was replaced before it wrote is refused; the store stays sound."""
    one = FeatureStore(tmp_path / "s", "a")
    one.add_columns([FC7])
    two = FeatureStore(tmp_path / "s", "a", dtype="float16")
    two.add_columns([FC7])
    refuses(lambda: write(one, NAMES), StoreError, ["float16", "float32", "path"])
    write(two, NAMES)
    assert {header.dtype for header in FeatureStore(tmp_path / "s").index.headers} == {"float16"}


def test_rows_of_other_settings_do_not_count(tmp_path: Path) -> None:
    """A shard copied from a store with other settings is not taken for the column."""
    make_store(tmp_path / "s", names=NAMES[:4])
    make_store(tmp_path / "t", [column(flip=False)], NAMES[4:6])
    for shard in (tmp_path / "t" / "shards").iterdir():
        shutil.copy(shard, tmp_path / "s" / "shards")
    assert FeatureStore(tmp_path / "s").names == NAMES[:4]


def test_a_lost_column_file_is_made_again(tmp_path: Path) -> None:
    """Shards say the settings too: readers and writers go on, and others are still refused."""
    make_store(tmp_path / "s")
    (tmp_path / "s" / FC7.descriptor.file).unlink()
    check(FeatureStore(tmp_path / "s"), [FC7], NAMES)
    refuses(
        lambda: FeatureStore(tmp_path / "s", "a").add_columns([column(flip=False)]),
        FingerprintMismatch,
        ["flip"],
    )
    assert (tmp_path / "s" / FC7.descriptor.file).is_file()
