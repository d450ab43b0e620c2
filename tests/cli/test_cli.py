"""The commands as people type them: results, messages, exit statuses."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from fuzz.images import png
from helpers.cli import run, run_process
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


def test_a_second_run_says_that_nothing_was_computed(folder: Path) -> None:
    """JSON gives the counts: five computed, then five already there."""
    for computed, present in ((5, 0), (0, 5)):
        done = run("extract", "images", *FAST, "--json", "--quiet", cwd=folder)
        assert (done.json["computed"], done.json["present"]) == (computed, present)
        assert done.err == ""


def test_a_run_says_which_columns_it_added(folder: Path) -> None:
    """Five images get three columns beside the one that they have; images are not columns."""
    run("extract", "images", *FAST, "-q", cwd=folder)
    more = ("--layer", "pool1", "--Q", "40")
    done = run("extract", "images", *FAST, *more, "--json", "-q", cwd=folder).json
    assert (done["computed"], done["added"]) == (5, [{"columns": 3, "images": 5}])
    done = run("extract", "images", *FAST, *more, "--Q", "48", "-q", cwd=folder)
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
    rng = np.random.default_rng(0)
    for label, low in (("dark", 0), ("light", 200)):
        (folder / "set" / label).mkdir(parents=True)
        for i in range(8):
            pixels = rng.integers(low, low + 50, (40, 48, 3), np.uint8)
            Image.fromarray(pixels).save(folder / "set" / label / f"{i}.png")
    written = ["--save", "model", "--report", "r.html"]
    done = run("svm", "--dataset", "set", *FAST, "--jobs", "1", *written, cwd=folder)
    assert "Mean class recall 100.0 ± 0.0 %" in done.out
    assert "trained on all 16 images" in done.err
    assert "<h1" in (folder / "r.html").read_text()
    Image.new("RGB", (40, 40), (10, 20, 30)).save(folder / "new.png")
    (folder / "bad.png").write_bytes(b"")
    done = run("predict", "model", "new.png", "bad.png", "--csv", "s.csv", cwd=folder)
    assert "dark" in done.out
    assert "bad.png: the file is empty" in done.err
    tables = run("predict", "model", "new.png", "bad.png", "--json", "-q", cwd=folder).json[
        "tables"
    ]
    assert [(row["image"], row["class"]) for row in tables["predictions"]] == [("new.png", "dark")]
    assert tables["failed"] == [{"image": "bad.png", "reason": "the file is empty"}]
    with (folder / "s.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    assert float(found[0]["dark"]) > float(found[0]["light"])
    assert found[1]["error"] == "the file is empty"


def test_a_split_in_a_manifest_is_kept(folder: Path) -> None:
    """A CSV that says which images are for testing has them tested, and never trained on."""
    rng = np.random.default_rng(0)
    rows = ["path,label,split"]
    for label, low in (("dark", 0), ("light", 200)):
        for i in range(6):
            name = f"{label}{i}.png"
            pixels = rng.integers(low, low + 50, (40, 40, 3), np.uint8)
            Image.fromarray(pixels).save(folder / name)
            rows.append(f"{name},{label},{'test' if i > 3 else 'train'}")
    (folder / "m.csv").write_text("\n".join(rows))
    arguments = ["svm", "--dataset", "m.csv", *FAST, "--jobs", "1", "-q", "--json"]
    splits = run(*arguments, cwd=folder).json["tables"]["splits"]
    assert [(split["train"], split["test"]) for split in splits] == [(8, 4)]
    (folder / "m.csv").write_text("\n".join(rows).replace("train", "learn"))
    assert "'learn'" in run(*arguments, cwd=folder, status=3).err


def test_a_model_finds_its_weights_from_any_folder(folder: Path) -> None:
    """A model trained with a weights file is used elsewhere; moved weights are asked for."""
    for label, seed in (("a", 1), ("b", 2)):
        for i in range(4):
            target = folder / "set" / label / f"{i}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(noise(40, 40, seed)).save(target)
    source = str(asset("vgg_d_conv_fp16.safetensors"))
    run("weights", "convert", source, "own.safetensors", cwd=folder)
    arguments = ["--weights", "own.safetensors", "--layer", "pool2", "--Q", "32", "-q"]
    run("svm", "--dataset", "set", *arguments, "--jobs", "1", "--save", "model", cwd=folder)
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    predicting = ["predict", "../model", "../set/a/0.png", "-q"]
    assert "a" in run(*predicting, cwd=elsewhere).out
    (folder / "own.safetensors").rename(elsewhere / "moved.safetensors")
    assert "--weights" in run(*predicting, cwd=elsewhere, status=4).err
    run(*predicting, "--weights", "moved.safetensors", cwd=elsewhere)
    (elsewhere / "bad.png").write_bytes(b"")
    unread = ["predict", "../model", "bad.png", "--weights", "embedded"]
    done = run(*unread, cwd=elsewhere, status=3)
    assert "bad.png: the file is empty" in done.err
    asked = [*predicting, "--weights", "embedded", "--csv", "none/s.csv"]
    assert "none" in run(*asked, cwd=elsewhere, status=5).err


def test_normalised_locations_need_their_own_extraction(folder: Path) -> None:
    """Export does not call raw locations normalised."""
    run("extract", "images", *FAST, cwd=folder)
    asked = ["store", "export", "features", "x.npz", "--normalize", "locations"]
    assert "--normalize locations" in run(*asked, cwd=folder, status=2).err
    run("extract", "images", *FAST, "--normalize", "locations", "--out", "l2", cwd=folder)
    run("store", "export", "l2", "x.npz", "--normalize", "locations", cwd=folder)


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


def test_ctrl_c_stops_cleanly_and_resumes(tmp_path: Path) -> None:
    """An interrupted run has status 130, says how to go on, and loses nothing complete.

    In a process of its own; faults/test_machine interrupts at any step.
    """
    (tmp_path / "images").mkdir()
    for i in range(32):
        Image.fromarray(noise(80, 64, i)).save(tmp_path / "images" / f"{i:02}.png")
    command = ["extract", "images", "--layer", "pool3", "--Q", "64", "--out", "f"]
    # A shard after every round of four, so that the test knows when some images are complete.
    often = "import vggfeat.features.pipeline as e; e.SECONDS_PER_SHARD = 0; "
    small = "e.round_size = lambda *_: 4; "
    start = often + small + "import vggfeat.cli; vggfeat.cli.main()"
    running = subprocess.Popen(
        [sys.executable, "-c", start, *command], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("f/shards/*.h5")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=60)
    assert running.returncode == 130, said
    assert "run the same command again" in said
    assert "Traceback" not in said
    result = run(*command, "--json", cwd=tmp_path).json
    assert 4 <= result["present"] < 32
    assert result["present"] + result["computed"] == 32
