"""``vggfeat train`` and the recipes that train, as people type them; bad input above all."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image
from support import noise
from tinynet import stand_in, two_classes

from vggfeat.cli import main
from vggfeat.cli.train import _batch_of, _net_of
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
Command = Callable[..., tuple[str, str]]


@pytest.fixture(autouse=True, scope="module")
def tiny() -> Iterator[None]:
    with stand_in() as patch:
        patch.setattr("vggfeat.train.loop.CHECK", 1)
        yield


@pytest.fixture
def vggfeat(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Command:
    """Run a command here, in a folder of its own, and return what it said."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str | Path, status: int = 0) -> tuple[str, str]:
        monkeypatch.setattr(sys, "argv", ["vggfeat", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        assert (ended.value.code or 0) == status, said.err
        return said.out, said.err

    return run


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return two_classes(tmp_path_factory.mktemp("pictures"))


def error(said: str) -> str:
    """Return the one line that an error is."""
    [line] = [line for line in said.splitlines() if line.startswith("Error: ")]
    assert said.rstrip().endswith(line)
    assert "Traceback" not in said
    return line


def test_a_run_leaves_weights_metrics_and_a_page(vggfeat: Command, pictures: Path) -> None:
    """The page has two epochs; the table and the JSON have what the checkpoint has."""
    out, err = vggfeat("train", "--data", pictures, "--out", "a", *QUICK, "--json")
    told = json.loads(out)
    assert told["history"] == read(Path("a", LAST))[0].history
    assert "8 pictures to train, 2 to validate, 2 classes" in err
    assert "Net A, S = 224; the network begins at random" in err
    page = Path(told["report"]).read_text(encoding="utf-8")
    assert "Under way" not in page
    assert page.count("<polyline") == 4
    assert {path.name for path in Path("a").iterdir()} == {
        "best.safetensors", "classes.txt", "last.safetensors", "metrics.csv", "report.html",
    }  # fmt: skip


def test_names_that_are_no_text_are_kept(vggfeat: Command, tmp_path: Path) -> None:
    """Bytes that are no UTF-8, in a class and in the path of all, are no hindrance to train."""
    root = Path(os.fsdecode(b"data\xff"))
    (two_classes(root) / "light").rename(root / os.fsdecode(b"bad\xff"))
    vggfeat("train", "--data", root, "--out", "a", *QUICK, "--quiet")
    assert Path("a", "classes.txt").read_bytes() == b"bad\xff\ndark\n"


def test_batch_and_rate_follow_from_what_is_there(vggfeat: Command, pictures: Path) -> None:
    """Eight pictures are one update of eight; a net from weights of its own begins at 1e-3."""
    quick = ["--S", "224", "--epochs", "1", "--workers", "0", "--data", pictures]
    vggfeat("train", *quick, "--out", "a")
    made = read(Path("a", LAST))[1]["settings"]
    assert (made["batch"], made["learning_rate"]) == (8, 1e-2)
    assert [_batch_of(n) for n in (10, 150, 2_000, 2_048, 1_281_167)] == [8, 16, 248, 256, 256]
    assert [_net_of(init, "D") for init in ("glorot", "embedded")] == [None, "D"]


def test_interrupted_and_resumed(
    vggfeat: Command, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C ends with 130 and how to go on; the page is there since the first epoch."""
    seen = []

    def stop(_: object) -> bool:
        seen.append(Path("a/report.html").exists() and Path("a/report.html").read_text())
        return len(seen) == 4

    with monkeypatch.context() as patch:
        patch.setattr("vggfeat.train.loop._Run._asked_to_stop", stop)
        _, err = vggfeat("train", "--data", pictures, "--out", "a", *QUICK, status=130)
    assert "Run the same command with --resume to go on" in err
    assert seen[1] is False
    assert "Under way" in str(seen[3])
    out, _ = vggfeat("train", "--data", pictures, "--out", "a", *QUICK, "--resume", "--json")
    assert [row["epoch"] for row in json.loads(out)["history"]] == [1, 2]
    assert "Under way" not in Path("a/report.html").read_text(encoding="utf-8")


def test_for_tensorboard(vggfeat: Command, pictures: Path) -> None:
    """Both folders that TensorBoard reads are there, with the epochs."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    vggfeat("train", "--data", pictures, "--out", "a", *QUICK, "--tensorboard", "--quiet")
    epochs = EventAccumulator("a/tensorboard/epochs").Reload().Scalars("val/loss")
    history = read(Path("a", LAST))[0].history
    assert [one.value for one in epochs] == pytest.approx([row["val_loss"] for row in history])
    updates = EventAccumulator("a/tensorboard/updates").Reload().Scalars("train/loss")
    assert [one.step for one in updates] == [1, 2, 3, 4]


def test_only_the_first_of_several_processes_speaks(
    vggfeat: Command, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What torchrun starts beside it says nothing and writes no page."""
    monkeypatch.setenv("RANK", "1")
    assert vggfeat("train", "--data", pictures, "--out", "a", *QUICK) == ("", "")
    assert not Path("a/report.html").exists()


def test_a_chain_is_trained_once(vggfeat: Command, pictures: Path) -> None:
    """The second time all is there; with two classes no figure of the paper stands beside."""
    Path("my.toml").write_text(CHAIN)
    command = ["run", "my.toml", "--data", pictures, "--out", "runs"]
    out, err = vggfeat(*command)
    assert "Net E, S = 224; the network begins from best.safetensors, net A" in err
    assert "27.3" not in out
    assert Path("runs/e/report.html").is_file()
    out, err = vggfeat(*command, "--json", "--quiet")
    assert err == ""
    assert [(one["name"], one["skipped"]) for one in json.loads(out)["links"]] == [
        ("a", True),
        ("e", True),
    ]


def no_classes(root: Path) -> list[str | Path]:
    Image.fromarray(noise(30, 30)).save(root / "loose.png")
    return ["--data", root]


def class_missing(root: Path) -> list[str | Path]:
    two_classes(root / "train")
    (root / "val" / "dark").mkdir(parents=True)
    Image.fromarray(noise(30, 30)).save(root / "val" / "dark" / "0.png")
    return ["--data", root]


def class_of_two_lines(root: Path) -> Path:
    (two_classes(root) / "light").rename(root / "new\nline")
    return root


@pytest.mark.parametrize(
    ("made", "more", "status", "said"),
    [
        (no_classes, [], 3, "has no class folders with pictures, such as"),
        (class_missing, [], 3, "has no picture of 'light', which"),
        (class_of_two_lines, [], 3, r"the class 'new\nline' has several lines"),
        (lambda root: ["--data", root / "none"], [], 3, "There is no"),
        (two_classes, ["--init", "xavier"], 2, "'glorot', 'paper', 'kaiming'"),
        (two_classes, ["--S", "256", "--S", "384", "--S", "512"], 2, "S_min and S_max"),
        (two_classes, ["--S", "200"], 2, "an integer from 224 on"),
        (two_classes, ["--net", "F"], 2, "none of A, A-LRN, B"),
        (two_classes, ["--decoder", "jpeg"], 2, "'pillow', 'nvjpeg'"),
        (two_classes, ["--device", "cuda:77"], 6, "cuda:77"),
        (two_classes, ["--val-fraction", "2"], 2, "val_fraction"),
    ],
)
def test_bad_input_is_one_line_and_its_kind(
    vggfeat: Command,
    tmp_path: Path,
    made: Callable[[Path], Path | list[str | Path]],
    more: list[str],
    status: int,
    said: str,
) -> None:
    """What is wrong, by name, and an exit status; nothing is written."""
    root = tmp_path / "data"
    root.mkdir()
    given = made(root)
    given = ["--data", given] if isinstance(given, Path) else given
    _, err = vggfeat("train", *given, "--out", "a", "--quiet", *more, status=status)
    assert said in error(err)
    assert not Path("a").exists()


def test_a_checkpoint_of_another_network_is_refused(vggfeat: Command, pictures: Path) -> None:
    """With --resume by what differs, without by how to go on; the checkpoint stays."""
    command = ["train", "--data", pictures, "--out", "a", "--quiet", *QUICK]
    vggfeat(*command)
    before = Path("a", LAST).read_bytes()
    _, err = vggfeat(*command, "--net", "D", "--resume", status=5)
    assert "net: 'A' → 'D'" in err
    assert "name another --out" in err
    _, err = vggfeat(*command, status=5)
    assert "Go on with --resume" in error(err)
    assert Path("a", LAST).read_bytes() == before


def test_weights_that_a_net_cannot_begin_from(
    vggfeat: Command, pictures: Path, tmp_path: Path
) -> None:
    """The embedded ones are net D's; a file that is none of weights says so."""
    command = ["train", "--data", pictures, "--out", "a", "--quiet", *QUICK]
    _, err = vggfeat(*command, "--net", "E", "--init", "embedded", status=4)
    assert "embedded has net D, not E" in error(err)
    (tmp_path / "weights.pth").write_text("none")
    _, err = vggfeat(*command, "--init", "weights.pth", status=4)
    assert "weights.pth" in error(err)


def test_without_tensorboard_before_any_picture_is_read(
    vggfeat: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command that installs it, even where there are no pictures."""
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    command = ["train", "--data", "none", "--out", "a", "--tensorboard"]
    assert "pip install 'vggfeat[tensorboard]'" in error(vggfeat(*command, status=8)[1])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train-a"], "train-a trains networks: name the pictures by --data"),
        (["train-a", "--data", "x", "--report", "r.html"], "--report says nothing to train-a"),
        (["table11-voc2007", "--data", "x"], "--data says nothing to table11-voc2007"),
        (["table11-voc2007", "--tensorboard"], "--tensorboard says nothing to table11-voc2007"),
    ],
)
def test_options_of_the_other_kind_of_recipe_are_refused(
    vggfeat: Command, arguments: list[str], said: str
) -> None:
    """An option that would do nothing is a mistake of whoever typed it."""
    assert said in error(vggfeat("run", *arguments, status=2)[1])
