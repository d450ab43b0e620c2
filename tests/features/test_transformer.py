"""VGGFeatures as scikit-learn's users use transformers."""

from __future__ import annotations

import errno
import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from filelock import FileLock
from helpers.mistakes import refuses
from helpers.networks import formula_weights
from helpers.seams import described_images
from helpers.windows import keep_open_files
from packing import jpeg, pack
from PIL import Image
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC
from support import noise, random_weights

from vggfeat import DenseExtractor, FeatureStore, VGGFeatures, load_weights
from vggfeat.data.image import Crop
from vggfeat.data.imageset import find_images
from vggfeat.errors import ImageError, ParameterError, StoreError, WeightsError
from vggfeat.nets import formats

OPENED: list[str] = []
"""Files that this process opens, as Python's audit events name them."""
sys.addaudithook(lambda event, given: OPENED.append(str(given[0])) if event == "open" else None)
SMALL = {"layer": "pool2", "Q": 32, "weights": "embedded", "precision": "fp32"}


@pytest.fixture
def paths(draw: Callable[..., Path]) -> list[Path]:
    return [draw(f"{i}.png", 40 + 8 * (i % 2), 40, seed=i) for i in range(8)]


def test_every_kind_of_image_is_taken(paths: list[Path]) -> None:
    """A path, a string, a PIL image, an array of uint8 or floats give the same row."""
    with Image.open(paths[0]) as opened:
        image = opened.convert("RGB")
    array = np.asarray(image)
    rows = VGGFeatures(**SMALL).transform([paths[0], str(paths[0]), image, array, array / 255])
    assert rows.shape == (5, 128)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows, np.repeat(rows[:1], 5, axis=0), rtol=1e-5, atol=1e-6)
    stacked = np.stack([noise(40, 32, seed) for seed in range(3)])
    assert VGGFeatures(**SMALL).transform(stacked).shape == (3, 128)


def test_a_net_has_the_rows_of_its_other_name(paths: list[Path]) -> None:
    """VGG-16 is net D: the same numbers under the same names."""
    net_D, vgg16 = (
        VGGFeatures(net=net, layer="pool3", Q=32, weights="embedded") for net in ("D", "VGG-16")
    )
    np.testing.assert_array_equal(vgg16.fit_transform(paths), net_D.fit_transform(paths))
    assert list(vgg16.get_feature_names_out()) == list(net_D.get_feature_names_out())


def test_rows_follow_the_input_duplicates_included(paths: list[Path]) -> None:
    """Shuffled and repeated inputs give shuffled and repeated rows."""
    features = VGGFeatures(**SMALL)
    rows = features.transform(paths)
    order = [3, 0, 3, 7]
    again = features.transform([paths[i] for i in order])
    np.testing.assert_allclose(again, rows[order], rtol=1e-5, atol=1e-6)


def test_data_frames_and_object_arrays_are_lists(paths: list[Path]) -> None:
    """A column of paths, as a series, a frame or an object array, is what a list is."""
    features = VGGFeatures(**SMALL)
    rows = features.transform(paths)
    names = [str(path) for path in paths]
    for X in (pd.Series(names), pd.DataFrame({"path": names}), np.array(names), np.array(paths)):
        assert np.array_equal(features.transform(X), rows)


def test_clone_and_pickle_keep_the_settings(paths: list[Path]) -> None:
    """Copies compute the same; the network does not travel with them."""
    features = VGGFeatures(**SMALL, power=0.5)
    rows = features.transform(paths)
    pickled = pickle.dumps(features)
    assert len(pickled) < 2000
    for copy in (clone(features), pickle.loads(pickled)):
        assert copy.get_params() == features.get_params()
        assert np.array_equal(copy.transform(paths), rows)


@pytest.mark.parametrize("how", ["average", "stack"])
@pytest.mark.parametrize("pool", ["average", "average+max+cells"])
def test_names_match_columns(how: str, pool: str, paths: list[Path]) -> None:
    """There is one unique name for each column, and pandas output carries them."""
    features = VGGFeatures(
        layer=("pool1", "pool2"), Q=(32, 40), aggregate=how, pool=pool, weights="embedded"
    ).set_output(transform="pandas")
    frame = features.fit_transform(paths[:2])
    assert list(frame.columns) == list(features.get_feature_names_out())
    assert len(set(frame.columns)) == frame.shape[1]


def test_a_search_extracts_each_scale_once(paths: list[Path], tmp_path: Path) -> None:
    """GridSearchCV over Q and aggregation runs the network once for each image and scale."""
    features = VGGFeatures(**SMALL, cache=tmp_path / "cache")
    search = GridSearchCV(
        make_pipeline(features, LinearSVC()),
        {
            "vggfeatures__Q": [(32,), (40,), (32, 40)],
            "vggfeatures__aggregate": ["average", "stack"],
        },
        cv=2,
    )
    with described_images() as described:
        search.fit(paths, [0, 1] * 4)
    assert len(described) == 2 * len(paths)


@pytest.mark.parametrize(
    "backend",
    [
        "multiprocessing",
        pytest.param("loky", marks=pytest.mark.slow),  # each process loads torch
    ],
)
def test_a_search_in_two_processes_equals_one(
    backend: str, paths: list[Path], tmp_path: Path
) -> None:
    """With n_jobs=2 and a shared cache the scores are those of one process without one."""
    scores = []
    for jobs, cache in ((None, None), (2, tmp_path / "cache")):
        search = GridSearchCV(
            make_pipeline(VGGFeatures(**SMALL, cache=cache), LinearSVC()),
            {"vggfeatures__Q": [(32,), (40,)]},
            cv=2,
            n_jobs=jobs,
        )
        with joblib.parallel_config(backend):
            search.fit([str(path) for path in paths], [0, 1] * 4)
        scores.append(search.cv_results_["mean_test_score"])
    assert np.array_equal(*scores)
    [folder] = (path for path in (tmp_path / "cache").iterdir() if path.is_dir())
    store = FeatureStore(folder)
    assert [column.Q for column in store.columns] == [32, 40]
    rows = sum(len(header.names) * len(header.columns) for header in store.index.headers)
    assert rows == 2 * len(paths), "an image was described twice"


def test_a_cache_knows_members_of_tars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tars of one layout, name or path keep their own rows, from whatever folder they are named."""
    plain, cached = VGGFeatures(**SMALL), VGGFeatures(**SMALL, cache=tmp_path / "cache")
    for seed, folder in enumerate(["a", "b", "a"]):
        (tmp_path / folder).mkdir(exist_ok=True)
        monkeypatch.chdir(tmp_path / folder)
        pack(Path("x.tar"), {f"{n}.bmp": jpeg(8 * seed + n, "BMP") for n in range(2)})
        os.utime("x.tar", (1 + seed, 1 + seed))
        members = find_images(["x.tar"]).images
        np.testing.assert_array_equal(cached.transform(members), plain.transform(members))
    shards = sorted((tmp_path / "cache").rglob("*.h5"))
    monkeypatch.chdir(tmp_path)
    cached.transform(find_images([str(Path("a") / "x.tar")]).images)
    cached.transform(find_images([tmp_path / "b" / "x.tar"]).images)
    assert sorted((tmp_path / "cache").rglob("*.h5")) == shards


@pytest.mark.parametrize("kind", ["file", "tar", "box"])
def test_a_cache_tells_an_image_from_one_of_its_size_and_time(kind: str, tmp_path: Path) -> None:
    """Another file or tar at a place never has the rows of the one before; an old one is unread."""

    def images_of(seed: int) -> list[Any]:
        files = {f"{n}.bmp": jpeg(8 * seed + n, "BMP") for n in range(2)}
        for name, content in files.items():
            (tmp_path / name).write_bytes(content)
        pack(tmp_path / "x.tar", files)
        for name in (*files, "x.tar"):
            os.utime(tmp_path / name, (1, 1))
        if kind == "tar":
            return list(find_images([tmp_path / "x.tar"]).images)
        paths = [tmp_path / name for name in files]
        return paths if kind == "file" else [Crop(path, (1, 1, 30, 30)) for path in paths]

    plain, cached = VGGFeatures(**SMALL), VGGFeatures(**SMALL, cache=tmp_path / "cache")
    for seed in (1, 2, 1):
        images = images_of(seed)
        expected = plain.transform(images)
        np.testing.assert_array_equal(cached.transform(images), expected)
    OPENED.clear()
    np.testing.assert_array_equal(cached.transform(images), expected)
    assert not [path for path in OPENED if path.endswith((".bmp", ".tar"))]


def test_a_cache_knows_the_bytes_of_files(paths: list[Path], tmp_path: Path) -> None:
    """Each is described once, whatever name it has elsewhere."""
    features = VGGFeatures(**SMALL, cache=tmp_path / "cache")
    contents = [path.read_bytes() for path in paths]
    with described_images() as described:
        rows = [features.transform(contents), features.transform(contents[::-1])[::-1]]
    np.testing.assert_array_equal(*rows)
    assert len(described) == len(paths)


def test_a_cache_forgets_an_image_that_is_bad_now(paths: list[Path], tmp_path: Path) -> None:
    """Its earlier row is not given for it."""
    features = VGGFeatures(**SMALL, cache=tmp_path / "cache", on_bad_image="nan")
    rows = features.transform(paths)
    paths[3].write_bytes(b"no image")
    with pytest.warns(UserWarning, match=r"element 3, .*3\.png"):
        again = features.transform(paths)
    assert np.isnan(again[3]).all()
    np.testing.assert_array_equal(np.delete(again, 3, 0), np.delete(rows, 3, 0))


@pytest.mark.parametrize("verbose", [False, True])
def test_the_bar_of_the_command_line_is_shown_if_asked(
    verbose: bool, paths: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """It is on stderr, for all images; without it nothing is."""
    VGGFeatures(**SMALL, verbose=verbose).transform(paths)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert ("8/8" in printed.err) == verbose


def test_a_cache_knows_boxes_of_images(
    paths: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each box of an image has its own row, which is found again."""
    features = VGGFeatures(**SMALL, cache=tmp_path / "cache")
    boxes = [Crop(paths[0], (1, 1, 30, side)) for side in (20, 30, 40)]
    rows = features.transform(boxes)
    assert len(np.unique(rows, axis=0)) == 3
    shards = sorted((tmp_path / "cache").rglob("*.h5"))
    monkeypatch.chdir(paths[0].parent)
    again = [Crop(Path(paths[0].name), box.box) for box in boxes[::-1]]
    np.testing.assert_array_equal(features.transform(again), rows[::-1])
    assert sorted((tmp_path / "cache").rglob("*.h5")) == shards


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open files are listed on Linux")
def test_a_cache_needs_to_delete_no_open_file(
    paths: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no open file can be deleted or renamed, as on Windows, a cache serves as well."""
    expected = VGGFeatures(**SMALL).transform(paths)
    keep_open_files(monkeypatch)
    for _ in range(2):
        found = VGGFeatures(**SMALL, cache=tmp_path / "cache").transform(paths)
        np.testing.assert_array_equal(found, expected)


def test_a_cache_that_cannot_be_locked_is_an_error(
    paths: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It names the file of the lock, as another user's may be."""

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(FileLock, "acquire", refuse)
    with pytest.raises(StoreError, match=r"cache/.*\.lock cannot be locked: Permission denied"):
        VGGFeatures(**SMALL, cache=tmp_path / "cache").transform(paths)


def test_settings_that_change_descriptors_share_a_cache(paths: list[Path], tmp_path: Path) -> None:
    """A search over flip and normalisation keeps each extraction apart in one cache."""
    for settings in ({}, {"flip": False}, {"normalize": "locations"}, {"normalize": "none"}):
        cached = VGGFeatures(**SMALL, **settings, cache=tmp_path / "cache").transform(paths)
        assert np.array_equal(cached, VGGFeatures(**SMALL, **settings).transform(paths))
    assert len([path for path in (tmp_path / "cache").iterdir() if path.is_dir()]) == 3


def test_poolings_of_one_layer_share_a_folder_of_a_cache(paths: list[Path], tmp_path: Path) -> None:
    """A pooling or an earlier layer that is asked for later is a column more of one store."""
    for settings in ({}, {"pool": "max"}, {"layer": ("pool1", "pool2")}):
        how = {**SMALL, **settings}
        cached = VGGFeatures(**how, cache=tmp_path / "cache").transform(paths)
        np.testing.assert_allclose(cached, VGGFeatures(**how).transform(paths), rtol=1e-5)
    [folder] = [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]
    keys = [(column.layer, column.pool) for column in FeatureStore(folder).columns]
    assert keys == [("pool1", "average"), ("pool2", "average"), ("pool2", "max")]


def test_weights_replaced_under_their_name_are_others(paths: list[Path], tmp_path: Path) -> None:
    """A weights file that was overwritten is read again, in the same process."""
    rows = []
    for seed in (1, 2):
        weights = random_weights("A", ["pool2"], seed)
        file = tmp_path / "w.safetensors"
        formats.write(file, weights.state, weights.pixels, net="A", source="test", licence="none")
        os.utime(file, (1, 1))
        features = VGGFeatures("A", layer="pool2", Q=32, weights=file)
        rows.append(features.transform(paths[:1]))
    assert not np.allclose(*rows)


def test_pixels_are_named_where_a_file_does_not_say_them(paths: list[Path], tmp_path: Path) -> None:
    """The rows are those of the same weights, loaded with these pixels."""
    state = random_weights("A", ["pool2"]).state
    numbers = {"conv1_1": "features.0", "conv2_1": "features.3"}
    theirs = {name.replace(name[:7], numbers[name[:7]]): state[name] for name in state}
    torch.save(theirs, tmp_path / "w.pth")
    settings = {"net": "A", "layer": "pool2", "Q": 32, "precision": "fp32"}
    rows = VGGFeatures(**settings, weights=tmp_path / "w.pth", pixels="caffe").transform(paths)
    loaded = load_weights(tmp_path / "w.pth", "A", ["pool2"], pixels="caffe")
    np.testing.assert_array_equal(rows, VGGFeatures(**settings, weights=loaded).transform(paths))


def test_loaded_weights_are_shared_by_clones(paths: list[Path]) -> None:
    """A clone holds the same weights, and uses the same network."""
    features = VGGFeatures("A", layer="pool2", Q=32, weights=random_weights("A", ["pool2"]))
    copy = clone(features)
    assert copy.weights is features.weights
    assert copy._row_maker().extractor is features._row_maker().extractor


def test_names_follow_the_classes_of_the_weights(tiny: str) -> None:
    """fc8 of a network with ten classes has ten columns."""
    features = VGGFeatures(tiny, layer="fc8", Q=224, weights=formula_weights(tiny))
    assert len(features.get_feature_names_out()) == 10


def test_joblib_memory_keeps_a_fitted_pipeline(paths: list[Path], tmp_path: Path) -> None:
    """A pipeline with a memory gives the same predictions, computed or remembered."""
    labels = [0, 1] * 4
    plain = make_pipeline(VGGFeatures(**SMALL), LinearSVC()).fit(paths, labels)
    for _ in range(2):
        memory = joblib.Memory(tmp_path / "memory", verbose=0)
        kept = make_pipeline(VGGFeatures(**SMALL), LinearSVC(), memory=memory).fit(paths, labels)
        assert np.array_equal(kept.predict(paths), plain.predict(paths))


def test_scales_of_numpy_are_scales(paths: list[Path]) -> None:
    """A grid made by numpy gives the same rows as one of Python's ints."""
    rows = VGGFeatures(**SMALL).transform(paths)
    for Q in (np.int64(32), np.array([32])):
        again = VGGFeatures(**{**SMALL, "Q": Q})
        assert np.array_equal(again.transform(paths), rows)
        assert len(again.get_feature_names_out()) == 128


@pytest.mark.parametrize("n_jobs", [-1, 1, np.int64(2)])
def test_images_are_decoded_by_all_cores_or_by_some(n_jobs: int, paths: list[Path]) -> None:
    rows = VGGFeatures(**SMALL, n_jobs=n_jobs).transform(paths)
    assert np.array_equal(rows, VGGFeatures(**SMALL).transform(paths))


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        *(("n_jobs", wrong) for wrong in (0, -2, "2", 1.5, True)),
        *(("Q", wrong) for wrong in (0, "256", 256.0, True, [], ["256", 384])),
        *(("power", wrong) for wrong in ("sqrt", 0, [0.5])),
        ("layer", 3),
        ("weights", {"conv1_1.weight": 1}),
        ("cache", 3),
    ],
    ids=str,
)
@pytest.mark.parametrize("others", [{}, {"layer": "fc7", "weights": "none.pth"}], ids=["", "fc7"])
def test_a_wrong_setting_is_refused_before_weights_are_looked_for(
    name: str, wrong: object, others: dict[str, str], paths: list[Path]
) -> None:
    """By fit as by transform, with the name of the argument; there is no file none.pth."""
    features = VGGFeatures(**{**others, name: wrong})
    refuses(features.fit, ParameterError, [name])
    refuses(lambda: features.transform(paths), ParameterError, [name])


def test_a_scale_that_no_weights_can_take_is_refused_by_fit() -> None:
    """At 223 pixels fc7 has a location where max-pools round up, at 192 it never has one."""
    features = VGGFeatures(layer="fc7", Q=(256, 192), weights="none.pth")
    refuses(features.fit, ParameterError, ["'Q'", "224", "fc7", "192"])
    features.set_params(Q=223).fit()


def test_what_is_no_list_of_images_is_refused(paths: list[Path]) -> None:
    """One path, one ambiguous array and a bad image are errors."""
    features = VGGFeatures(**SMALL)
    with pytest.raises(ParameterError, match="a sequence of images"):
        features.transform(str(paths[0]))
    with pytest.raises(ImageError, match="one image or many"):
        features.transform(noise(9, 9))
    paths[1].write_bytes(b"")
    with pytest.raises(ImageError, match="empty"):
        features.transform(paths)
    with pytest.raises(ParameterError, match="aggregate"):
        VGGFeatures(aggregate="mean").fit()
    with pytest.raises(ParameterError, match="layer"):
        VGGFeatures(layer="pool9").fit()
    assert features.transform([]).shape == (0, 128)


def test_what_weights_lack_is_advised_by_the_transformers_own_argument() -> None:
    """It is `layer` here, and `layers` of an extractor."""
    features, images = VGGFeatures(layer="fc7", weights="embedded"), noise(40, 40, 1)[None]
    refuses(lambda: features.transform(images), WeightsError, [" layer=('pool5',)"])
    refuses(
        lambda: DenseExtractor("D", "fc7", weights="embedded"),
        WeightsError,
        [" layers=('pool5',)"],
    )
