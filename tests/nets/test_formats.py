"""Every reader on files that the format's own library wrote, whole, cut off and altered."""

from __future__ import annotations

import random
import sys
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import safetensors.torch
import scipy.io
import torch
import torchvision
from torch import Tensor, nn

from vggfeat import resources
from vggfeat.errors import ParameterError, WeightsError, WeightsNotFound
from vggfeat.learn.model import SavedModel, save
from vggfeat.nets import formats
from vggfeat.nets.pixels import CAFFE, TORCHVISION, PixelConvention
from vggfeat.nets.table1 import NETS, layers_of
from vggfeat.nets.vgg import VGG

State = dict[str, Tensor]
FC_SHAPES = {"fc6": (6, 512 * 7 * 7), "fc7": (5, 6), "fc8": (4, 5)}
KERAS = {"fc6": "fc1", "fc7": "fc2", "fc8": "predictions"}


def random_state(net: str, convolutions: int | None = None, *, narrow: bool = True) -> State:
    """Draw a state dict: the first convolutions of a net, and narrow full connections."""
    torch.manual_seed(0)
    conv = [layer for layer in layers_of(net) if layer.kind == "conv"][:convolutions]
    shapes: dict[str, tuple[int, ...]] = {layer.name: layer.shape for layer in conv}
    state: State = {}
    for name, shape in {**shapes, **(FC_SHAPES if narrow else {})}.items():
        state[f"{name}.weight"] = torch.randn(shape) * 0.05
        state[f"{name}.bias"] = torch.randn(shape[0]) * 0.05
    return state


def layers(state: State) -> list[str]:
    return [name.removesuffix(".weight") for name in state if name.endswith(".weight")]


def same(found: State, expected: State) -> bool:
    return found.keys() == expected.keys() and all(
        found[name].dtype == torch.float32 and torch.equal(found[name], expected[name])
        for name in expected
    )


@pytest.fixture(scope="session")
def small() -> State:
    """Two convolutions of net A and narrow full connections: 220,000 numbers."""
    return random_state("A", 2)


@pytest.fixture(scope="session")
def whole() -> State:
    """All convolutions of net A and narrow full connections."""
    return random_state("A")


# --- writers: each uses the library of its format ---


def write_safetensors(path: Path, state: State) -> None:
    safetensors.torch.save_file(state, path)


def write_pth(path: Path, state: State) -> None:
    torch.save(state, path)


def caffe_messages(*, packed: bool = True) -> dict[str, Any]:
    """Build Caffe's messages as caffe.proto declares the fields that are read here."""
    descriptor_pb2 = pytest.importorskip("google.protobuf.descriptor_pb2")
    from google.protobuf import descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name="caffe.proto", package="caffe")
    one, many = 1, 3
    double, float_, int64, int32, string, message = 1, 2, 3, 5, 9, 11
    declared: dict[str, list[tuple[Any, ...]]] = {
        "BlobShape": [("dim", 1, many, int64, "packed")],
        "BlobProto": [
            *((name, n, one, int32) for n, name in enumerate(("num", "channels", "height"), 1)),
            ("width", 4, one, int32),
            ("data", 5, many, float_, "packed"),
            ("diff", 6, many, float_, "packed"),
            ("shape", 7, one, message, "BlobShape"),
            ("double_data", 8, many, double, "packed"),
        ],
        "V1LayerParameter": [
            ("bottom", 2, many, string),
            ("name", 4, one, string),
            ("type", 5, one, int32),
            ("blobs", 6, many, message, "BlobProto"),
        ],
        "LayerParameter": [
            ("name", 1, one, string),
            ("type", 2, one, string),
            ("blobs", 7, many, message, "BlobProto"),
        ],
        "NetParameter": [
            ("name", 1, one, string),
            ("layers", 2, many, message, "V1LayerParameter"),
            ("input", 3, many, string),
            ("layer", 100, many, message, "LayerParameter"),
        ],
    }
    for name, entries in declared.items():
        kind = file.message_type.add(name=name)
        for field_name, number, label, type_, *extra in entries:
            entry = kind.field.add(name=field_name, number=number, label=label, type=type_)
            if extra == ["packed"]:
                entry.options.packed = packed
            elif extra:
                entry.type_name = f".caffe.{extra[0]}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"caffe.{name}"))
        for name in declared
    }


def write_caffe(
    path: Path,
    state: State,
    *,
    legacy: bool = True,
    packed: bool = True,
    data: str = "data",
    rename: dict[str, str] | None = None,
) -> None:
    net = caffe_messages(packed=packed)["NetParameter"](name="VGG_ILSVRC_11_layers")
    (net.layers if legacy else net.layer).add(name="data")
    for name in layers(state):
        layer = (net.layers if legacy else net.layer).add(name=(rename or {}).get(name, name))
        for part in ("weight", "bias"):
            tensor = state[f"{name}.{part}"]
            blob = layer.blobs.add()
            if legacy:
                sides = (1,) * (4 - tensor.ndim) + tuple(tensor.shape)
                blob.num, blob.channels, blob.height, blob.width = sides
            else:
                blob.shape.dim.extend(tensor.shape)
            getattr(blob, data).extend(tensor.flatten().tolist())
    path.write_bytes(net.SerializeToString())


def write_matconvnet(
    path: Path,
    state: State,
    *,
    old: bool = False,
    mean: Any = (120.0, 110.0, 100.0),
    compressed: bool = False,
) -> None:
    cells = []
    for name in layers(state):
        weight = state[f"{name}.weight"]
        if name == "fc6":
            weight = weight.reshape(-1, 512, 7, 7)
        elif weight.ndim == 2:
            weight = weight[..., None, None]
        blobs = [weight.permute(2, 3, 1, 0).numpy(), state[f"{name}.bias"].numpy()[None]]
        if old:
            cells.append({"type": "conv", "name": name, "filters": blobs[0], "biases": blobs[1]})
        else:
            pair = np.empty(2, dtype=object)
            pair[:] = blobs
            cells.append({"type": "conv", "name": name, "weights": pair})
        cells.append({"type": "relu", "name": f"relu{name[-3:]}"})
    row = np.empty(len(cells), dtype=object)
    row[:] = cells
    normalization = {"averageImage": np.asarray(mean, dtype=np.float32).reshape(1, -1, 3)}
    net: dict[str, Any] = {"layers": row}
    net |= {"normalization": normalization} if old else {"meta": {"normalization": normalization}}
    scipy.io.savemat(path, net, do_compression=compressed)


def keras_kernel(name: str, weight: Tensor) -> np.ndarray:
    """Transpose as Keras keeps kernels; the flattened inputs of fc1 are (7, 7, 512)."""
    if weight.ndim == 4:
        return weight.permute(2, 3, 1, 0).numpy()
    if name == "fc6":
        weight = weight.reshape(-1, 512, 7, 7).permute(0, 2, 3, 1).flatten(1)
    return weight.T.numpy()


def keras_name(name: str) -> str:
    return KERAS.get(name) or f"block{name[4]}_conv{name[6]}"


def write_keras(path: Path, state: State, layout: str = "{0}/{0}/{part}:0") -> None:
    parts = {"weight": "kernel", "bias": "bias"} if "_{part}" not in layout else {}
    with h5py.File(path, "w") as file:
        for name in layers(state):
            for part, short in (("weight", "W"), ("bias", "b")):
                place = layout.format(keras_name(name), part=parts.get(part, short))
                value = state[f"{name}.{part}"]
                file[place] = keras_kernel(name, value) if part == "weight" else value.numpy()


def write_onnx(path: Path, state: State, *, how: str = "Gemm", external: bool = False) -> None:
    """Write a graph whose initialisers have names that say nothing."""
    onnx = pytest.importorskip("onnx")
    from onnx import helper, numpy_helper

    nodes, initializers, at = [], [], "input"
    for count, name in enumerate(layers(state)):
        weight, bias = state[f"{name}.weight"].numpy(), state[f"{name}.bias"].numpy()
        out, w, b = f"x{count}", f"onnx::W_{2 * count}", f"onnx::b_{2 * count + 1}"
        if weight.ndim == 4:
            nodes.append(helper.make_node("Conv", [at, w, b], [out], pads=[1, 1, 1, 1]))
        elif how == "MatMul":
            weight = weight.T
            nodes.append(helper.make_node("MatMul", [at, w], [f"{out}_product"]))
            nodes.append(helper.make_node("Add", [b, f"{out}_product"], [out]))
        else:
            transposed = how == "Gemm"
            weight = weight if transposed else weight.T
            attributes = {"transB": 1} if transposed else {}
            nodes.append(helper.make_node("Gemm", [at, w, b], [out], **attributes))
        initializers += [
            numpy_helper.from_array(np.ascontiguousarray(weight), w),
            numpy_helper.from_array(bias, b),
        ]
        at = out
    shape = numpy_helper.from_array(np.array([1, -1]), "shape")
    given = helper.make_tensor_value_info("input", onnx.TensorProto.FLOAT, [1, 3, 224, 224])
    result = helper.make_tensor_value_info(at, onnx.TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "net", [given], [result], [shape, *initializers])
    onnx.save_model(
        helper.make_model(graph),
        path,
        save_as_external_data=external,
        location=f"{path.name}.data",
        size_threshold=0,
    )


WRITERS: dict[str, tuple[str, Callable[[Path, State], None]]] = {
    "safetensors": ("net.safetensors", write_safetensors),
    "PyTorch": ("net.pth", write_pth),
    "Caffe": ("net.caffemodel", write_caffe),
    "MatConvNet": ("net.mat", write_matconvnet),
    "Keras": ("net.h5", write_keras),
    "ONNX": ("net.onnx", write_onnx),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_reads_each_format(kind: str, tmp_path: Path, small: State) -> None:
    """Each format gives back the numbers that its own library wrote, in our names and shapes."""
    name, writer = WRITERS[kind]
    writer(tmp_path / name, small)
    raw = formats.read(tmp_path / name, "A")
    assert raw.format == kind
    assert raw.layers == layers(small)
    assert same(raw.state, small)


@pytest.mark.parametrize("kind", WRITERS)
def test_content_tells_the_format(kind: str, tmp_path: Path, small: State) -> None:
    """A file without a telling name is read by what it holds."""
    WRITERS[kind][1](tmp_path / "weights", small)
    assert formats.read(tmp_path / "weights", "A").format == kind


@pytest.mark.parametrize("kind", WRITERS)
def test_cut_off_files(kind: str, tmp_path: Path, small: State) -> None:
    """A file that ends anywhere before its end is refused by name, or has all its numbers."""
    name, writer = WRITERS[kind]
    writer(tmp_path / name, small)
    data = (tmp_path / name).read_bytes()
    for length in [0, 1, 7, 100, *range(0, len(data) - 4096, len(data) // 9), len(data) - 900]:
        (tmp_path / name).write_bytes(data[:length])
        # protobuf and HDF5 files are whole up to a layer where they are cut between two.
        with pytest.raises(WeightsError, match=name):
            formats.read(tmp_path / name, "A").take(layers(small))


@pytest.mark.parametrize("kind", WRITERS)
def test_altered_files(kind: str, tmp_path: Path) -> None:
    """Changed bytes change numbers or are refused; nothing else is ever raised."""
    state = random_state("A", 1, narrow=False)
    name, writer = WRITERS[kind]
    writer(tmp_path / name, state)
    data = (tmp_path / name).read_bytes()
    dice = random.Random(1)
    refused = 0
    for _ in range(60):
        changed = bytearray(data)
        for _ in range(dice.choice([1, 4, 30])):
            changed[dice.randrange(dice.choice([40, len(data)]))] = dice.randrange(256)
        (tmp_path / name).write_bytes(changed)
        try:
            found = formats.read(tmp_path / name, "A").state
        except WeightsError:
            refused += 1
        else:
            assert {key: v.shape for key, v in found.items()} == {
                key: v.shape for key, v in state.items()
            }
    assert refused > 5


# --- details of single formats ---


@pytest.mark.parametrize("net", [net for net in NETS if net != "A-LRN"])
def test_net_is_told_by_the_shapes(net: str, tmp_path: Path) -> None:
    """The convolutions alone tell a net; A's are A-LRN's too, which must be asked for."""
    state = {
        f"{layer.name}.{part}": torch.zeros(layer.shape if part == "weight" else layer.shape[:1])
        for layer in layers_of(net)
        if layer.kind == "conv"
        for part in ("weight", "bias")
    }
    write_safetensors(tmp_path / "n.safetensors", state)
    raw = formats.read(tmp_path / "n.safetensors")
    assert raw.net == net
    if net == "A":
        assert formats.read(tmp_path / "n.safetensors", "A-LRN").net == "A-LRN"


def test_another_net_is_refused(tmp_path: Path, whole: State) -> None:
    """Weights of A asked for as D: the error names both."""
    write_safetensors(tmp_path / "a.safetensors", whole)
    with pytest.raises(WeightsError, match=r"of A or A-LRN, not of net D"):
        formats.read(tmp_path / "a.safetensors", "D")
    with pytest.raises(ParameterError, match="'VGG16'"):
        formats.read(tmp_path / "a.safetensors", "VGG16")


def test_open_question_is_asked(tmp_path: Path) -> None:
    """The first convolutions of B are those of C, D and E: without a net none is guessed."""
    write_safetensors(tmp_path / "b.safetensors", random_state("B", 3, narrow=False))
    with pytest.raises(WeightsError, match="B or C or D or E; say which with --net"):
        formats.read(tmp_path / "b.safetensors")


def torchvision_vgg11(whole: State) -> nn.Module:
    """Return torchvision's vgg11 with a narrow classifier, holding the state's numbers."""
    with torch.device("meta"):
        net = torchvision.models.vgg11(init_weights=False)
        net.classifier = nn.Sequential(
            *(nn.Linear(512 * 49, 6), nn.ReLU(), nn.Dropout()),
            *(nn.Linear(6, 5), nn.ReLU(), nn.Dropout()),
            nn.Linear(5, 4),
        )
    net.to_empty(device="cpu")
    with torch.no_grad():
        for own, given in zip(net.state_dict().values(), whole.values(), strict=True):
            own.copy_(given)
    return net.eval()


@pytest.mark.parametrize("wrapping", ["plain", "nested", "legacy", "safetensors"])
def test_torchvision_names(wrapping: str, tmp_path: Path, whole: State) -> None:
    """A state dict of torchvision is read bare, in a checkpoint, and in torch's old format."""
    state = torchvision_vgg11(whole).state_dict()
    path = tmp_path / ("v.safetensors" if wrapping == "safetensors" else "v.pth")
    if wrapping == "safetensors":
        safetensors.torch.save_file(state, path)
    elif wrapping == "nested":
        checkpoint = {f"module.{name}": tensor for name, tensor in state.items()}
        torch.save({"epoch": 74, "state_dict": checkpoint}, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=wrapping == "plain")
    raw = formats.read(path)
    assert (raw.net, raw.pixels, raw.assumed) == ("A", TORCHVISION, True)
    assert same(raw.state, whole)


def test_timm_names(tmp_path: Path, whole: State) -> None:
    """The names of timm, with fc6 and fc7 as convolutions, give the same parameters."""
    vgg = pytest.importorskip("timm.models.vgg")
    net = vgg.VGG(vgg.cfgs["vgg11"], num_classes=4, mlp_ratio=6 / 4096)
    wide = {"fc7.weight": (4096, 6), "fc7.bias": (4096,), "fc8.weight": (4, 4096)}
    whole = whole | {name: torch.randn(shape) for name, shape in wide.items()}
    state = net.state_dict()
    for own, given in zip(state.values(), whole.values(), strict=True):
        own.copy_(given.reshape(own.shape))
    torch.save(state, tmp_path / "timm.pth")
    assert same(formats.read(tmp_path / "timm.pth").state, whole)


def test_batch_normalisation_is_refused(tmp_path: Path) -> None:
    """A net like vgg11_bn is not of the paper: the error says what would be."""
    with torch.device("meta"):
        features = torchvision.models.vgg11_bn(init_weights=False).features
    torch.save(
        {f"features.{k}": torch.zeros(v.shape) for k, v in features.state_dict().items()},
        tmp_path / "bn.pth",
    )
    with pytest.raises(WeightsError, match=r"batch normalisation.*vgg11, vgg13"):
        formats.read(tmp_path / "bn.pth")


class Evil:
    """Leaves a trace if it is ever unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.trace,)


@pytest.mark.parametrize("zipped", [True, False])
def test_pickles_are_never_run(zipped: bool, tmp_path: Path) -> None:
    """Code hidden in a .pth does not run, and the error says what to save instead."""
    trace = tmp_path / "trace"
    torch.save({"x": Evil(trace)}, tmp_path / "e.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(WeightsError, match=r"never loaded.*state_dict"):
        formats.read(tmp_path / "e.pth")
    assert not trace.exists()


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
    with pytest.raises(WeightsError, match="lacks fc8"):
        raw.take(["fc8"])


def test_caffe_lengths_are_not_believed(tmp_path: Path) -> None:
    """Lengths and shapes far beyond the file are refused at once, without taking memory."""
    huge = b"\xff\xff\xff\xff\xff\xff\xff\x7f"
    blob = b"\x08" + huge + b"\x10" + huge + b"\x18" + huge + b"\x20" + huge
    layer = b"\x22\x07conv1_1" + b"\x32" + bytes([len(blob)]) + blob
    for data in (b"\x12" + huge, b"\x12" + bytes([len(layer)]) + layer, b"\x12\x80" + huge * 3):
        (tmp_path / "h.caffemodel").write_bytes(data)
        with pytest.raises(WeightsError, match=r"h\.caffemodel"):
            formats.read(tmp_path / "h.caffemodel")


@pytest.mark.parametrize("old", [True, False])
def test_matconvnet_mean(old: bool, tmp_path: Path, small: State) -> None:
    """Both generations of MatConvNet files bring their mean, a colour or a picture, in RGB."""
    mean = (120.0, 110.0, 100.0)
    picture = np.broadcast_to(np.float32(mean), (2, 2, 3)) + np.float32([[[0], [2]], [[-2], [0]]])
    write_matconvnet(tmp_path / "m.mat", small, old=old, mean=mean if old else picture)
    raw = formats.read(tmp_path / "m.mat", "A")
    assert raw.pixels == PixelConvention("RGB", 255.0, mean, pool_rounding="ceil")
    assert not raw.assumed
    assert same(raw.state, small)


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
    with pytest.raises(WeightsError, match="DagNN" if variable == "params" else "no model"):
        formats.read(tmp_path / "m.mat")


def test_matlab_73(tmp_path: Path) -> None:
    """A .mat in HDF5 is recognised and the error says how to save it."""
    with h5py.File(tmp_path / "m.mat", "w", userblock_size=512) as file:
        file["layers"] = np.ones(3)
    with (tmp_path / "m.mat").open("r+b") as raw:
        raw.write(b"MATLAB 7.3 MAT-file")
    with pytest.raises(WeightsError, match="Save it again with -v7"):
        formats.read(tmp_path / "m.mat")


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


@pytest.mark.parametrize("file", ["k.weights.h5", "k.h5"])
@pytest.mark.parametrize("names", [True, False])
def test_keras_itself(
    file: str, names: bool, tmp_path: Path, whole: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A VGG net that Keras built and saved computes the same pool5 and fc6 with our reading."""
    if "keras" not in sys.modules:
        monkeypatch.setenv("KERAS_BACKEND", "torch")
    keras = pytest.importorskip("keras", reason="keras is not installed; h5py wrote its layouts")
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
    state = formats.read(tmp_path / file).state
    pixels = torch.rand(1, 3, 224, 224) * 255 - 120
    expected = torch.from_numpy(
        np.asarray(model.predict(pixels.permute(0, 2, 3, 1).numpy(), verbose=0))
    )
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
        with pytest.raises(WeightsError, match=r"net\.onnx\.data, which is not beside it"):
            formats.read(tmp_path / "net.onnx", "A")


def test_onnx_from_torch(tmp_path: Path, whole: State) -> None:
    """A graph that torch exported has the parameters of the exported network."""
    pytest.importorskip("onnx")
    net = torchvision_vgg11(whole)
    path = str(tmp_path / "v.onnx")
    torch.onnx.export(net, (torch.zeros(1, 3, 224, 224),), path, dynamo=False)
    raw = formats.read(path)
    assert raw.net == "A"
    assert same(raw.state, whole)


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
    with pytest.raises(WeightsError, match="outside its folder"):
        formats.read(tmp_path / "n.onnx", "A")


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


def test_half_precision_becomes_float32(tmp_path: Path, small: State) -> None:
    """Files of float16 and bfloat16 are read as float32 with their rounded values."""
    for dtype in (torch.float16, torch.bfloat16):
        rounded = {name: tensor.to(dtype) for name, tensor in small.items()}
        write_safetensors(tmp_path / "h.safetensors", rounded)
        found = formats.read(tmp_path / "h.safetensors", "A").state
        assert same(found, {name: tensor.float() for name, tensor in rounded.items()})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fc7.weight": torch.zeros(5, 7)}, "fc7 takes 7 inputs, expected 6"),
        ({"fc6.weight": torch.zeros(6, 4608)}, "fc6 takes 4,608 inputs, expected 25,088"),
        ({"conv1_1.bias": torch.zeros(63)}, "conv1_1 has 64 outputs and a bias of shape"),
        ({"conv1_1.weight": torch.zeros(64, 3, 3, 3, dtype=torch.int64)}, "no weight"),
        ({"conv1_1.weight": torch.zeros(64, 3, 7, 7)}, "of no configuration"),
    ],
)
def test_layers_that_do_not_fit(change: State, message: str, tmp_path: Path, small: State) -> None:
    """Parameters that cannot stand together are refused with what is wrong."""
    write_pth(tmp_path / "x.pth", small | change)
    with pytest.raises(WeightsError, match=message):
        formats.read(tmp_path / "x.pth")


def test_no_weights_at_all(tmp_path: Path) -> None:
    """A page saved as a model, an absent file and other networks are told from weights."""
    (tmp_path / "p.caffemodel").write_text("<!DOCTYPE html>\n<html>404 Not Found</html>\n")
    with pytest.raises(WeightsError, match=r"begins with '<!DOCTYPE html>.*caffemodel, .mat"):
        formats.read(tmp_path / "p.caffemodel")
    with pytest.raises(WeightsNotFound, match=r"no weights file .*q\.pth"):
        formats.read(tmp_path / "q.pth")
    torch.save({"layer1.0.conv1.weight": torch.zeros(2)}, tmp_path / "r.pth")
    with pytest.raises(WeightsError, match=r"no layer named.*only layer1\.0\.conv1\.weight"):
        formats.read(tmp_path / "r.pth")


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_written_files_come_back(suffix: str, tmp_path: Path, whole: State) -> None:
    """State, net, pixels, source and licence survive; a .pth keeps its Caffe convention too."""
    path = tmp_path / f"net{suffix}"
    pixels = PixelConvention("BGR", 255.0, (1.0, 2.5, 3.0), pool_rounding="ceil")
    formats.write(path, whole, pixels, net="A-LRN", source="me", licence="MIT")
    raw = formats.read(path)
    assert (raw.net, raw.pixels, raw.assumed) == ("A-LRN", pixels, False)
    assert (raw.metadata["source"], raw.metadata["licence"]) == ("me", "MIT")
    assert same(raw.state, whole)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_torchvision_loads_our_pth(tmp_path: Path, whole: State) -> None:
    """A written .pth is a plain state dict that torchvision takes with strict=True."""
    formats.write(tmp_path / "a.pth", whole, CAFFE, net="A", source="x", licence="y")
    state = torch.load(tmp_path / "a.pth", weights_only=True)
    assert isinstance(state, OrderedDict)
    net = torchvision_vgg11({name: torch.zeros_like(t) for name, t in whole.items()})
    net.load_state_dict(state, strict=True)
    assert torch.equal(net.features[18].weight, whole["conv5_2.weight"])
    assert torch.equal(net.classifier[6].bias, whole["fc8.bias"])


def test_write_refuses(tmp_path: Path, small: State) -> None:
    """An unknown format and a state dict of another net leave no file behind."""
    with pytest.raises(ParameterError, match=r"\.safetensors or \.pth"):
        formats.write(tmp_path / "a.h5", small, CAFFE, net="A", source="", licence="")
    with pytest.raises(WeightsError, match="not of net D"):
        formats.write(tmp_path / "a.pth", small, CAFFE, net="D", source="", licence="")
    with pytest.raises(WeightsError, match="not weights and biases of net A: x"):
        formats.write(
            tmp_path / "a.pth", {"x": torch.ones(1)}, CAFFE, net="A", source="", licence=""
        )
    assert list(tmp_path.iterdir()) == []


def test_views_are_written_alone(tmp_path: Path) -> None:
    """A slice of a bigger tensor is written without the rest."""
    big = torch.randn(40 * 64, 3, 3, 3)
    state = {"conv1_1.weight": big[:64], "conv1_1.bias": torch.zeros(64)}
    formats.write(tmp_path / "a.pth", state, CAFFE, net="A", source="", licence="")
    assert (tmp_path / "a.pth").stat().st_size < 20_000


def test_a_saved_svm_is_no_net(tmp_path: Path) -> None:
    """It is a safetensors file of ours as well, and whole: the error says what it is."""
    model = SavedModel(
        np.ones((2, 8)), np.ones(2), ("cat", "dog"), (1.0,), (), ("embedded",), (), {}
    )
    path = save(tmp_path / "svm", model)
    with pytest.raises(WeightsError, match=r"it is a saved SVM, .* `vggfeat predict` takes it"):
        formats.read(path)


def test_damaged_pixels_are_refused(tmp_path: Path) -> None:
    """A convention that makes no sense is an error, not a silent default."""
    state = random_state("A", 1, narrow=False)
    for pixels in ("{}", "nonsense", CAFFE.to_json().replace("BGR", "YUV")):
        safetensors.torch.save_file(
            state, tmp_path / "a.safetensors", metadata={"vggfeat": "1", "pixels": pixels}
        )
        with pytest.raises(WeightsError, match="pixel convention"):
            formats.read(tmp_path / "a.safetensors", "A")


def test_shipped_weights() -> None:
    """The embedded file is net D's convolutions with the licence notice beside it."""
    raw = formats.read(resources.asset("vgg_d_conv_fp16.safetensors"))
    assert (raw.net, raw.layers[-1], raw.pixels) == ("D", "conv5_3", CAFFE)
    notice = resources.asset("LICENSE-vgg_d_conv.txt").read_text()
    for said in ("Simonyan", "Zisserman", "CC BY 4.0", "16-bit", "robots.ox.ac.uk"):
        assert said in notice
