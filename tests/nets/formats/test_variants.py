"""What the writers of one format do in different ways: old and new, packed, nested, elsewhere."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
import torch
from helpers.mistakes import refuses
from weightfiles import (
    State,
    keras_name,
    random_state,
    same,
    torchvision_vgg11,
    write_caffe,
    write_keras,
    write_matconvnet,
    write_onnx,
)

from vggfeat.errors import MissingExtra, WeightsError
from vggfeat.nets import formats
from vggfeat.nets.config import layers_of
from vggfeat.nets.preprocessing import CAFFE, TORCHVISION, PixelConvention
from vggfeat.nets.vgg import VGG


@pytest.mark.parametrize("legacy", [True, False])
@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("data", ["data", "double_data"])
def test_caffe_variants(legacy: bool, packed: bool, data: str, tmp_path: Path) -> None:
    """Old and new layers, packed and single numbers, floats and doubles are the same weights."""
    state = random_state("D", 1, narrow=False) | {
        "fc7.weight": torch.randn(3, 2),
        "fc7.bias": torch.randn(3),
    }
    path = tmp_path / "net.caffemodel"
    write_caffe(path, state, legacy=legacy, packed=packed, data=data)
    raw = formats.read(path, "D")
    assert same(raw.state, state)
    assert (raw.pixels, raw.assumed) == (CAFFE, True)


def test_caffe_foreign_layers_are_named(tmp_path: Path, small: State) -> None:
    """A fine-tuned net's renamed last layer is left out, and the result says so."""
    write_caffe(tmp_path / "f.caffemodel", small, rename={"fc8": "fc8_flickr"})
    raw = formats.read(tmp_path / "f.caffemodel", "A")
    assert raw.ignored == ("fc8_flickr",)
    assert raw.layers == ["conv1_1", "conv2_1", "fc6", "fc7"]
    refuses(lambda: raw.take(["fc8"]), WeightsError, ["fc8"])


def test_caffe_lengths_are_not_believed(tmp_path: Path) -> None:
    """Lengths and shapes far beyond the file are refused at once, without taking memory."""
    huge = b"\xff\xff\xff\xff\xff\xff\xff\x7f"
    blob = b"\x08" + huge + b"\x10" + huge + b"\x18" + huge + b"\x20" + huge
    layer = b"\x22\x07conv1_1" + b"\x32" + bytes([len(blob)]) + blob
    for data in (b"\x12" + huge, b"\x12" + bytes([len(layer)]) + layer, b"\x12\x80" + huge * 3):
        (tmp_path / "h.caffemodel").write_bytes(data)
        refuses(lambda: formats.read(tmp_path / "h.caffemodel"), WeightsError, ["h.caffemodel"])


@pytest.mark.parametrize("old", [True, False])
def test_matconvnet_mean(old: bool, tmp_path: Path, small: State) -> None:
    """Both generations of MatConvNet files bring their mean, a colour or an image, in RGB."""
    mean = (120.0, 110.0, 100.0)
    image = np.broadcast_to(np.float32(mean), (2, 2, 3)) + np.float32([[[0], [2]], [[-2], [0]]])
    write_matconvnet(tmp_path / "m.mat", small, old=old, mean=mean if old else image)
    raw = formats.read(tmp_path / "m.mat", "A")
    assert raw.pixels == PixelConvention("RGB", 255.0, mean, pool_rounding="ceil")
    assert not raw.assumed
    assert same(raw.state, small)
    write_matconvnet(tmp_path / "m.mat", small, old=old, mean=(120.0, float("nan"), 100.0))
    refuses(lambda: formats.read(tmp_path / "m.mat", "A"), WeightsError, ["m.mat", "nan"])


def test_matconvnet_one_by_one(tmp_path: Path) -> None:
    """Matlab drops last sides of 1 and may compress: C's filters and a single output survive."""
    state = random_state("C", 7, narrow=False)
    state |= {"fc8.weight": torch.randn(1, 5), "fc8.bias": torch.randn(1)}
    write_matconvnet(tmp_path / "m.mat", state, compressed=True)
    assert same(formats.read(tmp_path / "m.mat", "C").state, state)


@pytest.mark.parametrize("variable", ["params", "x"])
def test_other_matlab_files(variable: str, tmp_path: Path) -> None:
    """A DagNN model and any other .mat are told apart from a SimpleNN model."""
    scipy.io.savemat(tmp_path / "m.mat", {variable: np.ones(3)})
    refuses(
        lambda: formats.read(tmp_path / "m.mat"),
        WeightsError,
        ["m.mat", "DagNN" if variable == "params" else "layers"],
    )


def test_matlab_73(tmp_path: Path) -> None:
    """A .mat in HDF5 is recognised and the error says how to save it."""
    with h5py.File(tmp_path / "m.mat", "w", userblock_size=512) as file:
        file["layers"] = np.ones(3)
    with (tmp_path / "m.mat").open("r+b") as raw:
        raw.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM")
    refuses(lambda: formats.read(tmp_path / "m.mat"), WeightsError, ["m.mat", "-v7"])


@pytest.mark.parametrize(
    "layout",
    [
        "{0}/{0}_{part}_1:0",
        "{0}/{0}/{part}:0",
        "model_weights/vgg11/{0}/{part}",
    ],
)
def test_keras_layouts(layout: str, tmp_path: Path, small: State) -> None:
    """The first VGG release, Keras 2 and whole models are the same weights."""
    write_keras(tmp_path / "k.h5", small, layout)
    with h5py.File(tmp_path / "k.h5", "a") as file:
        file["optimizer_weights/block1_conv1/kernel"] = np.zeros((3, 3, 3, 64))
    raw = formats.read(tmp_path / "k.h5", "A")
    assert same(raw.state, small)
    assert raw.pixels == CAFFE


def test_keras_flattens_channels_last(tmp_path: Path) -> None:
    """fc1 of a (7, 7, 512) map gives the numbers that fc6 gives of the same map in torch."""
    state = random_state("A", 1)
    write_keras(tmp_path / "k.h5", state)
    with h5py.File(tmp_path / "k.h5") as file:
        kernel = file["fc1/fc1/kernel:0"][()]
    channels_last = np.random.default_rng(0).normal(size=(7, 7, 512)).astype(np.float32)
    expected = channels_last.reshape(-1) @ kernel
    weight = formats.read(tmp_path / "k.h5", "A").state["fc6.weight"]
    got = torch.from_numpy(channels_last).permute(2, 0, 1).flatten() @ weight.T
    torch.testing.assert_close(got, torch.from_numpy(expected), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("file", "names"), [("k.weights.h5", True), ("k.h5", False)])
def test_keras_itself(
    file: str, names: bool, tmp_path: Path, whole: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A VGG net that Keras built and saved computes the same pool5 and fc6 with our reading."""
    if "keras" not in sys.modules:
        monkeypatch.setenv("KERAS_BACKEND", "torch")
    keras = pytest.importorskip("keras", reason="keras is not installed; h5py wrote its layouts")
    pixels = torch.rand(1, 3, 224, 224) * 255 - 120
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)  # Keras's
        stack = [keras.Input((224, 224, 3))]
        for layer in layers_of("A"):
            if layer.kind == "conv":
                name = {"name": keras_name(layer.name)} if names else {}
                stack.append(
                    keras.layers.Conv2D(layer.outputs, 3, padding="same", activation="relu", **name)
                )
            elif layer.kind == "pool":
                stack.append(keras.layers.MaxPooling2D())
        stack += [
            keras.layers.Flatten(),
            keras.layers.Dense(6, **({"name": "fc1"} if names else {})),
        ]
        model = keras.Sequential(stack)
        (model.save_weights if "weights" in file else model.save)(tmp_path / file)
        predicted = model.predict(pixels.permute(0, 2, 3, 1).numpy(), verbose=0)
    state = formats.read(tmp_path / file).state
    expected = torch.from_numpy(np.asarray(predicted))
    pool5 = VGG("A", layers="pool5").load(state).eval()(pixels).detach()
    got = torch.nn.functional.linear(pool5.flatten(1), state["fc6.weight"], state["fc6.bias"])
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("how", ["Gemm", "transposed Gemm", "MatMul"])
@pytest.mark.parametrize("external", [True, False])
def test_onnx_variants(how: str, external: bool, tmp_path: Path, small: State) -> None:
    """Full connections in each of ONNX's forms, weights inside the file or beside it."""
    write_onnx(tmp_path / "net.onnx", small, how=how, external=external)
    raw = formats.read(tmp_path / "net.onnx", "A")
    assert same(raw.state, small)
    assert (raw.pixels, raw.assumed) == (TORCHVISION, True)
    if external:
        (tmp_path / "net.onnx.data").unlink()
        refuses(lambda: formats.read(tmp_path / "net.onnx", "A"), WeightsError, ["net.onnx.data"])


@pytest.mark.slow  # torch writes half a gigabyte
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch has a newer exporter
def test_onnx_from_torch(tmp_path: Path, whole: State) -> None:
    """A graph that torch exported has the parameters of the exported network."""
    pytest.importorskip("onnx")
    net = torchvision_vgg11(whole)
    path = str(tmp_path / "v.onnx")
    torch.onnx.export(net, (torch.zeros(1, 3, 224, 224),), path, dynamo=False)
    raw = formats.read(path)
    assert raw.net == "A"
    assert same(raw.state, whole)


def test_onnx_needs_its_package(
    tmp_path: Path, small: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the package the error names the extra, and other formats are read."""
    write_onnx(tmp_path / "net.onnx", small)
    write_caffe(tmp_path / "net.caffemodel", small)
    monkeypatch.setitem(sys.modules, "onnx", None)
    refuses(lambda: formats.read(tmp_path / "net.onnx", "A"), MissingExtra, ["vggfeat[onnx]"])
    assert same(formats.read(tmp_path / "net.caffemodel", "A").state, small)


@pytest.mark.parametrize("location", ["../secret", "/etc/hostname", "a/b", ".."])
def test_onnx_stays_in_its_folder(location: str, tmp_path: Path) -> None:
    """External weights outside the folder of the graph are refused, not opened."""
    onnx = pytest.importorskip("onnx")
    write_onnx(tmp_path / "n.onnx", random_state("A", 1, narrow=False), external=True)
    model = onnx.load(tmp_path / "n.onnx", load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            entry.value = location if entry.key == "location" else entry.value
    (tmp_path / "n.onnx").write_bytes(model.SerializeToString())
    refuses(lambda: formats.read(tmp_path / "n.onnx", "A"), WeightsError, ["n.onnx", location])


def test_onnx_channels_last(tmp_path: Path) -> None:
    """A graph that moves channels last before it flattens has its fc6 reordered."""
    onnx = pytest.importorskip("onnx")
    state = random_state("A", 1)
    turned = dict(state)
    turned["fc6.weight"] = (
        state["fc6.weight"].reshape(-1, 512, 7, 7).permute(0, 2, 3, 1).flatten(1).contiguous()
    )
    write_onnx(tmp_path / "n.onnx", turned)
    model = onnx.load(tmp_path / "n.onnx")
    turn = onnx.helper.make_node("Transpose", ["x0"], ["y"], perm=[0, 2, 3, 1])
    model.graph.node.insert(1, turn)
    onnx.save(model, tmp_path / "n.onnx")
    assert same(formats.read(tmp_path / "n.onnx", "A").state, state)
