"""sample-voc: scenes of several objects, composed from the sample images, in VOC's layout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops

from vggfeat._io.assets import asset, home
from vggfeat._io.atomic import make_folder, temporary_beside
from vggfeat.data.datasets.annotations import VocObject
from vggfeat.data.datasets.folders import read_folders
from vggfeat.data.imageset import ImageSet
from vggfeat.errors import ParameterError

VERSION = 1  # of the scenes: whatever changes their pixels or labels changes it
SIZE = (500, 375)
SCENES = {"train": 60, "val": 60, "test": 120}
# Of each class's 30 images, those that each split may show: none is in two splits.
DRAWINGS = {"train": slice(0, 8), "val": slice(8, 15), "test": slice(15, 30)}
DIFFICULT = 0.1  # share of objects too small to be counted
LONGEST = (100, 170)  # pixels of an object's longer side; a quarter of the scene is 250 × 187
LONGEST_DIFFICULT = (24, 36)
PAPER = 240  # darker than this in a channel is drawing, brighter is the white around it


@dataclass(frozen=True)
class _Scene:
    name: str
    image: Image.Image
    objects: tuple[VocObject, ...]


def compose(version: int = VERSION) -> Path:
    """Compose the scenes once, below :func:`~vggfeat._io.assets.home`; return their folder.

    240 scenes of 1 to 4 drawings, 60 to train, 60 to validate and 120 to test, no drawing in two
    of these; about one object in ten is small and marked difficult. For a version of Pillow the
    bytes are the same every time.

    Returns
    -------
    Path
        Folder with ``VOCdevkit/VOC2007``, which any reader of VOC 2007 reads.

    Raises
    ------
    ParameterError
        If `version` is not the one that this vggfeat composes.
    """
    if version != VERSION:
        raise ParameterError.not_one_of("version", "compose", [VERSION], version)
    target = home() / "data" / f"sample-voc-{version}"
    if not target.is_dir():
        make_folder(target.parent)
        with temporary_beside(target) as temporary:
            write_scenes(temporary / "VOCdevkit" / "VOC2007")
            try:
                temporary.rename(target)
            except OSError:  # another process may have composed the same meanwhile
                if not target.is_dir():
                    raise
    return target


def write_scenes(tree: Path) -> None:
    """Write images, annotations and lists of all scenes to a new folder."""
    drawings = read_folders(asset("clipart10"))
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (tree / folder).mkdir(parents=True)
    labels: dict[str, dict[str, Mapping[str, int]]] = {}
    number = 0
    for split, count in SCENES.items():
        pool = _pool(drawings, DRAWINGS[split])
        labels[split] = {}
        for _ in range(count):
            number += 1
            scene = _scene(f"{number:06d}", pool, np.random.default_rng([VERSION, number]))
            _write(tree, scene)
            labels[split][scene.name] = _labels(scene.objects)
    labels["trainval"] = labels["train"] | labels["val"]
    for split, rows in labels.items():
        _write_lists(tree / "ImageSets" / "Main", split, rows, drawings.classes)


def _pool(drawings: ImageSet, some: slice) -> dict[str, list[Path]]:
    """Paths of each class's drawings, of those that a split may show."""
    pool: dict[str, list[Path]] = {label: [] for label in drawings.classes}
    for label, path in zip(drawings.labels, drawings.images, strict=True):
        pool[label].append(Path(str(path)))
    return {label: paths[some] for label, paths in pool.items()}


def _scene(name: str, pool: Mapping[str, Sequence[Path]], rng: np.random.Generator) -> _Scene:
    """Lay one to four drawings into different quarters of a shaded sheet."""
    image = _sheet(rng)
    objects = []
    for quarter in rng.permutation(4)[: rng.integers(1, 5)]:
        label = sorted(pool)[int(rng.integers(len(pool)))]
        path = pool[label][int(rng.integers(len(pool[label])))]
        difficult = bool(rng.random() < DIFFICULT)
        longest = int(rng.integers(*(LONGEST_DIFFICULT if difficult else LONGEST)))
        drawing = _drawing(path, longest)
        left, top = (
            int(cell * number + rng.integers(cell - side))
            for cell, number, side in zip(
                (SIZE[0] // 2, SIZE[1] // 2), (quarter % 2, quarter // 2), drawing.size, strict=True
            )
        )
        right, bottom = left + drawing.width, top + drawing.height
        area = (left, top, right, bottom)
        # Multiplied, the white around a drawing becomes the sheet.
        image.paste(ImageChops.multiply(image.crop(area), drawing), area)
        objects.append(VocObject(label, (left + 1, top + 1, right, bottom), difficult))
    return _Scene(name, image, tuple(objects))


def _sheet(rng: np.random.Generator) -> Image.Image:
    """Shade a sheet from one light colour to another, from above to below."""
    above, below = rng.integers(170, 256, (2, 3))
    share = np.linspace(0, 1, SIZE[1])[:, None]
    rows = np.rint(above * (1 - share) + below * share).astype(np.uint8)
    return Image.fromarray(np.repeat(rows[:, None], SIZE[0], axis=1))


def _drawing(path: Path, longest: int) -> Image.Image:
    """Cut a drawing out of the white around it, and scale its longer side."""
    with Image.open(path) as opened:
        whole = opened.convert("RGB")
    darkest = np.asarray(whole).min(axis=2)
    box = Image.fromarray((darkest < PAPER).astype(np.uint8)).getbbox()
    cut = whole.crop(box)
    scale = longest / max(cut.size)
    size = (max(1, round(cut.width * scale)), max(1, round(cut.height * scale)))
    return cut.resize(size, Image.Resampling.BICUBIC)


def _labels(objects: Sequence[VocObject]) -> dict[str, int]:
    """1 for classes with an object that counts, 0 for those with difficult ones only."""
    labels = {shown.name: 0 for shown in objects}
    return labels | {shown.name: 1 for shown in objects if not shown.difficult}


def _write(tree: Path, scene: _Scene) -> None:
    scene.image.save(tree / "JPEGImages" / f"{scene.name}.jpg", quality=90)
    objects = "".join(map(_xml, scene.objects))
    (tree / "Annotations" / f"{scene.name}.xml").write_text(
        f"<annotation><folder>VOC2007</folder><filename>{scene.name}.jpg</filename>"
        f"<source><database>vggfeat sample-voc {VERSION}</database></source>"
        f"<size><width>{SIZE[0]}</width><height>{SIZE[1]}</height><depth>3</depth></size>"
        f"<segmented>0</segmented>{objects}\n</annotation>\n",
        encoding="utf-8",
    )


def _xml(shown: VocObject) -> str:
    sides = zip(("xmin", "ymin", "xmax", "ymax"), shown.box, strict=True)
    box = "".join(f"<{side}>{value:g}</{side}>" for side, value in sides)
    return (
        f"\n<object><name>{shown.name}</name><pose>Unspecified</pose><truncated>0</truncated>"
        f"<difficult>{shown.difficult:d}</difficult><bndbox>{box}</bndbox></object>"
    )


def _write_lists(
    folder: Path, split: str, rows: Mapping[str, Mapping[str, int]], classes: Sequence[str]
) -> None:
    names = sorted(rows)
    (folder / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
    for label in classes:
        lines = "".join(f"{name} {rows[name].get(label, -1):2d}\n" for name in names)
        (folder / f"{label}_{split}.txt").write_text(lines)
