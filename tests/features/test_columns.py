"""Columns of an extractor: what they are called, what tells them apart, and what is computed."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import replace

import pytest
import torch
from helpers.networks import formula_weights
from support import noise, random_weights

from vggfeat.errors import ImageTooSmall, ParameterError, WeightsError
from vggfeat.features.extractor import DenseExtractor
from vggfeat.features.pooling import resolve_pooling
from vggfeat.nets.preprocessing import CAFFE, PixelConvention
from vggfeat.nets.runtimes import has_bf16
from vggfeat.nets.runtimes.packed import can_pack
from vggfeat.nets.weights import Weights
from vggfeat.settings import Extraction, Hardware
from vggfeat.store.column import Column

WEIGHTS = random_weights("A", ["pool4"])
LAYERS = ("pool3", "conv4_1_pre", "pool4")
RUNTIMES = ("torch", "packed", "openvino", "winograd")
PIXELS = torch.from_numpy(noise(50, 36).copy()).permute(2, 0, 1)[None]


def opened(layers: str | tuple[str, ...] = LAYERS, **more: object) -> DenseExtractor:
    settings = {"weights": WEIGHTS, "device": "cpu", "precision": "fp32", "runtime": "torch"}
    return DenseExtractor("A", layers, **(settings | more))


def column_of(layer: str = "pool3", **more: object) -> Column:
    [column] = [c for c in opened(**more).columns([36]) if c.descriptor.layer == layer]
    return column


def test_columns_come_in_stacking_order_with_their_widths() -> None:
    """By layer, then pooling, then scale; cells are four descriptors side by side."""
    columns = opened(("pool4", "pool1"), pool="average+cells").columns([36, 48])
    assert [(column.descriptor.path, column.width) for column in columns] == [
        ("/A/pool4/average/Q36", 512),
        ("/A/pool4/average/Q48", 512),
        ("/A/pool4/cells/Q36", 2048),
        ("/A/pool4/cells/Q48", 2048),
        ("/A/pool1/average/Q36", 64),
        ("/A/pool1/average/Q48", 64),
        ("/A/pool1/cells/Q36", 256),
        ("/A/pool1/cells/Q48", 256),
    ]


def test_a_descriptor_is_as_wide_as_its_column(tiny: str) -> None:
    """Of every layer and pooling, posteriors too."""
    for extractor in (
        opened(pool="average+max+cells"),
        DenseExtractor(tiny, "fc8", weights=formula_weights(tiny), pool="softmax+crops1"),
    ):
        pixels = PIXELS if "pool4" in extractor.extraction.layers else PIXELS.repeat(1, 1, 7, 5)
        found = extractor.describe(pixels)
        for column in extractor.columns([36]):
            name = column.descriptor
            assert found[name.layer, name.pool].shape == (1, column.width)


@pytest.mark.parametrize(
    ("setting", "value"),
    [("flip", False), ("locations", "l2"), ("exif", False)],
)
def test_what_changes_numbers_makes_another_column(setting: str, value: object) -> None:
    """It is among the settings as plain JSON, and the digest differs by it alone."""
    plain, other = column_of(), column_of(**{setting: value})
    assert other.settings == {**plain.settings, setting: value}
    assert other.digest != plain.digest


@pytest.mark.skipif(not has_bf16(torch.device("cpu")), reason="this CPU does not compute in bf16")
def test_the_precision_is_the_one_resolved() -> None:
    """A column has no precision "auto": it has what that came to."""
    assert column_of(precision="auto").settings["precision"] == "bf16"
    assert column_of(precision="auto").digest != column_of(precision="fp32").digest


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("channels", "RGB"),
        ("range", 254.99999999),
        ("mean", (103.939, 116.779, 123.681)),
        ("std", (1.0, 1.0, 1.001)),
        ("pool_rounding", "floor"),
    ],
)
def test_every_field_of_the_pixel_convention_makes_another_column(
    field: str, value: object
) -> None:
    """However small the difference."""
    assert len(dataclasses.fields(PixelConvention)) == 5
    plain = column_of(weights=replace(WEIGHTS, pixels=CAFFE))
    other = replace(WEIGHTS, pixels=replace(CAFFE, **{field: value}))
    assert column_of(weights=other).digest != plain.digest


def test_what_computes_is_no_setting_of_a_column() -> None:
    """Runtime and --deterministic, and what else is asked for, leave the digest."""
    plain = column_of()
    for more in (
        {"runtime": "winograd"},
        {"deterministic": True},
        {"layers": ("pool3",)},
        {"pool": "average"},
    ):
        assert column_of(**more) == plain, more


def test_weights_beyond_a_layer_are_none_of_its_column() -> None:
    """pool3 of two nets that differ from conv4_1 on is one column; pool4 is two."""
    state = dict(WEIGHTS.state)
    state["conv4_1.bias"] = state["conv4_1.bias"] + 1
    other = replace(WEIGHTS, state=state)
    assert column_of(weights=other) == column_of()
    assert column_of("conv4_1_pre", weights=other).digest != column_of("conv4_1_pre").digest
    assert column_of("pool4", weights=other).digest != column_of("pool4").digest


def by_hand(weights: Weights, *layers: str) -> str:
    """Hash names, shapes and numbers."""
    digest = hashlib.sha256()
    for layer in layers:
        for part in ("bias", "weight"):
            array = weights.state[f"{layer}.{part}"].numpy()
            digest.update(f"{layer}.{part}{array.shape}".encode() + array.astype("<f4").tobytes())
    return digest.hexdigest()


def test_the_digest_is_of_the_parameters_up_to_the_layer() -> None:
    """Whatever was loaded; a pool needs what the convolution before it needs."""
    expected = by_hand(WEIGHTS, "conv1_1", "conv2_1")
    assert WEIGHTS.digest("pool2") == WEIGHTS.digest("conv2_1_pre") == expected
    assert WEIGHTS.restricted(["pool2"]).sha256 == expected
    backwards = replace(WEIGHTS, state=dict(reversed(WEIGHTS.state.items())))
    assert backwards.sha256 == WEIGHTS.sha256 == WEIGHTS.digest("pool4")
    with pytest.raises(WeightsError, match="lack conv5_1"):
        WEIGHTS.digest("conv5_1")


def test_class_scores_have_names_and_weights_a_training_scale(tiny: str) -> None:
    """S is what the file of the weights says; only scores of classes are called something."""
    weights = replace(formula_weights(tiny, num_classes=3), about={"S": "[256, 512]"})
    extractor = DenseExtractor(tiny, ("fc7", "fc8"), weights=weights, device="cpu")
    fc7, fc8 = extractor.columns([224], outputs=("cat", "dog", "owl"))
    assert (fc7.outputs, fc8.outputs) == ((), ("cat", "dog", "owl"))
    assert fc7.S == fc8.S == (256, 512)
    assert Column.from_json(fc8.to_json(), "here") == fc8
    assert column_of().S is None


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_what_is_wanted_is_as_if_nothing_else_had_been(runtime: str) -> None:
    """To the bit as an extractor of these layers and poolings alone gives it, in any runtime."""
    if runtime == "openvino":
        pytest.importorskip("openvino")
    if runtime == "packed" and not can_pack():
        pytest.skip("torch has no oneDNN")
    extractor = opened(pool="average+max", runtime=runtime)
    everything = extractor.describe(PIXELS)
    assert list(everything) == [(layer, pool) for layer in LAYERS for pool in ("average", "max")]
    for layers in (("pool3",), ("pool3", "conv4_1_pre"), LAYERS):
        wanted = [(layer, "max") for layer in layers]
        found = extractor.describe(PIXELS, reversed(wanted))
        expected = opened(layers, pool="max", runtime=runtime).describe(PIXELS)
        assert list(found) == list(expected) == wanted
        for key in wanted:
            assert torch.equal(found[key], expected[key])
            torch.testing.assert_close(found[key], everything[key], rtol=1e-5, atol=1e-5)


def test_the_network_ends_at_the_last_layer_wanted(tiny: str) -> None:
    """pool4 of an image in which fc6 has no location is described; fc6 is not."""
    weights = formula_weights(tiny, ["fc6"])
    extractor = DenseExtractor(tiny, ("fc6", "pool4"), weights=weights, device="cpu")
    assert list(extractor.describe(PIXELS, [("pool4", "average")])) == [("pool4", "average")]
    with pytest.raises(ImageTooSmall):
        extractor.describe(PIXELS, [("fc6", "average")])


@pytest.mark.parametrize("wanted", [[], [("pool3", "max")], [("pool1", "average")]])
def test_what_is_not_computed_cannot_be_wanted(wanted: list[tuple[str, str]]) -> None:
    """Nothing, another pooling, another layer."""
    with pytest.raises(ParameterError, match="wanted"):
        opened().describe(PIXELS, wanted)


def test_an_extractor_is_made_of_settings_or_of_words() -> None:
    """Fields go to the extraction or to the hardware by their names, over what is given."""
    hardware = Hardware(device="cpu", runtime="torch")
    extraction = Extraction(net="A", layers=("features.2", "pool3"), flip=False, precision="fp32")
    made = DenseExtractor(extraction, hardware=hardware, weights=WEIGHTS, pool="max", flip=True)
    said = opened(("pool1", "pool3"), pool="max")
    assert made.extraction == said.extraction
    assert said.extraction.layers == ("pool1", "pool3")
    assert made.hardware == said.hardware == hardware
    assert made.columns([36]) == said.columns([36])


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"polo": "max"}, "'polo'"),
        ({"locations": "l1"}, "'locations'"),
        ({"runtime": "onnx"}, "'runtime'"),
        ({"precision": "fp8"}, "'precision'"),
        ({"device": "gpu"}, "'device'"),
        ({"layers": "pool9"}, "'layer'"),
        ({"pool": "median"}, "'pool'"),
    ],
)
def test_a_wrong_word_is_named_before_weights_are_read(
    wrong: dict[str, object], named: str
) -> None:
    """The weights named here do not exist."""
    with pytest.raises(ParameterError, match=named):
        opened(**({"weights": "absent.pth"} | wrong))


def test_no_setting_of_a_pooling_hides_one_of_the_column(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of one name are a mistake in the code, not a column with one of them."""
    extractor = opened("pool3")
    average = type(resolve_pooling("average"))
    monkeypatch.setattr(average, "settings", lambda self: {"resampling": "other"})
    with pytest.raises(TypeError, match="resampling"):
        extractor.columns([36])
