"""kill -9 at hundreds of random moments, of one process and of several at once: nothing is lost.

After each kill what lies under a final name is whole, and what was there is sound; a run that is
begun again then completes, and ends as one that was never killed.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from campaigns import Campaign, times
from helpers.colours import two_classes
from helpers.extraction import SCALES, SeveralSums, content, draw_small, extract_sums, rows
from helpers.killing import course, ended, forked, import_for_training, kill
from helpers.networks import formula_weights
from helpers.rows import evaluate_splits
from helpers.seams import checkpoint_every, merged_shard_bytes, shard_rows

from vggfeat.data.imageset import find_images
from vggfeat.features.extractor import DenseExtractor
from vggfeat.features.pipeline import extract
from vggfeat.recipes.networks import BEST
from vggfeat.report.page import write_page
from vggfeat.report.tables import write_files
from vggfeat.result import Result
from vggfeat.settings import Training
from vggfeat.store.export import pack
from vggfeat.store.maintenance import verify
from vggfeat.store.merge import merge
from vggfeat.store.store import FeatureStore
from vggfeat.svm import model as models
from vggfeat.train.checkpoint import LAST, read
from vggfeat.train.data import open_trainset
from vggfeat.train.loop import METRICS, Engine, train

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
SHORT = 2  # kills where no more are asked for
SHARE = 0.4  # of the number asked for, of each campaign but the first
LEFT = "left over from a killed run"

Check = Callable[[Path], object]
Begin = Callable[[Path], object]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Threads of torch would not survive a fork."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def campaign(
    name: str,
    folder: Path,
    works: list[Begin],
    whole: Check,
    result: Callable[[Path], Any],
    kills: int,
    prepare: Check = lambda out: None,
    *,
    again: float = 0.3,
) -> None:
    """Kill works over and over; check what is there after each, and what a last run ends with.

    Parameters
    ----------
    works : list of callable
        Begun at once, in processes of their own, on one folder.
    whole : callable
        Raises if anything under a final name in the folder is not whole.
    result : callable
        What must be the same as without a kill.
    again : float
        How probable it is that a run that was killed is killed again.
    """
    rng = random.Random(name)
    prepare(folder / "uninterrupted")
    pace = course(partial(works[0], folder / "uninterrupted"))
    expected = result(folder / "uninterrupted")
    out = folder / "killed"
    with Campaign(name) as counted:
        while counted.tried < kills:
            with counted.trial(f"{name}, after {counted.tried} kills", faults=0) as trial:
                prepare(out)
                while not trial.faults or (trial.faults < kills and rng.random() < again):
                    trial.faults += kill([partial(work, out) for work in works], pace, rng)
                    whole(out)
                works[0](out)
                whole(out)
                assert result(out) == expected, "another result than without a kill"
                assert not list(out.rglob(".tmp-*")), "temporary files are left"
            shutil.rmtree(out, ignore_errors=True)


def sound(store: Path) -> None:
    """Check a store that was perhaps killed before it was begun."""
    if not (store / "manifest.json").exists():
        assert not list(store.glob("shards/*.h5")), "shards before the manifest"
        return
    problems = [problem for problem in verify(store) if LEFT not in problem]
    assert not problems, problems


def sound_and_right(work: Begin, folder: Path) -> Check:
    """Return what also compares every row with that of an uninterrupted run."""
    work(folder)
    expected = rows(folder)

    def check(store: Path) -> None:
        sound(store)
        if (store / "manifest.json").exists():
            wrong = rows(store).items() - expected.items()
            assert not wrong, f"{len(wrong)} rows are not those of an uninterrupted run"

    return check


@pytest.fixture
def images(tmp_path: Path) -> Iterator[Path]:
    """Small images, of which a shard holds four."""
    with shard_rows(4):
        yield draw_small(tmp_path / "images")


def grow(images: Path, out: Path, **more: Any) -> None:
    """Extract pool5 at one scale, then two layers and two poolings at two scales."""
    extract_sums(images, out, SeveralSums(["pool5"]), SCALES[:1], **more)
    extract_sums(images, out, SeveralSums(["pool4", "pool5"], "average+max"), **more)


@pytest.mark.parametrize("writers", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_kills_of_extraction(images: Path, tmp_path: Path, writers: int) -> None:
    """A run that is killed, alone or with two others of one list, goes on as if it never was."""
    name = f"kills of extraction, {writers} at once"
    works: list[Begin] = [partial(extract_sums, images)] * writers
    right = sound_and_right(works[0], tmp_path / "right")
    campaign(name, tmp_path, works, right, content, times(SHORT, 1 if writers == 1 else SHARE))


@pytest.mark.parametrize("writers", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_kills_of_a_store_that_grows(images: Path, tmp_path: Path, writers: int) -> None:
    """Killed again and again while columns are added to it, a store loses and mixes up nothing."""
    name = f"kills of a store that grows, {writers} at once"
    for path in sorted(images.glob("0*"))[16:]:
        path.unlink()
    works: list[Begin] = [partial(grow, images)] * writers
    right = sound_and_right(works[0], tmp_path / "right")
    kills = times(SHORT, SHARE)
    campaign(name, tmp_path, works, right, content, kills, again=0.95)


def test_kills_of_a_network_that_runs(tmp_path: Path, tiny: str) -> None:
    """With a real network too: the same bits, as the same batches are made, and no row twice."""
    images, weights = draw_small(tmp_path / "images", good=16), formula_weights(tiny)
    how: Any = {"weights": weights, "precision": "fp32", "device": "cpu", "runtime": "torch"}
    few = DenseExtractor(tiny, "pool5", **how)
    all_ = DenseExtractor(tiny, ("pool4", "pool5"), pool="average+max", **how)

    def work(out: Path) -> None:
        found, store = find_images([str(images)]), FeatureStore(out, "a")
        half = found.take(range(0, len(found), 2))  # so that not all lack the same
        extract(half, few, [32], store, workers=2)
        extract(found, all_, [32, 40], store, workers=2)

    def whole(out: Path) -> None:
        right(out)
        if (out / "manifest.json").exists():
            store = FeatureStore(out)
            kept = sum(len(header.names) * len(header.columns) for header in store.index.headers)
            assert kept == len(rows(out)), "a row was computed twice"

    with shard_rows(8):
        right = sound_and_right(work, tmp_path / "right")
        kills = times(SHORT, SHARE / 2)
        campaign("kills of a network", tmp_path, [work], whole, content, kills, again=0.9)


def test_kills_with_images_replaced_by_older_ones(images: Path, tmp_path: Path) -> None:
    """Replaced while a run was unfinished, an image is never read with its old descriptor again."""
    rng = random.Random(0)
    extract_sums(images, tmp_path / "old")
    old = rows(tmp_path / "old")
    changed = [f"images/{number:04}.png" for number in range(0, 39, 3)]
    assert {name for _, name in old} > set(changed)

    def prepare(out: Path) -> None:
        shutil.copytree(images, out / "images")
        killed = partial(extract_sums, out / "images", out / "store")
        ended(forked(killed, at=rng.randint(1, 200)))
        for number in range(0, 39, 3):
            replaced = out / "images" / f"{number:04}.png"
            shutil.copyfile(images / f"{number + 1:04}.png", replaced)
            os.utime(replaced, (10**9, 10**9))

    def whole(out: Path) -> None:
        sound(out / "store")
        if (out / "store" / "manifest.json").exists():
            found = {key: row for key, row in rows(out / "store").items() if key[1] in changed}
            is_old = [row == old[key] for key, row in found.items()]
            known = not all(is_old) or list((out / "store").glob("stamps-*.npz"))
            assert not (known and any(is_old)), f"{sum(is_old)} old descriptors"

    def work(out: Path) -> None:
        extract_sums(out / "images", out / "store")

    def result(out: Path) -> Any:
        return content(out / "store")

    name = "kills with images replaced by older ones"
    campaign(name, tmp_path, [work], whole, result, times(SHORT, SHARE), prepare)


@pytest.mark.parametrize("writers", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_kills_of_merging(images: Path, tmp_path: Path, writers: int) -> None:
    """A merge that is killed goes on; its parts, of other images and columns, stay as they are."""
    parts = [tmp_path / "one", tmp_path / "two"]
    other = draw_small(
        tmp_path / "other" / "images", good=64
    )  # the first forty are those of images
    extract_sums(images, parts[0], SeveralSums(["pool5"]), SCALES[:1])
    extract_sums(other, parts[1], SeveralSums(["pool4", "pool5"], "average+max"))
    before = [content(part) for part in parts]

    def join(out: Path) -> None:
        merge(parts, out)

    name = f"kills of merging, {writers} at once"
    with merged_shard_bytes(6000):
        right = sound_and_right(join, tmp_path / "right")
        campaign(name, tmp_path, [join] * writers, right, content, times(SHORT, SHARE))
    assert [content(part) for part in parts] == before


@pytest.mark.parametrize("writers", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_kills_of_packing(images: Path, tmp_path: Path, writers: int) -> None:
    """A packed file is there whole, or not at all; packed again it is the same."""
    store = tmp_path / "store"
    extract_sums(images, store, SeveralSums(["pool5"]), SCALES[:1])
    half = find_images([str(images)]).take(range(20))
    all_ = SeveralSums(["pool4", "pool5"], "average+max")
    extract(half, all_, SCALES, FeatureStore(store, "a"))  # type: ignore[arg-type]  # it stands in
    expected = rows(store)

    def to_file(out: Path) -> None:
        out.mkdir(exist_ok=True)
        pack(store, out / "packed.h5")

    def whole(out: Path) -> None:
        if (out / "packed.h5").exists():
            assert verify(out / "packed.h5") == []
            assert rows(out / "packed.h5") == expected

    name = f"kills of packing, {writers} at once"
    campaign(
        name,
        tmp_path,
        [to_file] * writers,
        whole,
        lambda out: content(out / "packed.h5"),
        times(SHORT, SHARE),
    )


def only(versions: dict[str, set[bytes]]) -> Check:
    """Check that each file in a folder is one of those that were to be written, to the last bit."""

    def whole(out: Path) -> None:
        for path in out.iterdir() if out.exists() else ():
            if not path.name.startswith(".tmp-"):
                assert path.read_bytes() in versions[path.name], f"{path.name} is half-written"

    return whole


def read_all(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.iterdir()}


def replaced(out: Path, work: Begin, old: dict[str, bytes]) -> tuple[Check, Check]:
    """Return what puts files that are to be replaced into a folder, and what checks all."""
    work(out)
    new = read_all(out)

    def prepare(folder: Path) -> None:
        folder.mkdir()
        for name, held in old.items():
            (folder / name).write_bytes(held)

    return prepare, only({name: {new[name], *filter(None, [old.get(name)])} for name in new})


@pytest.mark.parametrize("writers", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_kills_of_saving_a_model(tmp_path: Path, writers: int) -> None:
    """A model that replaces another is there whole, the one or the other, and can be loaded."""
    one, other = a_model(0), a_model(1)
    models.save(tmp_path / "old" / "model", other)
    work = partial(_saved, one)
    prepare, same = replaced(tmp_path / "new", work, read_all(tmp_path / "old"))

    def whole(out: Path) -> None:
        same(out)
        models.load(out / "model")

    name = f"kills of saving a model, {writers} at once"
    campaign(name, tmp_path, [work] * writers, whole, read_all, times(SHORT, SHARE), prepare)


def a_model(seed: int) -> models.SavedModel:
    """Make a model of random numbers."""
    rng = np.random.default_rng(seed)
    coef, intercept = rng.normal(size=(20, 64)), rng.normal(size=20)
    classes = tuple("abcdefghijklmnopqrst")
    return models.SavedModel(coef, intercept, classes, (1.0,), (), (), {})


def _saved(model: models.SavedModel, out: Path) -> None:
    models.save(out / "model", model)


def recalls(seed: int) -> Result:
    """Evaluate an SVM on random descriptors."""
    rng = np.random.default_rng(seed)
    labels = np.arange(40) % 4
    return evaluate_splits(rng.random((40, 8)), labels, ["cat", "dog", "owl", "yak"]).result


@pytest.mark.parametrize("writers", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_kills_of_writing_a_report(tmp_path: Path, writers: int) -> None:
    """Page and tables that replace others are each there whole, the old one or the new one."""
    one, other = recalls(0), recalls(1)
    _report(other, tmp_path / "old")
    work = partial(_report, one)
    prepare, whole = replaced(tmp_path / "new", work, read_all(tmp_path / "old"))
    name = f"kills of writing a report, {writers} at once"
    campaign(name, tmp_path, [work] * writers, whole, read_all, times(SHORT, SHARE), prepare)


def _report(result: Result, out: Path) -> None:
    write_files(result, out)
    write_page(result, out / "page.html")


@pytest.fixture
def classes(tmp_path: Path, small_nets: None) -> Iterator[Path]:
    """Images of two classes, and a net A of few channels."""
    with checkpoint_every(1):
        yield two_classes(tmp_path / "classes", each=6)


SETTINGS = Training(net="A", S=224, batch=4, learning_rate=1e-4, epochs=2, seed=3)
OFTEN = Engine(device="cpu", workers=0, minutes=0.0)  # a checkpoint with every update


def test_kills_of_training(classes: Path, tmp_path: Path) -> None:
    """Training that is killed between any two bytes goes on to the very same weights."""
    import_for_training()
    data = open_trainset(classes, seed=3)

    def work(out: Path) -> None:
        train(SETTINGS, data, out, engine=OFTEN, resume=True)

    campaign("kills of training", tmp_path, [work], trained, ended_with, times(SHORT // 2, SHARE))


def trained(out: Path) -> None:
    """Check that all of a training run's files are whole."""
    if (out / LAST).exists():
        position, _ = read(out / LAST)
        assert position.epoch == 0 or (out / BEST).exists()
    if (out / METRICS).exists():
        lines = (out / METRICS).read_bytes().split(b"\n")
        assert lines[-1] == b""
        assert len({line.count(b",") for line in lines[:-1]}) <= 1


def ended_with(out: Path) -> dict[str, Any]:
    """Return weights, velocities and figures of a run, less what a clock says."""
    from safetensors.torch import load_file

    arrays = {
        f"{name} {key}": tensor.numpy().tobytes()
        for name in (LAST, BEST)
        for key, tensor in load_file(out / name).items()
    }
    clocks = ("images_per_s", "waited")
    told = [
        {name: value for name, value in row.items() if name not in clocks}
        for row in read(out / LAST)[0].history
    ]
    return {"history": told, "classes": (out / "classes.txt").read_bytes(), **arrays}
