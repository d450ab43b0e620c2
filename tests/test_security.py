"""Promises of SECURITY.md: no file runs code, and VGGFEAT_OFFLINE opens no socket."""

from __future__ import annotations

import io
import pickle
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fuzz.campaign import OWNED, Hostile
from fuzz.stores import Stores
from typer.testing import CliRunner

from vggfeat.cli import app
from vggfeat.data.cards import open_dataset
from vggfeat.data.ilsvrc import read_tar
from vggfeat.data.images import decode
from vggfeat.data.imagesets import find_pictures
from vggfeat.errors import DownloadError, VggfeatError, WeightsNotFound
from vggfeat.features.store import FeatureStore
from vggfeat.learn import model
from vggfeat.nets import formats, weights
from vggfeat.train import checkpoint

READERS: dict[str, Callable[[Path], object]] = {
    **{
        f"net{suffix}": formats.read
        for suffix in (".pth", ".pt", ".caffemodel", ".mat", ".h5", ".onnx", ".safetensors")
    },
    "model.safetensors": model.load,
    "last.safetensors": checkpoint.read,
    "packed.h5": FeatureStore.open,
    "picture.jpg": decode,
    "pictures.tar": read_tar,
    "list.csv": lambda path: find_pictures([path]),
    "list.parquet": lambda path: find_pictures([path]),
    "card.toml": lambda path: open_dataset(str(path)),
}


def hostile(kind: str, folder: Path) -> bytes:
    """Write a pickle that makes a file when it is loaded, in each form that pickles come in."""
    thing, out = Hostile(folder), io.BytesIO()
    if kind == "zip":
        torch.save({"conv1_1.weight": thing}, out)
    elif kind == "legacy":
        torch.save(thing, out, _use_new_zipfile_serialization=False)
    elif kind == "numpy":
        np.save(out, np.array([thing], object), allow_pickle=True)
    elif kind == "npz":
        np.savez(out, kinds=np.array([thing], object), names=np.array([thing], object))
    else:
        out.write(pickle.dumps(thing, protocol=int(kind)))
    return out.getvalue()


@pytest.mark.parametrize("kind", ["0", "2", "5", "zip", "legacy", "numpy", "npz"])
def test_no_reader_loads_a_pickle(kind: str, tmp_path: Path) -> None:
    """A pickle in the place of every file that is read is refused, and its code never runs."""
    folder = tmp_path / "files"
    (folder / "store" / "shards").mkdir(parents=True)
    content = hostile(kind, folder)
    if kind in "025":  # that it is one: loaded carelessly, it leaves its trace
        pickle.loads(content)
        (tmp_path / OWNED).unlink()
    for name, read in READERS.items():
        (folder / name).write_bytes(content)
        with pytest.raises(VggfeatError):
            read(folder / name)
        assert not (tmp_path / OWNED).exists(), name


@pytest.mark.parametrize("kind", ["5", "npz"])
def test_no_file_of_a_store_is_a_pickle(kind: str, tmp_path: Path) -> None:
    """A pickle in the place of any file of a store is refused or passed over, and never loaded."""
    folder = tmp_path / "stores"
    folder.mkdir()
    campaign = Stores(folder)
    for name in ("index.npz", "manifest.json", "features.h5", "failed.csv", "shards/x.h5"):
        with suppress(VggfeatError):
            campaign.attempt((name, hostile(kind, folder)))
        assert not (tmp_path / OWNED).exists(), name


@pytest.fixture
def no_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let any attempt to reach a network fail the test, also where it would be caught."""
    opened = []

    class Socket(socket.socket):
        def __init__(self, family: int = -1, *more: Any, **options: Any) -> None:
            if family != socket.AF_UNIX:
                opened.append(family)
                raise AssertionError("a socket was opened")
            super().__init__(family, *more, **options)

    def refuse(*args: object, **options: object) -> None:
        opened.append(args)
        raise AssertionError("a name was looked up")

    monkeypatch.setenv("VGGFEAT_OFFLINE", "1")
    monkeypatch.setattr(socket, "socket", Socket)
    for name in ("getaddrinfo", "create_connection", "gethostbyname"):
        monkeypatch.setattr(socket, name, refuse)
    yield
    assert not opened, opened


@pytest.mark.usefixtures("no_sockets")
@pytest.mark.parametrize(
    "command",
    [
        "extract {pictures} --net D --layer conv1_1 --weights embedded --Q 64 --out {out}",
        "extract s3://bucket/pictures --net D --layer conv1_1 --weights embedded --out {out}",
        "extract {pictures} --net D --layer conv1_1 --weights embedded --Q 64 --out s3://b/out",
        "extract https://host/list.csv --net D --layer fc7 --weights authors --out {out}",
        "classify {pictures} --net D --out {out}",
        "classify {pictures} --net E --weights torchvision",
        "weights fetch authors --net D",
        "datasets fetch voc2007 --root {out}",
        "svm --dataset caltech101 --root {out}",
        "store verify gs://bucket/store",
    ],
)
def test_offline_no_command_opens_a_socket(
    command: str, draw: Callable[..., Path], tmp_path: Path
) -> None:
    """With VGGFEAT_OFFLINE each command does its work or says what it lacks, without a network."""
    pictures = draw("pictures/a.png").parent
    (tmp_path / "out").mkdir()
    asked = [one.format(pictures=pictures, out=tmp_path / "out") for one in command.split()]
    result = CliRunner().invoke(app, asked)
    assert isinstance(result.exception, (VggfeatError, SystemExit, type(None))), result.exception
    if "{pictures}" in command and "embedded" in command and "s3:" not in command:
        assert result.exit_code == 0, result.output
    else:
        assert result.exit_code != 0, result.output


@pytest.mark.usefixtures("no_sockets")
@pytest.mark.parametrize("scheme", ["https", "http", "s3", "gs", "abfs", "ftp", "zip://x::https"])
def test_offline_no_address_is_reached(scheme: str) -> None:
    """Pictures, stores and weights at addresses are refused by name before anything is opened."""
    address = f"{scheme}://host/folder"
    for use in (lambda: find_pictures([address]), lambda: FeatureStore.open(address)):
        with pytest.raises(DownloadError, match="VGGFEAT_OFFLINE"):
            use()
    with pytest.raises(WeightsNotFound):
        weights.load("torchvision", "A", ["fc7"])
