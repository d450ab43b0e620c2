"""Annotations find their images by folders and names, in every layout that is usual."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.mistakes import refuses

from vggfeat.data.datasets.annotations import Annotation, AnnotationFile, VocObject
from vggfeat.data.datasets.matching import match_annotations
from vggfeat.errors import DataError

IMAGES = [f"{part}/{label}/{k}.jpg" for part in ("train", "val") for label in "ab" for k in "01"]


def file(path: str, said: str = "", fault: str = "") -> AnnotationFile:
    """Make an annotation that tells itself from others by the name of its object."""
    source, _, below = path.partition("/")
    return AnnotationFile(
        Path("set", source),
        below,
        Annotation((9, 9), (VocObject(said or path, (1, 1, 2, 2)),), fault),
    )


def matched(images: list[str], files: list[AnnotationFile]) -> dict[str, str]:
    found = match_annotations(images, files)
    return {images[row]: one.objects[0].name for row, one in found.items()}


@pytest.mark.parametrize(
    "form", ["Annotations/{0}/{1}", "bbox_{0}/{1}", "x_bbox_{0}_v3.tgz/{0}/{1}"]
)
def test_each_image_has_the_annotation_of_its_folder(form: str) -> None:
    """Names are the same in parts and classes; an image that has none takes no other's."""
    paths = {image: form.format(*image[:-4].split("/", 1)) + ".xml" for image in IMAGES}
    lacking = IMAGES[3]
    files = [file(paths[image], image) for image in IMAGES if image != lacking]
    assert matched(IMAGES, files) == {image: image for image in IMAGES if image != lacking}
    assert matched(IMAGES[4:], files[:3]) == {}  # of validation alone, boxes of training


def test_a_class_without_annotations_takes_none_of_another() -> None:
    """Of folders without parts, too."""
    files = [file("Annotations/b/0.xml"), file("Annotations/b/1.xml", "b1")]
    assert matched(["a/0.jpg", "b/1.jpg"], files) == {"b/1.jpg": "b1"}
    files[0] = file("Annotations/b/0.xml", "a")  # in the wrong folder, but of that class
    assert matched(["a/0.jpg", "b/1.jpg"], files) == {"a/0.jpg": "a", "b/1.jpg": "b1"}


@pytest.mark.parametrize("inner", ["", "CLS-LOC/"])
def test_folders_that_one_side_lacks_do_not_matter(inner: str) -> None:
    """Flat annotations of images in class folders, and the other way; images in a tar."""
    flat = ["train/a/a_1.jpg", "ILSVRC2012_img_val.tar/v_1.JPEG"]
    files = [file(f"Annotations/{inner}a_1.xml"), file(f"bbox_val/{inner}a/v_1.xml")]
    assert len(matched(flat, files)) == 2


def test_what_is_not_clear_is_refused() -> None:
    """One annotation that may be of two images, and two of one image that differ; not the same."""
    refuses(
        lambda: matched(IMAGES, [file("bbox/0.xml")]), DataError, ["bbox: 0.xml", *IMAGES[:3:2]]
    )
    two = [file("one/train/a/0.xml", "x"), file("two/train/a/0.xml", "y")]
    refuses(lambda: matched(IMAGES, two), DataError, ["one: train/a/0.xml", "two: train/a/0.xml"])
    same = [file("one/train/a/0.xml", "x"), file("two/train/a/0.xml", "x")]
    assert matched(IMAGES, same) == {IMAGES[0]: "x"}
    assert matched([IMAGES[0]] * 2, same) == {IMAGES[0]: "x"}  # a manifest may name one twice


def test_a_sound_annotation_stands_for_a_damaged_one() -> None:
    """Whichever comes first."""
    files = [file("one/train/a/0.xml", "x", "damaged"), file("two/train/a/0.xml", "y")]
    assert matched(IMAGES, files) == matched(IMAGES, files[::-1]) == {IMAGES[0]: "y"}
