"""I6: a tree of VOC whose images have red boxes on a noisy sheet."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from golden.inputs import made
from golden.making.textures import write

CLASSES = ("cat", "dog")
WIDTH, HEIGHT = 288, 256
PARTS = {"train": (1, 4), "val": (11, 2), "test": (21, 6)}
"""First number, and number of images."""
_OBJECT = (
    "<object><name>{name}</name><difficult>{difficult}</difficult><bndbox><xmin>{0}</xmin>"
    "<ymin>{1}</ymin><xmax>{2}</xmax><ymax>{3}</ymax></bndbox></object>"
)


def box_of(number: int) -> tuple[int, int, int, int]:
    """Place the box of an image: left, top, right and bottom edge, from 0 on."""
    left, top = 12 + 37 * number % 90, 10 + 23 * number % 70
    return left, top, left + 70 + 29 * number % 110, top + 60 + 31 * number % 100


def red_box(pixels: np.ndarray) -> tuple[int, int, int, int]:
    """Find the edges of what is red in an image (H, W, 3)."""
    red = (pixels[:, :, 0] > 150) & (pixels[:, :, 1] < 100)
    rows, columns = np.flatnonzero(red.any(1)), np.flatnonzero(red.any(0))
    if not len(rows):
        return 0, 0, 0, 0
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


@made("I6")
def tree(folder: Path) -> None:
    """Write VOC2007: every third test image shows both classes, the second one in a corner."""
    year = folder / "VOC2007"
    (year / "Annotations").mkdir(parents=True)
    lists = year / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    for part, (first, count) in PARTS.items():
        names, rows = [], []
        for number in range(first, first + count):
            name, label = f"{number:06}", number % 2
            both = part == "test" and number % 3 == 0
            boxes = [(CLASSES[label], box_of(number))]
            if both:
                boxes.append((CLASSES[1 - label], (200, 180, WIDTH, HEIGHT)))
            _draw(year / "JPEGImages" / f"{name}.jpg", number, boxes[0][1])
            _annotate(year, name, boxes)
            names.append(name)
            rows.append([1 if c == label or both else -1 for c in range(2)])
        (lists / f"{part}.txt").write_text("".join(f"{name}\n" for name in names), "utf-8")
        for c, label in enumerate(CLASSES):
            lines = [f"{name} {row[c]:2d}\n" for name, row in zip(names, rows, strict=True)]
            (lists / f"{label}_{part}.txt").write_text("".join(lines), "utf-8")


def _draw(path: Path, number: int, box: tuple[int, int, int, int]) -> None:
    grain = np.random.RandomState(number).randint(100, 200, (HEIGHT, WIDTH, 1))
    pixels = np.repeat(grain, 3, axis=2).astype(np.uint8)
    left, top, right, bottom = box
    pixels[top:bottom, left:right] = (220, 10, 20)
    write(path, pixels)


def _annotate(year: Path, name: str, boxes: list[tuple[str, tuple[int, int, int, int]]]) -> None:
    size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height></size>"
    objects = "".join(
        _OBJECT.format(left + 1, top + 1, right, bottom, name=label, difficult=0)
        for label, (left, top, right, bottom) in boxes
    )
    text = f"<annotation><filename>{name}.jpg</filename>{size}{objects}</annotation>"
    (year / "Annotations" / f"{name}.xml").write_text(text, "utf-8")
