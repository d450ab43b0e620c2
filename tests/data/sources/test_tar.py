"""Tars: samples, labels, names, and members that nobody should read."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest
from packing import jpeg, pack
from PIL import Image

from vggfeat.data.datasets.folders import read_labelled
from vggfeat.data.identity import id_of
from vggfeat.data.image import decode, read_encoded
from vggfeat.data.imageset import find_images
from vggfeat.data.sources import tar as module
from vggfeat.data.sources.tar import TarMember, samples
from vggfeat.errors import DataError, DataNotFound, PictureError


def test_pictures_are_read_from_the_middle(tmp_path: Path) -> None:
    """Each picture's pixels are its own, by an address of a few bytes that can be sent away."""
    files = {f"n/{n:03}.png": jpeg(n, "PNG") for n in range(5)}
    found = find_images([pack(tmp_path / "a.tar", files)], tmp_path)
    assert found.names == tuple(f"a.tar/{name}" for name in files)
    for picture, content in zip(
        pickle.loads(pickle.dumps(found.images)), files.values(), strict=True
    ):
        assert isinstance(picture, TarMember)
        assert len(pickle.dumps(picture)) < 300
        assert np.array_equal(decode(picture), decode(Image.open(io.BytesIO(content))))


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_and_all_kinds_of_tars_are_read(tmp_path: Path, kind: int) -> None:
    """Names longer than a header, and in other alphabets, come out as they went in."""
    names = ["d" * 90 + "/" + "n" * 80 + ".jpg", "ein Bär.jpg"]
    if kind != tarfile.USTAR_FORMAT:
        names.append("x" * 300 + "/é.jpg")
    path = pack(tmp_path / "a.tar", dict.fromkeys(names, jpeg(1)), format=kind)
    assert [one.name for one in samples(path)] == names


def test_samples_have_one_picture_and_their_label(tmp_path: Path) -> None:
    """Members that share a key are one sample: its picture, and its label by .cls, .json, .txt."""
    one = jpeg(1)
    files = {
        "000.jpg": one,
        "000.cls": b"3\n",
        "000.json": b'{"label": "never"}',
        "001.seg.png": one,
        "001.jpg": one,
        "001.json": json.dumps({"caption": "a cat", "label": "cat"}).encode(),
        "002.png": one,
        "002.jpeg": one,
        "002.txt": b"dog",
        "003.webp": one,
        "003.txt": b"a long caption " * 20,
        "004.cls": b"5",
    }
    found = list(samples(pack(tmp_path / "a.tar", files)))
    assert [(s.name, s.label) for s in found] == [
        ("000.jpg", "3"),
        ("001.jpg", "cat"),
        ("002.jpeg", "dog"),
        ("003.webp", ""),
    ]


def test_a_plain_tar_loses_no_picture(tmp_path: Path) -> None:
    """Dots in names make no samples where none has a picture of its own; hidden files are left."""
    names = [
        "./IMG.1.jpg",
        "./IMG.2.jpg",
        "./._IMG.1.jpg",
        "./.git/a.jpg",
        "notes.txt",
        "x/a.b.png",
    ]
    path = pack(tmp_path / "a.tar", dict.fromkeys(names, jpeg(1)))
    assert [one.name for one in samples(path)] == ["IMG.1.jpg", "IMG.2.jpg", "x/a.b.png"]


def test_braces_globs_and_folders_name_the_same_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names say from which tar a picture is, whatever else is named beside it."""
    monkeypatch.chdir(tmp_path)
    for n in range(3):
        pack(tmp_path / f"t-{n:02}.tar", {"0.jpg": jpeg(n), "0.cls": b"c%d" % n})
    names = ("t-00.tar/0.jpg", "t-01.tar/0.jpg", "t-02.tar/0.jpg")
    for sources in (["t-{00..02}.tar"], ["t-*.tar"], ["t-00.tar", "t-01.tar", "t-02.tar"]):
        assert find_images(sources).names == names
    assert find_images(["t-01.tar"]).names == names[1:2]
    assert read_labelled("t-{00..02}.tar").classes == ["c0", "c1", "c2"]
    with pytest.raises(DataNotFound, match="t-03"):
        find_images(["t-{00..03}.tar"])


def test_ids_tell_an_image_that_was_replaced(tmp_path: Path) -> None:
    """The content tells it, also where size, place and time in the tar's header are the same."""

    def ids() -> list[tuple[int, int]]:
        images = find_images([pack(tmp_path / "a.tar", files)]).images
        return [id_of(image, read_encoded(image)) for image in images]

    files = {"0.jpg": jpeg(0), "1.jpg": jpeg(1)}
    before = ids()
    assert before == ids()
    assert before[0] == struct.unpack(">qq", hashlib.sha256(files["0.jpg"]).digest()[:16])
    files["1.jpg"] = files["1.jpg"][:-1] + bytes([files["1.jpg"][-1] ^ 1])
    assert [one == other for one, other in zip(ids(), before, strict=True)] == [True, False]


def test_a_tar_written_again_has_other_stamps(tmp_path: Path) -> None:
    """So its images are read again, and known by their ids."""
    path = Path(pack(tmp_path / "a.tar", {"0.jpg": jpeg(0), "1.jpg": jpeg(1)}))
    os.utime(path, (1, 1))
    before = find_images([path]).stamps()
    np.testing.assert_array_equal(find_images([path]).stamps(), before)
    os.utime(path, (2, 2))
    assert (find_images([path]).stamps() != before).any(axis=1).all()


def test_links_devices_and_absurd_sizes_are_bad_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is no file of a picture's size is left out with its reason, and the others are read."""
    monkeypatch.setattr(module, "LARGEST", 4000)
    kinds = {"link.jpg": tarfile.SYMTYPE, "hard.jpg": tarfile.LNKTYPE, "dev.jpg": tarfile.CHRTYPE}
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, kind in kinds.items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            tar.addfile(member)
        for name, content in {"big.jpg": b"x" * 5000, "good.jpg": jpeg(1)}.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    found = find_images([str(tmp_path / "a.tar")], tmp_path)
    reasons = {}
    for name, picture in zip(found.names, found.images, strict=True):
        try:
            decode(picture)
        except PictureError as error:
            reasons[name.removeprefix("a.tar/")] = str(error)
    assert {name: reason.split(",")[0] for name, reason in reasons.items()} == {
        "link.jpg": "a link in a tar",
        "hard.jpg": "a link in a tar",
        "dev.jpg": "not a file",
        "big.jpg": "its 5",
    }


@pytest.mark.parametrize("name", ["../out.jpg", "/abs.jpg", "a/../../out.jpg"])
def test_names_that_lead_out_are_refused(tmp_path: Path, name: str) -> None:
    """No name in a store, and no file that is called after one, climbs out of its folder."""
    with pytest.raises(DataError, match="leads out of it"):
        list(samples(pack(tmp_path / "a.tar", {name: jpeg(1)})))


def test_damage_is_never_an_early_end(tmp_path: Path) -> None:
    """A header that was overwritten, a cut and a negative size are errors, not fewer pictures."""
    whole = Path(pack(tmp_path / "a.tar", {f"{n}.jpg": jpeg(n) for n in range(4)})).read_bytes()
    second = 512 + -(-len(jpeg(0)) // 512) * 512
    spoilt = {
        "header": whole[:second] + b"\xff" * 512 + whole[second + 512 :],
        "cut": whole[: second + 700],
        "no": b"no tar at all" * 100,
        "empty": b"",
        "gzip": b"\x1f\x8b" + whole,
        "negative": _with_size(whole, second, b"\xff" * 12),
        "huge": _with_size(whole, second, b"\x80" + b"\x7f" * 11),
    }
    for why, content in spoilt.items():
        path = tmp_path / f"{why}.tar"
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"is no tar, or damaged"):
            list(samples(str(path)))


def _with_size(whole: bytes, at: int, size: bytes) -> bytes:
    """Write another size into a header, and the checksum that belongs to it."""
    header = bytearray(whole[at : at + 512])
    header[124:136] = size
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return whole[:at] + bytes(header) + whole[at + 512 :]


def test_a_header_that_promises_gigabytes_is_not_read(tmp_path: Path) -> None:
    """The extended name of a hostile header does not fill the memory."""
    member = tarfile.TarInfo("././@LongLink")
    member.type, member.size = tarfile.GNUTYPE_LONGNAME, 8 << 30
    (tmp_path / "a.tar").write_bytes(member.tobuf(tarfile.GNU_FORMAT) + bytes(4096))
    with pytest.raises(DataError, match="a header is larger than any"):
        list(samples(str(tmp_path / "a.tar")))


def test_compressed_and_absent_tars_say_what_to_do(tmp_path: Path) -> None:
    """A compressed tar has no middle to read from; one that is not there is named."""
    path = tmp_path / "a.tar.gz"
    path.write_bytes(b"")
    with pytest.raises(DataError, match=r"Unpack it to a plain \.tar"):
        find_images([str(path)])
    with pytest.raises(DataNotFound, match=r"none\.tar"):
        find_images([str(tmp_path / "none.tar")])


def test_a_tar_that_went_away_makes_bad_pictures(tmp_path: Path) -> None:
    """What cannot be read any more is a picture's reason, not the end of a run."""
    path = Path(pack(tmp_path / "a.tar", {"0.jpg": jpeg(0)}))
    picture = find_images([str(path)]).images[0]
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(PictureError, match="ends within it"):
        decode(picture)
    path.unlink()
    with pytest.raises(PictureError, match="No such file"):
        decode(picture)
