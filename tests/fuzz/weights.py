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
from vggfeat.nets.preprocessing import CAFFE

TOKENS = (b"\xff\xff\xff\xff\xff\xff\xff\x7f", b"\x80" * 10, b"conv1_1", b"\x0a\0", b"\x08\x01")
TOKENS += (b"PK\3\4", b"\x89HDF\r\n\x1a\n", b'"shape":[1000000000,1000000000]', b"\x12", b"\x3a")


def saved(value: object, **options: Any) -> bytes:
    """Write what torch.save writes."""
    out = io.BytesIO()
    torch.save(value, out, **options)
    return out.getvalue()


def crafted_pth(folder: Path) -> list[bytes]:
    """Make pickles with code in them."""
    hostile = Hostile(folder)
    dicts: list[object] = [
        {"conv1_1.weight": hostile},
        hostile,
        [hostile],
        {hostile: 1},
        {"model": []},
    ]
    made = [saved(one, _use_new_zipfile_serialization=zipped) for one in dicts for zipped in (1, 0)]
    return [*made, pickle.dumps(hostile)]


def crafted_h5(folder: Path) -> bytes:
    """Make a dataset whose numbers lie in another file."""
    (folder / "secret.bin").write_bytes(bytes(4 * 64 * 27))
    path, external = folder / "made.h5", [(str(folder / "secret.bin"), 0, h5py.h5f.UNLIMITED)]
    with h5py.File(path, "w") as file:
        file.create_dataset("block1_conv1/kernel:0", (3, 3, 3, 64), "f4", external=external)
        file.create_dataset("block1_conv1/bias:0", (64,), "f4")
    return path.read_bytes()


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
        return [*crafted_pth(self.folder), crafted_h5(self.folder), b"", b"\0"]

    def attempt(self, case: bytes) -> None:
        path = self.folder / "net.onnx"
        path.write_bytes(case)
        raw = formats.read(path, "A")
        state = raw.take(raw.layers)
        if raw.metadata.get("source") == "drawn":  # with the checksums that we write
            for name, tensor in state.items():
                assert torch.equal(tensor, self.state[name]), f"{name} has other numbers"


CAMPAIGNS = (Weights,)
