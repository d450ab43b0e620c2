"""The registry of public weights: where they are, what they must be, whether they are here."""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from vggfeat._io import assets
from vggfeat._io.download import Checksums, Progress, download
from vggfeat.errors import DownloadError, ParameterError, WeightsError, WeightsNotFound
from vggfeat.nets.config import TABLE_1
from vggfeat.nets.preprocessing import CAFFE, TORCHVISION, PixelConvention
from vggfeat.settings import OTHER_NAMES, net_name

OXFORD = "www.robots.ox.ac.uk/~vgg/software/very_deep/caffe/"
KERAS = "https://storage.googleapis.com/tensorflow/keras-applications/"
PYTORCH = "https://download.pytorch.org/models/"
CC_BY = "CC BY 4.0 (K. Simonyan, A. Zisserman)"
BSD = "BSD-3-Clause (torchvision)"
LAST = "fc8"  # which tells classes, so that an earlier layer is no substitute
WHOLE = f"a file that has {LAST}, such as best.safetensors of `vggfeat train`"


@dataclass(frozen=True)
class RemoteFile:
    """A file of weights: its name in the cache, its addresses, and what it must be."""

    name: str
    urls: tuple[str, ...]
    checksums: Checksums


@dataclass(frozen=True)
class Source:
    """Weights of one net from one source."""

    name: str
    net: str
    files: tuple[RemoteFile, ...]  # the original, then others with the same parameters
    pixels: PixelConvention
    licence: str


@dataclass(frozen=True)
class Row:
    """A line of ``vggfeat weights list``; `bytes` is None where it is not published."""

    source: str
    net: str
    file: str
    bytes: int | None
    licence: str
    cached: bool


def _authors(net: str, depth: int, sha256: str, size: int, md5: str, size_of_copy: int) -> Source:
    name = f"VGG_ILSVRC_{depth}_layers.caffemodel"
    urls = (f"https://{OXFORD}{name}", f"http://{OXFORD}{name}")
    copy = f"vgg{depth}_weights_tf_dim_ordering_tf_kernels.h5"
    files = (
        RemoteFile(name, urls, Checksums(sha256, size=size)),
        RemoteFile(copy, (f"{KERAS}vgg{depth}/{copy}",), Checksums(md5=md5, size=size_of_copy)),
    )
    return Source("authors", net, files, CAFFE, CC_BY)


def _torchvision(net: str, name: str, sha256: str | None = None, size: int | None = None) -> Source:
    prefix = None if sha256 else name.removesuffix(".pth").rpartition("-")[2]
    file = RemoteFile(name, (PYTORCH + name,), Checksums(sha256, sha256_prefix=prefix, size=size))
    return Source("torchvision", net, (file,), TORCHVISION, BSD)


_EMBEDDED_SHA256 = "9cf42f1115db350946270577dbe3f7a580c8029dadf106e58a6453df0a153b04"
_EMBEDDED_FILE = RemoteFile("vgg_d_conv_fp16.safetensors", (), Checksums(_EMBEDDED_SHA256))
EMBEDDED = Source("embedded", "D", (_EMBEDDED_FILE,), CAFFE, CC_BY)
_ALL = (
    _authors(
        "D",
        16,
        "a6196bc498e45ea4cb2637114ae8db9410cf1556fd60a55ae93272371beba197",
        553432081,
        "64373286793e3c8b2b4e3219cbf3544b",
        553467096,
    ),
    _authors(
        "E",
        19,
        "31b4c627c40c6ee151325f079b7ac557fddbd1f79af932888796127a4f4f6954",
        574671192,
        "cbe5617147190e668d6c5d5026f83318",
        574710816,
    ),
    _torchvision("A", "vgg11-8a719046.pth"),
    _torchvision("B", "vgg13-19584684.pth"),
    _torchvision(
        "D",
        "vgg16-397923af.pth",
        "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
        553433881,
    ),
    _torchvision(
        "E",
        "vgg19-dcbb9e9d.pth",
        "dcbb9e9dad569fff7a846263a77324fc34978fea2bfb039c012d710e1776ae44",
        574673361,
    ),
    EMBEDDED,
)
SOURCES = {(source.name, source.net): source for source in _ALL}
NAMES = ("auto", *dict.fromkeys(name for name, _ in SOURCES))


def source_of(name: str, net: str) -> Source:
    """Find a source in the registry; an error says which names and nets there are.

    Examples
    --------
    >>> source_of("torchvision", "A").files[0].name
    'vgg11-8a719046.pth'
    """
    net = net_name(net)
    nets = [n for source, n in SOURCES if source == name]
    if not nets:
        raise ParameterError.not_one_of("weights", "load", NAMES, name)
    if net not in TABLE_1:
        raise ParameterError.not_one_of("net", "VGG", (*TABLE_1, *OTHER_NAMES), net)
    if net in nets:
        return SOURCES[name, net]
    others = [source for source, n in SOURCES if n == net]
    instead = (
        f"Name {' or '.join(others)} instead" if others else "Train it: vggfeat train --net " + net
    )
    raise WeightsError(f"{name} has net {', '.join(nets)}, not {net}. {instead}.")


def folder() -> Path:
    """Folder of downloaded weights; ``VGGFEAT_HOME`` moves it."""
    return assets.home() / "weights"


def cached(source: Source) -> Path | None:
    """Return a file of this source that is on this machine, verified; None if there is none.

    A file is hashed once; a note beside it, ``<file>.verified``, holds for as long as size and
    time of the last change are the same.
    """
    if source is EMBEDDED:
        return assets.asset(source.files[0].name)
    for file in source.files:
        path = folder() / file.name
        if path.is_file():
            _verify(path, file)
            return path
    return None


def fetch(
    source: str, net: str, progress: Progress | None = None, *, layers: Collection[str] = ()
) -> Path:
    """Return the file of a source, downloaded if it is not on this machine.

    Parameters
    ----------
    source, net : str
        For example ``"authors"``, ``"D"``.
    progress : callable, optional
        Called with the bytes so far and the bytes in all.
    layers : collection of str
        Those that are wanted of it: an error says what else has them.

    Raises
    ------
    WeightsNotFound
        If it cannot be downloaded, or may not; the message says how to bring it by hand.

    Examples
    --------
    >>> fetch("embedded", "D").name
    'vgg_d_conv_fp16.safetensors'
    """
    entry = source_of(source, net)
    if here := cached(entry):
        return here
    if assets.offline():
        forbidden = ["VGGFEAT_OFFLINE forbids the network."]
        raise WeightsNotFound(*_by_hand(entry, forbidden, layers))
    reasons: list[str] = []
    for file in entry.files:
        try:
            path = download(file.urls, folder() / file.name, file.checksums, progress)
        except DownloadError as error:
            reasons += error.lines
            continue
        _note(path, file)
        return path
    raise WeightsNotFound(*_by_hand(entry, reasons, layers))


def listing() -> list[Row]:
    """List every file of the registry.

    Examples
    --------
    >>> [row.file for row in listing() if row.source == "embedded"]
    ['vgg_d_conv_fp16.safetensors']
    """
    rows = []
    for source in SOURCES.values():
        for file in source.files:
            path = folder() / file.name
            if shipped := source is EMBEDDED:
                path = assets.asset(file.name)
            here = shipped or _is_published(path, file)
            size = path.stat().st_size if here else file.checksums.size
            rows.append(Row(source.name, source.net, file.name, size, source.licence, here))
    return rows


def _by_hand(source: Source, reasons: list[str], layers: Collection[str]) -> list[str]:
    file = source.files[0]
    size, sha256 = file.checksums.size, file.checksums.sha256
    shown = f", {size:,} bytes" if size else ""
    sha256 = sha256 or f"begins with {file.checksums.sha256_prefix}"
    lines = [
        f"{file.name} ({source.name}, net {source.net}{shown}, sha256 {sha256}) is not on this "
        "machine, and was not downloaded:",
        *reasons,
        f"Fetch {file.urls[0]} on a machine with a network and put it at {folder() / file.name}.",
    ]
    if LAST in layers:
        lines.append(f"Without it, name {WHOLE}.")
        return lines
    if source.net == EMBEDDED.net:
        lines.append(
            "Without it, the authors' net D is computed up to pool5 by "
            "weights='embedded', layers=('pool5',)."
        )
    lines.append("A file of your own is named by weights=FILE.")
    return lines


def _is_published(path: Path, file: RemoteFile) -> bool:
    """Tell whether a file is here, whole and as published."""
    with contextlib.suppress(OSError):
        return path.is_file() and not _mismatch(path, file)
    return False


def _verify(path: Path, file: RemoteFile) -> None:
    if broken := _mismatch(path, file):
        advice = "Delete it, and it will be fetched again."
        if assets.offline():
            advice = (
                f"Put in its place what {file.urls[0]} gives, or delete it and unset "
                "VGGFEAT_OFFLINE, which forbids the network."
            )
        raise WeightsError(f"{path} is not the published file: {broken}. {advice}")


def _mismatch(path: Path, file: RemoteFile) -> str:
    """Say in what a file is not the published one; of one that is, a note is made beside it."""
    note = _beside(path)
    if note.is_file() and note.read_text() == _stamp(path, file):
        return ""
    if broken := file.checksums.mismatch(path):
        return broken
    _note(path, file)
    return ""


def _note(path: Path, file: RemoteFile) -> None:
    with contextlib.suppress(OSError):  # a cache that may only be read is hashed every time
        _beside(path).write_text(_stamp(path, file))


def _beside(path: Path) -> Path:
    return path.with_name(path.name + ".verified")


def _stamp(path: Path, file: RemoteFile) -> str:
    status = path.stat()
    # A program can set the time of change as it likes, but not that of the file's own record.
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {file.checksums}"
