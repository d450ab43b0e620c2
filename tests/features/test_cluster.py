"""Extraction by a Ray cluster of this machine: the same store, bit for bit."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support import noise, random_weights

from vggfeat.data.imagesets import ImageSet, find_pictures
from vggfeat.errors import DataNotFound, DeviceError, ParameterError, PictureError
from vggfeat.features import cluster as module
from vggfeat.features.check import verify
from vggfeat.features.cluster import Cluster
from vggfeat.features.extract import Summary, extract
from vggfeat.features.extractor import DenseExtractor
from vggfeat.features.network import Network
from vggfeat.features.store import FeatureStore
from vggfeat.learn import solvers
from vggfeat.learn.backends import jobs_backend
from vggfeat.learn.svm import LinearSVM

ray = pytest.importorskip("ray", reason="the extra ray is not installed")
pytest.importorskip("ray.data", reason="the extra ray is not installed")

WEIGHTS = random_weights("A", ["pool3"])


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))  # Ray writes its token there
        ray.init(num_cpus=2, log_to_driver=False, include_dashboard=False)
        yield Cluster(precision="fp32")
        ray.shutdown()


@pytest.fixture
def images(tmp_path: Path) -> ImageSet:
    (tmp_path / "pictures").mkdir()
    for i in range(40):
        picture = Image.fromarray(noise(40 + 7 * (i % 3), 40, i))
        picture.save(tmp_path / "pictures" / f"{i:02}.png")
    (tmp_path / "pictures" / "21.png").write_bytes(b"no picture")
    return find_pictures([str(tmp_path / "pictures")])


def run(
    images: ImageSet,
    folder: Path,
    cluster: Cluster | None = None,
    scales: tuple[int, ...] = (32,),
    deterministic: bool = False,
    **settings: object,
) -> tuple[FeatureStore, Summary]:
    made = {"weights": WEIGHTS, "deterministic": deterministic}
    if cluster:
        extractor = cluster.extractor("A", "pool3", **made)
    else:
        extractor = DenseExtractor("A", "pool3", precision="fp32", device="cpu", **made)
    store = FeatureStore(folder, extractor.extraction, images.names, stats=images.stats())
    return store, extract(images, extractor, scales, store, **settings)


def test_a_cluster_makes_the_store_of_a_local_run(
    cluster: Cluster, images: ImageSet, tmp_path: Path
) -> None:
    """Names in order, the same bits and failures; then only what is missing is computed."""
    told: list[int] = []
    local, _ = run(images, tmp_path / "local")
    store, summary = run(
        images, tmp_path / "ray", cluster, progress=lambda done: told.append(done.computed)
    )
    assert (summary.pictures, summary.computed, summary.failed) == (40, 39, 1)
    assert told == sorted(told)
    assert len(set(told)) > 2  # progress is told along the way
    assert store.view_names() == local.view_names()
    assert store.failed == local.failed
    assert verify(tmp_path / "ray") == []
    for part, values in local.read().items():
        np.testing.assert_array_equal(store.read()[part], values)

    # Either engine goes on where the other stopped, and tries the bad picture again.
    _, summary = run(images, tmp_path / "ray")
    assert (summary.present, summary.computed, summary.failed) == (39, 0, 1)


@pytest.mark.slow
def test_a_deterministic_cluster_has_the_bits_of_a_local_run_of_other_batches(
    cluster: Cluster, images: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each picture goes through the network alone there too, whoever its neighbours are."""
    sent: list[Network] = []

    def noted(*made: Any) -> Network:
        sent.append(Network(*made))
        return sent[-1]

    monkeypatch.setattr(module, "Network", noted)
    store, summary = run(images, tmp_path / "ray", cluster, deterministic=True)
    assert summary.computed == 39
    assert store.manifest.nets["A"]["provenance"]["deterministic"]
    backwards = ImageSet(images.names[::-1], images.pictures[::-1])
    local, _ = run(backwards, tmp_path / "local", deterministic=True)
    [here], [there] = (one.read().values() for one in (local, store))
    assert here[::-1].tobytes() == there.tobytes()
    # Of a CPU the driver's batches of one picture would do; of a GPU the worker must know it.
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    assert [one.opened().deterministic for one in sent] == [True]


@pytest.mark.slow
def test_a_second_run_computes_what_is_missing(
    cluster: Cluster, images: ImageSet, tmp_path: Path
) -> None:
    """What a local run left is not computed again; a new scale costs that scale alone."""
    run(images, tmp_path / "f")
    _, summary = run(images, tmp_path / "f", cluster)
    assert (summary.present, summary.computed, summary.failed) == (39, 0, 1)
    store, summary = run(images, tmp_path / "f", cluster, (32, 48))
    assert summary.computed == 39
    assert store.scales == [32, 48]
    assert verify(tmp_path / "f") == []


@pytest.mark.slow
def test_a_bad_picture_stops_the_run_where_it_should(
    cluster: Cluster, images: ImageSet, tmp_path: Path
) -> None:
    """With on_bad_image="error" the error of the worker is that of a local run."""
    with pytest.raises(PictureError, match=r"^21\.png: not a picture"):
        run(images, tmp_path / "f", cluster, on_bad_image="error")


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_complete(cluster: Cluster, images: ImageSet, tmp_path: Path) -> None:
    """An interruption stops the stages; the next run has nothing to do again."""

    def interrupt(summary: Summary) -> None:
        if summary.computed:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(images, tmp_path / "f", cluster, progress=interrupt)
    _, summary = run(images, tmp_path / "f", cluster)
    assert summary.present > 0
    assert summary.present + summary.computed == 39


@pytest.mark.slow
def test_pictures_that_only_the_driver_sees_are_not_bad(
    cluster: Cluster, images: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a node lacks the file system of the pictures, the run says so, and no picture fails."""
    elsewhere = Path("/not/on/this/node")
    monkeypatch.setattr(module, "absolute", lambda picture: elsewhere / Path(picture).name)
    with pytest.raises(DataNotFound, match="a file system that all nodes"):
        run(images, tmp_path / "f", cluster)


@pytest.mark.slow
def test_devices_that_the_cluster_lacks_are_refused(cluster: Cluster) -> None:
    """A GPU is never replaced silently, and Ray says which one an actor has."""
    if not ray.cluster_resources().get("GPU"):
        with pytest.raises(DeviceError, match="has no GPU"):
            Cluster(device="cuda")
    with pytest.raises(ParameterError, match="'auto', 'cuda', 'cpu'"):
        Cluster(device="cuda:1")
    with pytest.raises(DeviceError, match="does not compute in fp16"):
        Cluster(device="cpu", precision="fp16")


@pytest.mark.slow
def test_svms_are_solved_in_the_cluster(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """The jobs backend ray solves in other processes, and finds what this one would."""
    rows = np.random.default_rng(0).standard_normal((60, 8)).astype(np.float32)
    labels = np.arange(60) % 3
    here = LinearSVM(n_jobs=1).fit(rows, labels)
    monkeypatch.setattr(solvers, "POOL_COST", 0.0)
    with jobs_backend("ray"):
        there = LinearSVM(n_jobs=2).fit(rows, labels)
        found = solvers.in_processes(eval, ["__import__('os').getpid()"] * 3, 1.0, 2)
    np.testing.assert_array_equal(there.coef_, here.coef_)
    assert os.getpid() not in found
