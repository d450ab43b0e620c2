"""Tars: samples, labels, names, and members that nobody should read."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from helpers.mistakes import refuses
from packing import jpeg, pack
from PIL import Image

from vggfeat._io.assets import home
from vggfeat.data import identity
from vggfeat.data.datasets.folders import read_labelled
from vggfeat.data.datasets.ilsvrc import read_class_images
from vggfeat.data.image import decode
from vggfeat.data.imageset import find_images
from vggfeat.data.sources import tar as module
from vggfeat.data.sources.tar import TarIndex, TarMember, read_tar
from vggfeat.errors import DataError, DataNotFound, ImageError

PACKED = {
    "n02/n02_1.JPEG": b"first" * 300,
    "n01/n01_2.JPEG": b"second",
    "n01/n01_1.JPEG": b"third" * 200,
}


def tar_of(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return out.getvalue()


def tar_of_tars(path: Path) -> Path:
    """Pack the images as ILSVRC's are: a tar file for each class, and a stray text."""
    inner = {}
    for folder in ("n02", "n01"):
        own = {n.split("/")[1]: c for n, c in PACKED.items() if n.startswith(folder)}
        inner[f"{folder}.tar"] = tar_of(own | {"readme.txt": b"no image"})
    path.write_bytes(tar_of(inner))
    return path


@pytest.fixture
def _old(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let files that were just written be as good as old."""
    monkeypatch.setattr(identity, "SETTLED", -1)


def names_of(index: TarIndex) -> list[str]:
    return [index.name(row) for row in range(len(index))]


def test_images_are_read_from_the_middle(tmp_path: Path) -> None:
    """Each image's pixels are its own, by an address of a few bytes that can be sent away."""
    files = {f"n/{n:03}.png": jpeg(n, "PNG") for n in range(5)}
    found = find_images([pack(tmp_path / "a.tar", files)], tmp_path)
    assert found.names == tuple(f"a.tar/{name}" for name in files)
    for image, content in zip(
        pickle.loads(pickle.dumps(found.images)), files.values(), strict=True
    ):
        assert isinstance(image, TarMember)
        assert len(pickle.dumps(image)) < 300
        assert np.array_equal(decode(image), decode(Image.open(io.BytesIO(content))))


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_and_all_kinds_of_tars_are_read(tmp_path: Path, kind: int) -> None:
    """Names longer than a header, and in other alphabets, come out as they went in."""
    names = ["d" * 90 + "/" + "n" * 80 + ".jpg", "ein Bär.jpg"]
    if kind != tarfile.USTAR_FORMAT:
        names.append("x" * 300 + "/é.jpg")
    path = pack(tmp_path / "a.tar", dict.fromkeys(names, jpeg(1)), format=kind)
    assert names_of(read_tar(path)) == names


def test_samples_have_one_image_and_their_label(tmp_path: Path) -> None:
    """Members that share a key are one sample: its image, and its label by .cls, .json, .txt."""
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
    found = read_tar(pack(tmp_path / "a.tar", files))
    assert [(found.name(row), found.label(row)) for row in range(len(found))] == [
        ("000.jpg", "3"),
        ("001.jpg", "cat"),
        ("002.jpeg", "dog"),
        ("003.webp", ""),
    ]


def test_a_plain_tar_loses_no_image(tmp_path: Path) -> None:
    """Dots in names make no samples where none has an image of its own; hidden files are left."""
    names = [
        "./IMG.1.jpg",
        "./IMG.2.jpg",
        "./._IMG.1.jpg",
        "./.git/a.jpg",
        "notes.txt",
        "x/a.b.png",
    ]
    path = pack(tmp_path / "a.tar", dict.fromkeys(names, jpeg(1)))
    assert names_of(read_tar(path)) == ["IMG.1.jpg", "IMG.2.jpg", "x/a.b.png"]


@pytest.mark.parametrize(
    ("members", "read"),
    [
        ("photo.jpg photo.1.jpg photo.2.jpeg x.jpg x.edited.jpg", "photo.jpg photo.1.jpg "
         "photo.2.jpeg x.jpg x.edited.jpg"),
        ("f.000.jpg f.000.cls f.001.jpg f.001.cls f.jpg", "f.000.jpg=f.000 f.001.jpg=f.001 f.jpg"),
        ("s.left.jpg s.right.jpg s.cls", "s.left.jpg=s s.right.jpg=s"),
        ("s.jpg s.edited.jpg s.cls", "s.jpg=s"),
        ("s.jpg s.mask.png", "s.jpg"),
        ("s.jpg s.cls s.crop.jpg s.crop.cls", "s.jpg=s s.crop.jpg=s.crop"),
    ],
)  # fmt: skip
def test_names_may_have_dots(members: str, read: str, tmp_path: Path) -> None:
    """What has a label of its own is a sample, and so is each image where nothing else is."""
    files = {name: name.removesuffix(".cls").encode() for name in members.split()}
    found = read_tar(pack(tmp_path / "a.tar", files))
    labelled = [(found.name(row), found.label(row)) for row in range(len(found))]
    assert [f"{name}={label}" if label else name for name, label in labelled] == read.split()


@pytest.mark.usefixtures("_old")
def test_what_is_no_image_of_its_own_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Masks and the like, and members that belong to no image; from the remembered index, too."""
    monkeypatch.chdir(tmp_path)
    sample = ("1.jpg", "1.cls", "1.mask.png")
    members = (*sample, "2.jpg", "2.cls", "2.mask.png", "x.jpg", "x.png", "notes.pdf", "README")
    pack(tmp_path / "a.tar", dict.fromkeys(members, b"x"))
    for _ in range(2):
        left_out = find_images(["a.tar"]).left_out
        assert left_out.parallel == {".mask.png": 2, ".png": 1}
        assert left_out.suffixes == {".pdf": 1, "": 1}
        assert "a.tar/notes.pdf, a.tar/README" in " ".join(left_out.notes)


def test_braces_globs_and_folders_name_the_same_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names say from which tar an image is, whatever else is named beside it."""
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


def test_links_devices_and_absurd_sizes_are_bad_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is no file of an image's size is left out with its reason, and the others are read."""
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
    for name, image in zip(found.names, found.images, strict=True):
        try:
            decode(image)
        except ImageError as error:
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
        read_tar(pack(tmp_path / "a.tar", {name: jpeg(1)}))


def test_damage_is_never_an_early_end(tmp_path: Path) -> None:
    """A header that was overwritten, a cut and a negative size are errors, not fewer images."""
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
        with pytest.raises(DataError, match=r"is no uncompressed tar, or damaged"):
            read_tar(path)


def _with_size(whole: bytes, at: int, size: bytes) -> bytes:
    """Write another size into a header, and the checksum that belongs to it."""
    header = bytearray(whole[at : at + 512])
    header[124:136] = size
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return whole[:at] + bytes(header) + whole[at + 512 :]


def test_compressed_and_absent_tars_say_what_to_do(tmp_path: Path) -> None:
    """A compressed tar, whatever it is called, has no middle to read from; an absent is named."""
    path = tmp_path / "a.tar.gz"
    path.write_bytes(b"")
    with pytest.raises(DataError, match=r"Unpack it to a plain \.tar"):
        find_images([str(path)])
    path = pack(tmp_path / "b.tar", {"0.jpg": jpeg(0)})
    Path(path).write_bytes(gzip.compress(Path(path).read_bytes()))
    refuses(lambda: read_tar(path), DataError, [path, "gunzip"])
    with pytest.raises(DataNotFound, match=r"none\.tar"):
        find_images([str(tmp_path / "none.tar")])


def test_a_tar_that_went_away_makes_bad_images(tmp_path: Path) -> None:
    """What cannot be read any more is an image's reason, not the end of a run."""
    path = Path(pack(tmp_path / "a.tar", {"0.jpg": jpeg(0)}))
    image = find_images([str(path)]).images[0]
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(ImageError, match="ends within it"):
        decode(image)
    path.unlink()
    with pytest.raises(ImageError, match="No such file"):
        decode(image)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return tar_of_tars(tmp_path / "train.tar")


def test_tar_of_tars_gives_each_image_by_name(archive: Path) -> None:
    """Every image has its bytes, its class as the folder of its name, in the tar's order."""
    found = read_tar(archive)
    assert [found.name(row) for row in range(len(found))] == list(PACKED)
    assert {found.name(row): found.read(row) for row in range(len(found))} == PACKED
    assert found.take([2, 0]).read(1) == PACKED["n02/n02_1.JPEG"]


def test_folders_within_a_tar_of_a_class_are_in_the_names(tmp_path: Path) -> None:
    """Images of one name in two folders of it are two."""
    inner = tar_of({"a/1.png": b"1", "b/1.png": b"2"})
    path = Path(pack(tmp_path / "all.tar", {"cat.tar": inner}))
    assert names_of(read_tar(path)) == ["cat/a/1.png", "cat/b/1.png"]


@pytest.mark.parametrize(
    "members",
    [
        {"a/cat.tar": tar_of({"1.png": b"1"}), "b/cat.tar": tar_of({"1.png": b"2"})},
        {"cat/1.png": b"1", "cat.tar": tar_of({"1.png": b"2"})},
    ],
)
def test_two_images_of_one_name_in_a_tar_are_refused(
    tmp_path: Path, members: dict[str, bytes]
) -> None:
    """Tars in two folders may have one stem, which is the folder of their images."""
    path = pack(tmp_path / "all.tar", members)
    refuses(lambda: read_tar(path), DataError, ["all.tar", "cat/1.png", list(members)[1]])


@pytest.mark.parametrize("between", [{}, {"b.jpg": b"2"}])
def test_of_members_of_one_name_the_last_counts(tmp_path: Path, between: dict[str, bytes]) -> None:
    """As where a tar, to which an image was added anew, is unpacked."""
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        for name, content in [("a.jpg", b"1"), *between.items(), ("a.jpg", b"3")]:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    found = read_tar(path)
    assert names_of(found) == [*between, "a.jpg"]
    assert found.read(len(found) - 1) == b"3"


@pytest.mark.usefixtures("_old")
def test_samples_and_single_images_are_remembered_apart(tmp_path: Path) -> None:
    """What one reading left out is there in the other, from the index or not."""
    path = pack(tmp_path / "a.tar", {"1.jpg": b"1", "1.seg.png": b"2", "1.cls": b"cat"})
    for _ in range(2):
        assert names_of(read_tar(path)) == ["1.jpg"]
        every = read_tar(path, samples=False)
        assert names_of(every) == ["1.jpg", "1.seg.png"]
        assert (read_tar(path).label(0), every.label(0)) == ("cat", "")


@pytest.mark.usefixtures("_old")
def test_index_is_remembered_until_the_archive_changes(
    archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second opening walks no headers; an archive of another content is walked again."""
    first = read_tar(archive)
    with monkeypatch.context() as patch:
        patch.setattr(module, "_make_index", lambda *_: pytest.fail("it was walked again"))
        second = read_tar(archive)
    assert np.array_equal(first.offsets, second.offsets)
    assert np.array_equal(first.names, second.names)
    archive.write_bytes(tar_of({"n03.tar": tar_of({"new.JPEG": b"new"})}))
    assert read_tar(archive).names.tolist() == [b"n03/new.JPEG"]


@pytest.mark.usefixtures("_old")
@pytest.mark.parametrize("date", [1_700_000_000, 9_300_000_000])  # the second in the year 2264
def test_an_archive_of_the_same_size_and_date_is_another(archive: Path, date: int) -> None:
    """Where images lie is found anew; where nothing has changed, it is remembered."""
    for name in ("one", "two"):
        archive.write_bytes(tar_of({f"{name}.JPEG": b"same size"}))
        os.utime(archive, (date, date))
        assert read_tar(archive).names.tolist() == [f"{name}.JPEG".encode()]
        time.sleep(0.02)  # a tick of the file system's clock


@pytest.mark.usefixtures("_old")
def test_an_archive_of_any_date_is_remembered(
    archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of one that int64 does not hold in ns."""
    os.utime(archive, (9_300_000_000, 9_300_000_000))
    first = read_tar(archive)
    monkeypatch.setattr(module, "_make_index", lambda *_: pytest.fail("it was walked again"))
    assert np.array_equal(read_tar(archive).offsets, first.offsets)


def test_an_archive_that_was_just_written_is_not_remembered(archive: Path) -> None:
    """It may be written again within a tick of the clock, with all its times the same."""
    read_tar(archive)
    assert not list((home() / "tars").glob("*.npz"))


@pytest.mark.usefixtures("_old")
def test_processes_that_begin_together_walk_an_archive_once(
    archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others wait for the first, and read what it remembered."""
    walked = []
    walk = module._make_index

    def slowly(*given):
        walked.append(1)
        time.sleep(0.3)
        return walk(*given)

    monkeypatch.setattr(module, "_make_index", slowly)
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(read_tar, [archive] * 3))
    assert len(walked) == 1
    assert all(np.array_equal(one.names, found[0].names) for one in found)


@pytest.mark.usefixtures("_old")
def test_damaged_index_is_made_anew(archive: Path) -> None:
    """A remembered index that is cut off is no error: the headers are walked again."""
    read_tar(archive)
    (index,) = (home() / "tars").glob("*.npz")
    index.write_bytes(index.read_bytes()[:100])
    assert len(read_tar(archive)) == len(PACKED)


@pytest.mark.usefixtures("_old")
def test_unwritable_home_warns(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the index cannot be remembered, a warning names the setting that helps."""
    monkeypatch.setenv("VGGFEAT_HOME", str(archive))  # a file, in which no folder can be made
    with pytest.warns(UserWarning, match="VGGFEAT_HOME"):
        assert len(read_tar(archive)) == len(PACKED)


@pytest.mark.parametrize("bytes_left", [512, 700, 3000, 6000, 8000])
def test_cut_off_archive_is_refused(archive: Path, bytes_left: int) -> None:
    """An archive that ends early is an error wherever it ends, never a smaller training set."""
    content = archive.read_bytes()
    assert bytes_left < len(content) - 2 * tarfile.BLOCKSIZE
    archive.write_bytes(content[:bytes_left])
    refuses(lambda: read_tar(archive), DataError, [str(archive)])


def test_class_without_an_end_is_refused(tmp_path: Path) -> None:
    """A class cut off between two images does not run on into the next class."""
    whole = tar_of({"1.JPEG": b"first", "2.JPEG": b"second"})
    path = tmp_path / "train.tar"
    path.write_bytes(tar_of({"n01.tar": whole[: 2 * tarfile.BLOCKSIZE], "n02.tar": whole}))
    refuses(lambda: read_tar(path), DataError, [str(path)])


def test_damaged_header_is_refused(archive: Path) -> None:
    """A header of the wrong checksum inside a class is an error, not the end of the class."""
    content = bytearray(archive.read_bytes())
    content[content.index(b"n01_1.JPEG")] ^= 1
    archive.write_bytes(content)
    refuses(lambda: read_tar(archive), DataError, [str(archive)])


def test_nothing_there_is_said(tmp_path: Path) -> None:
    """No file, and no image in it, are errors of their own."""
    for read in (read_tar, read_class_images):
        refuses(lambda: read(tmp_path / "absent.tar"), DataNotFound, ["absent.tar"])  # noqa: B023
    (tmp_path / "empty.tar").write_bytes(tar_of({"readme.txt": b"no image"}))
    assert len(read_tar(tmp_path / "empty.tar")) == 0
    refuses(lambda: read_class_images(tmp_path / "empty.tar"), DataNotFound, ["empty.tar"])


def test_a_tar_beside_its_image_is_none_of_classes(tmp_path: Path) -> None:
    """A sample may hold a tar, of frames say: only a tar that stands alone is looked into."""
    inner = tar_of({"frame.jpg": b"frame"})
    files = {"0.jpg": b"0", "0.tar": inner, "1.tar": inner, "1.json": b"{}", "c.d.tar": inner}
    path = Path(pack(tmp_path / "a.tar", files))
    assert names_of(read_tar(path)) == ["0.jpg", "c.d/frame.jpg"]


def test_progress_reaches_the_end(archive: Path) -> None:
    """The bytes walked are told, and at the end they are all."""
    seen: list[tuple[int, int | None]] = []
    read_tar(archive, lambda done, total: seen.append((done, total)))
    assert seen[-1] == (archive.stat().st_size, archive.stat().st_size)
