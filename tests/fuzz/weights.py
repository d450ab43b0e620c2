"""Files of weights: every format as it is read for use."""

from __future__ import annotations

import io
import pickle
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import torch
from weightfiles import WRITERS, random_state

from fuzz.campaign import Campaign, Hostile
from vggfeat.nets import formats
from vggfeat.nets.config import layers_of
from vggfeat.nets.preprocessing import CAFFE

TOKENS = (b"\xff\xff\xff\xff\xff\xff\xff\x7f", b"\x80" * 10, b"conv1_1", b"\x0a\0", b"\x08\x01")
TOKENS += (b"PK\3\4", b"\x89HDF\r\n\x1a\n", b'"shape":[1000000000,1000000000]', b"\x12", b"\x3a")


def varint(value: int) -> bytes:
    """Write a number as protocol buffers do."""
    out = bytearray()
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def field(number: int, content: bytes | int) -> bytes:
    """Write a field of bytes, or of a number."""
    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    return varint(number << 3 | 2) + varint(len(content)) + content


def crafted_caffe() -> list[bytes]:
    """Make blobs that promise terabytes, and messages of nothing but fields."""
    blobs = [
        b"".join(field(n, 2**31 - 1) for n in (1, 2, 3, 4)) + field(5, bytes(64)),
        field(7, field(1, varint(2) * 50_000)) + field(5, bytes(64)),
        field(5, b"") * 100_000,
        field(7, field(1, 2**63)) + field(5, bytes(64)),
    ]
    layers = [field(2, field(4, b"conv1_1") + field(6, blob) * 2) for blob in blobs]
    return [*layers, b"\x12" + varint(2**63), b"\x12" + varint(2**40), b"\xff" * 50]


def crafted_onnx(above: Path) -> list[bytes]:
    """Make initialisers that promise terabytes, and those that lie elsewhere."""

    def tensor(*parts: bytes) -> bytes:
        head = field(1, 8)  # the version by which a file is told
        return head + field(7, field(5, field(2, 1) + field(8, b"w") + b"".join(parts)))

    def outside(**said: str) -> bytes:
        pairs = [field(1, key.encode()) + field(2, value.encode()) for key, value in said.items()]
        return tensor(field(1, 1), field(14, 1), *(field(13, pair) for pair in pairs))

    (above / "secret").write_bytes(bytes(4))
    return [
        tensor(field(1, 2**62), field(1, 2**62), field(9, bytes(8))),
        *(outside(location=where) for where in ("../secret", "/etc/passwd", "a\0b", "", "..", "x")),
        outside(location="net.onnx", offset="-1", length="1"),
    ]


def saved(value: object, **options: Any) -> bytes:
    """Write what torch.save writes."""
    out = io.BytesIO()
    torch.save(value, out, **options)
    return out.getvalue()


def crafted_pth(folder: Path) -> list[bytes]:
    """Make pickles with code in them, and tensors that do not hold their numbers."""
    hostile = Hostile(folder)
    state = random_state("A", 1, narrow=False)
    wide = torch.zeros(1).expand(1 << 24, 25088)
    sparse = torch.sparse_coo_tensor(torch.zeros(2, 1).long(), torch.ones(1), (1 << 24, 25088))
    bias = torch.zeros(1).expand(1 << 24)
    dicts: list[object] = [{"fc6.weight": one, "fc6.bias": bias} for one in (wide, sparse)]
    dicts = [state | some for some in dicts if isinstance(some, dict)]
    dicts += [{"conv1_1.weight": hostile}, hostile, [hostile], {hostile: 1}, 5, None, {"model": []}]
    dicts += [{"conv1_1.weight": torch.zeros(1, device="meta"), "conv1_1.bias": torch.zeros(1)}]
    made = [saved(one, _use_new_zipfile_serialization=zipped) for one in dicts for zipped in (1, 0)]
    return [*made, pickle.dumps(hostile)]


def _keras_layer(file: h5py.File, layer: Any) -> None:
    name = f"block{layer.name[4]}_conv{layer.name[6]}"
    out, inputs, height, width = layer.shape
    file.create_dataset(f"{name}/kernel:0", (height, width, inputs, out), "f4")
    file.create_dataset(f"{name}/bias:0", (out,), "f4")


def crafted_h5(folder: Path) -> list[bytes]:
    """Make datasets of terabytes that hold nothing, and those whose numbers lie elsewhere."""
    made = []
    secret = folder / "secret.bin"
    secret.write_bytes(bytes(4 * 64 * 27))
    shapes = [(3, 3, 3, 64), (25088, 1 << 24)]
    for shape, options in (
        (shapes[1], {"chunks": (1024, 1024)}),
        (shapes[1], {"chunks": (1024, 1024), "compression": "gzip", "fillvalue": 1.0}),
        (shapes[0], {"external": [(str(secret), 0, h5py.h5f.UNLIMITED)]}),
    ):
        path = folder / "made.h5"
        with h5py.File(path, "w") as file:
            name = "block1_conv1" if shape == shapes[0] else "fc1"
            file.create_dataset(f"{name}/kernel:0", shape, "f4", **options)
            file.create_dataset(f"{name}/bias:0", shape[-1:], "f4")
            for layer in layers_of("A"):
                if layer.name == "conv1_1" and name == "fc1":
                    _keras_layer(file, layer)
        made.append(path.read_bytes())
    return made


def crafted_safetensors() -> list[bytes]:
    """Make headers that promise terabytes."""
    heads = [b"[" * 5000, b'{"conv1_1.weight":' * 5000]
    tensor = b'{"dtype":"F32","shape":%s,"data_offsets":[0,%d]}'
    heads.append(b'{"conv1_1.weight":' + tensor % (b"[1000000,1000000]", 4 * 10**12) + b"}")
    heads.append(b'{"conv1_1.weight":' + tensor % (b"[4294967296,4294967296]", 0) + b"}")
    heads.append(b'{"__metadata__":{"vggfeat":"1","pixels":"' + b"[" * 9000 + b'"}}')
    return [len(head).to_bytes(8, "little") + head for head in heads] + [b"\xff" * 7 + b"\x7f{"]


class Weights(Campaign):
    """Files of weights: no code of one runs, and of our own files no number is another.

    But for ``.mat``, which scipy reads.
    """

    name = "weights"
    cases = 8000
    tokens = TOKENS

    def prepare(self) -> Sequence[bytes]:
        warnings.simplefilter("ignore")  # torch's, of damaged pickles
        state, made = random_state("A", 1, narrow=False), []
        self.state = state
        ours = self.folder / "ours.safetensors"
        formats.write(ours, state, CAFFE, net="A", source="drawn", licence="none")
        made.append(ours.read_bytes())
        for name, writer in (WRITERS[kind] for kind in WRITERS if kind != "MatConvNet"):
            path = self.folder / name
            writer(path, state)
            made.append(path.read_bytes())
        return [*made, saved(state, _use_new_zipfile_serialization=False)]

    def crafted(self) -> Sequence[bytes]:
        made = [*crafted_caffe(), *crafted_onnx(self.folder.parent)]
        made += [*crafted_pth(self.folder), *crafted_h5(self.folder), *crafted_safetensors()]
        return [*made, b"", b"\0"]

    def attempt(self, case: bytes) -> None:
        path = self.folder / "net.onnx"
        path.write_bytes(case)
        raw = formats.read(path, "A")
        state = raw.take(raw.layers)
        if raw.metadata.get("source") == "drawn":  # with the checksums that we write
            for name, tensor in state.items():
                assert torch.equal(tensor, self.state[name]), f"{name} has other numbers"


CAMPAIGNS = (Weights,)
