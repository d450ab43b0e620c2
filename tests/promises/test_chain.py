"""From training to a drawing through files alone: what one command writes, the next one reads.

Every figure is compared with torch's functions, or with numpy, applied to the numbers in the files.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from helpers.cli import run
from helpers.networks import formula_weights, forward, write_weights
from PIL import Image
from safetensors import safe_open
from torch import Tensor
from trees import OBJECT, write_voc, write_xml

SIZE = (256, 224)
"""No image is rescaled at Q = 224, so that torch sees the very pixels; fc6 has two locations."""
LEVELS = {"dark": (60, 70, 60), "light": (190, 190, 170), "red": (200, 60, 50)}
QUICK = ["--S", "224", "--batch", "4", "--workers", "0", "--epochs", "2", "--quiet"]
BOXES = {"cat": (33, 33, 160, 192), "dog": (97, 65, 208, 160)}


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    """Draw three classes of six images, of a colour each, with stripes that differ."""
    root = tmp_path / "classes"
    for label, colour in LEVELS.items():
        (root / label).mkdir(parents=True)
        for number in range(6):
            draw(root / label / f"{number}.png", colour, number)
    return root


def draw(path: Path, colour: tuple[int, int, int], number: int) -> None:
    rows, columns = np.indices(SIZE[::-1])
    stripes = 30 * np.sin((rows + (2 + number) * columns) / (4 + number))
    pixels = np.array(colour) + stripes[:, :, None] + 3 * number
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)


def read_net(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a file of weights by safetensors alone."""
    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118  # no mapping


def read_image(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def compute(path: Path, image: Path | np.ndarray) -> list[dict[str, Tensor]]:
    """Compute every layer's map of an image and of its mirror image, by torch's functions."""
    state, said = read_net(path)
    pixels = read_image(image) if isinstance(image, Path) else image
    how = json.loads(said["pixels"])
    assert how["channels"] == "RGB"
    mean, std = (torch.tensor(how[name]).view(3, 1, 1) for name in ("mean", "std"))
    x = torch.tensor(pixels.copy()).permute(2, 0, 1)[None].float() * (how["range"] / 255)
    x = (x - mean) / std
    return [forward(state, said["net"], some) for some in (x, x.flip(3))]


def read_store(path: Path, array: str) -> dict[str, np.ndarray]:
    """Read descriptors by name, as any HDF5 reader does."""
    with h5py.File(path / "features.h5") as file:
        names = file["names"].asstr()[:]
        return dict(zip(names, file[array][:], strict=True))


def test_trained_weights_describe_score_and_explain(
    tiny: str, tiny_weights: Path, classes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`train`, `extract --weights best`, `svm --features --save`, `predict`, `explain`."""
    monkeypatch.chdir(tmp_path)
    train = ["train", "--net", tiny, "--init", tiny_weights, "--data", classes, "--val", classes]
    # Six units under fc7 leave too little where half of them are dropped.
    train += ["--dropout", "0"]
    history = run(*train, "--out", "run", *QUICK, "--json").json["tables"]["epochs"]
    best = Path("run/best.safetensors")
    before, after = (read_net(path)[0] for path in (tiny_weights, best))
    assert (before["conv1_1.weight"] - after["conv1_1.weight"]).abs().max() > 1e-5
    kept = min(history, key=lambda row: row["val_top1_error"])
    assert kept["val_loss"] == pytest.approx(loss_of(best, classes), rel=1e-4)

    how = ["--net", tiny, "--layer", "pool5", "--Q", "224", "--weights", best]
    run("extract", "classes", *how, "--precision", "fp32", "--out", "f", "--quiet")
    rows = read_store(Path("f"), f"{tiny}/pool5/average/Q224")
    assert len(rows) == 18
    for name, row in rows.items():
        np.testing.assert_allclose(row, pooled(best, tmp_path / name), rtol=1e-4, atol=1e-4)

    run("svm", "--dataset", "classes", *how, "--precision", "fp32", "--features", "f",
        "--save", "model", "--jobs", "1", "--quiet")  # fmt: skip
    with safe_open("model.safetensors", "np") as file:
        W, b = file.get_tensor("coef"), file.get_tensor("intercept")
    assert W.shape == (3, 8)

    Path("new").mkdir()
    for number in range(3):
        draw(Path(f"new/{number}.png"), (150, 90 + 20 * number, 80), 9)
    run("predict", "model", "new", "--csv", "scores.csv", "--quiet")
    scores = {row["name"]: row for row in read_table("scores.csv")}
    assert list(scores) == ["new/0.png", "new/1.png", "new/2.png"]
    for name, row in scores.items():
        x = pooled(best, Path(name))
        expected = W @ (x / np.linalg.norm(x)) + b
        np.testing.assert_allclose([float(row[label]) for label in LEVELS], expected, atol=1e-4)

    named = [word for label in LEVELS for word in ("--class", label)]
    run("explain", "model", "new/1.png", *named, "--csv", "maps.csv", "--out", "drawn", "--quiet")
    explained = read_table("maps.csv")
    assert [row["class"] for row in explained] == list(LEVELS)
    for row in explained:
        bias, score = b[list(LEVELS).index(row["class"])], scores["new/1.png"][row["class"]]
        assert float(row["bias"]) == pytest.approx(bias, abs=1e-5)
        assert float(row["sum"]) + bias == pytest.approx(float(score), abs=1e-4)
    assert len(list(Path("drawn").iterdir())) == 1


def loss_of(path: Path, classes: Path) -> float:
    """Reckon the loss of all images' central crops, which tells that the file suits the net."""
    labels = sorted(LEVELS)
    losses = []
    for image in classes.rglob("*.png"):
        crop = np.asarray(Image.open(image))[:, 16:240]
        scores = compute(path, crop)[0]["fc8"].flatten()
        losses.append(-scores.log_softmax(0)[labels.index(image.parent.name)].item())
    assert np.ptp(losses) > 1e-2
    return float(np.mean(losses))


def pooled(path: Path, image: Path) -> np.ndarray:
    """Average pool5 over locations and the mirror image."""
    return np.mean([maps["pool5"].mean((2, 3))[0].numpy() for maps in compute(path, image)], axis=0)


def read_table(path: str) -> list[dict[str, str]]:
    with Path(path).open(newline="") as file:
        return list(csv.DictReader(file))


def test_trained_nets_classify_and_are_fused(
    small_nets: None, classes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`train` two nets, `classify --weights best --out` of each, `fuse` of both."""
    monkeypatch.chdir(tmp_path)
    nets = {}
    for seed, net in enumerate("AD"):
        init = write_weights(Path(f"{net}.safetensors"), formula_weights(net, seed=seed))
        run("train", "--net", net, "--init", init, "--data", "classes", "--out", net, *QUICK)
        nets[net] = Path(net, "best.safetensors")
    posteriors: dict[str, dict[str, np.ndarray]] = {}
    for net, best in nets.items():
        run("classify", "--data", "classes", "--weights", best, "--Q", "224",
            "--precision", "fp32", "--out", f"scores-{net}", "--quiet")  # fmt: skip
        rows = read_store(Path(f"scores-{net}"), f"{net}/fc8/softmax/Q224")
        posteriors[net] = rows
        assert len(rows) == 18
        for name, row in rows.items():
            both = [maps["fc8"] for maps in compute(best, classes / name)]
            assert both[0].shape == (1, 3, 1, 2)
            expected = np.mean([scores.mean((2, 3)).softmax(1)[0].numpy() for scores in both], 0)
            np.testing.assert_allclose(row, expected, rtol=1e-4, atol=1e-5)
        assert np.ptp(list(rows.values()), axis=0).max() > 1e-3  # it tells images apart
    ran = run("fuse", "scores-A", "scores-D", "--data", "classes", "--top", "3", "--csv", "f.csv",
              "--results", "r", "--quiet", "--json")  # fmt: skip
    fused = read_table("f.csv")
    hits = 0
    for row in fused:
        expected = (posteriors["A"][row["name"]] + posteriors["D"][row["name"]]) / 2
        order = np.argsort(-expected, kind="stable")
        assert [row[f"class {k}"] for k in (1, 2, 3)] == [sorted(LEVELS)[k] for k in order]
        shares = [float(row[f"share {k}"]) for k in (1, 2, 3)]
        np.testing.assert_allclose(shares, expected[order], atol=1e-4)
        hits += row["class 1"] == row["name"].split("/")[0]
    assert ran.json["measures"]["top1"]["value"] == pytest.approx(1 - hits / 18)


def test_a_net_that_finds_boxes_is_judged_and_used_as_it_was_saved(
    small_nets: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`localize train`, then `evaluate` and `predict` with the file it leaves.

    Images of 224 pixels have one window, so that its box, cut at the image, is the label's.
    """
    monkeypatch.chdir(tmp_path)
    tree = draw_objects(tmp_path / "VOC2007")
    init = write_weights(Path("a.safetensors"), formula_weights("A"))
    run("localize", "train", "--data", tree, "--init", init, "--out", "boxes", "--S", "224",
        "--batch", "4", "--workers", "0", "--epochs", "4", "--lr", "0.05", "--quiet")  # fmt: skip
    best = Path("boxes/best.safetensors")
    judged = run("localize", "evaluate", "--data", tree, "--model", "boxes",
                 "--precision", "fp32", "--json", "--quiet").json  # fmt: skip
    objects = judged["tables"]["objects"]
    assert len(objects) == 4
    found = {}
    for row in objects:
        box = predicted_box(best, tree / row["image"], ("cat", "dog").index(row["class"]))
        sides = [row[f"central_{side}"] for side in ("xmin", "ymin", "xmax", "ymax")]
        np.testing.assert_allclose(sides, box, atol=1e-3)
        assert row["central_iou"] == pytest.approx(share(box, BOXES[row["class"]]), abs=2e-5)
        found[Path(row["image"]).name] = box
    assert judged["measures"]["central"]["value"] == np.mean(
        [row["central_iou"] <= 0.5 for row in objects]
    )

    same = [np.array(box) for name, box in found.items() if int(name[:6]) % 2]
    assert np.abs(same[0] - same[1]).max() > 0.01  # two images of a class differ
    images = [tree / row["image"] for row in objects if row["class"] == "cat"]
    told = run("localize", "predict", *images, "--model", best, "--class", "cat", "--Q", "224",
               "--precision", "fp32", "--out", "drawn", "--json", "--quiet").json  # fmt: skip
    boxes = told["tables"]["boxes"]
    assert len(boxes) == 2
    for row in boxes:
        sides = [row[side] for side in ("xmin", "ymin", "xmax", "ymax")]
        np.testing.assert_allclose(sides, found[Path(row["image"]).name], atol=1e-3)


def draw_objects(tree: Path) -> Path:
    """Draw cats and dogs of 224 pixels, each a red box in its own place."""
    parts = {
        "train": {f"00000{k}": ((1, -1), (-1, 1))[k % 2] for k in range(4)},
        "val": {"000004": (1, -1), "000005": (-1, 1)},
        "test": {f"00000{k}": ((1, -1), (-1, 1))[k % 2] for k in range(6, 10)},
    }

    def paint(path: Path, labels: list[str]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        rows, columns = np.indices((224, 224))
        grey = 130 + 40 * np.sin((rows + columns) / (3 + int(path.stem)))
        pixels = np.repeat(grey[:, :, None], 3, axis=2)
        left, top, right, bottom = BOXES[labels[0]]
        pixels[top - 1 : bottom, left - 1 : right] = (220, 10, 20)
        Image.fromarray(pixels.astype(np.uint8)).save(path, quality=95)

    write_voc(tree, ("cat", "dog"), parts, paint)  # type: ignore[arg-type]  # lists are sequences
    size = "<size><width>224</width><height>224</height></size>"
    for rows in parts.values():
        for name, row in rows.items():
            label = ("cat", "dog")[row.index(1)]
            shown = OBJECT.format(name=label, difficult=0, box=BOXES[label])
            write_xml(tree, name, [size, shown])
    return tree


def predicted_box(path: Path, image: Path, label: int) -> list[float]:
    """Read the box of a class from fc8, in pixels from 1 on, cut at the image."""
    fc8 = compute(path, image)[0]["fc8"]
    assert fc8.shape == (1, 8, 1, 1)
    x, y, width, height = fc8.flatten().tolist()[4 * label : 4 * label + 4]
    edges = np.array([x - width / 2, y - height / 2, x + width / 2, y + height / 2]) * 224
    left, top, right, bottom = edges.clip(0, 224)
    return [left + 1, top + 1, right, bottom]


def share(found: list[float], true: tuple[int, int, int, int]) -> float:
    """Intersection over union of boxes in pixels from 1 on, ends included."""
    both = [max(found[0], true[0]), max(found[1], true[1]), min(found[2], true[2]),
            min(found[3], true[3])]  # fmt: skip

    def area(box: list[float] | tuple[int, ...]) -> float:
        return max(box[2] - box[0] + 1, 0) * max(box[3] - box[1] + 1, 0)

    common = area(both)
    return common / (area(found) + area(true) - common)
