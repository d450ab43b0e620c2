"""The feature store: a table of columns that grows, and loses nothing."""

from __future__ import annotations

import functools
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from helpers.mistakes import refuses
from hypothesis import given, settings
from hypothesis import strategies as st
from storing import (
    FC7,
    LARGE,
    NAMES,
    POOL5,
    check,
    column,
    fill,
    ids_of,
    make_store,
    stamps_of,
    vectors,
    write,
)

from vggfeat.errors import ParameterError, StoreDamaged, StoreError
from vggfeat.store.column import Descriptor
from vggfeat.store.store import FeatureStore


@pytest.fixture(params=[True, False], ids=["disk", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    """Name a folder, or none for a store in memory."""
    return tmp_path / "features" if request.param else None


def test_round_trip(folder: Path | None) -> None:
    """What is written in any order is read in any order."""
    store = FeatureStore(folder, "a")
    assert fill(store, [FC7, LARGE], order=lambda names: names[::-1]) == 12
    check(store, [FC7, LARGE], NAMES[::-1])
    assert store.names == NAMES
    assert store.complete() == NAMES


def test_float16(folder: Path | None) -> None:
    """Half precision is what numpy rounds to; too large a number is an error, not infinity."""
    store = make_store(folder, dtype="float16")
    check(store, [FC7], NAMES)
    huge = np.full((1, 5), 1e6)
    refuses(
        lambda: store.write(
            ["a.jpg"], ids_of(["a.jpg"]), stamps_of(["a.jpg"]), {FC7.descriptor: huge}
        ),
        StoreError,
        ["a.jpg", "float16", "float32"],
    )


@settings(max_examples=30)
@given(
    order=st.permutations(NAMES),
    asked=st.lists(st.sampled_from(NAMES), min_size=1),
    size=st.integers(1, 12),
)
def test_any_selection_from_any_shards(order: list[str], asked: list[str], size: int) -> None:
    """Whatever the shards, any selection of names in any order gives their own rows."""
    store = FeatureStore(None, "a")
    fill(store, [FC7], order=lambda _: order, size=size)
    check(store, [FC7], asked)


def test_blocks(folder: Path | None) -> None:
    """Blocks have the asked size but the last, and together are what read gives."""
    store = make_store(folder)
    blocks = list(store.blocks([FC7.descriptor], rows=5))
    assert [len(names) for names, _ in blocks] == [5, 5, 2]
    together = np.concatenate([values[FC7.descriptor] for _, values in blocks])
    np.testing.assert_array_equal(together, vectors(NAMES, FC7.descriptor))


def test_names_of_any_bytes(tmp_path: Path) -> None:
    """A file name that is no UTF-8 comes back as Python's own file functions would name it."""
    names = ["a.jpg", "caf\udce9.jpg", "é.jpg", "日本.jpg"]
    make_store(tmp_path / "s", names=names)
    assert FeatureStore(tmp_path / "s").names == names
    check(FeatureStore(tmp_path / "s"), [FC7], names)


@pytest.mark.parametrize("names", [["a", "a"], ["a\0b"], ["\ud800"]])
def test_names_that_cannot_be_kept(names: list[str]) -> None:
    """Names that come twice or that no file can have are refused."""
    store = FeatureStore(None, "a")
    store.add_columns([FC7])
    values = {FC7.descriptor: np.zeros((len(names), 5))}
    pairs = np.zeros((len(names), 2), np.int64)
    with pytest.raises(ParameterError):
        store.write(names, pairs, pairs, values)


@pytest.mark.parametrize(
    ("descriptor", "values", "mentions"),
    [
        (LARGE.descriptor, np.zeros((2, 5)), "Q=384"),
        (FC7.descriptor, np.zeros((3, 5)), "(3, 5)"),
        (FC7.descriptor, np.zeros((2, 4)), "(2, 4)"),
        (FC7.descriptor, np.array([[0.0] * 5, [np.nan] * 5]), "b.jpg"),
    ],
)
def test_writes_that_do_not_fit(descriptor: Descriptor, values: np.ndarray, mentions: str) -> None:
    """Unknown columns, wrong shapes and numbers that are none are refused; nothing is kept."""
    store = FeatureStore(None, "a")
    store.add_columns([FC7])
    names = ["a.jpg", "b.jpg"]
    refuses(
        lambda: store.write(names, ids_of(names), stamps_of(names), {descriptor: values}),
        (ParameterError, StoreError),
        [mentions],
    )
    assert store.names == []


def test_a_second_run_has_nothing_to_do(tmp_path: Path) -> None:
    """What is there is never written again."""
    make_store(tmp_path / "s")
    before = sorted((tmp_path / "s" / "shards").iterdir())
    assert fill(FeatureStore(tmp_path / "s", "a")) == 0
    assert sorted((tmp_path / "s" / "shards").iterdir()) == before


def test_columns_and_images_are_added(tmp_path: Path) -> None:
    """Layers, poolings, scales, nets and images come in any order; each run adds what lacks."""
    other, largest = column("fc7", net="E"), column("pool5", "max", 512)
    make_store(tmp_path / "s", [POOL5], NAMES[:8])
    make_store(tmp_path / "s", [POOL5, largest], NAMES[4:])
    store = make_store(tmp_path / "s", [other], NAMES[:2])
    assert store.names == [*NAMES[:2], *NAMES[2:]]
    held = store.has([POOL5.descriptor, largest.descriptor, other.descriptor], NAMES)
    expected = [[True] * 12, [False] * 4 + [True] * 8, [True] * 2 + [False] * 10]
    np.testing.assert_array_equal(held.T, expected)
    check(FeatureStore(tmp_path / "s"), [POOL5], NAMES)
    check(FeatureStore(tmp_path / "s"), [largest], NAMES[4:])
    assert FeatureStore(tmp_path / "s").complete([POOL5.descriptor, other.descriptor]) == NAMES[:2]


def test_what_lacks_is_said_or_nan(tmp_path: Path) -> None:
    """An image that a column lacks is an error that says why, or NaN where that is asked for."""
    store = make_store(tmp_path / "s", names=NAMES[:3], failed={"02.jpg": "it is empty"})
    refuses(
        lambda: store.read(names=["00.jpg", "02.jpg"]),
        StoreError,
        ["02.jpg", "it is empty", "1 of 2"],
    )
    refuses(lambda: store.read(names=["11.jpg"]), StoreError, ["11.jpg", "not yet computed"])
    values = store.read(names=["02.jpg", "00.jpg"], missing="nan")[FC7.descriptor]
    assert np.isnan(values[0]).all()
    np.testing.assert_array_equal(values[1:], vectors(["00.jpg"], FC7.descriptor))
    refuses(
        lambda: store.read([LARGE.descriptor]),
        StoreError,
        ["/D/fc7/average/Q384", "/D/fc7/average/Q256"],
    )


def test_reading_everything_leaves_no_image_out_unsaid(tmp_path: Path) -> None:
    """By default rows are those of `names`; what lacks is an error or NaN, never a shift."""
    make_store(tmp_path / "s", [POOL5])
    store = make_store(tmp_path / "s", [FC7], NAMES[3:])
    refuses(store.read, StoreError, [NAMES[0], "/D/fc7/average/Q256", "complete", "3 of 12"])
    values = store.read(missing="nan")
    assert np.isnan(values[FC7.descriptor][store.names.index(NAMES[0])]).all()
    np.testing.assert_array_equal(values[POOL5.descriptor], vectors(store.names, POOL5.descriptor))
    by_path = store.read([POOL5.descriptor.path])[POOL5.descriptor]
    np.testing.assert_array_equal(by_path, values[POOL5.descriptor])
    assert sum(len(names) for names, _ in store.blocks(missing="nan", rows=5)) == 12
    refuses(lambda: store.read(POOL5.descriptor.path), ParameterError, ["columns"])
    refuses(lambda: store.read(["pool5"]), ParameterError, ["pool5", "/D/pool5/average/Q256"])


def test_two_runs_lose_nothing(tmp_path: Path) -> None:
    """Runs with other images and other columns, side by side, are both there in the end."""
    one, two = FeatureStore(tmp_path / "s", "a"), FeatureStore(tmp_path / "s", "a")
    fill(one, [FC7], NAMES[:8])
    fill(two, [POOL5, LARGE], NAMES[4:])
    assert two.refresh()
    assert not two.refresh()
    two.finish(NAMES[4:], {})
    one.finish(NAMES[:8], {})
    reader = FeatureStore(tmp_path / "s")
    assert reader.names == NAMES
    check(reader, [FC7], NAMES[:8])
    check(reader, [POOL5, LARGE], NAMES[4:])


def test_provenance_is_that_of_the_writer(tmp_path: Path) -> None:
    """A run that computes nothing does not claim what others computed."""
    make_store(tmp_path / "s", provenance={"device": "first"})
    make_store(tmp_path / "s", provenance={"device": "second"})
    store = FeatureStore(tmp_path / "s")
    assert store.provenance("D") == {"device": "first"}
    assert [run["provenance"] for run in store.runs] == [{"device": "second"}]


def test_a_lost_manifest(tmp_path: Path) -> None:
    """The shards say enough to go on without manifest.json."""
    make_store(tmp_path / "s", dtype="float16")
    (tmp_path / "s" / "manifest.json").unlink()
    assert FeatureStore(tmp_path / "s").dtype == "float16"
    assert fill(FeatureStore(tmp_path / "s", "a", dtype="float16")) == 0


@pytest.mark.parametrize(
    ("text", "kind", "mentions"),
    [
        ("{", StoreDamaged, "store repair"),
        ("[1]", StoreError, "something else"),
        ('{"format": "vggfeat features", "version": 1}', StoreError, "an early vggfeat"),
        ('{"format": "vggfeat features", "version": 3}', StoreError, "a newer vggfeat"),
        ('{"format": "vggfeat features", "version": 2}', StoreDamaged, "dtype"),
    ],
)
@pytest.mark.parametrize("mode", ["r", "a"])
def test_manifests_that_are_none(
    tmp_path: Path, text: str, kind: type[Exception], mentions: str, mode: str
) -> None:
    """A manifest that is broken, of another program or another version is not written over."""
    make_store(tmp_path / "s")
    (tmp_path / "s" / "manifest.json").write_text(text)
    refuses(lambda: FeatureStore(tmp_path / "s", mode), kind, [mentions])
    assert (tmp_path / "s" / "manifest.json").read_text() == text


def test_what_is_no_store(tmp_path: Path) -> None:
    """An empty folder is none to read; a folder of other things is none to write."""
    refuses(lambda: FeatureStore(tmp_path), StoreError, ["manifest.json", "vggfeat extract"])
    refuses(lambda: FeatureStore(tmp_path / "absent"), StoreError, ["absent", "spelling"])
    (tmp_path / "thesis.tex").write_text("")
    refuses(lambda: FeatureStore(tmp_path, "a"), StoreError, ["not empty"])
    (tmp_path / "images" / "cat").mkdir(parents=True)
    refuses(lambda: FeatureStore(tmp_path / "images", "a"), StoreError, ["not empty"])
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError):
        FeatureStore(tmp_path / "file", "a")
    refuses(lambda: FeatureStore(tmp_path, "w"), ParameterError, ["mode"])


def test_a_store_for_reading_is_not_written(tmp_path: Path) -> None:
    """Every method that writes says how to open the store for writing, and nothing changes."""
    make_store(tmp_path / "s")
    store = FeatureStore(tmp_path / "s")
    calls = {
        "add_columns": ([FC7],),
        "begin": (1,),
        "write": (["a"], [[1, 2]], [[1, 2]], {FC7.descriptor: np.zeros((1, 5))}),
        "note": (["a"], [[1, 2]], [[1, 2]]),
        "finish": ([], {}),
    }
    for name, arguments in calls.items():
        call = functools.partial(getattr(store, name), *arguments)
        refuses(call, StoreError, ['mode="a"'])
    assert FeatureStore(tmp_path / "s" / "features.h5").names == NAMES  # its view names it too


def test_the_folder_is_gone(tmp_path: Path) -> None:
    """A store whose folder was deleted meanwhile is not begun anew with a part of its rows."""
    store = make_store(tmp_path / "s")
    shutil.rmtree(tmp_path / "s")
    refuses(lambda: write(store, ["new.jpg"]), StoreError, ["again"])
    assert not (tmp_path / "s").exists()


def test_a_million_rows_open_within_a_second() -> None:
    """Ids, stamps, names and their order of a million images, from index.npz and the view."""
    from vggfeat.store.index import Index, Stamps
    from vggfeat.store.shard import ShardHeader

    names = [b"photos/%07d.jpg" % number for number in range(1_000_000)]
    rows = 4000
    headers = [
        ShardHeader(
            f"shards/{start}.h5",
            names[start : start + rows],
            np.arange(2 * start, 2 * (start + rows)).reshape(-1, 2),
            np.arange(2 * start, 2 * (start + rows)).reshape(-1, 2),
            {FC7.descriptor: FC7},
            "float32",
            1,
        )
        for start in range(0, len(names), rows)
    ]
    seconds = []
    for _ in range(3):
        start = time.process_time()
        index = Index(headers, {FC7.descriptor: FC7}, Stamps.join([]), names)
        seconds.append(time.process_time() - start)
    assert len(index.counted) == 1_000_000
    assert min(seconds) < 1


def test_a_store_is_shown_in_a_line(tmp_path: Path) -> None:
    """A notebook shows where it is, how many images it has, and some of its columns."""
    assert "0 images, no columns" in repr(FeatureStore(tmp_path / "s", "a"))
    make_store(tmp_path / "t", names=[f"{number}\n.jpg" for number in range(3)])
    shown = repr(FeatureStore(tmp_path / "t"))
    for part in (str(tmp_path / "t"), "3 images", FC7.descriptor.path):
        assert part in shown
    assert "\n" not in shown
