"""Every reader on files that the format's own library wrote, whole, cut off and altered."""

from __future__ import annotations

import random
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import torchvision
from helpers.mistakes import refuses
from weightfiles import (
    WRITERS,
    State,
    layers,
    random_state,
    same,
    torchvision_vgg11,
    write_pth,
    write_safetensors,
)

from vggfeat._io import assets
from vggfeat.errors import ParameterError, WeightsError, WeightsNotFound
from vggfeat.nets import formats
from vggfeat.nets.config import TABLE_1, layers_of
from vggfeat.nets.preprocessing import CAFFE, TORCHVISION, PixelConvention
from vggfeat.svm.model import SavedModel, save


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
        refuses(
            lambda: formats.read(tmp_path / name, "A").take(layers(small)), WeightsError, [name]
        )


@pytest.mark.parametrize("kind", [kind for kind in WRITERS if kind != "MatConvNet"])
def test_altered_files(kind: str, tmp_path: Path) -> None:
    """Changed bytes change numbers or are refused; nothing else is ever raised.

    But for a .mat: scipy's reader may end the process.
    """
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


@pytest.mark.parametrize("net", [net for net in TABLE_1 if net != "A-LRN"])
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
    refuses(
        lambda: formats.read(tmp_path / "a.safetensors", "D"),
        WeightsError,
        ["a.safetensors", "A-LRN", "D"],
    )
    refuses(lambda: formats.read(tmp_path / "a.safetensors", "VGG17"), ParameterError, ["VGG17"])


def test_open_question_is_asked(tmp_path: Path) -> None:
    """The first convolutions of B are those of C, D and E: without a net none is guessed."""
    write_safetensors(tmp_path / "b.safetensors", random_state("B", 3, narrow=False))
    refuses(
        lambda: formats.read(tmp_path / "b.safetensors"),
        WeightsError,
        ["B", "C", "D", "E", "net="],
    )


@pytest.mark.parametrize(
    "wrapping", ["plain", "nested", "net", "any", "parallel", "legacy", "safetensors"]
)
def test_torchvision_names(wrapping: str, tmp_path: Path, whole: State) -> None:
    """A state dict of torchvision is read bare, in a checkpoint, and in torch's old format."""
    state = torchvision_vgg11(whole).state_dict()
    path = tmp_path / ("v.safetensors" if wrapping == "safetensors" else "v.pth")
    if wrapping == "safetensors":
        safetensors.torch.save_file(state, path)
    elif wrapping == "nested":
        checkpoint = {f"module.{name}": tensor for name, tensor in state.items()}
        torch.save({"epoch": 74, "state_dict": checkpoint}, path)
    elif wrapping in ("net", "any"):
        torch.save({wrapping: state, "optimizer": {"state": {}}}, path)
    elif wrapping == "parallel":  # nn.DataParallel around the convolutions alone
        torch.save({n.replace("features.", "features.module."): t for n, t in state.items()}, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=wrapping == "plain")
    raw = formats.read(path)
    assert (raw.net, raw.pixels, raw.assumed) == ("A", TORCHVISION, True)
    assert same(raw.state, whole)


@pytest.mark.parametrize(
    ("inside", "names"),
    [
        ("archive/constants.pkl", ["TorchScript", "state_dict"]),
        ("model.weights.h5", ["Keras", "save_weights"]),
        ("conv1_1.npy", ["NumPy", "torch.save"]),
    ],
)
def test_zip_files_of_others_are_named(inside: str, names: list[str], tmp_path: Path) -> None:
    """And how to write one that is read."""
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as archive:
        archive.writestr(inside, b"")
    refuses(lambda: formats.read(tmp_path / "x.pt"), WeightsError, names)
    with pytest.raises(WeightsError) as error:
        formats.read(tmp_path / "x.pt")
    assert "PyTorch" not in str(error.value)


def test_one_of_several_state_dicts_is_not_guessed(tmp_path: Path) -> None:
    """They are named."""
    state = {"features.0.weight": torch.zeros(64, 3, 3, 3)}
    torch.save({"teacher": state, "student": state}, tmp_path / "two.pth")
    refuses(lambda: formats.read(tmp_path / "two.pth"), WeightsError, ["teacher", "student"])


@pytest.mark.parametrize("ours", ["model", "vgg"])
def test_a_state_dict_that_is_not_read_is_named(ours: str, tmp_path: Path, whole: State) -> None:
    """An average of weights beside them is; what belongs to an optimizer is no state dict."""
    state = torchvision_vgg11(whole).state_dict()
    beside = {"optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}}}
    if ours == "model":
        beside["model_ema"] = {"module": {name: 0 * v for name, v in state.items()}}
    torch.save({ours: state, "net": {"name": "vgg11"}, **beside}, tmp_path / "x.pth")
    raw = formats.read(tmp_path / "x.pth")
    assert same(raw.state, whole)
    assert [name.split()[0] for name in raw.ignored] == ["model_ema"] * (ours == "model")


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
    refuses(lambda: formats.read(tmp_path / "bn.pth"), WeightsError, ["bn.pth", "vgg11"])


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
    refuses(lambda: formats.read(tmp_path / "e.pth"), WeightsError, ["e.pth", "state_dict"])
    assert not trace.exists()


def test_half_precision_becomes_float32(tmp_path: Path, small: State) -> None:
    """Files of float16 and bfloat16 are read as float32 with their rounded values."""
    for dtype in (torch.float16, torch.bfloat16):
        rounded = {name: tensor.to(dtype) for name, tensor in small.items()}
        write_safetensors(tmp_path / "h.safetensors", rounded)
        found = formats.read(tmp_path / "h.safetensors", "A").state
        assert same(found, {name: tensor.float() for name, tensor in rounded.items()})


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"fc7.weight": torch.zeros(5, 7)}, ["fc7", "7", "6"]),
        ({"fc6.weight": torch.zeros(6, 4608)}, ["fc6", "4,608", "25,088"]),
        ({"conv1_1.bias": torch.zeros(63)}, ["conv1_1", "64", "63"]),
        ({"conv1_1.weight": torch.zeros(64, 3, 3, 3, dtype=torch.int64)}, ["conv1_1", "weight"]),
        ({"conv1_1.weight": torch.zeros(64, 3, 7, 7)}, ["x.pth", "Table 1"]),
    ],
)
def test_layers_that_do_not_fit(
    change: State, names: list[str], tmp_path: Path, small: State
) -> None:
    """Parameters that cannot stand together are refused with what is wrong."""
    write_pth(tmp_path / "x.pth", small | change)
    refuses(lambda: formats.read(tmp_path / "x.pth"), WeightsError, names)


def test_no_weights_at_all(tmp_path: Path) -> None:
    """A page saved as a model, an absent file and other networks are told from weights."""
    (tmp_path / "p.caffemodel").write_text("<!DOCTYPE html>\n<html>404 Not Found</html>\n")
    refuses(
        lambda: formats.read(tmp_path / "p.caffemodel"),
        WeightsError,
        ["p.caffemodel", "<!DOCTYPE html>", ".mat", ".onnx"],
    )
    refuses(lambda: formats.read(tmp_path / "q.pth"), WeightsNotFound, ["q.pth"])
    torch.save({"layer1.0.conv1.weight": torch.zeros(2)}, tmp_path / "r.pth")
    refuses(
        lambda: formats.read(tmp_path / "r.pth"), WeightsError, ["r.pth", "layer1.0.conv1.weight"]
    )


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


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_source_that_is_no_text_is_written(suffix: str, tmp_path: Path, small: State) -> None:
    """Bytes of a path that are no UTF-8 come back in the words of the source as an escape."""
    path = tmp_path / f"net{suffix}"
    formats.write(path, small, CAFFE, net="A", source="of a\udcff", licence="")
    assert formats.read(path).metadata["source"] == r"of a\udcff"


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
    refuses(
        lambda: formats.write(tmp_path / "a.h5", small, CAFFE, net="A", source="", licence=""),
        ParameterError,
        [".safetensors", ".pth"],
    )
    refuses(
        lambda: formats.write(tmp_path / "a.pth", small, CAFFE, net="D", source="", licence=""),
        WeightsError,
        ["D"],
    )
    refuses(
        lambda: formats.write(
            tmp_path / "a.pth", {"x": torch.ones(1)}, CAFFE, net="A", source="", licence=""
        ),
        WeightsError,
        ["net A", "x"],
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
    model = SavedModel(np.ones((2, 8)), np.ones(2), ("cat", "dog"), (1.0,), (), ("embedded",), {})
    path = save(tmp_path / "svm", model)
    refuses(lambda: formats.read(path), WeightsError, ["vggfeat predict"])


def test_damaged_pixels_are_refused(tmp_path: Path) -> None:
    """A convention that makes no sense is an error, not a silent default."""
    state = random_state("A", 1, narrow=False)
    for pixels in ("{}", "nonsense", CAFFE.to_json().replace("BGR", "YUV")):
        safetensors.torch.save_file(
            state, tmp_path / "a.safetensors", metadata={"vggfeat": "1", "pixels": pixels}
        )
        refuses(
            lambda: formats.read(tmp_path / "a.safetensors", "A"), WeightsError, ["a.safetensors"]
        )


def test_shipped_weights() -> None:
    """The embedded file is net D's convolutions with the licence notice beside it."""
    raw = formats.read(assets.asset("vgg_d_conv_fp16.safetensors"))
    assert (raw.net, raw.layers[-1], raw.pixels) == ("D", "conv5_3", CAFFE)
    notice = assets.asset("LICENSE-vgg_d_conv.txt").read_text()
    for said in ("Simonyan", "Zisserman", "CC BY 4.0", "16-bit", "robots.ox.ac.uk"):
        assert said in notice
