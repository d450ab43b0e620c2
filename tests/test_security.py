"""Promises of SECURITY.md: no file runs code, and VGGFEAT_OFFLINE opens no socket."""

from __future__ import annotations

import io
import pickle
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fuzz.campaign import OWNED, Hostile
from fuzz.stores import Stores
from helpers.cli import run
from helpers.commands import root

from vggfeat.classification.classes import ilsvrc_classes
from vggfeat.data.datasets import open_dataset
from vggfeat.data.image import decode
from vggfeat.data.imageset import find_images
from vggfeat.data.sources.tar import read_tar
from vggfeat.errors import DownloadError, VggfeatError, WeightsNotFound
from vggfeat.features.aggregate import Aggregation
from vggfeat.nets import formats, weights
from vggfeat.store import store
from vggfeat.store.column import Column, Descriptor
from vggfeat.store.store import FeatureStore
from vggfeat.svm import model as models
from vggfeat.train import checkpoint

READERS: dict[str, Callable[[Path], object]] = {
    **{
        f"net{suffix}": formats.read
        for suffix in (".pth", ".pt", ".caffemodel", ".mat", ".h5", ".onnx", ".safetensors")
    },
    "model.safetensors": models.load,
    "last.safetensors": checkpoint.read,
    "packed.h5": FeatureStore,
    "image.jpg": decode,
    "images.tar": read_tar,
    "list.csv": lambda path: find_images([path]),
    "list.parquet": lambda path: find_images([path]),
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
def test_no_file_of_a_store_is_a_pickle(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pickle in the place of any file of a store is refused or passed over, and never loaded."""
    monkeypatch.setattr(store, "INDEXED", 2)  # as the campaign sets it for its own process
    folder = tmp_path / "stores"
    folder.mkdir()
    campaign = Stores(folder)
    for name in (*campaign.files, "shards/x.h5"):
        with suppress(VggfeatError):
            campaign.attempt((name, hostile(kind, folder)))
        assert not (tmp_path / OWNED).exists(), name


WATCHED = """
import sys, time
events = ("os.fork", "socket.getaddrinfo", "socket.connect")
sys.addaudithook(lambda event, arguments: print(event, flush=True) if event in events else None)
from vggfeat.nets.runtimes.openvino import _openvino
_openvino()
time.sleep(0.5)
"""


@pytest.mark.skipif(not find_spec("openvino"), reason="needs OpenVINO")
def test_openvino_tells_nobody_that_it_is_used() -> None:
    """Its package would start a process as it is imported, and look up an analytics server."""
    done = subprocess.run([sys.executable, "-c", WATCHED], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


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


LACKS = "VGGFEAT_OFFLINE"
FINE = ""
# The exit status, what is typed, and a word of what is said: that the network is forbidden,
# wherever it would have been asked for a file; else what stands before that, or nothing.
COMMANDS = [
    (0, "extract {images} --net D --layer conv1_1 --weights embedded --Q 64 --out {out}", FINE),
    (
        7,
        "extract s3://bucket/images --net D --layer conv1_1 --weights embedded --out {out}",
        LACKS,
    ),
    (7, "extract {images} --layer conv1_1 --weights embedded --Q 64 --out s3://b/out", LACKS),
    (7, "extract https://host/list.csv --net D --layer fc7 --weights authors --out {out}", LACKS),
    (3, "svm --dataset caltech101 --root {out}", "caltech101"),
    (4, "svm --dataset {classes} --layer fc7 --weights authors", LACKS),
    (4, "run table11-caltech101 --dataset sample --weights authors", LACKS),
    (4, "run table03-single-scale --data {classes} --allow-partial --weights d-256=authors", LACKS),
    (3, "run train-a --data s3://bucket/images", "s3:"),
    (4, "predict {model} {images}", LACKS),
    (7, "predict {model} https://host/a.jpg", LACKS),
    (4, "explain {model} {images}", LACKS),
    (7, "explain {model} gs://bucket/images", LACKS),
    (4, "classify {images} --net D --out {out}", LACKS),
    (4, "classify {images} --net E --weights torchvision", LACKS),
    (7, "fuse gs://bucket/scores s3://bucket/scores", "gs:"),
    (4, "train --data {classes} --net D --init authors --out {out}", LACKS),
    (4, "localize train --data sample-voc --init authors --out {out}", LACKS),
    (7, "localize predict https://host/a.jpg --model {out}/none --class cat", LACKS),
    (4, "localize evaluate --data sample-voc --model {out}/none", "none"),
    (0, "datasets list", FINE),
    (0, "datasets show voc2007", FINE),
    (3, "datasets fetch voc2007 --root {out}", LACKS),
    (3, "datasets check voc2007 --root {out}", "voc2007"),
    (0, "weights list", FINE),
    (4, "weights fetch authors --net D", LACKS),
    (4, "weights show https://host/net.pth", "https:"),
    (4, "weights convert https://host/net.pth {out}/net.safetensors", "https:"),
    (7, "store info s3://bucket/store", LACKS),
    (7, "store verify gs://bucket/store", LACKS),
    (7, "store repair s3://bucket/store", LACKS),
    (7, "store merge s3://bucket/a s3://bucket/b --out {out}/both", LACKS),
    (7, "store pack s3://bucket/store {out}/packed.h5", LACKS),
    (7, "store export gs://bucket/store {out}/features.csv", LACKS),
]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Save an SVM whose descriptors are of weights that would have to be downloaded."""
    fc7 = Column(Descriptor("D", "fc7", "average", 256), {"weights": "ab12"}, 4096)
    how = Aggregation("average").to_dict()
    numbers = np.ones((2, 4096)), np.ones(2)
    saved = models.SavedModel(*numbers, ("cat", "dog"), (1.0,), (fc7,), ("authors",), how)
    return models.save(tmp_path / "model", saved)


@pytest.mark.usefixtures("no_sockets")
@pytest.mark.parametrize(("status", "command", "said"), COMMANDS)
def test_offline_no_command_opens_a_socket(
    status: int,
    command: str,
    said: str,
    draw: Callable[..., Path],
    model: Path,
    tmp_path: Path,
) -> None:
    """With VGGFEAT_OFFLINE each command does its work or says what it lacks, without a network."""
    images = draw("images/a.png").parent
    for number in range(8):
        draw(f"classes/{ilsvrc_classes().keys[number % 2]}/{number}.png", seed=number)
    (tmp_path / "out").mkdir()
    given = {"classes": tmp_path / "classes", "out": tmp_path / "out", "model": model}
    words = [word.format(images=images, **given) for word in command.split()]
    done = run(*words, status=status, cwd=tmp_path)
    assert (status == 0) == (said == FINE)
    assert said in f"{done.out} {done.err}"


def test_every_command_is_tried_offline() -> None:
    """No command is left out above."""

    def named(group: Any, before: str = "") -> Iterator[str]:
        for name, one in getattr(group, "commands", {}).items():
            yield from named(one, f"{before}{name} ")
        if not hasattr(group, "commands"):
            yield before

    for name in named(root()):
        assert any(f"{command} ".startswith(name) for _, command, _ in COMMANDS), name


@pytest.mark.usefixtures("no_sockets")
@pytest.mark.parametrize("scheme", ["https", "http", "s3", "gs", "abfs", "ftp", "zip://x::https"])
def test_offline_no_address_is_reached(scheme: str) -> None:
    """Images, stores and weights at addresses are refused by name before anything is opened."""
    address = f"{scheme}://host/folder"
    for use in (lambda: find_images([address]), lambda: FeatureStore(address)):
        with pytest.raises(DownloadError, match="VGGFEAT_OFFLINE"):
            use()
    with pytest.raises(WeightsNotFound):
        weights.load("torchvision", "A", ["fc7"])
