"""Images at addresses: found, read with patience, bounded, and bad ones with their reasons."""

from __future__ import annotations

import json
import pickle
import tracemalloc
import zipfile
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest
from helpers.mistakes import refuses
from packing import jpeg, pack
from servers import WebServer, web_server
from support import noise

from vggfeat._io import remote as connections
from vggfeat.data.batching import Job, decode_ahead
from vggfeat.data.datasets import check_dataset, open_dataset
from vggfeat.data.datasets.folders import read_labelled
from vggfeat.data.image import decode
from vggfeat.data.imageset import find_images
from vggfeat.data.sources import remote
from vggfeat.data.sources.remote import RemoteImage
from vggfeat.errors import DataError, DataNotFound, DownloadError, ImageError

pytest.importorskip("aiohttp")


def png(seed: int) -> bytes:
    return jpeg(seed, "PNG")


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[WebServer]:
    monkeypatch.delenv("VGGFEAT_OFFLINE")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(connections, "BACKOFF", 0.01)
    files = {f"p/{c}/{n}.png": png(n) for c in "ab" for n in range(2)}
    with web_server({**files, "p/.hidden/x.png": b"", "p/notes.txt": b""}) as server:
        yield server


def reasons(images: object) -> list[str]:
    """Decode as a run does, and say why images are bad."""
    jobs = [Job(row, lambda row, image: {20: None}) for row in range(len(images))]
    return [str(one.error or "") for one in decode_ahead(images, jobs, workers=4)]


def test_a_folder_of_a_web_server_is_searched(web: WebServer) -> None:
    """Names are those of a folder on the disk; labels are its folders."""
    found = find_images([web.url("p")])
    assert found.names == ("p/a/0.png", "p/a/1.png", "p/b/0.png", "p/b/1.png")
    assert decode(found.images[1]).tobytes() == noise(24, 20, 1).tobytes()
    labelled = read_labelled(web.url("p/"))
    assert labelled.names == ("a/0.png", "a/1.png", "b/0.png", "b/1.png")
    assert labelled.labels == ("a", "a", "b", "b")


def test_folders_in_a_tar_are_its_labels_here_and_at_an_address(
    web: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the host is a class, nor has a tar columns; what is in no folder is of no class."""
    monkeypatch.chdir(tmp_path)
    files = {"cat/1.png": png(1), "loose.png": png(3), "dog/2.png": png(2)}
    pack(tmp_path / "zoo.tar", files)
    web.files["p/zoo.tar"] = Path("zoo.tar").read_bytes()
    host = web.url("").removeprefix("http://")
    for source, tar in (("zoo.tar", "zoo.tar"), (web.url("p/zoo.tar"), f"{host}p/zoo.tar")):
        images = read_labelled(source)
        assert images.names == (f"{tar}/cat/1.png", f"{tar}/dog/2.png")
        assert images.labels == ("cat", "dog")
        assert images.left_out.loose == [f"{tar}/loose.png"]
    Path("mine.toml").write_text(
        'name = "mine"\nreader = "manifest"\nfolder = "zoo.tar"\nroot = "."\n'
    )
    assert open_dataset("mine.toml")[1].names == ("zoo.tar/cat/1.png", "zoo.tar/dog/2.png")
    assert check_dataset("mine.toml").strays == ("zoo.tar/loose.png",)
    pack(tmp_path / "flat.tar", {"1.png": png(1)})
    refuses(lambda: read_labelled("flat.tar"), DataNotFound, ["flat.tar", "class folders"])


def test_globs_and_braces_name_images_on_the_web(web: WebServer) -> None:
    """Each is named by its host and path; hidden ones are left out."""
    host = web.url("").removeprefix("http://")
    expected = (f"{host}p/a/0.png", f"{host}p/b/0.png")
    assert find_images([web.url("p/*/0.png")]).names == expected
    assert find_images([web.url("p/{a,b}/0.png")]).names == expected


def test_lists_and_manifests_name_images_anywhere(
    web: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A list here may name addresses; one at an address names what is relative to it."""
    monkeypatch.chdir(tmp_path)
    Path("list.txt").write_text(f"{web.url('p/a/0.png')}?sig=SECRET\nhere.png\n")
    host = web.url("").removeprefix("http://")
    assert find_images(["@list.txt"]).names == (f"{host}p/a/0.png", "here.png")
    csv = b"path,label,split\na/0.png,cat,train\n../p/b/1.png,dog,test\n"
    web.files["p/all.csv"] = csv
    for source in (web.url("p/all.csv"), web.url("p/all.csv?token=SECRET")):
        found = read_labelled(source)
        assert found.names == ("a/0.png", "p/b/1.png")
        assert found.labels == ("cat", "dog")
        assert {name: rows.tolist() for name, rows in found.splits.items()} == {
            "train": [0],
            "test": [1],
        }
        assert reasons(found.images) == ["", ""]
    web.files["p/list.txt"] = b"a/0.png\nb/0.png"
    assert find_images([f"@{web.url('p/list.txt')}"]).names == ("a/0.png", "b/0.png")


@pytest.mark.parametrize("path", ["/etc/x.png", "../../x.png", "file:///etc/x.png", "zip://x::y"])
def test_a_manifest_at_an_address_names_no_files_here(web: WebServer, path: str) -> None:
    """Whoever writes a list on a server does not make this machine read its own files."""
    web.files["m.csv"] = f"path\n{path}\n".encode()
    with pytest.raises(DataError, match=r"leads out of|may name paths"):
        find_images([web.url("m.csv")])


def test_bad_images_say_why_and_end_no_run(web: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Absent, forbidden, empty, too large, not an image: each has its reason, the rest is read."""
    monkeypatch.setattr(remote, "LARGEST", 10_000)
    web.files |= {"empty.png": b"", "no.png": b"no image", "large.png": b"x" * 20_000}
    web.failures["forbidden.png"] = [403] * 9
    names = ["gone.png", "forbidden.png", "empty.png", "large.png", "no.png", "p/a/0.png"]
    found = [RemoteImage(web.url(name) + "?sig=SECRET") for name in names]
    told = reasons(found)
    assert told == [
        "no such file",
        "HTTP status 403",
        "the file is empty",
        "its 20,000 bytes are more than the 10,000 allowed",
        "not an image of a format that is read",
        "",
    ]
    assert web.asked["gone.png"] == web.asked["forbidden.png"] == 1


def test_errors_hold_no_credentials(web: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sources that fail are named without what signs them; so are the errors behind them."""
    monkeypatch.setattr(connections, "ATTEMPTS", 1)
    port = web.server_address[1]
    web.failures["bad.csv"] = [500] * 9
    for source in (
        f"http://me:SECRET@127.0.0.1:{port}/none.csv",
        web.url("bad.csv?sig=SECRET"),
        f"http://me:SECRET@127.0.0.1:{port}/nothing/",
        "http://me:SECRET@127.0.0.1:1/a/?token=SECRET",
        "nonsense://me:SECRET@host/a/",
    ):
        with pytest.raises((DataError, DownloadError)) as caught:
            find_images([source])
        assert "SECRET" not in str(caught.value)
        assert caught.value.__suppress_context__ or caught.value.__context__ is None
    [told] = reasons([RemoteImage("http://me:SECRET@127.0.0.1:1/a.png?token=SECRET")])
    assert told
    assert "SECRET" not in told


def test_what_leads_nowhere_is_named(web: WebServer) -> None:
    """An absent list, an empty folder and a manifest without a path say so."""
    with pytest.raises(DataNotFound, match="There is nothing at"):
        find_images([web.url("none.csv")])
    with pytest.raises(DataNotFound, match=r"nothing at|no images"):
        find_images([web.url("none/")])
    web.files["m.csv"] = b"file\nx.png\n"
    with pytest.raises(DataError, match="needs 'path'"):
        find_images([web.url("m.csv")])


def test_tars_on_the_web_are_read_in_parts(web: WebServer, tmp_path: Path) -> None:
    """A tar is listed once, whatever runs later; then each image is one small request."""
    files = {f"{n}.png": png(n) for n in range(3)} | {"2.cls": b"cat"}
    web.files["t-0.tar"] = Path(pack(tmp_path / "t.tar", files)).read_bytes()
    found = find_images([web.url("t-{0..0}.tar")])
    host = web.url("").removeprefix("http://")
    assert found.names == tuple(f"{host}t-0.tar/{n}.png" for n in range(3))
    assert found.labels == ("", "", "cat")
    listed = web.sent
    again = find_images([web.url("t-0.tar?sig=SECRET")])
    assert (again.names, again.labels) == (found.names, found.labels)
    np.testing.assert_array_equal(again.stamps(), found.stamps())
    assert web.sent == listed
    assert decode(again.images[2]).tobytes() == noise(24, 20, 2).tobytes()
    assert web.sent - listed == len(png(2))
    web.ranged = False
    assert reasons(found.images[1:2]) == [
        "its tar cannot be read: its server sends no parts of files (HTTP ranges): "
        "use one that does, or download it"
    ]


def test_a_tar_at_an_address_that_was_replaced_has_other_stamps(tmp_path: Path) -> None:
    """Its images lie where others lay, with the same sizes and times."""
    memory = fsspec.filesystem("memory")
    stamps = []
    for seed in (1, 2):
        tar = Path(pack(tmp_path / "t.tar", {"0.bmp": jpeg(seed, "BMP")}))
        memory.pipe("/tars/t.tar", tar.read_bytes())
        stamps += [find_images(["memory://tars/t.tar"]).stamps().tolist() for _ in range(2)]
    assert stamps[0] == stamps[1] != stamps[2] == stamps[3]


def test_lists_of_servers_without_parts_are_fetched_whole(web: WebServer) -> None:
    """The plainest web server will do for a manifest; it is asked for it once."""
    web.ranged = False
    web.files |= {"m.csv": f"path,label\n{web.url('a.png')},cat\n".encode(), "a.png": png(0)}
    found = find_images([web.url("m.csv")])
    assert found.labels == ("cat",)
    assert web.sent == len(web.files["m.csv"])


def test_offline_means_offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """VGGFEAT_OFFLINE refuses addresses before anything is computed, also those in lists."""
    monkeypatch.setenv("VGGFEAT_OFFLINE", "1")
    (tmp_path / "m.csv").write_text("path\nhttps://host/a.png?sig=SECRET\n")
    for source in ("https://host/a.png", "s3://bucket/a", str(tmp_path / "m.csv")):
        with pytest.raises(DownloadError, match="VGGFEAT_OFFLINE") as caught:
            find_images([source])
        assert "SECRET" not in str(caught.value)


def test_other_file_systems_are_searched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whatever fsspec opens will do: memory, an archive, file:// for a folder here."""
    fsspec.filesystem("memory").pipe({"/m/x/1.png": png(1), "/m/2.png": png(2)})
    found = find_images(["memory://m"])
    assert found.names == ("m/2.png", "m/x/1.png")
    assert reasons(found.images) == ["", ""]
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.writestr("d/1.png", png(1))
    found = find_images([f"zip://::{tmp_path / 'all.zip'}"])
    assert found.names == ("all.zip/d/1.png",)
    assert reasons(found.images) == [""]
    (tmp_path / "x.png").write_bytes(png(1))
    assert find_images([f"file://{tmp_path}"]).names == (f"{tmp_path.name}/x.png",)


@pytest.mark.parametrize("key", ["st", "se", "policy", "expires", "a%26b", "x"])
def test_ordinary_queries_keep_images_apart(
    key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is part of a signature says which image is meant where there is no signature."""
    monkeypatch.delenv("VGGFEAT_OFFLINE", raising=False)  # nothing is fetched
    addresses = [f"https://host/i.jpg?{key}={value}" for value in ("1", "2", "%FE", "%FF")]
    addresses += ["https://host/i.jpg", f"https://host/i.jpg?{key}"]
    addresses += [f"https://host/i.jpg?{key}={a}&{key}={b}" for a, b in ("12", "21")]
    names = find_images(addresses).names
    assert names == tuple(address.removeprefix("https://") for address in addresses)
    (tmp_path / "all.csv").write_text("\n".join(["path", *addresses]))
    (tmp_path / "all.txt").write_text("\n".join(addresses))
    for source in (tmp_path / "all.csv", f"@{tmp_path / 'all.txt'}"):
        assert find_images([source]).names == names


def test_an_image_at_an_address_travels_and_shows_no_secret() -> None:
    """It is small, equal after a journey to another process, and still has its credentials."""
    address = "https://me:SECRET@host/a.jpg?X-Amz-Algorithm=AWS4&X-Amz-Signature=SECRET"
    image = RemoteImage(address, (3, 4), 120)
    sent = pickle.dumps(image)
    assert len(sent) < 400
    arrived = pickle.loads(sent)
    assert (arrived, arrived.address, arrived.stamp()) == (image, address, (3, 4))
    assert str(image) == "https://host/a.jpg"
    assert "SECRET" not in repr([image])


def test_a_million_images_are_a_million_small_objects() -> None:
    """What waits for its turn takes some hundred bytes, and no bytes of its image."""
    tracemalloc.start()
    many = [
        RemoteImage(f"s3://bucket/folder/{n:08}.jpg", (n << 32, n << 40), n) for n in range(10_000)
    ]
    taken = tracemalloc.get_traced_memory()[0] / len(many)
    tracemalloc.stop()
    assert taken < 450
    assert json.dumps(str(many[7])) == '"s3://bucket/folder/00000007.jpg"'


def test_reading_raises_image_errors_alone() -> None:
    """A file system that fails in its own way makes a bad image, not a broken run."""
    with pytest.raises(ImageError, match="no such file"):
        RemoteImage("memory://never/was.png").read()
