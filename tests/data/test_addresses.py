"""Addresses: what they lead to, and that nothing secret in them is ever shown."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from vggfeat.data.addresses import is_address, join, public, suffix, without_secrets
from vggfeat.data.imagesets import find_pictures
from vggfeat.data.remote import Remote
from vggfeat.errors import DataError

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
    "https://host/a.jpg?mine=SECRET",
)


@pytest.mark.parametrize("address", SIGNED)
def test_nothing_secret_is_shown(address: str) -> None:
    """Names, texts and cleared messages hold no password, token or signature."""
    picture = Remote(address)
    shown = [public(address), str(picture), repr(picture), repr([picture])]
    shown.append(without_secrets(f"Cannot connect to host {address}: refused, url='{address}'"))
    assert not [text for text in shown[:4] if "SECRET" in text]
    assert "SECRET" not in shown[4].replace("#SECRET", "")


@pytest.mark.parametrize("address", SIGNED[:4])
def test_a_new_signature_changes_no_name(address: str) -> None:
    """The store finds a picture again by an address that was signed anew."""
    assert (
        public(address)
        == public(address.replace("SECRET", "OTHER"))
        == public(address.partition("?")[0])
    )


def test_addresses_that_differ_in_what_they_ask_have_different_names() -> None:
    """A query that says which picture is meant keeps pictures apart, in whatever order it is."""
    one, other = (public(f"https://host/image?id={n}&size=2") for n in (1, 2))
    assert one != other
    assert one == public("https://host/image?size=2&id=1&sig=SECRET")


@pytest.mark.parametrize(
    "key", ["st", "sp", "sv", "sr", "se", "auth", "policy", "expires", "key-pair-id", "a%26b", "x"]
)
def test_ordinary_queries_keep_images_apart(
    key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is part of a signature says which image is meant where there is no signature."""
    monkeypatch.delenv("VGGFEAT_OFFLINE", raising=False)  # nothing is fetched
    addresses = [f"https://host/i.jpg?{key}={value}" for value in ("1", "2", "%FE", "%FF")]
    addresses += ["https://host/i.jpg", f"https://host/i.jpg?{key}"]
    addresses += [f"https://host/i.jpg?{key}={a}&{key}={b}" for a, b in ("12", "21")]
    names = find_pictures(addresses).names
    assert len(set(names)) == len(addresses)
    assert not [name for name in names if "=" in name]
    (tmp_path / "all.csv").write_text("\n".join(["path", *addresses]))
    (tmp_path / "all.txt").write_text("\n".join(addresses))
    for source in (tmp_path / "all.csv", f"@{tmp_path / 'all.txt'}"):
        assert find_pictures([source]).names == names


@pytest.mark.parametrize("signature", [one.partition("?")[2] for one in SIGNED[:4]])
def test_a_signature_hides_its_own_parameters_alone(signature: str) -> None:
    """Of a signed address the ordinary part of the query counts; signing it changes no name."""
    plain = [f"https://host/i?page={number}&x-oss-process=crop" for number in (1, 2)]
    signed = [f"{one}&{signature}" for one in plain]
    assert list(map(public, plain)) == list(map(public, signed))
    assert public(plain[0]) != public(plain[1]) != public(plain[1].replace("crop", "turn"))


def test_a_picture_at_an_address_travels() -> None:
    """It is small, equal after a journey to another process, and still has its credentials."""
    picture = Remote(SIGNED[0], (3, 4), 120)
    sent = pickle.dumps(picture)
    assert len(sent) < 400
    arrived = pickle.loads(sent)
    assert (arrived, arrived.address, arrived.stat()) == (picture, SIGNED[0], (3, 4))


def test_containers_of_azure_keep_their_account() -> None:
    """What stands before the @ of abfs:// names a container, unless a password follows."""
    assert public("abfs://photos@account.dfs.net/a.jpg") == "abfs://photos@account.dfs.net/a.jpg"
    assert public("abfs://me:SECRET@account/a.jpg") == "abfs://account/a.jpg"


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
    with pytest.raises(DataError, match="cannot be used for pictures"):
        suffix("s3::nothing")
