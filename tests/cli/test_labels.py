"""What labels and splits alone tell is said before a network is opened."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.cli import run
from promises.seams import watching_reading

HEAD = "path,label\n"
SIX = [f"{label}{n}.jpg" for label in ("bird", "boat") for n in range(6)]


def manifest(**of_split: list[str]) -> str:
    """List images by their split; an image is named after its label and a number."""
    rows = [(name, name[:4], split) for split, names in of_split.items() for name in names]
    return "\n".join(["path,label,split", *map(",".join, rows)])


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (manifest(tset=SIX[::2], train=SIX[1::2]), ["tset", "train"]),
        (manifest(Train=SIX[::2], Test=SIX[1::2]), ["Test", "train"]),
        (manifest(train=SIX[:6], test=SIX[6:]), ["boat", "train"]),
        (manifest(train=SIX), ["test"]),
        (manifest(train=SIX, test=SIX[:1]), ["bird0.jpg", "train", "test"]),
        (HEAD + "".join(f"{name},{name[:4]}\n" for name in [*SIX, "bug_.jpg"]), ["bug_"]),
        (HEAD + "".join(f"{n}.jpg,{n % 2}\n" for n in range(6)), ["C cannot be chosen"]),
        (HEAD + "".join(f"{n}.jpg,{n / 7}\n" for n in range(60)), ["quantity"]),
        ("path,labels,split\n0.jpg,a,test\n1.jpg,b,test\n", ["train"]),
        ("path,labels\n" + "".join(f"{n}.jpg,a\n" for n in range(9)), ["positives"]),
    ],
)
def test_what_cannot_be_is_refused_first(text: str, named: list[str], tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text(text)
    for line in text.splitlines()[1:]:
        (tmp_path / line.partition(",")[0]).touch()
    with watching_reading() as read:
        done = run("svm", "--dataset", "m.csv", "--layer", "pool1", cwd=tmp_path, status=3)
    assert all(name in done.err for name in named), done.err
    assert "load" not in read
