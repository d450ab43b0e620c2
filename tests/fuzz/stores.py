"""Feature stores, packed files, models and checkpoints that a stranger made."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from safetensors.numpy import save
from storing import FC7 as ONE
from storing import NAMES, fill, ids_of, make_store
from torch import nn

from fuzz.campaign import Campaign, Hostile
from fuzz.mutation import mutated
from vggfeat._io.checksums import append_checksum, strip_checksum
from vggfeat.errors import VggfeatError
from vggfeat.experiments.predict import aggregation_of
from vggfeat.store import store as store_module
from vggfeat.store.export import pack
from vggfeat.store.maintenance import info, repair, verify
from vggfeat.store.store import FeatureStore
from vggfeat.svm import model as models
from vggfeat.train import checkpoint

FILE = ONE.descriptor.file
VALUES = (None, -1, 0, 2**70, 1e308, "", "x", [], {}, [[]], {"a": 1}, True, "é\u202e\0\n", [None])


def altered(dice: random.Random, text: str) -> str:
    """Put a value of another kind somewhere into JSON, or take something out of it."""
    whole = json.loads(text)
    at, key = None, None
    now: Any = whole
    while isinstance(now, (dict, list)) and len(now) and (at is None or dice.random() < 0.8):
        at = now
        key = dice.choice(list(now) if isinstance(now, dict) else range(len(now)))
        now = now[key]
    if dice.random() < 0.2:
        del at[key]
    else:
        at[key] = dice.choice(VALUES)
    return json.dumps(whole)


def hostile_hdf5(shard: bytes, folder: Path) -> Iterator[bytes]:
    """Put arrays that lie elsewhere, or hold what no store does, into a shard of four images."""
    at, shape = ONE.descriptor.path, (4, 5)
    secret, other, path = (folder / name for name in ("secret.bin", "other.h5", "made.h5"))
    secret.write_bytes(bytes(4 * 4 * 5))
    with h5py.File(other, "w") as file:
        file["x"], file["names"] = np.zeros(shape, "f4"), np.array([b"a", b"b", b"c", b"d"])
    layout = h5py.VirtualLayout(shape, "f4")
    layout[:] = h5py.VirtualSource(str(other), "x", shape)
    external = [(str(secret), 0, 80)]
    ways: tuple[tuple[str, Callable[[h5py.File], object]], ...] = (
        (at, lambda file: file.create_dataset(at, shape, "f4", external=external)),
        (at, lambda file: file.create_virtual_dataset(at, layout)),
        (at, lambda file: file.update({at: h5py.ExternalLink(str(other), "x")})),
        (at, lambda file: file.create_dataset(at, data=np.full(shape, np.nan, "f4"))),
        ("names", lambda file: file.update({"names": h5py.ExternalLink(str(other), "names")})),
        ("names", lambda file: file.create_dataset("names", data=[b"a"] * 4)),
        ("id", lambda file: file.create_dataset("id", data=np.full((4, 2), np.nan))),
    )
    for place, put in ways:
        path.write_bytes(shard)
        with h5py.File(path, "r+", libver=("v108", "v110")) as file:
            told = dict(file[at].attrs)
            del file[place]
            put(file)
            if place == at and file.get(at, getlink=True).__class__ is h5py.HardLink:
                file[at].attrs.update(told)
            file.attrs["sealed"] = True
        yield path.read_bytes()


def hostile_npz(folder: Path) -> bytes:
    """Make a cache with a pickle in it."""
    out = io.BytesIO()
    np.savez(out, kinds=np.array([Hostile(folder)], object), allow_pickle=True)
    return out.getvalue()


class Stores(Campaign):
    """A store of which one file is a stranger's, opened, read, verified and repaired.

    Files that have a checksum are tried with the right one: whoever made them knows how.
    """

    name = "stores"
    cases = 8000
    allowed = ("os.link",)  # with which a store's manifest gets its name

    def prepare(self) -> Sequence[bytes]:
        store_module.INDEXED = 2  # so that this small store has an index.npz as large ones have
        self.good, self.store = self.folder / "good", self.folder / "store"
        store = make_store(self.good, [ONE], NAMES, failed={NAMES[11]: "truncated"}, size=4)
        store.note(NAMES[:2], ids_of(NAMES[:2]), np.ones((2, 2), np.int64))
        store.save_notes()
        pack(self.good, self.folder / "packed.h5")
        paths = [path for path in sorted(self.good.rglob("*")) if path.is_file()]
        self.files = {str(path.relative_to(self.good)): path.read_bytes() for path in paths}
        self.files["packed.h5"] = (self.folder / "packed.h5").read_bytes()
        [self.stamps] = (name for name in self.files if name.startswith("stamps-"))
        assert {"index.npz", FILE} < set(self.files), sorted(self.files)
        return list(self.files.values())

    def crafted(self) -> Sequence[tuple[str, bytes]]:
        shard = next(content for name, content in self.files.items() if name.startswith("shards"))
        made = list(hostile_hdf5(shard, self.folder))
        found = [(name, one) for one in made for name in ("shards/x.h5", "packed.h5")]
        found += [(name, hostile_npz(self.folder)) for name in ("index.npz", self.stamps)]
        for one in (b"5", b"[]", b"{}", b"\xff", b"null"):
            found += [(name, one) for name in ("manifest.json", "failed.csv", "run.json", FILE)]
        return [*found, ("failed.csv", b"a,b\n1,2\n")]

    def drawn(self, dice: random.Random) -> tuple[str, bytes]:
        name = dice.choice(sorted(self.files))
        content = self.files[name]
        if name.endswith(".json") and dice.random() < 0.7:
            return name, altered(dice, content.decode()).encode()
        if name.startswith("shards") and dice.random() < 0.5:
            return "shards/x.h5", mutated(dice, [content])
        return name, mutated(dice, [content])

    def attempt(self, case: tuple[str, bytes]) -> None:
        name, content = case
        shutil.rmtree(self.store, ignore_errors=True)
        if name == "packed.h5":
            target = self.folder / "stranger.h5"
            target.write_bytes(append_checksum(content))
        else:
            target = self.store
            shutil.copytree(self.good, target, copy_function=os.link)
            if name == "shards/x.h5":
                name = f"shards/{hashlib.sha256(content).hexdigest()}.h5"
            if name.endswith((".npz", "features.h5")):
                content = append_checksum(content)
            (target / name).unlink(missing_ok=True)
            (target / name).write_bytes(content)
        refused: list[VggfeatError] = []
        for use in (self._read, verify, info, self._written, self._repaired):
            try:
                use(target)
            except VggfeatError as error:
                refused.append(error)
        if refused:
            raise refused[0]

    def _read(self, target: Path) -> None:
        for verified in (False, True):
            for values in FeatureStore(target).read(verify=verified).values():
                assert values.shape[1:] == (5,), values.shape

    def _written(self, target: Path) -> None:
        if target.is_dir():
            fill(FeatureStore(target, "a"), [ONE], NAMES[:1])

    def _repaired(self, target: Path) -> None:
        if target.is_dir() and not repair(target).left:
            problems = verify(target)
            assert problems == [], problems


class Models(Campaign):
    """SVM models and checkpoints: damaged, or made with a right checksum and wrong contents."""

    name = "models"
    cases = 20_000

    def prepare(self) -> Sequence[bytes]:
        saved = models.SavedModel(
            *(np.ones((2, 3)), np.zeros(2), ("cat", "dog"), (1.0,), (ONE,), ("embedded",)),
            {"how": "average", "normalize": "descriptor", "power": None},
        )
        self.arrays = {name: getattr(saved, name) for name in ("coef", "intercept")}
        path = models.save(self.folder / "model", saved)
        content = path.read_bytes()
        length = int.from_bytes(content[:8], "little")
        told = json.loads(content[8 : 8 + length])["__metadata__"]["vggfeat"]
        self.text = strip_checksum(told.encode()).decode()
        net = nn.Linear(3, 2)
        last = self.folder / "last.safetensors"
        optimiser = torch.optim.SGD(net.parameters(), 0.1, 0.9)
        checkpoint.save(last, net, optimiser, checkpoint.Position(), {"settings": {}})
        head = last.read_bytes()
        length = int.from_bytes(head[:8], "little")
        told = json.loads(head[8 : 8 + length])["__metadata__"]["vggfeat training"]
        self.position = strip_checksum(told.encode()).decode()
        return [content, head]

    def crafted(self) -> Sequence[bytes]:
        path = self.folder / "pickle.pth"
        torch.save(Hostile(self.folder), path)
        return [path.read_bytes(), self._signed("[]"), b"\xff" * 8, b""]

    def drawn(self, dice: random.Random) -> bytes:
        how = dice.random()
        if how < 0.4:
            return self._signed(altered(dice, self.text))
        if how < 0.6:
            told = append_checksum(altered(dice, self.position).encode()).decode()
            tensors = {"net.weight": np.ones((2, 3), "f4"), "net.bias": np.ones(2, "f4")}
            return save(tensors, metadata={"vggfeat training": told})
        return super().drawn(dice)

    def _signed(self, text: str) -> bytes:
        return save(self.arrays, {"vggfeat": append_checksum(text.encode()).decode()})

    def attempt(self, case: bytes) -> None:
        path = self.folder / "case.safetensors"
        path.write_bytes(case)
        refused: list[VggfeatError] = []
        for use in (self._model, self._checkpoint):
            try:
                use(path)
            except VggfeatError as error:
                refused.append(error)
        assert refused, "it was taken for a model and for a checkpoint"
        raise refused[0]

    def _model(self, path: Path) -> None:
        found = models.load(path)
        aggregation_of(found)
        assert found.scores(np.zeros((1, found.coef.shape[1]))).shape == (1, len(found.classes))

    def _checkpoint(self, path: Path) -> None:
        position, told = checkpoint.read(path)
        assert isinstance(told, dict), told
        assert position.epoch + position.step >= 0
        net = nn.Linear(3, 2)
        checkpoint.restore(path, net, torch.optim.SGD(net.parameters(), 0.1, 0.9))


CAMPAIGNS = (Stores, Models)
