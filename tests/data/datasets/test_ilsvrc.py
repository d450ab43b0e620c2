"""Pictures that are read out of tar files, where they lie."""

from __future__ import annotations

import io
import os
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from vggfeat._io.assets import home
from vggfeat.data import identity
from vggfeat.data.datasets import ilsvrc
from vggfeat.data.datasets.ilsvrc import read_tar
from vggfeat.errors import DataError, DataNotFound, PictureError

PICTURES = {
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
    """Pack the pictures as ILSVRC's are: a tar file for each class, and a stray text."""
    inner = {}
    for folder in ("n02", "n01"):
        own = {n.split("/")[1]: c for n, c in PICTURES.items() if n.startswith(folder)}
        inner[f"{folder}.tar"] = tar_of(own | {"readme.txt": b"no picture"})
    path.write_bytes(tar_of(inner))
    return path


@pytest.fixture
def _old(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let files that were just written be as good as old."""
    monkeypatch.setattr(identity, "SETTLED", -1)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return tar_of_tars(tmp_path / "train.tar")


def test_tar_of_tars_gives_each_picture_by_name(archive: Path) -> None:
    """Every picture has its bytes, its class as the folder of its name, and names are sorted."""
    found = read_tar(archive)
    assert [found.name(row) for row in range(len(found))] == sorted(PICTURES)
    assert {found.name(row): found.read(row) for row in range(len(found))} == PICTURES
    assert found.take([2, 0]).read(1) == PICTURES["n01/n01_1.JPEG"]


def test_flat_tar_keeps_plain_names(tmp_path: Path) -> None:
    """A tar file of pictures, as ILSVRC's validation is, gives them without a folder."""
    path = tmp_path / "val.tar"
    path.write_bytes(tar_of({"./b.JPEG": b"2", "a.JPEG": b"1", "._a.JPEG": b"hidden"}))
    found = read_tar(path)
    assert found.names.tolist() == [b"a.JPEG", b"b.JPEG"]
    assert [found.read(0), found.read(1)] == [b"1", b"2"]


def test_long_names_are_read_whole(tmp_path: Path) -> None:
    """GNU's and POSIX's extra headers for long names neither shift offsets nor cut names."""
    name = "x" * 150 + ".JPEG"
    path = tmp_path / "val.tar"
    path.write_bytes(tar_of({name: b"long", "y.JPEG": b"next"}))
    found = read_tar(path)
    assert [found.name(0), found.read(0), found.read(1)] == [name, b"long", b"next"]


@pytest.mark.usefixtures("_old")
def test_index_is_remembered_until_the_archive_changes(
    archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second opening walks no headers; an archive of another content is walked again."""
    first = read_tar(archive)
    with monkeypatch.context() as patch:
        patch.setattr(ilsvrc, "_indexed", lambda *_: pytest.fail("it was walked again"))
        second = read_tar(archive)
    assert np.array_equal(first.offsets, second.offsets)
    assert np.array_equal(first.names, second.names)
    archive.write_bytes(tar_of({"n03.tar": tar_of({"new.JPEG": b"new"})}))
    assert read_tar(archive).names.tolist() == [b"n03/new.JPEG"]


@pytest.mark.usefixtures("_old")
@pytest.mark.parametrize("date", [1_700_000_000, 9_300_000_000])  # the second in the year 2264
def test_an_archive_of_the_same_size_and_date_is_another(archive: Path, date: int) -> None:
    """Where pictures lie is found anew; where nothing has changed, it is remembered."""
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
    monkeypatch.setattr(ilsvrc, "_indexed", lambda *_: pytest.fail("it was walked again"))
    assert np.array_equal(read_tar(archive).offsets, first.offsets)


def test_an_archive_that_was_just_written_is_not_remembered(archive: Path) -> None:
    """It may be written again within a tick of the clock, with all its times the same."""
    read_tar(archive)
    assert not list((home() / "indices").glob("*.npz"))


@pytest.mark.usefixtures("_old")
def test_processes_that_begin_together_walk_an_archive_once(
    archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others wait for the first, and read what it remembered."""
    walked = []
    walk = ilsvrc._indexed

    def slowly(*given):
        walked.append(1)
        time.sleep(0.3)
        return walk(*given)

    monkeypatch.setattr(ilsvrc, "_indexed", slowly)
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(read_tar, [archive] * 3))
    assert len(walked) == 1
    assert all(np.array_equal(one.names, found[0].names) for one in found)


@pytest.mark.usefixtures("_old")
def test_damaged_index_is_made_anew(archive: Path) -> None:
    """A remembered index that is cut off is no error: the headers are walked again."""
    read_tar(archive)
    (index,) = (home() / "indices").glob("*.npz")
    index.write_bytes(index.read_bytes()[:100])
    assert len(read_tar(archive)) == len(PICTURES)


@pytest.mark.usefixtures("_old")
def test_unwritable_home_warns(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the index cannot be remembered, a warning names the setting that helps."""
    monkeypatch.setenv("VGGFEAT_HOME", str(archive))  # a file, in which no folder can be made
    with pytest.warns(UserWarning, match="VGGFEAT_HOME"):
        assert len(read_tar(archive)) == len(PICTURES)


@pytest.mark.parametrize("bytes_left", [512, 700, 3000, 6000, 8000])
def test_cut_off_archive_is_refused(archive: Path, bytes_left: int) -> None:
    """An archive that ends early is an error wherever it ends, never a smaller training set."""
    content = archive.read_bytes()
    assert bytes_left < len(content) - 2 * tarfile.BLOCKSIZE
    archive.write_bytes(content[:bytes_left])
    with pytest.raises(DataError, match="fetch it anew"):
        read_tar(archive)


def test_class_without_an_end_is_refused(tmp_path: Path) -> None:
    """A class cut off between two pictures does not run on into the next class."""
    whole = tar_of({"1.JPEG": b"first", "2.JPEG": b"second"})
    path = tmp_path / "train.tar"
    path.write_bytes(tar_of({"n01.tar": whole[: 2 * tarfile.BLOCKSIZE], "n02.tar": whole}))
    with pytest.raises(DataError, match="ends within"):
        read_tar(path)


def test_damaged_header_is_refused(archive: Path) -> None:
    """A header of the wrong checksum inside a class is an error, not the end of the class."""
    content = bytearray(archive.read_bytes())
    content[content.index(b"n01_1.JPEG")] ^= 1
    archive.write_bytes(content)
    with pytest.raises(DataError, match="damaged at byte"):
        read_tar(archive)


def test_compressed_archive_says_to_unpack_it(tmp_path: Path) -> None:
    """Offsets into a compressed file are no use, and the error says what is."""
    path = tmp_path / "train.tar"
    with tarfile.open(path, "w:gz"):
        pass
    with pytest.raises(DataError, match="gunzip"):
        read_tar(path)


def test_nothing_there_is_said(tmp_path: Path) -> None:
    """No file, and no picture in it, are errors of their own."""
    with pytest.raises(DataNotFound, match="no file"):
        read_tar(tmp_path / "absent.tar")
    (tmp_path / "empty.tar").write_bytes(tar_of({"readme.txt": b"no picture"}))
    with pytest.raises(DataNotFound, match="holds no pictures"):
        read_tar(tmp_path / "empty.tar")


def test_archive_that_vanishes_or_shrinks_is_a_bad_picture(archive: Path) -> None:
    """Reading a picture that is no longer there gives its reason, as a bad file does."""
    found = read_tar(archive)
    archive.write_bytes(archive.read_bytes()[: int(found.offsets.min()) + 2])
    with pytest.raises(PictureError, match="ends within it"):
        found.read(int(found.offsets.argmin()))
    archive.unlink()
    with pytest.raises(PictureError, match="No such file"):
        found.read(0)


def test_progress_reaches_the_end(archive: Path) -> None:
    """The bytes walked are told, and at the end they are all."""
    seen: list[tuple[int, int | None]] = []
    read_tar(archive, lambda done, total: seen.append((done, total)))
    assert seen[-1] == (archive.stat().st_size, archive.stat().st_size)
