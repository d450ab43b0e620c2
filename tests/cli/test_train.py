"""``vggfeat train`` and the recipes that train, as people type them; bad input above all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.cli import Ran, run
from helpers.colours import two_classes
from helpers.networks import SMALL, configured, formula_weights, write_weights
from helpers.seams import checkpoint_every, signal_at_update
from safetensors import safe_open

from vggfeat.train.checkpoint import LAST, read

QUICK = ["--S", "224", "--batch", "4", "--lr", "1e-4", "--epochs", "2", "--workers", "0"]
CHAIN = """
[training]
S = 224
batch = 4
epochs = 1
learning_rate = 1e-4
[[links]]
name = "a"
[[links]]
name = "e"
from = "a"
training = { net = "E" }
paper = [27.3, 9.0]
"""


@pytest.fixture(autouse=True, scope="module")
def _small() -> Iterator[None]:
    """Train nets A and E of few channels."""
    with configured(SMALL), checkpoint_every(1):
        yield


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return two_classes(tmp_path_factory.mktemp("images"))


def error(ran: Ran) -> str:
    """Return the one line that an error is."""
    [line] = [line for line in ran.err.splitlines() if line.startswith("Error: ")]
    assert ran.err.rstrip().endswith(line)
    assert "Traceback" not in ran.err
    return line


def test_a_run_leaves_weights_metrics_and_a_page(images: Path) -> None:
    """The page has two epochs; the table and the JSON have what the checkpoint has."""
    ran = run("train", "--data", images, "--out", "a", *QUICK, "--json")
    told, err = ran.json, ran.err
    history = read(Path("a", LAST))[0].history
    epochs = told["tables"]["epochs"]
    assert [row["val_loss"] for row in epochs] == [row["val_loss"] for row in history]
    assert [row["top1_error"] for row in epochs] == [1 - row["top1"] for row in history]
    assert told["measures"]["top5_error"]["value"] is None  # of two classes
    assert "8 images to train, 2 to validate, 2 classes" in err
    assert "Net A, S = 224; the network begins at random" in err
    page = Path(told["report"]).read_text(encoding="utf-8")
    assert "under way" not in page
    assert page.count('class="series"') == 4
    assert {path.name for path in Path("a").iterdir()} == {
        "best.safetensors", "classes.txt", "last.safetensors", "last.safetensors.lock",
        "metrics.csv", "report.html",
    }  # fmt: skip


def test_names_that_are_no_text_are_kept(tmp_path: Path) -> None:
    """Bytes that are no UTF-8, in a class and in the path of all, are no hindrance to train."""
    root = Path(os.fsdecode(b"data\xff"))
    (two_classes(root) / "light").rename(root / os.fsdecode(b"bad\xff"))
    run("train", "--data", root, "--out", "a", *QUICK, "--quiet")
    assert Path("a", "classes.txt").read_bytes() == b"bad\xff\ndark\n"


def test_batch_and_rate_follow_from_what_is_there(
    images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight images are one update of eight; a net from weights of its own begins at 1e-3."""
    quick = ["--S", "224", "--epochs", "1", "--workers", "0", "--data", images]
    run("train", *quick, "--out", "a")
    made = read(Path("a", LAST))[1]["settings"]
    assert (made["batch"], made["learning_rate"]) == (8, 1e-2)
    # An image for each process.
    monkeypatch.setattr("vggfeat.experiments.training.world_size", lambda: 9)
    run("train", *quick, "--out", "b")
    assert read(Path("b", LAST))[1]["settings"]["batch"] == 9


def test_interrupted_and_resumed(images: Path) -> None:
    """Ctrl-C ends with 130 and how to go on; the page is there since the first epoch.

    Another network does not go on from the checkpoint, which stays.
    """
    command = ["train", "--data", images, "--out", "a", *QUICK]
    page = Path("a/report.html")
    with signal_at_update(1, signal.SIGINT):
        ran = run(*command, status=130)
    assert "Run the same command with --resume to go on" in ran.err
    assert not page.exists()
    with signal_at_update(2, signal.SIGINT):  # the third of four in all, in the second epoch
        run(*command, "--resume", status=130)
    assert "(under way)" in page.read_text(encoding="utf-8")
    done = run(*command, "--resume", "--json").json
    assert [row["epoch"] for row in done["tables"]["epochs"]] == [1, 2]
    assert "(under way)" not in page.read_text(encoding="utf-8")
    kept = Path("a", LAST).read_bytes()
    other = run(*command, "--net", "D", "--resume", status=5).err
    assert "net: 'A' → 'D'" in other
    assert "name another --out" in other
    assert "Go on with --resume" in error(run(*command, status=5))
    assert Path("a", LAST).read_bytes() == kept


SMALL_TRAINING = """
from helpers.networks import SMALL, configured
from vggfeat.cli import main
with configured(SMALL):
    main()
"""


def test_sigterm_to_all_processes_of_a_run(images: Path) -> None:
    """As a cluster sends it: the run keeps its state, says how to go on, and ends with 143."""
    words = ["train", "--data", str(images), "--out", "a", *QUICK, "--workers", "2"]
    many = words[: words.index("--epochs")] + words[words.index("--epochs") + 2 :]
    with subprocess.Popen(
        [sys.executable, "-c", SMALL_TRAINING, *many, "--epochs", "500"],
        stderr=subprocess.PIPE, text=True, start_new_session=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as process:  # fmt: skip
        until = time.monotonic() + 60
        while not Path("a", LAST).is_file() and process.poll() is None:
            assert time.monotonic() < until
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    assert "Terminated. Run the same command with --resume" in err
    assert "Traceback" not in err


def test_an_interrupt_before_the_first_checkpoint_promises_none(
    images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is said is true: without a checkpoint the same command begins anew."""
    monkeypatch.setattr("vggfeat.cli.watching.train", interrupt)
    err = run("train", "--data", images, "--out", "a", *QUICK, status=130).err
    assert "begins anew" in err
    assert "--resume" not in err


def interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_for_tensorboard(images: Path) -> None:
    """Both folders that TensorBoard reads are there, with the epochs."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run("train", "--data", images, "--out", "a", *QUICK, "--tensorboard", "--quiet")
    epochs = EventAccumulator("a/tensorboard/epochs").Reload().Scalars("val/loss")
    history = read(Path("a", LAST))[0].history
    assert [one.value for one in epochs] == pytest.approx([row["val_loss"] for row in history])
    updates = EventAccumulator("a/tensorboard/updates").Reload().Scalars("train/loss")
    assert [one.step for one in updates] == [1, 2, 3, 4]


def test_only_the_first_of_several_processes_speaks(
    images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What torchrun starts beside it says nothing and writes no page."""
    monkeypatch.setenv("RANK", "1")
    alone = "vggfeat.train.distributed.find_rendezvous"
    monkeypatch.setattr(alone, lambda: None)
    assert run("train", "--data", images, "--out", "a", *QUICK) == Ran(0, "", "")
    assert not Path("a/report.html").exists()


def test_a_chain_is_trained_once(images: Path) -> None:
    """The second time all is there; with two classes no top-5 error, nor a figure of the paper."""
    Path("my.toml").write_text(CHAIN)
    command = ["run", "my.toml", "--data", images, "--out", "runs"]
    ran = run(*command)
    [begun] = [line for line in ran.err.splitlines() if line.startswith("Net E, S = 224; ")]
    assert str(images) in begun
    assert begun.endswith(", net A.")
    assert "27.3" not in ran.out
    assert ran.out.count("–") == 6  # top-5 errors, and figures of the paper
    assert Path("runs/e/report.html").is_file()
    again = run(*command, "--json", "--quiet")
    assert again.err == ""
    links = [(link["name"], link["skipped"]) for link in again.json["links"]]
    assert links == [("a", True), ("e", True)]


def test_the_net_with_normalisation_is_trained_by_its_recipe(images: Path) -> None:
    """A-LRN from random numbers, as A is; its link is the net that Table 3's recipe asks for."""
    typed = ("S=224", "batch=4", "epochs=1", "learning_rate=1e-4")
    words = [word for text in typed for word in ("--set", f"training.{text}")]
    with configured({"A-LRN": SMALL["A"].replace("4 |", "4 LRN |", 1)}):
        ran = run("run", "train-a-lrn", "--data", images, "--out", "runs", *words, "--json")
    [link] = ran.json["links"]
    assert (link["name"], link["epochs"]) == ("a-lrn-256", 1)
    with safe_open(link["weights"], "pt") as file:
        assert file.metadata()["net"] == "A-LRN"


def test_a_class_of_two_lines_is_refused(tmp_path: Path) -> None:
    """A network lists its classes line by line; nothing is written."""
    (two_classes(tmp_path / "data") / "light").rename(tmp_path / "data" / "new\nline")
    ran = run("train", "--data", "data", "--out", "a", "--quiet", status=3)
    assert r"'new\nline'" in error(ran)
    assert not Path("a").exists()


@pytest.mark.parametrize(
    ("last", "drawn"), [("pool5", ["fc6", "fc7", "fc8"]), ("fc6", ["fc7", "fc8"])]
)
def test_a_file_may_lack_full_connections(images: Path, last: str, drawn: list[str]) -> None:
    """What is missing is drawn, and said, as of the embedded weights by their name."""
    write_weights(Path("part.safetensors"), formula_weights("A", [last]))
    command = ["train", "--data", images, "--out", "a", "--init", "part.safetensors", *QUICK]
    ran = run(*command, "--json")
    assert f"part.safetensors has no {', '.join(drawn)}: " in ran.err


def test_without_tensorboard_before_any_image_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command that installs it, even where there are no images."""
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    command = ["train", "--data", "none", "--out", "a", "--tensorboard"]
    assert "pip install 'vggfeat[tensorboard]'" in error(run(*command, status=8))
