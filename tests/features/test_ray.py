"""Extraction in a Ray cluster of this machine: the store of a local run, bit for bit."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.mistakes import refuses
from PIL import Image
from support import noise, random_weights

from vggfeat._io import cluster as cluster_module
from vggfeat.cli.working import Work
from vggfeat.data.image import Crop
from vggfeat.data.imageset import ImageSet, find_images
from vggfeat.data.sources.tar import TarMember
from vggfeat.errors import (
    DataNotFound,
    DeviceError,
    ImageError,
    ParameterError,
    StoreError,
)
from vggfeat.features import ray as module
from vggfeat.features.extractor import DenseExtractor
from vggfeat.features.pipeline import RunOptions, Summary, extract
from vggfeat.features.ray import (
    BlockOutcome,
    Network,
    Target,
    absolute,
    cut,
    extract_on_ray,
)
from vggfeat.settings import Execution, Extraction, Features, Hardware
from vggfeat.store.column import Descriptor
from vggfeat.store.store import FeatureStore

WEIGHTS = random_weights("A", ["pool3"])
SETTINGS = Extraction(net="A", layers="pool3", precision="fp32")
POOL3 = Descriptor("A", "pool3", "average", 32)


# Without a cluster


@pytest.mark.parametrize("seed", range(20))
def test_blocks_are_whole_rounds(seed: int) -> None:
    """All that lacks something is in one block, each begins a round, and none is too large."""
    rng = np.random.default_rng(seed)
    lacking = rng.random(int(rng.integers(1, 300))) < rng.random()
    round_size, most = int(rng.integers(1, 20)), int(rng.integers(0, 50))
    blocks = cut(lacking, round_size, most)
    covered = np.zeros(len(lacking), int)
    for block in blocks:
        covered[block] += 1
        assert block.start % round_size == 0
        assert 0 < lacking[block].sum() < max(most, 1) + round_size
    assert covered.max(initial=0) <= 1
    assert covered[lacking].all()


def test_images_are_named_from_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers run in other folders: files, crops and tars are absolute, all else stays as it is."""
    monkeypatch.chdir(tmp_path)
    assert absolute("a/b.jpg") == tmp_path / "a" / "b.jpg"
    assert absolute(Crop(Path("c.jpg"), (1, 1, 2, 2))).path == tmp_path / "c.jpg"
    assert absolute(TarMember("d.tar", 512, 10)).archive == str(tmp_path / "d.tar")
    there = TarMember("s3://bucket/d.tar", 512, 10)
    drawn = Image.new("RGB", (2, 2))
    assert absolute(there) is there
    assert absolute(drawn) is drawn


def test_a_store_in_memory_is_refused() -> None:
    """What no node sees cannot be written by them."""
    refuses(
        lambda: extract_on_ray(
            ImageSet((), ()), SETTINGS, Hardware(), [32], FeatureStore(None, "a")
        ),
        ParameterError,
        ["nodes", "folder"],
    )


def test_a_node_that_does_not_see_the_store_says_so(tmp_path: Path) -> None:
    """A task in whose file system the store is absent makes none, and names the node."""
    network = Network(SETTINGS, Hardware(), None, 1)
    target = Target(tmp_path / "f", "float32", [POOL3], RunOptions((32,)))
    refuses(
        lambda: module._describe(network, target, ImageSet((), ())),
        StoreError,
        [socket.gethostname(), str(tmp_path / "f")],
    )
    assert not (tmp_path / "f").exists()


def test_what_is_never_seen_here_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that wrote into a store of its own does not end as a run that is through."""
    monkeypatch.setattr(module, "LATE_SECONDS", 0.5)
    store = FeatureStore(tmp_path / "f", "a")
    refuses(
        lambda: module._await(store, [POOL3], ["a.jpg"]),
        StoreError,
        ["does not see the store", str(tmp_path / "f")],
    )
    module._await(store, [POOL3], [])


def test_a_bad_image_is_told_from_one_that_the_node_lacks(draw: Callable[..., Path]) -> None:
    """Only what this node can read, and the other cannot, is the file system's fault."""
    good, bad = draw("good.png", 40, 40), draw("bad.png", 40, 40)
    bad.write_bytes(b"no image")
    images = (good, bad)

    def judge(name: str, overflowed: Sequence[str] = ()) -> None:
        reasons = {name: "no such file"}
        done = BlockOutcome("beta", Summary(2), reasons, dict.fromkeys(overflowed, ""))
        module._refuse_unseen(done, ("good.png", "bad.png"), images, [32])

    judge("bad.png")
    judge("good.png", overflowed=["good.png"])
    refuses(lambda: judge("good.png"), DataNotFound, ["beta", "good.png", "no such file"])


# In a cluster


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Start Ray with room for two tasks of one core each, as a local run has here."""
    ray = pytest.importorskip("ray", reason="the extra ray is not installed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))  # Ray writes its token there
        patch.setattr(cluster_module, "CPUS", 1)
        ray.init(num_cpus=2, log_to_driver=False, include_dashboard=False)
        yield ray
        ray.shutdown()


@pytest.fixture
def images(tmp_path: Path) -> ImageSet:
    (tmp_path / "images").mkdir()
    for i in range(40):
        image = Image.fromarray(noise(40 + 7 * (i % 3), 40, i))
        image.save(tmp_path / "images" / f"{i:02}.png")
    (tmp_path / "images" / "21.png").write_bytes(b"no image")
    return find_images([str(tmp_path / "images")])


def local(
    images: ImageSet, folder: Path, scales: tuple[int, ...] = (32,), **hardware: bool
) -> tuple[FeatureStore, Summary]:
    extractor = DenseExtractor(SETTINGS, weights=WEIGHTS, device="cpu", **hardware)
    store = FeatureStore(folder, "a")
    return store, extract(images, extractor, scales, store)


def run(
    images: ImageSet,
    folder: Path,
    scales: tuple[int, ...] = (32,),
    hardware: Hardware = Hardware(device="cpu"),  # noqa: B008
    settings: Extraction = SETTINGS,
    **options: Any,
) -> tuple[FeatureStore, Summary]:
    store = FeatureStore(folder, "a")
    return store, extract_on_ray(
        images, settings, hardware, scales, store, weights=WEIGHTS, **options
    )


def test_a_cluster_makes_the_store_of_a_local_run(
    cluster: Any, images: ImageSet, tmp_path: Path
) -> None:
    """Names in order, the same bits and failures; then only what is lacking is computed."""
    told: list[int] = []
    here, _ = local(images, tmp_path / "local")
    store, summary = run(images, tmp_path / "ray", progress=lambda done: told.append(done.computed))
    assert (summary.images, summary.computed, summary.failed) == (40, 39, 1)
    assert told == sorted(told)
    assert len(set(told)) > 2  # progress is told along the way
    assert store.names == here.names
    assert store.failed == here.failed
    assert store.columns == here.columns
    for column, values in here.read(verify=True).items():
        np.testing.assert_array_equal(store.read(verify=True)[column], values)
    assert store.runs[0]["provenance"]["device"].startswith("Ray, 1 node: CPU")
    assert store.runs[0]["finished"]
    assert "torch" in store.provenance("A")["versions"]

    # Either goes on where the other stopped, and tries the bad image again.
    _, summary = local(images, tmp_path / "ray")
    assert (summary.present, summary.computed, summary.failed) == (39, 0, 1)


@pytest.mark.parametrize("precision", ["auto", "fp32"])
def test_a_default_store_is_that_of_a_local_run(cluster: Any, precision: str) -> None:
    """Its folder and its columns are named by what the cluster computes in."""
    features = Features(layers="pool2", weights="embedded", Q=(32,))
    here, there = (
        Work(Execution(device="cpu", precision=precision, engine=engine), quiet=True).network(
            features, "D"
        )
        for engine in ("local", "ray")
    )
    assert there.cache_key == here.cache_key
    assert there.columns([32]) == here.columns([32])


@pytest.mark.slow
def test_a_deterministic_cluster_has_the_bits_of_a_local_run_of_other_batches(
    cluster: Any, images: ImageSet, tmp_path: Path
) -> None:
    """Each image goes through the network alone there too, whoever its neighbours are."""
    hardware = Hardware(device="cpu", deterministic=True)
    store, summary = run(images, tmp_path / "ray", hardware=hardware)
    assert summary.computed == 39
    assert store.provenance("A")["deterministic"]
    backwards = ImageSet(images.names[::-1], images.images[::-1])
    here, _ = local(backwards, tmp_path / "local", deterministic=True)
    assert here.read([POOL3])[POOL3][::-1].tobytes() == store.read([POOL3])[POOL3].tobytes()


@pytest.mark.slow
def test_a_second_run_computes_what_is_lacking(
    cluster: Any, images: ImageSet, tmp_path: Path
) -> None:
    """What a local run left is not computed again; a new scale costs that scale alone."""
    local(images, tmp_path / "f")
    _, summary = run(images, tmp_path / "f")
    assert (summary.present, summary.computed, summary.failed) == (39, 0, 1)
    store, summary = run(images, tmp_path / "f", (32, 48))
    assert (summary.present, summary.computed, summary.failed) == (0, 39, 1)
    assert [column.Q for column in store.columns] == [32, 48]
    # Nobody holds the old descriptors of an image for those of the new one of its name.
    first, second = (Path(images.images[row]) for row in (0, 1))
    before = store.read([POOL3], store.names[:2])[POOL3]
    first.write_bytes(second.read_bytes())
    store, summary = run(images, tmp_path / "f", (32, 48))
    assert (summary.present, summary.computed) == (38, 1)
    assert not (before[0] == before[1]).all()
    np.testing.assert_allclose(store.read([POOL3], store.names[:1])[POOL3][0], before[1], 1e-4)


@pytest.mark.slow
def test_auto_is_what_a_node_computes_in(cluster: Any, images: ImageSet, tmp_path: Path) -> None:
    """A new store has the precision of the machine; one that has a column keeps that one's."""
    machine = DenseExtractor("A", "pool3", weights=WEIGHTS, device="cpu").extraction.precision
    settings = SETTINGS.but(precision="auto")
    some = images.take(range(3))
    store, _ = run(some, tmp_path / "new", settings=settings)
    assert store.columns[POOL3].settings["precision"] == machine
    local(some, tmp_path / "old")
    store, summary = run(some, tmp_path / "old", settings=settings)
    assert summary.present == 3
    refuses(
        lambda: run(some, tmp_path / "other", settings=SETTINGS.but(precision="fp16")),
        DeviceError,
        ["fp16"],
    )


@pytest.mark.slow
def test_a_bad_image_stops_the_run_where_it_should(
    cluster: Any, images: ImageSet, tmp_path: Path
) -> None:
    """With on_bad_image="error" the error of the worker is that of a local run."""
    refuses(lambda: run(images, tmp_path / "f", on_bad_image="error"), ImageError, ["21.png"])
    refuses(lambda: run(images, tmp_path / "f", on_bad_image="ignore"), ParameterError, ["ignore"])
    refuses(lambda: run(images, tmp_path / "f", (0,)), ParameterError, ["Q"])


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_complete(cluster: Any, images: ImageSet, tmp_path: Path) -> None:
    """An interruption ends the tasks; the next run does nothing again that was complete."""

    def interrupt(summary: Summary) -> None:
        if summary.computed:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(images, tmp_path / "f", progress=interrupt)
    assert not FeatureStore(tmp_path / "f").runs[0]["finished"]
    _, summary = run(images, tmp_path / "f")
    assert summary.present > 0
    assert summary.present + summary.computed == 39


@pytest.mark.slow
def test_images_that_only_the_driver_sees_are_not_bad(
    cluster: Any, images: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a node lacks the file system of the images, the run says so, and no image fails."""
    elsewhere = Path("/not/on/this/node")
    monkeypatch.setattr(module, "absolute", lambda image: elsewhere / Path(image).name)
    refuses(lambda: run(images, tmp_path / "f"), DataNotFound, ["nodes"])


@pytest.mark.slow
def test_a_task_whose_worker_dies_is_done_again(
    cluster: Any, images: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray starts it anew, where nothing that was written is computed again."""
    marker = tmp_path / "died"

    def die_once(*given: Any) -> BlockOutcome:
        if not marker.exists():
            marker.touch()
            os._exit(1)
        return module._describe(*given)

    remote = cluster_module.Slot.remote
    monkeypatch.setattr(
        cluster_module.Slot,
        "remote",
        lambda slot, work: remote(slot, die_once if work is module._describe else work),
    )
    _, summary = run(images, tmp_path / "f")
    assert marker.exists()
    assert (summary.computed, summary.failed) == (39, 1)
