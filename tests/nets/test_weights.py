"""Which weights are used, what comes with them, and what is said where there are none."""

from __future__ import annotations

import hashlib
import os
import pickle
import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import torchvision
from helpers.mistakes import refuses
from torch import Tensor

from vggfeat._io import assets
from vggfeat._io.download import Checksums
from vggfeat.errors import (
    DownloadError,
    ParameterError,
    PixelsAssumedWarning,
    WeightsError,
    WeightsNotFound,
)
from vggfeat.nets import formats, registry
from vggfeat.nets.preprocessing import CAFFE, TORCHVISION, PixelConvention
from vggfeat.nets.registry import SOURCES, RemoteFile, Source, fetch, listing
from vggfeat.nets.weights import Weights, convert, describe, load

State = dict[str, Tensor]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Use an empty cache and no network."""
    monkeypatch.setenv("VGGFEAT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("VGGFEAT_OFFLINE", "1")
    return tmp_path / "home"


@pytest.fixture
def state() -> State:
    """Draw the first two convolutions of net A."""
    torch.manual_seed(0)
    return {
        "conv1_1.weight": torch.randn(64, 3, 3, 3),
        "conv1_1.bias": torch.randn(64),
        "conv2_1.weight": torch.randn(128, 64, 3, 3),
        "conv2_1.bias": torch.randn(128),
    }


def fake_source(
    monkeypatch: pytest.MonkeyPatch, state: State, net: str = "A", files: Sequence[str] = ("f",)
) -> Source:
    """Put a source ``authors`` of a small net into the registry, with its true checksum."""
    data = safetensors.torch.save(state)
    checksums = Checksums(sha256=hashlib.sha256(data).hexdigest(), size=len(data))
    source = Source(
        "authors",
        net,
        tuple(
            RemoteFile(f"{name}.safetensors", (f"http://h/{name}",), checksums) for name in files
        ),
        CAFFE,
        "a licence",
    )
    monkeypatch.setitem(SOURCES, ("authors", net), source)
    return source


def put(home: Path, name: str, state: State) -> Path:
    path = home / "weights" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(safetensors.torch.save(state))
    return path


# --- the registry ---


@pytest.mark.parametrize(
    ("net", "entry"),
    [("A", "VGG11"), ("B", "VGG13"), ("D", "VGG16"), ("E", "VGG19")],
)
def test_registry_agrees_with_torchvision(net: str, entry: str) -> None:
    """Address, size and pixel convention are those that torchvision itself publishes."""
    theirs = getattr(torchvision.models, f"{entry}_Weights").IMAGENET1K_V1
    source = SOURCES["torchvision", net]
    file = source.files[0]
    transforms = theirs.transforms()
    assert file.urls == (theirs.url,)
    assert (source.pixels.mean, source.pixels.std) == (
        tuple(transforms.mean),
        tuple(transforms.std),
    )
    checksum = file.checksums.sha256 or file.checksums.sha256_prefix or ""
    assert f"-{checksum[:8]}." in theirs.url
    if file.checksums.size:
        assert file.checksums.size / 2**20 == pytest.approx(theirs.meta["_file_size"], abs=1e-3)


def test_embedded_file_is_the_published_one() -> None:
    """The asset has the checksum of the registry."""
    data = assets.asset("vgg_d_conv_fp16.safetensors").read_bytes()
    assert hashlib.sha256(data).hexdigest() == registry.EMBEDDED.files[0].checksums.sha256


def test_listing(home: Path, state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file of the registry has a row, which tells whether it is here."""
    fake_source(monkeypatch, state)
    before = {row.file: row.cached for row in listing()}
    put(home, "f.safetensors", state)
    after = {row.file: row.cached for row in listing()}
    assert before["vgg_d_conv_fp16.safetensors"]
    assert not before["f.safetensors"]
    assert {name for name in after if after[name] != before[name]} == {"f.safetensors"}
    rows = {(row.source, row.net) for row in listing()}
    assert {("authors", "D"), ("authors", "E"), ("torchvision", "B"), ("embedded", "D")} <= rows


@pytest.mark.parametrize("file", ["VGG_ILSVRC_16_layers.caffemodel", "vgg11-8a719046.pth"])
def test_a_stub_in_the_place_of_a_file_is_not_that_file(file: str, home: Path) -> None:
    """Neither listed as here nor used; without a network nobody is sent to delete it alone."""
    put(home, file, {"a": torch.zeros(25_000)})
    [row] = [row for row in listing() if row.file == file]
    assert not row.cached
    assert row.bytes in (553432081, None)
    refuses(lambda: fetch(row.source, row.net), WeightsError, [file, "https://", "VGGFEAT_OFFLINE"])


# --- auto ---


def test_auto_takes_embedded_where_it_suffices() -> None:
    """Net D up to pool5 comes from the package: the file's numbers as float32, nothing more."""
    found = load(layers=("pool3", "conv2_1"))
    assert (found.source, found.pixels, found.assumed) == ("embedded", CAFFE, False)
    asset = safetensors.torch.load_file(assets.asset("vgg_d_conv_fp16.safetensors"))
    expected = {k: v.float() for k, v in asset.items() if k < "conv4"}
    assert found.state.keys() == expected.keys()
    assert all(torch.equal(found.state[name], expected[name]) for name in expected)


def test_auto_prefers_the_cached_authors_file(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once the authors' file is cached it is used for pool5 as well."""
    asset = safetensors.torch.load_file(assets.asset("vgg_d_conv_fp16.safetensors"))
    whole = {name: tensor.float() * 2 for name, tensor in asset.items()}
    fake_source(monkeypatch, whole, "D")
    put(home, "f.safetensors", whole)
    found = load("auto", "D", layers=("conv1_1",))
    assert (found.source, found.licence) == ("authors", "a licence")
    assert torch.equal(found.state["conv1_1.bias"], whole["conv1_1.bias"])


@pytest.mark.parametrize(
    ("net", "layer", "file"),
    [
        ("D", "fc6", "VGG_ILSVRC_16_layers.caffemodel"),
        ("D", "fc8", "VGG_ILSVRC_16_layers.caffemodel"),
        ("E", "conv1_1", "VGG_ILSVRC_19_layers.caffemodel"),
        ("A", "pool5", "vgg11-8a719046.pth"),
        ("B", "pool5", "vgg13-19584684.pth"),
    ],
)
def test_offline_says_how_to_bring_the_file(net: str, layer: str, file: str, home: Path) -> None:
    """Without a network the error has the file, its checksum, its address and its place."""
    with pytest.raises(WeightsNotFound) as caught:
        load("auto", net, layers=(layer,))
    said = str(caught.value)
    checksums = next(f.checksums for s in SOURCES.values() for f in s.files if f.name == file)
    for needed in (
        file,
        checksums.sha256 or f"begins with {checksums.sha256_prefix}",
        "https://",
        str(home / "weights" / file),
        "VGGFEAT_OFFLINE",
    ):
        assert needed in said
    of_d = "weights='embedded', layers=('pool5',)"
    assert (of_d in said) == (net == "D" and layer != "fc8")
    assert ("weights=FILE" in said) == (layer != "fc8")
    assert ("name a file that has fc8" in said) == (layer == "fc8")


@pytest.mark.parametrize("net", ["A-LRN", "C", "B-5x5"])
def test_nets_without_public_weights(net: str) -> None:
    """Nobody publishes these: the error points to training."""
    refuses(lambda: load(net=net), WeightsNotFound, [f"vggfeat train --net {net}"])


@pytest.mark.parametrize(
    ("name", "net", "layer", "message"),
    [
        ("embedded", "D", "fc7", "lack fc7. Use layers=('pool5',), or weights='authors'"),
        ("embedded", "D", "fc8", "lack fc8. Name authors, torchvision, or a file that has fc8"),
        ("embedded", "E", "pool5", "embedded has net D, not E. Name authors or torchvision"),
        ("authors", "A", "pool5", "authors has net D, E, not A. Name torchvision instead"),
        ("torchvision", "C", "pool5", "not C. Train it: vggfeat train --net C"),
        ("autors", "D", "pool5", "autors is no file, and none of the named weights auto, authors"),
    ],
)
def test_what_a_source_lacks(name: str, net: str, layer: str, message: str) -> None:
    """Asking a source for what it lacks names what would do."""
    with pytest.raises(WeightsError) as caught:
        load(name, net, layers=(layer,))
    assert message in str(caught.value)


def test_unknown_names() -> None:
    """A net, layer, source or convention that does not exist is an error with the choices."""
    refuses(lambda: load(net="VGG17"), ParameterError, ["VGG17", "'vgg16'"])
    refuses(lambda: fetch("authors", "VGG17"), ParameterError, ["VGG17", "'vgg16'"])
    refuses(lambda: load(layers=("fc9",)), ParameterError, ["fc9"])
    refuses(
        lambda: load("embedded", layers=("conv1_1",), pixels="keras"),
        ParameterError,
        ["keras", "caffe", "torchvision"],
    )
    refuses(lambda: fetch("oxford", "D"), ParameterError, ["oxford", "auto", "authors"])


# --- the cache ---


def test_cached_file_is_hashed_once(
    home: Path, state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A verified file is not read again until it is another, even one of the same size and date."""
    fake_source(monkeypatch, state)
    path = put(home, "f.safetensors", state)
    hashed: list[Path] = []
    check = Checksums.mismatch
    monkeypatch.setattr(
        Checksums, "mismatch", lambda self, path: hashed.append(path) or check(self, path)
    )
    for _ in range(3):
        assert fetch("authors", "A") == path
    assert hashed == [path]
    os.utime(path, (1, 1))
    fetch("authors", "A")
    assert hashed == [path, path]
    time.sleep(0.02)  # a tick of the file system's clock
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(damaged)
    os.utime(path, (1, 1))
    with pytest.raises(WeightsError, match="not the published file"):
        fetch("authors", "A")


def test_damaged_cache_is_refused(
    home: Path, state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file in the cache with another checksum is not used, even after a good one was noted."""
    source = fake_source(monkeypatch, state)
    path = put(home, "f.safetensors", state)
    load("authors", "A", layers=("conv1_1",))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    os.utime(path, (1, 1))
    refuses(
        lambda: load("authors", "A", layers=("conv1_1",)),
        WeightsError,
        [str(source.files[0].checksums.sha256)],
    )


def test_mirror_of_another_file(home: Path, state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the original fails, the other file with the same parameters is fetched and noted."""
    fake_source(monkeypatch, state, files=("original", "conversion"))
    asked: list[Any] = []

    def serve(urls: Sequence[str], target: Path, checksums: Checksums, *_: Any) -> Path:
        asked.append((urls, checksums.size))
        if target.name.startswith("original"):
            raise DownloadError("no connection")
        return put(home, target.name, state)

    monkeypatch.delenv("VGGFEAT_OFFLINE")
    monkeypatch.setattr(registry, "download", serve)
    path = fetch("authors", "A")
    assert path.name == "conversion.safetensors"
    size = path.stat().st_size
    assert asked == [(("http://h/original",), size), (("http://h/conversion",), size)]
    assert fetch("authors", "A") == path
    assert len(asked) == 2
    assert load("authors", "A", layers=("pool2",)).source == "authors"


# --- a user's file ---


def test_digest_is_of_the_parameters(state: State, tmp_path: Path) -> None:
    """One digest, worked out by hand, from a .pth, a .safetensors and a fp64 file."""
    by_hand = hashlib.sha256()
    for name, shape in (("conv1_1.bias", "(64,)"), ("conv1_1.weight", "(64, 3, 3, 3)")):
        by_hand.update((name + shape).encode() + state[name].numpy().tobytes())
    torch.save({name: tensor.double() for name, tensor in state.items()}, tmp_path / "a.pt")
    files = [tmp_path / "a.pt", tmp_path / "a.safetensors", tmp_path / "a.pth"]
    for path in files[1:]:
        formats.write(path, state, CAFFE, net="A", source="x", licence="y")
    digests = {load(path, "A", layers=("conv1_1",)).sha256 for path in files}
    assert digests == {by_hand.hexdigest()}
    assert load(files[0], "A", layers=("conv2_1",)).sha256 not in digests


def test_assumed_pixels(state: State, tmp_path: Path) -> None:
    """A file that does not state its pixels gets the usual ones, says so, and can be overruled."""
    torch.save(
        {"features.0.weight": state["conv1_1.weight"]} | {"features.0.bias": state["conv1_1.bias"]},
        tmp_path / "t.pth",
    )
    safetensors.torch.save_file(state, tmp_path / "c.safetensors")
    theirs = load(tmp_path / "t.pth", "A", layers=("conv1_1",))
    assert (theirs.pixels, theirs.assumed, theirs.licence) == (TORCHVISION, True, "unknown")
    ours = load(str(tmp_path / "c.safetensors"), "A", layers=("conv1_1",))
    assert (ours.pixels, ours.assumed, ours.source) == (CAFFE, True, "c.safetensors")
    said = load(tmp_path / "t.pth", "A", layers=("conv1_1",), pixels="caffe")
    assert (said.pixels, said.assumed) == (CAFFE, False)
    own = PixelConvention("RGB", 1.0, (0.0, 0.0, 0.0))
    assert load(tmp_path / "t.pth", "A", layers=("conv1_1",), pixels=own).pixels == own


@pytest.mark.parametrize("source", ["theirs.pth", "canonical.pth"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_an_assumption_stays_one_in_a_copy(
    source: str, suffix: str, state: State, tmp_path: Path
) -> None:
    """The copy of a file that states no pixels states none, and takes the same ones."""
    names = {"conv1_1": "features.0", "conv2_1": "features.3"} if "theirs" in source else {}
    torch.save(
        {f"{names.get(n[:7], n[:7])}.{n[8:]}": tensor for n, tensor in state.items()},
        tmp_path / source,
    )
    files = [tmp_path / source, tmp_path / f"copy{suffix}", tmp_path / f"second{suffix}"]
    for before, after in pairwise(files):
        with pytest.warns(PixelsAssumedWarning, match=before.name):
            assert convert(before, after, "A").assumed
    expected = TORCHVISION if "theirs" in source else CAFFE
    with pytest.warns(PixelsAssumedWarning, match=files[-1].name):
        assert load(files[-1], "A", ["pool2"]).pixels == expected
    stated = convert(files[-1], tmp_path / f"stated{suffix}", "A", "torchvision")
    assert (stated.pixels, stated.assumed) == (TORCHVISION, False)


@pytest.mark.parametrize(
    "wrong", [{"range": float("inf")}, {"mean": (0.0, 0.0, float("nan"))}, {"std": (1.0, 0.0, 1.0)}]
)
def test_a_convention_of_no_numbers_is_refused(wrong: dict[str, Any]) -> None:
    """However it is made."""
    refuses(lambda: replace(CAFFE, **wrong), WeightsError)


def test_conventions_of_whole_numbers_are_those_of_floats() -> None:
    """Stores tell conventions apart by their text, so that what is equal reads alike."""
    floats = PixelConvention("BGR", 255.0, (104.0, 117.0, 123.0), (2.0, 2.0, 2.0))
    whole = PixelConvention("BGR", 255, (104, 117, 123), (2, 2, 2))
    assert whole == floats
    assert str(whole) == str(floats)
    assert whole.to_json() == floats.to_json()
    assert str(PixelConvention("BGR", 255, (1, 2, 3), (1, 1, 1))) == (
        "BGR 0-255 minus (1.0, 2.0, 3.0), pools floor"
    )


def test_layers_beyond_the_file(state: State, tmp_path: Path) -> None:
    """A file that ends before the layer asked for is refused with what it has."""
    safetensors.torch.save_file(state, tmp_path / "c.safetensors")
    refuses(
        lambda: load(tmp_path / "c.safetensors", "A", layers=("conv3_2",)),
        WeightsError,
        ["conv3_1", "conv1_1", "conv2_1"],
    )


def test_not_a_number(state: State, tmp_path: Path) -> None:
    """NaN in a layer that is needed is refused; in one that is not, it does not matter."""
    state["conv2_1.weight"][5, 5, 1, 1] = float("nan")
    safetensors.torch.save_file(state, tmp_path / "n.safetensors")
    load(tmp_path / "n.safetensors", "A", layers=("pool1",))
    refuses(
        lambda: load(tmp_path / "n.safetensors", "A", layers=("pool2",)),
        WeightsError,
        ["n.safetensors", "conv2_1.weight"],
    )


@pytest.mark.parametrize("wrong", [float("nan"), float("-inf")])
def test_what_is_not_a_number_is_not_converted(state: State, tmp_path: Path, wrong: float) -> None:
    """Nothing is written of a file with such a number in any layer."""
    state["conv2_1.bias"][5] = wrong
    safetensors.torch.save_file(state, tmp_path / "n.safetensors")
    refuses(
        lambda: convert(tmp_path / "n.safetensors", tmp_path / "n.pth", "A"),
        WeightsError,
        ["n.safetensors", "conv2_1.bias"],
    )
    assert not (tmp_path / "n.pth").exists()


def test_weights_that_are_loaded(state: State) -> None:
    """Weights of one's own pass through, restricted to what is needed, and survive pickling."""
    mine = Weights("A", state, TORCHVISION, "mine", "MIT")
    found = load(mine, "A", layers=("pool1",))
    assert sorted(found.state) == ["conv1_1.bias", "conv1_1.weight"]
    assert (found.source, found.pixels) == ("mine", TORCHVISION)
    copy = pickle.loads(pickle.dumps(found))
    assert copy.sha256 == found.sha256 != mine.sha256
    refuses(lambda: load(mine, "D", layers=("pool1",)), WeightsError, ["net A", "net D"])
    refuses(lambda: mine.restricted(["conv3_1"]), WeightsError, ["mine", "conv3_1"])


def test_describe_and_convert(tmp_path: Path) -> None:
    """A converted file has the digest, net and pixels of its source, and says them itself."""
    asset = assets.asset("vgg_d_conv_fp16.safetensors")
    before = describe(asset)
    assert (before.format, before.net, before.dtype) == ("safetensors", "D", "float16")
    assert before.parameters == 138_357_544 - (25088 + 1) * 4096 - 4097 * 4096 - 4097 * 1000
    after = convert(asset, tmp_path / "d.pth", pixels="torchvision")
    assert (after.format, after.net, after.dtype) == ("PyTorch", "D", "float32")
    assert (after.sha256, after.layers) == (before.sha256, before.layers)
    assert (before.assumed, after.assumed) == (True, False)
    assert (before.pixels, after.pixels) == (CAFFE, TORCHVISION)


def test_pixels_that_are_assumed_are_said_and_others_named(tmp_path: Path) -> None:
    """By a warning that says what to type; of weights with a name they are known."""
    torch.save({"features.0.weight": torch.ones(64, 3, 3, 3), "features.0.bias": torch.ones(64),
                "features.3.weight": torch.ones(128, 64, 3, 3), "features.3.bias": torch.ones(128)},
               tmp_path / "a.pth")  # fmt: skip
    with pytest.warns(PixelsAssumedWarning, match=r"a\.pth.*torchvision.*pixels='caffe'"):
        assert load(tmp_path / "a.pth", "A", ["pool2"]).pixels == TORCHVISION
    with warnings.catch_warnings(action="error"):
        assert load(tmp_path / "a.pth", "A", ["pool2"], pixels="caffe").pixels == CAFFE
    refuses(lambda: load("embedded", layers=["pool1"], pixels="caffe"), ParameterError, ["pixels"])
