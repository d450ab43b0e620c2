"""Which labels class folders give, whatever lies or is named beside them."""

from __future__ import annotations

from pathlib import Path

import pytest

from vggfeat.data.datasets.labels import labels_of
from vggfeat.data.imageset import find_images

CLASSES = "set/cat/1 set/cat/old/2 set/dog/3"
PARTS = "set/train/cat/1 set/train/2 set/test/dog/3"


@pytest.mark.parametrize(
    ("files", "sources", "expected"),  # labels and splits by the images' numbers
    [
        (f"{CLASSES} set/4", "set", "cat cat dog -"),
        (f"{CLASSES} set/4", ".", "cat cat dog -"),
        (f"{CLASSES} set/4", "set/*", "cat cat dog -"),
        (f"{CLASSES} flat/4", "set flat", "cat cat dog -"),
        (f"{CLASSES} flat/4", "set flat/4.png", "cat cat dog -"),
        (f"{CLASSES} more/rose/4", "set more", "cat cat dog rose"),
        ("set/cat/1 flat/2", "set flat", "- -"),
        ("set/1 set/old/2", "set", "- -"),
        ("set/images/cat/1 set/images/dog/2 set/3", "set", "cat dog -"),
        ("set/cat/1 set/dog/2", "set/cat set/dog", "cat dog"),
        ("set/cat/1 set/dog/2", "set/cat/1.png set/dog/2.png", "cat dog"),
        (f"{PARTS} set/4", "set", "cat/train -/train dog/test -"),
        (PARTS, "set/train set/test", "cat/train -/train dog/test"),
    ],
)
@pytest.mark.parametrize("relative_to", [None, "."])
def test_labels_are_the_folders_of_each_source(
    files: str,
    sources: str,
    expected: str,
    relative_to: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An image beside class folders has no label and takes none away; sources are no classes."""
    monkeypatch.chdir(tmp_path)
    for name in files.split():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(f"{name}.png").write_bytes(b"")
    images = find_images(sources.split(), relative_to)
    known = labels_of(images)
    of_number = {Path(name).stem: known.get(name, ("", "")) for name in images.names}
    found = [
        (label or "-") + f"/{split}" * bool(split)
        for _, (label, split) in sorted(of_number.items())
    ]
    assert " ".join(found) == expected
