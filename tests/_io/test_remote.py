"""Addresses: what they lead to, nothing secret of them is shown, and reading is tried again."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from servers import WebServer, web_server

from vggfeat._io import remote
from vggfeat._io.remote import (
    Unreachable,
    is_address,
    join,
    list_folder,
    open_file,
    open_filesystem,
    read_bytes,
    redact,
    redact_message,
    retry,
    stat,
    suffix,
)
from vggfeat.errors import DataError, DataNotFound, DownloadError, MissingExtra

CONTENT = bytes(range(256)) * 20
SIGNED = (
    "https://b.s3.amazonaws.com/a.jpg?X-Amz-Algorithm=AWS4&X-Amz-Credential=AKIASECRET&"
    "X-Amz-Signature=SECRET1",
    "https://storage.googleapis.com/b/a.jpg?GoogleAccessId=SECRET&Expires=1&Signature=SECRET",
    "https://account.blob.core.windows.net/c/a.jpg?sv=2024&st=2025&se=2026&sr=b&sp=r&spr=https&"
    "sip=1.2.3.4&sig=SECRET",
    "https://d.cloudfront.net/a.jpg?Policy=SECRET&Signature=SECRET&Key-Pair-Id=SECRET",
    "https://me:SECRET@host:8080/a.jpg",
    "ftp://SECRET@host/a.jpg",
    "https://host/a.jpg?access_token=SECRET#SECRET",
    "zip://a.jpg::https://me:SECRET@host/all.zip?token=SECRET",
    "https://host/a.jpg?api_key=SECRET&auth=SECRET&Subscription-Key=SECRET",
)


@pytest.mark.parametrize("address", SIGNED)
def test_nothing_secret_is_shown(address: str) -> None:
    """Names and cleared messages hold no password, token or signature."""
    message = redact_message(f"Cannot connect to host {address}: refused, url='{address}'")
    assert "SECRET" not in redact(address)
    assert "SECRET" not in message.replace("#SECRET", "")


@pytest.mark.parametrize("address", SIGNED[:4])
def test_a_new_signature_changes_no_name(address: str) -> None:
    """What is read again by an address that was signed anew has the same name."""
    assert (
        redact(address)
        == redact(address.replace("SECRET", "OTHER"))
        == redact(address.partition("?")[0])
    )


@pytest.mark.parametrize("signature", [one.partition("?")[2] for one in SIGNED[:4]])
def test_a_signature_hides_its_own_parameters_alone(signature: str) -> None:
    """Of a signed address the ordinary part of the query is kept; signing it changes no name."""
    plain = "https://host/i?page=1&x-oss-process=crop"
    assert redact(f"{plain}&{signature}") == redact(plain) == plain


def test_ordinary_queries_are_kept() -> None:
    """Sorted by their keys, as they were written; without a signature `se` is an ordinary key."""
    assert redact("https://host/i?size=2&id=%FE&id=1&sig=x") == "https://host/i?id=%FE&id=1&size=2"
    for key in ("st", "sp", "sv", "sr", "se", "policy", "expires", "key-pair-id", "a%26b", "x"):
        assert redact(f"https://host/i.jpg?{key}=1") == f"https://host/i.jpg?{key}=1"


def test_containers_of_azure_keep_their_account() -> None:
    """What stands before the @ of abfs:// names a container, unless a password follows."""
    assert redact("abfs://photos@account.dfs.net/a.jpg") == "abfs://photos@account.dfs.net/a.jpg"
    assert redact("abfs://me:SECRET@account/a.jpg") == "abfs://account/a.jpg"


def test_a_path_from_an_address_stays_in_its_bucket() -> None:
    """Beside and below are fine; above the bucket or host nothing is read."""
    assert join("s3://bucket/a/b", "../c/./d.jpg") == "s3://bucket/a/c/d.jpg"
    assert join("memory://x", "y.jpg") == "memory://x/y.jpg"
    for path in ("../../x.jpg", "/etc/x.jpg", "a/../../../x.jpg"):
        with pytest.raises(DataError, match="leads out of"):
            join("s3://bucket/a", path)


def test_paths_are_no_addresses() -> None:
    """Drives, colons and plain names stay what they were."""
    assert [is_address(t) for t in ("C:\\a.jpg", "C://a.jpg", "a:b", "x.jpg")] == [False] * 4
    assert is_address("gs://bucket")
    assert suffix("https://host/a.TAR?x=.csv") == ".tar"
    with pytest.raises(DataError, match="cannot be used"):
        suffix("s3::nothing")


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[WebServer]:
    pytest.importorskip("aiohttp")
    monkeypatch.delenv("VGGFEAT_OFFLINE")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(remote, "BACKOFF", 0.01)
    with web_server({"d/a.bin": CONTENT, "d/e/b.bin": b"b", "d/empty": b""}) as server:
        yield server


def test_objects_are_read_whole_and_in_parts(web: WebServer) -> None:
    """As many bytes as were asked for, and no others are sent."""
    fsspec.filesystem("memory").pipe("/d/a.bin", CONTENT)
    for address in (web.url("d/a.bin"), "memory://d/a.bin"):
        assert read_bytes(address) == CONTENT
        assert read_bytes(address, 100, 300) == CONTENT[100:300]
        assert read_bytes(address, 7, 7) == b""
        assert stat(address)["size"] == len(CONTENT)
        with open_file(address) as file:
            assert (file.read(10), file.seek(1000), file.read(10)) == (
                CONTENT[:10],
                1000,
                CONTENT[1000:1010],
            )
        with pytest.raises(Unreachable, match="ends after 5,120 of 6,000 bytes"):
            read_bytes(address, 5000, 6000)
    assert read_bytes(web.url("d/empty")) == b""
    before = web.sent
    read_bytes(web.url("d/a.bin"), 100, 300)
    assert web.sent - before == 200


def test_a_server_that_sends_no_parts_is_told_so(web: WebServer) -> None:
    """Its objects are read whole where that will do."""
    web.ranged = False
    with pytest.raises(Unreachable, match="HTTP ranges"):
        read_bytes(web.url("d/a.bin"), 100, 300)
    with open_file(web.url("d/a.bin"), whole=True) as file:
        assert file.read() == CONTENT


def test_folders_are_listed_by_name(web: WebServer) -> None:
    """Folders among them; what is not there is absent."""
    fsspec.filesystem("memory").pipe({"/list/a.bin": b"a", "/list/e/b.bin": b"b", "/lists/c": b""})
    for address in (web.url("d"), web.url("d/"), "memory://list"):
        listed = list_folder(address)
        assert {name: listed[name]["type"] for name in ("a.bin", "e")} == {
            "a.bin": "file",
            "e": "directory",
        }
    assert set(list_folder("memory://list")) == {"a.bin", "e"}
    with pytest.raises(Unreachable) as caught:
        list_folder(web.url("none"))
    assert caught.value.absent


def test_what_may_pass_is_tried_again(web: WebServer) -> None:
    """A busy server is asked again, four times at most; a refusal is taken at once."""
    web.failures = {"d/a.bin": [503, 429], "d/e/b.bin": [500] * 9, "d/empty": [403] * 9}
    assert read_bytes(web.url("d/a.bin")) == CONTENT
    for path, status in (("d/e/b.bin", 500), ("d/empty", 403)):
        with pytest.raises(Unreachable, match=f"^HTTP status {status}$"):
            read_bytes(web.url(path))
    assert web.asked == {"d/a.bin": 3, "d/e/b.bin": 4, "d/empty": 1}


def test_silence_ends(web: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the time that a server may take for its next byte."""
    monkeypatch.setattr(remote, "STALL", 0.2)
    monkeypatch.setattr(remote, "_shared", {})
    monkeypatch.setattr(remote, "ATTEMPTS", 2)
    web.silent.add("d/a.bin")
    with pytest.raises(Unreachable, match="no answer in time"):
        read_bytes(web.url("d/a.bin"))
    assert web.asked["d/a.bin"] == 2


def test_our_own_errors_are_not_tried_again() -> None:
    """What they say would be the same."""
    attempts = []

    def fail() -> None:
        attempts.append(1)
        raise MissingExtra("install it")

    with pytest.raises(MissingExtra, match="install it"):
        retry(fail)
    assert attempts == [1]


def test_unreachable_objects_are_named_without_secrets() -> None:
    """What is absent is another error than what could not be read."""
    address = "https://me:SECRET@host/a?sig=SECRET"
    absent, broken = (Unreachable("HTTP status 5", absent=absent) for absent in (True, False))
    assert isinstance(absent.of(address), DataNotFound)
    assert isinstance(broken.of(address), DownloadError)
    assert str(broken.of(address)) == "https://host/a cannot be read: HTTP status 5."


def test_offline_means_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """VGGFEAT_OFFLINE refuses all addresses but those of this machine."""
    monkeypatch.setenv("VGGFEAT_OFFLINE", "1")
    with pytest.raises(DownloadError, match="VGGFEAT_OFFLINE"):
        open_filesystem("s3://bucket/a")
    assert open_filesystem("memory://a")[1] == "/a"


@pytest.mark.parametrize(("address", "extra"), [("s3://b/a.png", "remote"), ("gs://b/c", "gcs")])
def test_what_is_not_installed_is_named(
    monkeypatch: pytest.MonkeyPatch, address: str, extra: str
) -> None:
    """The message has the command that installs it."""
    monkeypatch.delenv("VGGFEAT_OFFLINE")
    known = sys.modules["fsspec.registry"]._registry
    for name, scheme in {"s3fs": "s3", "gcsfs": "gs"}.items():
        monkeypatch.setitem(sys.modules, name, None)
        monkeypatch.delitem(known, scheme, raising=False)
    monkeypatch.setattr(remote, "_shared", {})
    with pytest.raises(MissingExtra, match=rf"pip install 'vggfeat\[{extra}\]'"):
        open_filesystem(address)


def test_work_on_local_files_imports_no_fsspec(tmp_path: Path) -> None:
    """Files of this machine never go through it: not as images, nor as a store."""
    code = (
        "import sys, pathlib, PIL.Image\n"
        "from vggfeat.cli import main\n"
        "PIL.Image.new('RGB', (40, 30)).save('a.png')\n"
        "sys.argv = ['vggfeat', 'extract', 'a.png', '--layer', 'pool1', '--Q', '32', '--quiet']\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code\n"
        "print([name for name in ('fsspec', 'aiohttp', 's3fs') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]", done.stdout
