"""Buckets: images, manifests and tars of an S3-compatible server."""

from __future__ import annotations

import io
from typing import Any

import pytest
from packing import jpeg, pack
from PIL import Image

from vggfeat._io import remote as connections
from vggfeat.data.batching import Job, decode_ahead
from vggfeat.data.datasets import open_dataset
from vggfeat.data.image import decode
from vggfeat.data.imageset import find_images
from vggfeat.errors import DataNotFound, DownloadError


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "BACKOFF", 0.01)


def test_a_bucket_is_searched_without_reading_it(s3: Any) -> None:
    """Names are those of a folder on the disk; size and tag come from the listing."""
    s3.pipe({f"pics/set/{c}/{n}.jpg": jpeg(n) for c in "ab" for n in range(2)})
    s3.pipe(
        {f"pics/{key}": b"" for key in ("set/notes.txt", "set/.x/0.jpg", "set2/0.jpg", "set/e/")}
    )
    found = find_images(["s3://pics/set"])
    assert found.names == ("set/a/0.jpg", "set/a/1.jpg", "set/b/0.jpg", "set/b/1.jpg")
    assert decode(found.images[1]).tobytes() == decode(io_image(jpeg(1))).tobytes()
    before = found.stamps().tolist()
    assert before == find_images(["s3://pics/set/"]).stamps().tolist()
    s3.pipe("pics/set/b/0.jpg", jpeg(9))
    after = find_images(["s3://pics/set"]).stamps().tolist()
    assert [one != other for one, other in zip(before, after, strict=True)] == [0, 0, 1, 0]
    ones = ("pics/set/a/1.jpg", "pics/set/b/1.jpg")
    assert find_images(["s3://pics/set/*/1.jpg"]).names == ones
    card, images = open_dataset("s3://pics/set")
    assert (card.classes, images.labels) == (("a", "b"), ("a", "a", "b", "b"))


def io_image(content: bytes) -> Any:
    return Image.open(io.BytesIO(content))


def test_bad_objects_are_bad_images(s3: Any) -> None:
    """An object that went, one that is empty, and one that was never there have their reasons."""
    s3.pipe({"pics/p/0.jpg": jpeg(0), "pics/p/1.jpg": b"", "pics/p/2.jpg": jpeg(2)})
    s3.pipe("pics/p/all.csv", b"path\n0.jpg\n1.jpg\nnone.jpg\n")
    listed = find_images(["s3://pics/p"]).images
    s3.rm_file("pics/p/2.jpg")
    named = find_images(["s3://pics/p/all.csv"]).images
    jobs = [Job(row, lambda row, image: {20: None}) for row in range(6)]
    told = [str(one.error or "") for one in decode_ahead((*listed, *named), jobs, workers=3)]
    assert told == ["", "the file is empty", "no such file"] * 2


def test_manifests_and_tars_of_a_bucket(s3: Any, tmp_path: Any) -> None:
    """Parquet is read in parts, tars by their headers, and each image by one request."""
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    table = pyarrow.table({"path": ["p/0.jpg"], "label": ["x"]})
    parquet.write_table(table, tmp_path / "m.parquet")
    s3.put(str(tmp_path / "m.parquet"), "pics/m.parquet")
    s3.pipe("pics/p/0.jpg", jpeg(0))
    found = find_images(["s3://pics/m.parquet"])
    assert (found.names, found.labels) == (("p/0.jpg",), ("x",))
    for n in range(3):
        files = {f"{k}.jpg": jpeg(10 * n + k) for k in range(2)} | {"1.cls": b"dog"}
        s3.put(pack(tmp_path / "t.tar", files), f"pics/t/train-{n:03}.tar")
    found = find_images(["s3://pics/t/train-{000..002}.tar"])
    assert found.names[3:] == tuple(
        f"pics/t/train-{name}.jpg" for name in ("001.tar/1", "002.tar/0", "002.tar/1")
    )
    assert found.labels == ("", "dog") * 3
    assert find_images(["s3://pics/t/*.tar"]) == found
    assert decode(found.images[4]).tobytes() == decode(io_image(jpeg(20))).tobytes()


def test_absent_buckets_and_wrong_keys_are_said(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not there is named; keys are never."""
    with pytest.raises(DataNotFound, match=r"s3://none/x"):
        find_images(["s3://none/x"])
    with pytest.raises(DataNotFound, match=r"s3://pics/empty"):
        find_images(["s3://pics/empty/"])
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    type(s3).clear_instance_cache()
    monkeypatch.setattr(connections, "ATTEMPTS", 1)
    monkeypatch.setattr(type(s3), "retries", 1)
    with pytest.raises(DownloadError, match="s3://other/x cannot be read") as caught:
        find_images(["s3://other/x"])
    assert "SECRET" not in str(caught.value)
