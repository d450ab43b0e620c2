"""The same bits whatever lies beside an image, and no number that is not finite."""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial

import numpy as np
import pytest
import torch
from helpers.mistakes import refuses
from helpers.overflow import WEIGHTS, Half, dark_and_bright, scaled
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import noise, random_weights

from vggfeat.data.batching import ImageBatch
from vggfeat.data.image import Pixels
from vggfeat.errors import DeviceError, ParameterError, WeightsError
from vggfeat.features import extractor as module
from vggfeat.features.extractor import DenseExtractor
from vggfeat.features.pipeline import describe_batch
from vggfeat.nets.runtimes import check_deterministic, has_bf16, winograd
from vggfeat.nets.runtimes.inference import arithmetic
from vggfeat.nets.runtimes.packed import can_pack
from vggfeat.nets.vgg import VGG
from vggfeat.nets.weights import Weights

CPU = torch.device("cpu")
RUNTIMES = ("torch", "packed", "openvino", "winograd")
USUAL = {("torch", "fp32"), ("winograd", "fp32"), ("openvino", "bf16")}
COMBINATIONS = [
    pytest.param(runtime, how, marks=[] if (runtime, how) in USUAL else pytest.mark.slow)
    for runtime in RUNTIMES
    for how in ("fp32", "bf16")
    if (runtime, how) != ("winograd", "bf16")
]
SHAPES = ((32, 44), (40, 32), (33, 47))
QUICK = settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def skip_unless(runtime: str, precision: str) -> None:
    """Skip what this machine does not have."""
    if runtime == "openvino":
        pytest.importorskip("openvino")
    if runtime == "packed" and not can_pack():
        pytest.skip("torch has no oneDNN")
    if precision == "bf16" and not has_bf16(CPU):
        pytest.skip("this CPU does not compute in bf16")


@cache
def repeatable(runtime: str = "torch", precision: str = "fp32", pool: str = "average"):
    return DenseExtractor(
        "A", ("conv2_1", "pool3"), weights=WEIGHTS, device="cpu", runtime=runtime,
        precision=precision, pool=pool, deterministic=True,
    )  # fmt: skip


@cache
def image(shape: int, seed: int) -> Pixels:
    height, width = SHAPES[shape]
    return noise(width, height, seed)


def bits(extractor: DenseExtractor, images: list[Pixels]) -> list[bytes]:
    """Describe images of one shape as one batch: the bytes of each."""
    batch = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
    found = extractor.describe(batch)
    return [b"".join(d[row].numpy().tobytes() for d in found.values()) for row in range(len(batch))]


@cache
def bits_alone(runtime: str, precision: str, shape: int, seed: int, threads: int) -> bytes:
    """Describe an image alone, once for each number of threads, which torch has by now."""
    assert torch.get_num_threads() == threads
    return bits(repeatable(runtime, precision), [image(shape, seed)])[0]


@pytest.mark.parametrize(("runtime", "precision"), COMBINATIONS)
@QUICK
@given(
    shape=st.integers(0, 2),
    seeds=st.lists(st.integers(0, 5), min_size=1, max_size=5),
    threads=st.sampled_from([1, 2]),
)
def test_neighbours_leave_the_bits(
    runtime: str, precision: str, shape: int, seeds: list[int], threads: int
) -> None:
    """In any batch, in any order, on as many threads, an image has the bits it has alone."""
    skip_unless(runtime, precision)
    extractor = repeatable(runtime, precision)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = bits(extractor, [image(shape, seed) for seed in seeds])
        assert found == [bits_alone(runtime, precision, shape, seed, threads) for seed in seeds]
    finally:
        torch.set_num_threads(before)


@pytest.fixture(params=[winograd.MANY, 7])
def _blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many tiles of a map at once, or few."""
    monkeypatch.setattr(winograd, "MANY", request.param)


@pytest.mark.usefixtures("_blocks")
def test_tiles_of_many_channels_keep_their_bits() -> None:
    """Winograd's products of up to 512 channels, in one block or several, on one thread or two."""
    extractor = DenseExtractor(
        "A", ("pool3", "pool4"), weights=random_weights("A", ["pool4"]), device="cpu",
        precision="fp32", runtime="winograd", deterministic=True,
    )  # fmt: skip
    images = [noise(88, 80, seed) for seed in range(3)]
    alone = [bits(extractor, [one])[0] for one in images]
    before = torch.get_num_threads()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        try:
            found = bits(extractor, images[::-1])
        finally:
            torch.set_num_threads(before)
        assert found == alone[::-1]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_what_the_program_has_set_changes_no_bit(runtime: str) -> None:
    """Torch's own switches for faster, coarser products have no say; they are as before after."""
    skip_unless(runtime, "fp32")
    extractor = DenseExtractor(
        "A", "pool3", weights=WEIGHTS, device="cpu", precision="fp32", runtime=runtime
    )
    some = [noise(96, 80, 3)]
    expected = bits(extractor, some)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert bits(extractor, some) == expected
            assert torch.is_autocast_enabled("cpu")
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.fixture(scope="module")
def whole() -> Weights:
    """Draw a whole network, once."""
    return random_weights("A", ["fc8"])


@pytest.mark.slow
def test_crops_have_the_bits_they_have_alone(whole: Weights) -> None:
    """Multi-crop posteriors go crop by crop, so that no other image's crops lie beside them."""
    extractor = DenseExtractor(
        "A", "fc8", weights=whole, pool="crops2", flip=False, device="cpu", precision="fp32",
        runtime="torch", deterministic=True,
    )  # fmt: skip
    some = [noise(224, 224, seed) for seed in (1, 2)]
    assert bits(extractor, some) == [bits(extractor, [one])[0] for one in some]


def test_panoramas_in_pieces_have_the_bits_they_have_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is cut to bound memory is cut for each image as if it were the only one."""
    monkeypatch.setattr(module, "TILE_PIXELS", 32 * 128)
    some = [noise(300, 32, seed) for seed in (1, 2, 3)]
    assert bits(repeatable(), some) == [bits(repeatable(), [one])[0] for one in some]


def test_an_apple_gpu_is_refused() -> None:
    """Where nothing holds the promise, it is not made."""
    with pytest.raises(DeviceError, match="device='cpu'"):
        check_deterministic(torch.device("mps"))


def test_a_gpu_is_set_to_repeat_itself_and_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """CuDNN's deterministic algorithms are on while a network runs; fp32 has no TF32."""
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    cuda = torch.device("cuda")
    check_deterministic(cuda)
    before = torch.backends.cudnn.deterministic
    with arithmetic(cuda, torch.float32, deterministic=True):
        modes = torch.backends.cudnn
        assert (modes.deterministic, modes.benchmark, modes.allow_tf32) == (True, False, False)
    assert torch.backends.cudnn.deterministic == before
    with arithmetic(cuda, torch.float32, deterministic=False):
        assert (torch.backends.cudnn.deterministic, torch.backends.cudnn.allow_tf32) == (
            False,
            False,
        )


# What is not finite.


def test_one_image_that_overflows_has_a_reason() -> None:
    """It names the precisions that would do; its neighbours in the batch have their descriptors."""
    images = dark_and_bright(3, {1})
    pixels = torch.from_numpy(np.stack(images.images)).permute(0, 3, 1, 2)
    rows = list(describe_batch(Half(), ImageBatch(40, (7, 8, 9), pixels), "float32"))
    assert [(row.row, len(row.arrays), bool(row.reason)) for row in rows] == [
        (7, 1, False),
        (8, 0, True),
        (9, 1, False),
    ]
    assert "fp16, which ends at 65504. Use the precision bf16 or fp32" in rows[1].reason


def test_what_float16_cannot_hold_has_a_reason() -> None:
    """It names the dtype float32."""
    weights = scaled(WEIGHTS, "conv1_1", 3e3)
    extractor = DenseExtractor("A", "pool3", weights=weights, device="cpu", precision="fp32")
    pixels = torch.from_numpy(np.stack(dark_and_bright(2, {1}).images)).permute(0, 3, 1, 2)
    dark, bright = describe_batch(extractor, ImageBatch(40, (0, 1), pixels), "float16")
    assert (len(dark.arrays), len(bright.arrays)) == (1, 0)
    assert "dtype float32" in bright.reason


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_weights_that_are_not_numbers_are_refused(runtime: str, wrong: float) -> None:
    """One NaN is enough: the fast runtimes' ReLUs would turn it into 0, unseen."""
    skip_unless(runtime, "fp32")
    for name in ("conv1_1.weight", "conv3_2.bias"):
        state = dict(WEIGHTS.state)
        state[name] = state[name].clone()
        state[name].view(-1)[5] = wrong
        weights = replace(WEIGHTS, state=state)
        refuses(partial(open_extractor, weights, runtime), WeightsError, [name])


def open_extractor(weights: Weights, runtime: str) -> DenseExtractor:
    return DenseExtractor(
        "A", "pool3", weights=weights, device="cpu", precision="fp32", runtime=runtime, flip=False
    )


@pytest.mark.parametrize("runtime", RUNTIMES)
@QUICK
@given(share=st.floats(0, 1), layer=st.sampled_from(["conv1_1", "conv2_1", "conv3_1"]))
def test_overflow_is_an_error_or_does_not_happen(runtime: str, share: float, layer: str) -> None:
    """Weights of any size: finite descriptors that are right, or an error; never wrong ones."""
    skip_unless(runtime, "fp32")
    weights = scaled(WEIGHTS, layer, 10.0 ** (37 * share))
    batch = torch.from_numpy(image(0, 1).copy()).permute(2, 0, 1)[None]
    plain = VGG("A", layers="pool3", dense=True, pool_rounding="ceil", init=None)
    plain.load({name: one.double() for name, one in weights.state.items()})
    x = batch.flip(1).double() - torch.tensor(weights.pixels.mean).double().view(1, 3, 1, 1)
    with torch.inference_mode():
        expected = plain.double()(x).mean((2, 3))  # fp64 ends at 1e308
    try:
        found = open_extractor(weights, runtime).describe(batch)["pool3", "average"].double()
    except DeviceError:
        assert expected.abs().max() > 1e30
        return
    except ParameterError:  # of a runtime that would not tell
        assert runtime != "torch"
        assert expected.abs().max() > 1e25
        return
    assert (found - expected).norm() <= 1e-3 * expected.norm()


def test_the_papers_initialisation_is_not_taken_for_an_overflow() -> None:
    """No number ends near 1e38, though sums of absolute weights would say so."""
    state = VGG("E", layers="pool5", dense=True, init="paper").state_dict()
    weights = replace(WEIGHTS, net="E", state=state)
    fast = DenseExtractor("E", "pool5", weights=weights, device="cpu", runtime="packed")
    assert fast.runtime == "packed"


@pytest.mark.parametrize("runtime", ["auto", "packed", "openvino", "winograd"])
def test_overflow_is_seen_by_the_runtime_that_is_taken(runtime: str) -> None:
    """Weights of 1e37: "auto" takes torch, which tells; the others, asked for, are refused."""
    skip_unless(runtime, "fp32")
    weights = scaled(WEIGHTS, "conv2_1", 3e37)
    if runtime != "auto":
        refuses(partial(open_extractor, weights, runtime), ParameterError, [runtime, "torch"])
        return
    extractor = open_extractor(weights, runtime)
    assert extractor.runtime == "torch"
    batch = torch.from_numpy(image(0, 1).copy()).permute(2, 0, 1)[None]
    refuses(partial(extractor.describe, batch), DeviceError, ["fp32"])


@pytest.mark.parametrize(
    ("pool", "wrong"),
    [
        ("average", float("inf")),
        ("average", float("-inf")),
        ("max", float("inf")),
        ("max", float("nan")),
        ("cells", float("-inf")),
    ],
)
def test_what_is_not_finite_is_seen_behind_every_pooling(pool: str, wrong: float) -> None:
    """One such number of a map leaves that image without a descriptor, and no other."""
    extractor = DenseExtractor(
        "A", "conv2_1_pre", weights=WEIGHTS, pool=pool, device="cpu", precision="fp32"
    )
    maps = extractor.net.maps

    def spoilt(x: torch.Tensor) -> dict[str, torch.Tensor]:
        computed = maps(x)
        computed["conv2_1_pre"][0, 3, 1, 1] = wrong
        return computed

    extractor.net.maps = spoilt
    batch = torch.from_numpy(np.stack([image(0, 1), image(0, 2)])).permute(0, 3, 1, 2)
    kept, described = extractor.describe_finite(batch)
    assert kept.tolist() == [1]
    assert all(rows.isfinite().all() for rows in described.values())
    for method in (extractor.describe, extractor.maps):
        refuses(partial(method, batch), DeviceError, ["fp32"])
