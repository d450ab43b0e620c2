"""Fetching and unpacking: only what is needed, verified, inside its folder, whole or not at all."""

from __future__ import annotations

import functools
import http.server
import json
import shutil
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.mistakes import refuses
from trees import described, pack, tar_of, write_classes, write_voc

from vggfeat.data.datasets import check_dataset, fetch_dataset, load_card, open_dataset
from vggfeat.data.datasets.fetch import find_tree, unpack
from vggfeat.errors import DataError, DataNotFound, DownloadError
from vggfeat.localization.data import open_boxset

CLASSES = ("cat", "dog")
TRAINING = {
    "train": {"1": (1, -1)},
    "val": {"2": (-1, 1)},
    "trainval": {"1": (1, -1), "2": (-1, 1)},
}
TESTING = {"test": {"3": (1, 0)}}


class Server:
    """A folder of files over http, and what was asked of it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.asked = folder, list[str]()
        outer = self

        class Handler(http.server.SimpleHTTPRequestHandler):
            def log_request(self, *_: Any) -> None:
                outer.asked.append(self.path)

            def log_error(self, *_: Any) -> None: ...

        handler = functools.partial(Handler, directory=str(folder))
        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.http.server_port}/{name}"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "served").mkdir()
    server = Server(tmp_path / "served")
    yield server
    server.http.shutdown()
    server.http.server_close()


@pytest.fixture
def card(tmp_path: Path, server: Server) -> str:
    """Serve a VOC-like data set in two archives, and write its card."""
    archives = []
    for name, parts in (("trainval", TRAINING), ("test", TESTING)):
        tree = tmp_path / name / "VOCdevkit" / "VOC2007"
        write_voc(tree, CLASSES, parts)
        told = pack(tmp_path / name, server.folder / f"{name}.tar")
        proof = f"ImageSets/Main/{name}.txt"
        urls = [server.url("gone.tar"), server.url(f"{name}.tar")]
        archives.append({**told, "urls": urls, "needed_for": list(parts), "proof": proof})
    shutil.rmtree(tmp_path / "test")
    return write_card(tmp_path, archives)


def write_card(place: Path, archives: list[dict[str, Any]], **changes: Any) -> str:
    """Write a card as TOML; JSON's strings, numbers and lists are TOML's too."""
    values = {"name": "mine", "reader": "voc", "folder": "VOCdevkit/VOC2007", "classes": CLASSES}
    values["needs"] = [] if "reader" in changes else ["train", "val", "trainval"]
    protocol = {"kind": "voc", "ap": "ap11"}
    lines = [f"{key} = {json.dumps(value)}" for key, value in (values | changes).items()]
    if "reader" not in changes:
        lines += ["[protocol]", *(f"{key} = {json.dumps(v)}" for key, v in protocol.items())]
    for archive in archives:
        wrapper = archive.pop("wrapper", {})
        lines += ["[[archives]]", *(f"{key} = {json.dumps(v)}" for key, v in archive.items())]
        if wrapper:
            lines += ["[archives.wrapper]"]
            lines += [f"{key} = {json.dumps(value)}" for key, value in wrapper.items()]
    (place / "mine.toml").write_text("\n".join(lines))
    return str(place / "mine.toml")


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VGGFEAT_OFFLINE")


@pytest.mark.usefixtures("online")
def test_only_what_the_protocol_needs_is_fetched(card: str, server: Server, tmp_path: Path) -> None:
    """The test archive stays on the server until its part is asked for, and joins the tree then."""
    root = tmp_path / "data"
    root.mkdir()
    seen: list[tuple[int, int | None]] = []
    _, images = open_dataset(card, root, progress=lambda *bytes_: seen.append(bytes_))
    assert images.names == ("1", "2")
    assert "/test.tar" not in server.asked
    assert seen[-1][0] == seen[-1][1] == (server.folder / "trainval.tar").stat().st_size
    tree = fetch_dataset(card, root, ["test"])
    assert tree == root / "VOCdevkit" / "VOC2007"
    assert server.asked.count("/trainval.tar") == 1
    _, images = open_dataset(card, root, splits=["trainval", "test"])
    assert images.names == ("1", "2", "3")
    before = len(server.asked)
    open_dataset(card, root, splits=["trainval", "test"])
    assert len(server.asked) == before
    assert not list(root.rglob(".tmp-*"))


@pytest.mark.usefixtures("online")
def test_a_wrong_checksum_is_refused(card: str, server: Server, tmp_path: Path) -> None:
    """Other bytes under the right name are neither kept nor unpacked."""
    path = server.folder / "trainval.tar"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(DownloadError, match=r"sha256(?s:.*)By hand, put into"):
        fetch_dataset(card, tmp_path / "data")
    assert not (tmp_path / "data" / "VOCdevkit").exists()


def test_offline_the_error_says_what_to_put_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Name, size, sha256, address and folder of each file, and what to run once online."""
    root = tmp_path / "data"
    root.mkdir()
    with pytest.raises(DataNotFound) as refused:
        open_dataset("voc2007", root)
    said = str(refused.value)
    assert f"PASCAL VOC 2007 is not in {root}/. VGGFEAT_OFFLINE forbids the network." in said
    assert "Unset it and run `vggfeat datasets fetch voc2007`" in said
    assert "or point --root at an existing VOCdevkit" in said
    assert "VOCtrainval_06-Nov-2007.tar (460,032,000 bytes, sha256 7d8cd951101b" in said
    assert "VOCtest_06-Nov-2007.tar" in said
    assert f"put into {root}/" in said
    monkeypatch.delenv("VGGFEAT_OFFLINE")
    with pytest.raises(DataNotFound, match=r"data/\. Run `vggfeat datasets fetch voc2007`"):
        open_dataset("voc2007", root, fetch=False)


def test_a_root_that_does_not_exist_is_not_made(tmp_path: Path) -> None:
    """A misspelt --root is an error, not a new folder to download into."""
    with pytest.raises(DataNotFound, match="There is no folder"):
        open_dataset("voc2007", tmp_path / "dtaa")
    assert not (tmp_path / "dtaa").exists()


def test_what_has_no_address_is_left_to_hand(tmp_path: Path) -> None:
    """ILSVRC is given to registered users only: nothing is promised to fetch it."""
    with pytest.raises(DataNotFound, match=r"Point --root at an existing ilsvrc2012\.$"):
        open_dataset("ilsvrc2012", tmp_path)


def test_archives_that_lie_there_are_unpacked(card: str, server: Server, tmp_path: Path) -> None:
    """Put there by hand, they are verified and unpacked, offline too; check leaves them alone."""
    root = tmp_path / "data"
    root.mkdir()
    shutil.copy(server.folder / "trainval.tar", root)
    with pytest.raises(DataNotFound):
        check_dataset(card, root)
    _, images = open_dataset(card, root)
    assert images.names == ("1", "2")
    assert check_dataset(card, root).complete


def test_an_archive_that_is_another_is_refused(card: str, server: Server, tmp_path: Path) -> None:
    """A file of the right name and the wrong content is named, and nothing is unpacked."""
    root = tmp_path / "data"
    root.mkdir()
    shutil.copy(server.folder / "test.tar", root / "trainval.tar")
    with pytest.raises(DataError, match=r"is not the trainval\.tar of the card: expected"):
        open_dataset(card, root)
    assert [path.name for path in root.iterdir()] == ["trainval.tar"]


@pytest.mark.parametrize("below", ["", "VOCdevkit", "VOCdevkit/VOC2007", ".."])
def test_a_tree_is_found_from_above_and_within(below: str, card: str, tmp_path: Path) -> None:
    """VOCdevkit, its parent, the year itself, and a folder above all of them will do."""
    opened, images = open_dataset(card, tmp_path / "trainval" / below)
    assert images.names == ("1", "2")
    assert Path(opened.root) == tmp_path / "trainval" / "VOCdevkit" / "VOC2007"


def test_no_folder_is_searched_where_the_tree_is(
    card: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder of a network drive may have thousands of others in it."""
    monkeypatch.setattr(Path, "glob", lambda *_: pytest.fail("it was searched"))
    base = tmp_path / "trainval"
    assert find_tree(load_card(card), base) == base / "VOCdevkit" / "VOC2007"


def test_another_year_is_not_taken_for_this_one(card: str, tmp_path: Path) -> None:
    """The folder of 2012 has the same layout and is refused all the same."""
    tree = tmp_path / "trainval" / "VOCdevkit" / "VOC2007"
    tree.rename(tree.with_name("VOC2012"))
    with pytest.raises(DataNotFound):
        open_dataset(card, tree.with_name("VOC2012"))


def test_a_part_that_is_absent_can_be_done_without(card: str, tmp_path: Path) -> None:
    """Offline, a tree without its test part needs --allow-partial, and says so."""
    root = tmp_path / "trainval"
    wanted = ["train", "val", "trainval", "test"]
    with pytest.raises(DataNotFound, match=r"lacks test\..*or use it as it is"):
        open_dataset(card, root, splits=wanted)
    opened, images = open_dataset(card, root, splits=wanted, allow_partial=True)
    assert opened.differences == ("test: nothing there",)
    assert "test" not in images.splits


@pytest.mark.usefixtures("online")
def test_an_archive_within_an_archive_is_taken_out(server: Server, tmp_path: Path) -> None:
    """Caltech-101 comes as a tar.gz in a zip: both are fetched as one, the inner verified."""
    write_classes(tmp_path / "made" / "101_Objects", {"cat": 2, "dog": 1})
    told = pack(tmp_path / "made", tmp_path / "101_Objects.tar.gz")
    with zipfile.ZipFile(server.folder / "both.zip", "w") as out:
        out.write(tmp_path / "101_Objects.tar.gz", "caltech/101_Objects.tar.gz")
    inner = {"file": "both.zip", "urls": [server.url("both.zip")]}
    wrapper = inner | {"member": "caltech/101_Objects.tar.gz"}
    told |= {"needed_for": ["all"], "wrapper": wrapper}
    card = write_card(tmp_path, [told], reader="caltech", folder="101_Objects")
    assert fetch_dataset(card, tmp_path / "data") == tmp_path / "data" / "101_Objects"
    assert open_dataset(card, tmp_path / "data")[1].labels == ("cat", "cat", "dog")


def test_a_wrapper_unpacked_by_hand_is_looked_into(tmp_path: Path, server: Server) -> None:
    """From above its folder and from within; and so is the tree, once it lies there unpacked."""
    write_classes(tmp_path / "101_ObjectCategories", {"cat": 1, "dog": 1})
    hand = tmp_path / "data" / "caltech-101"
    hand.mkdir(parents=True)
    about = pack(tmp_path, hand / "101_ObjectCategories.tar.gz")
    (hand / "Annotations.tar").write_bytes(b"of no class")
    wrapper = {"file": "caltech-101.zip", "member": f"caltech-101/{about['file']}"}
    archive = {**about, "needed_for": ["all"], "wrapper": wrapper}
    changes = {"reader": "caltech", "folder": "101_ObjectCategories", "classes": ["cat", "dog"]}
    card = write_card(tmp_path, [archive], **changes)
    for root in (hand, hand.parent):
        assert len(open_dataset(card, root)[1]) == 2
        shutil.rmtree(root / "101_ObjectCategories")
    (hand / about["file"]).unlink()
    (tmp_path / "101_ObjectCategories").rename(hand / "101_ObjectCategories")
    for root in (hand, hand.parent):
        assert Path(open_dataset(card, root)[0].root) == hand / "101_ObjectCategories"
    refuses(lambda: open_dataset(str(hand)), DataError, [f"Name {hand / '101_ObjectCategories'}"])


APART = ("VOCtrainval_06-Nov-2007/VOCdevkit", "VOCtest_06-Nov-2007/VOCdevkit")


@pytest.mark.parametrize("folders", [APART, ("trainval", "test")])
def test_archives_unpacked_apart_are_one_tree(
    folders: tuple[str, str], card: str, server: Server, tmp_path: Path
) -> None:
    """For an SVM and for boxes; nothing is fetched or unpacked again."""
    base = tmp_path / "apart"
    for folder, parts in zip(folders, (TRAINING, TESTING), strict=True):
        write_voc(base / folder / "VOC2007", CLASSES, parts)
    needs = ["train", "val", "trainval", "test"]
    opened, images = open_dataset(card, base, splits=needs)
    assert Path(opened.root) == base
    assert images.names == ("1", "2", "3")
    assert images.images[2] == base / folders[1] / "VOC2007" / "JPEGImages" / "3.jpg"
    assert check_dataset(card, base, needs).complete
    assert fetch_dataset(card, base, needs) == base
    assert not server.asked
    boxes = open_boxset(base)
    assert [len(part) for part in (boxes.train, boxes.val, boxes.test)] == [1, 1, 1]
    assert boxes.tested == "test"
    assert boxes.test.part.read(0) == Path(str(images.images[2])).read_bytes()


def test_a_copy_of_a_tree_is_not_joined_to_it(card: str, tmp_path: Path) -> None:
    """Folders that have the same lists are two trees: the first is taken."""
    for folder in ("a", "b"):
        write_voc(tmp_path / "copies" / folder / "VOC2007", CLASSES, TRAINING)
    opened, images = open_dataset(card, tmp_path / "copies")
    assert Path(opened.root) == tmp_path / "copies" / "a" / "VOC2007"
    assert images.names == ("1", "2")


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(
    "evil",
    [
        member("tree/../../evil.txt"),
        member("tree/link", tarfile.SYMTYPE, "/etc/passwd"),
        member("tree/link", tarfile.SYMTYPE, "../.."),
        member("tree/link", tarfile.LNKTYPE, "../evil.txt"),
        member("tree/device", tarfile.CHRTYPE),
        member("tree/pipe", tarfile.FIFOTYPE),
    ],
)
def test_hostile_archives_are_not_unpacked(evil: tarfile.TarInfo, tmp_path: Path) -> None:
    """Whatever would reach outside the folder ends the unpacking, and nothing of it stays."""
    content = tar_of((member("tree/good.txt"), b"good"), (evil, b"evil"))
    (tmp_path / "box").mkdir()
    path = tmp_path / "box" / "a.tar"
    path.write_bytes(content)
    refuses(lambda: unpack(path, "tree", tmp_path / "box" / "tree"), DataError, [str(path)])
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a.tar", "box"]


def test_nothing_is_unpacked_through_a_link_of_another_archive(tmp_path: Path) -> None:
    """A link within its archive leads elsewhere once it lies in the tree, and is refused."""
    (tmp_path / "own").mkdir()
    first = tar_of(
        (member("own/x"), b"x"), (member("tree/JPEGImages", tarfile.SYMTYPE, "../own"), b"")
    )
    second = tar_of((member("tree/JPEGImages/1.jpg"), b"1"))
    for name, content in (("first.tar", first), ("second.tar", second)):
        (tmp_path / name).write_bytes(content)
    refused = refuses(
        lambda: unpack(tmp_path / "first.tar", "tree", tmp_path / "tree"),
        DataError,
        ["first.tar", "tree/JPEGImages", "link"],
    )
    assert "damaged" not in str(refused)
    unpack(tmp_path / "second.tar", "tree", tmp_path / "tree")
    assert not list((tmp_path / "own").iterdir())


@pytest.mark.parametrize("cut", [100, 2000, 5000])
def test_a_damaged_archive_leaves_nothing(cut: int, tmp_path: Path) -> None:
    """Cut off within a member, an archive is refused and the target does not appear."""
    content = tar_of((member("tree/1"), bytes(3000)), (member("tree/2"), bytes(3000)))
    (tmp_path / "a.tar").write_bytes(content[:cut])
    refuses(lambda: unpack(tmp_path / "a.tar", "tree", tmp_path / "tree"), DataError, ["a.tar"])
    assert not (tmp_path / "tree").exists()
    assert not list(tmp_path.glob(".tmp-*"))


def test_an_archive_of_something_else_is_refused(tmp_path: Path) -> None:
    """An archive without the folder it is named for is not unpacked."""
    (tmp_path / "a.tar").write_bytes(tar_of((member("other/x"), b"x")))
    with pytest.raises(DataError, match="holds no tree/"):
        unpack(tmp_path / "a.tar", "tree", tmp_path / "tree")
    assert described(tmp_path / "a.tar")["bytes"] == (tmp_path / "a.tar").stat().st_size
    assert [path.name for path in tmp_path.iterdir()] == ["a.tar"]


def test_the_proof_comes_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unpacking that is broken off while it moves files has not left its proof."""
    write_classes(tmp_path / "made" / "tree", {"cat": 2, "dog": 2})
    (tmp_path / "made" / "tree" / "a_proof").touch()
    pack(tmp_path / "made", tmp_path / "a.tar")
    target = tmp_path / "tree"
    target.mkdir()
    moved: list[str] = []
    replace = Path.replace

    def failing(self: Path, other: Path) -> Path:
        if len(moved) == 2:
            raise OSError("the disk is full")
        moved.append(self.name)
        return replace(self, other)

    monkeypatch.setattr(Path, "replace", failing)
    with pytest.raises(OSError, match="the disk is full"):
        unpack(tmp_path / "a.tar", "tree", target, "a_proof")
    assert sorted(path.name for path in target.iterdir()) == ["cat", "dog"]
    monkeypatch.setattr(Path, "replace", replace)
    unpack(tmp_path / "a.tar", "tree", target, "a_proof")
    assert (target / "a_proof").exists()
