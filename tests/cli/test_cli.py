"""The commands as people type them: results, messages, exit statuses."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from fuzz.images import png
from helpers.cli import run, run_process
from helpers.colours import two_classes
from PIL import Image
from support import noise

from vggfeat._io.assets import asset

FAST = ["--layer", "pool2", "--Q", "32", "--weights", "embedded"]


@pytest.fixture
def folder(draw: Callable[..., Path], tmp_path: Path) -> Path:
    for i in range(5):
        draw(f"images/{i}.png", 40 + 9 * (i % 2), 40, seed=i)
    return tmp_path


def test_extract_takes_the_current_folder_by_default(folder: Path) -> None:
    """Without sources and --out the images here go to ./features, and the table says so.

    In a process of its own, from its start to what it prints.
    """
    done = run_process("extract", *FAST, cwd=folder / "images")
    for said in (
        "5 of 5",
        "/D/pool2/average/Q32 (128)",
        "images/s",
        "CPU",
        "FeatureStore('features').read()",
    ):
        assert said in done.out
    assert "Net D, pool2, weights embedded" in done.err
    with h5py.File(folder / "images" / "features" / "features.h5") as file:
        assert file["names"].asstr()[:].tolist() == [f"{i}.png" for i in range(5)]
        assert file["D/pool2/average/Q32"].shape == (5, 128)


def test_a_run_says_what_it_computed_and_added(folder: Path) -> None:
    """Five images, then none, then three columns beside the one that they have."""
    words = ("extract", "images", *FAST, "-q")
    for computed, present in ((5, 0), (0, 5)):
        done = run(*words, "--json", cwd=folder)
        assert (done.json["computed"], done.json["present"]) == (computed, present)
        assert done.err == ""
    words = (*words, "--layer", "pool1", "--Q", "40")
    done = run(*words, "--json", cwd=folder).json
    assert (done["computed"], done["added"]) == (5, [{"columns": 3, "images": 5}])
    done = run(*words, "--Q", "48", cwd=folder)
    [line] = [line for line in done.out.splitlines() if "added" in line]
    assert [int(word) for word in line.split() if word.isdigit()] == [2, 5, 4, 6]


def bad_folder(folder: Path) -> None:
    """Make the images that every real folder has sooner or later."""
    folder.mkdir()
    photo = Image.fromarray(noise(64, 48))
    photo.save(folder / "good.jpg")
    (folder / "truncated.jpg").write_bytes((folder / "good.jpg").read_bytes()[:-300])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.jpg").write_text("not an image")
    Image.new("RGB", (1, 1), "red").save(folder / "dot.png")
    photo.convert("CMYK").save(folder / "cmyk.jpg")
    Image.fromarray(np.arange(3072, dtype=np.uint16).reshape(48, 64) * 21).save(folder / "deep.png")
    photo.save(folder / "moving.gif", save_all=True, append_images=[photo.rotate(90)])
    exif = Image.Exif()
    exif[0x0112] = 6
    photo.save(folder / "turned.jpg", exif=exif)
    (folder / "huge.png").write_bytes(png(30_000, 30_000, bytes(30_000 * (1 + 30_000 // 8))))


def test_a_folder_with_every_fault_is_extracted(tmp_path: Path) -> None:
    """Good images are extracted, bad ones listed with reasons, memory stays bounded.

    In a process of its own, whose memory is limited.
    """
    bad_folder(tmp_path / "images")
    limited = "import resource; resource.setrlimit(resource.RLIMIT_AS, (8 << 30,) * 2); "
    main = "from vggfeat.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", limited + main, "extract", "images", *FAST, "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["skipped"] == 4
    assert "Warning: 4 images could not be used" in done.stderr
    with (tmp_path / "features" / "failed.csv").open(newline="") as file:
        reasons = dict(list(csv.reader(file))[1:])
    bad = ("empty.jpg", "huge.png", "text.jpg", "truncated.jpg")
    assert sorted(reasons) == [f"images/{name}" for name in bad]
    assert "empty" in reasons["images/empty.jpg"]
    assert "pixels" in reasons["images/huge.png"]
    with h5py.File(tmp_path / "features" / "features.h5") as file:
        names = file["names"].asstr()[:].tolist()
        whole = ["cmyk.jpg", "deep.png", "dot.png", "good.jpg", "moving.gif", "turned.jpg"]
        assert names == [f"images/{name}" for name in whole]
        assert np.isfinite(file["D/pool2/average/Q32"][:]).all()


def test_train_save_and_predict(folder: Path) -> None:
    """A model trained on two plain classes names them on new images, by hand and by JSON."""
    two_classes(folder / "set", 8)
    written = ["--save", "model", "--report", "r.html"]
    done = run("svm", "--dataset", "set", *FAST, "--jobs", "1", *written, cwd=folder)
    assert "Mean class recall 100.0 ± 0.0 %" in done.out
    assert "trained on all 16 images" in done.err
    assert "<h1" in (folder / "r.html").read_text()
    Image.new("RGB", (40, 40), (10, 20, 30)).save(folder / "new.png")
    (folder / "bad.png").write_bytes(b"")
    words = ("predict", "model", "new.png", "bad.png")
    done = run(*words, "--csv", "s.csv", cwd=folder)
    assert "dark" in done.out
    assert "bad.png: the file is empty" in done.err
    tables = run(*words, "--json", "-q", cwd=folder).json["tables"]
    assert [(row["image"], row["class"]) for row in tables["predictions"]] == [("new.png", "dark")]
    assert tables["failed"] == [{"image": "bad.png", "reason": "the file is empty"}]
    good, bad = csv.DictReader((folder / "s.csv").read_text().splitlines())
    assert float(good["dark"]) > float(good["light"])
    assert bad["error"] == "the file is empty"
    run(*words, "--csv", "s.csv", "-q", cwd=folder)  # its own earlier table
    (folder / "list.csv").write_text("name,class\nnew.png,dark\n")
    assert "list.csv" in run(*words, "--csv", "list.csv", cwd=folder, status=5).err
    assert (folder / "list.csv").read_text().endswith("new.png,dark\n")


def test_a_split_in_a_manifest_is_kept(folder: Path) -> None:
    """A CSV that says which images are for testing has them tested, and never trained on."""
    two_classes(folder / "set", 6)
    rows = [
        f"set/{label}/{i}.png,{label},{'test' if i > 3 else 'train'}"
        for label in ("dark", "light")
        for i in range(6)
    ]
    text = "\n".join(["path,label,split", *rows])
    (folder / "m.csv").write_text(text)
    arguments = ["svm", "--dataset", "m.csv", *FAST, "--jobs", "1", "-q", "--json"]
    splits = run(*arguments, cwd=folder).json["tables"]["splits"]
    assert [(split["train"], split["test"]) for split in splits] == [(8, 4)]
    (folder / "m.csv").write_text(text.replace("train", "learn"))
    assert "'learn'" in run(*arguments, cwd=folder, status=3).err


def test_a_model_finds_its_weights_from_any_folder(folder: Path) -> None:
    """A model trained with a weights file is used elsewhere; moved weights are asked for."""
    two_classes(folder / "set", 4)
    source = str(asset("vgg_d_conv_fp16.safetensors"))
    run("weights", "convert", source, "own.safetensors", cwd=folder)
    arguments = ["--weights", "own.safetensors", "--layer", "pool2", "--Q", "32", "-q"]
    run("svm", "--dataset", "set", *arguments, "--jobs", "1", "--save", "model", cwd=folder)
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    predicting = ["predict", "../model", "../set/dark/0.png", "-q"]
    assert "dark" in run(*predicting, cwd=elsewhere).out
    (folder / "own.safetensors").rename(elsewhere / "moved.safetensors")
    assert "--weights" in run(*predicting, cwd=elsewhere, status=4).err
    run(*predicting, "--weights", "moved.safetensors", cwd=elsewhere)
    (elsewhere / "bad.png").write_bytes(b"")
    done = run("predict", "../model", "bad.png", "--weights=embedded", cwd=elsewhere, status=3)
    assert "bad.png: the file is empty" in done.err


def test_store_commands(folder: Path) -> None:
    """Info, verify, pack and export work on what extract wrote; damage has status 5."""
    run("extract", "images", *FAST, cwd=folder)
    assert run("store", "info", "--json", cwd=folder).json["asked"] == 5
    assert "is sound" in run("store", "verify", cwd=folder).out
    run("store", "pack", "features", "packed.h5", cwd=folder)
    run("store", "export", "packed.h5", "x.csv", cwd=folder)
    lines = (folder / "x.csv").read_text().splitlines()
    assert len(lines) == 6
    assert len(lines[0].split(",")) == 129
    [shard] = (folder / "features" / "shards").iterdir()
    damaged = bytearray(shard.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    shard.write_bytes(damaged)
    assert shard.name[:12] in run("store", "verify", cwd=folder, status=5).out


def test_weights_commands(folder: Path) -> None:
    """The list names every source; a converted file shows the numbers of its origin."""
    assert "VGG_ILSVRC_19_layers.caffemodel" in run("weights", "list", cwd=folder).out
    source = str(asset("vgg_d_conv_fp16.safetensors"))
    before = run("weights", "show", source, "--json", cwd=folder).json
    run("weights", "convert", source, "copy.pth", cwd=folder)
    after = run("weights", "show", "copy.pth", "--json", cwd=folder).json
    assert before["sha256"] == after["sha256"]
    assert before["pixels"] == after["pixels"]
