"""Small data sets in the genuine layouts, as tests need them."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Callable, Mapping, Sequence
from itertools import count as from_one_on
from pathlib import Path
from zlib import crc32

import numpy as np
from PIL import Image
from support import noise

Draw = Callable[[Path, Sequence[str]], None]
"""Draws an image that has something of these classes in it."""
BAND = 24  # pixels, the width and height of what draw_bands draws of each class

OBJECT = (
    "<object><name>{name}</name><difficult>{difficult}</difficult><bndbox><xmin>{box[0]}</xmin>"
    "<ymin>{box[1]}</ymin><xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox></object>"
)


def draw_jpeg(path: Path, colour: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6), (colour % 256, 100, 200)).save(path)


def draw_bands(path: Path, labels: Sequence[str]) -> None:
    """Draw side by side a square of each class, in its own texture, no two images the same."""
    path.parent.mkdir(parents=True, exist_ok=True)
    squares = [noise(BAND, BAND, crc32(label.encode())) for label in labels or [""]]
    grain = np.random.default_rng(crc32(path.name.encode())).integers(-9, 10, (BAND, 1, 3))
    pixels = np.concatenate(squares, axis=1) + grain
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, quality=95)


def write_xml(tree: Path, image: str, objects: Sequence[str]) -> None:
    folder = tree / "Annotations"
    folder.mkdir(parents=True, exist_ok=True)
    text = f"<annotation><filename>{image}.jpg</filename>{''.join(objects)}</annotation>"
    (folder / f"{image}.xml").write_text(text)


def write_voc(
    tree: Path,
    classes: Sequence[str],
    parts: Mapping[str, Mapping[str, Sequence[int] | None]],
    draw: Draw = lambda path, _: draw_jpeg(path),
) -> None:
    """Write images and lists of Main; an image with None for labels has none."""
    lists = tree / "ImageSets" / "Main"
    lists.mkdir(parents=True, exist_ok=True)
    for part, rows in parts.items():
        (lists / f"{part}.txt").write_text("".join(f"{name}\n" for name in rows))
        for at, label in enumerate(classes):
            lines = [f"{name} {row[at]:2d}\n" for name, row in rows.items() if row is not None]
            if lines:
                (lists / f"{label}_{part}.txt").write_text("".join(lines))
        for name, row in rows.items():
            draw(tree / "JPEGImages" / f"{name}.jpg", _shown(classes, row))
            found = [
                OBJECT.format(name=label, difficult=int(value == 0), box=(1, 1, 4, 4))
                for label, value in zip(classes, row or (), strict=bool(row))
                if value >= 0
            ]
            write_xml(tree, name, found)


def write_actions(
    tree: Path,
    actions: Sequence[str],
    parts: Mapping[str, Mapping[tuple[str, int], Sequence[int]]],
    draw: Draw = lambda path, _: draw_jpeg(path),
    box: Callable[[int], Sequence[int]] = lambda k: (k, 2 * k, 10 * k, 20 * k),
) -> None:
    """Write images and lists of Action, with the box of person k of an image."""
    lists = tree / "ImageSets" / "Action"
    lists.mkdir(parents=True, exist_ok=True)
    for part, rows in parts.items():
        persons: dict[str, dict[int, Sequence[int]]] = {}
        for (image, k), row in rows.items():
            persons.setdefault(image, {})[k] = row
        (lists / f"{part}.txt").write_text("".join(f"{name}\n" for name in persons))
        for at, label in enumerate(actions):
            lines = [f"{image} {k} {row[at]:2d}\n" for (image, k), row in rows.items()]
            (lists / f"{label}_{part}.txt").write_text("".join(lines))
        for image, of in persons.items():
            shown = [(_shown(actions, row) or ["other"])[0] for row in of.values()]
            draw(tree / "JPEGImages" / f"{image}.jpg", shown)
            numbers = range(1, max(of) + 1)
            found = [OBJECT.format(name="person", difficult=0, box=box(k)) for k in numbers]
            write_xml(tree, image, found)


def withhold(lists: Path, part: str = "test") -> list[str]:
    """Take the labels of a part away, as the servers' own parts have none; return its rows."""
    labelled = sorted(lists.glob(f"*_{part}.txt"))
    rows = [line.rpartition(" ")[0].strip() for line in labelled[0].read_text().splitlines()]
    (lists / f"{part}.txt").write_text("".join(f"{row}\n" for row in rows))
    for path in labelled:
        path.unlink()
    return rows


def write_classes(
    tree: Path,
    counts: Mapping[str, int],
    name: str = "image_{:04d}.jpg",
    draw: Draw | None = None,
) -> None:
    """Write class folders with so many images each, of as many colours, or as they are drawn."""
    for label, count in counts.items():
        for number in range(1, count + 1):
            path = tree / label / name.format(number)
            draw(path, [label]) if draw else draw_jpeg(path, number)


def band(k: int) -> tuple[int, int, int, int]:
    """Box of the k-th square that draw_bands draws, from 1 on."""
    return (1 + BAND * (k - 1), 1, BAND * k, BAND)


def one_class_each(
    classes: Sequence[str], copies: Mapping[str, int]
) -> dict[str, dict[str, tuple[int, ...]]]:
    """Make parts in which so many images show each class; the next class is difficult there."""
    names = (f"2008_{number:06d}" for number in from_one_on(1))
    parts = {}
    for part, times in copies.items():
        rows = [_row(len(classes), at, difficult=at + 1) for at in range(len(classes))] * times
        parts[part] = dict(zip(names, rows, strict=False))
    return {**parts, "trainval": parts["train"] | parts["val"]}


def two_persons_each(
    actions: Sequence[str], copies: Mapping[str, int]
) -> dict[str, dict[tuple[str, int], tuple[int, ...]]]:
    """Make parts in which so many images show each action, beside another one, or none."""
    n = len(actions)
    names = (f"2010_{number:06d}" for number in from_one_on(1))
    parts: dict[str, dict[tuple[str, int], tuple[int, ...]]] = {}
    for part, times in copies.items():
        parts[part] = {}
        for at, name in zip([*range(n)] * times, names, strict=False):
            parts[part][name, 1] = _row(n, at)
            parts[part][name, 2] = _row(n, at + 3) if at % 3 else (-1,) * n
    return {**parts, "trainval": parts["train"] | parts["val"]}


def _row(n: int, positive: int, difficult: int | None = None) -> tuple[int, ...]:
    row = [-1] * n
    if difficult is not None:
        row[difficult % n] = 0
    row[positive % n] = 1
    return tuple(row)


def _shown(classes: Sequence[str], row: Sequence[int] | None) -> list[str]:
    return [label for label, value in zip(classes, row or (), strict=bool(row)) if value > 0]


def pack(folder: Path, archive: Path, only: Sequence[str] = ()) -> dict[str, object]:
    """Pack a folder into a tar archive; return what a card says of it."""
    with tarfile.open(archive, "w:gz" if archive.suffix == ".gz" else "w") as out:
        for name in only or sorted(path.name for path in folder.iterdir()):
            out.add(folder / name, name)
    return described(archive)


def described(archive: Path) -> dict[str, object]:
    content = archive.read_bytes()
    return {
        "file": archive.name,
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }


def tar_of(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    """Make an archive of members as they are, hostile ones included."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for member, content in members:
            member.size = len(content) if member.isreg() else 0
            archive.addfile(member, io.BytesIO(content))
    return out.getvalue()
