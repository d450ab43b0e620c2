"""Small data sets in the genuine layouts, as tests need them."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

OBJECT = (
    "<object><name>{name}</name><difficult>{difficult}</difficult><bndbox><xmin>{box[0]}</xmin>"
    "<ymin>{box[1]}</ymin><xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox></object>"
)


def draw_jpeg(path: Path, colour: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6), (colour % 256, 100, 200)).save(path)


def write_xml(tree: Path, picture: str, objects: Sequence[str]) -> None:
    folder = tree / "Annotations"
    folder.mkdir(parents=True, exist_ok=True)
    text = f"<annotation><filename>{picture}.jpg</filename>{''.join(objects)}</annotation>"
    (folder / f"{picture}.xml").write_text(text)


def write_voc(
    tree: Path, classes: Sequence[str], parts: Mapping[str, Mapping[str, Sequence[int] | None]]
) -> None:
    """Write pictures and lists of Main; a picture with None for labels has none."""
    lists = tree / "ImageSets" / "Main"
    lists.mkdir(parents=True, exist_ok=True)
    for part, rows in parts.items():
        (lists / f"{part}.txt").write_text("".join(f"{name}\n" for name in rows))
        for at, label in enumerate(classes):
            lines = [f"{name} {row[at]:2d}\n" for name, row in rows.items() if row is not None]
            if lines:
                (lists / f"{label}_{part}.txt").write_text("".join(lines))
        for name, row in rows.items():
            draw_jpeg(tree / "JPEGImages" / f"{name}.jpg")
            found = [
                OBJECT.format(name=label, difficult=int(value == 0), box=(1, 1, 4, 4))
                for label, value in zip(classes, row or (), strict=bool(row))
                if value >= 0
            ]
            write_xml(tree, name, found)


def write_actions(
    tree: Path, actions: Sequence[str], parts: Mapping[str, Mapping[tuple[str, int], Sequence[int]]]
) -> None:
    """Write pictures and lists of Action; person k of a picture has the box k, 2k, 10 k, 20 k."""
    lists = tree / "ImageSets" / "Action"
    lists.mkdir(parents=True, exist_ok=True)
    for part, rows in parts.items():
        pictures = dict.fromkeys(picture for picture, _ in rows)
        (lists / f"{part}.txt").write_text("".join(f"{name}\n" for name in pictures))
        for at, label in enumerate(actions):
            lines = [f"{picture} {k} {row[at]:2d}\n" for (picture, k), row in rows.items()]
            (lists / f"{label}_{part}.txt").write_text("".join(lines))
        for picture in pictures:
            draw_jpeg(tree / "JPEGImages" / f"{picture}.jpg")
            persons = max(k for name, k in rows if name == picture)
            write_xml(
                tree,
                picture,
                [
                    OBJECT.format(name="person", difficult=0, box=(k, 2 * k, 10 * k, 20 * k))
                    for k in range(1, persons + 1)
                ],
            )


def write_classes(tree: Path, counts: Mapping[str, int], name: str = "image_{:04d}.jpg") -> None:
    """Write class folders with so many pictures each."""
    for label, count in counts.items():
        for number in range(1, count + 1):
            draw_jpeg(tree / label / name.format(number), number)


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
