"""Models on disk: the same decisions, whole or not at all, and damage told from difference."""

from __future__ import annotations

import dataclasses
from functools import partial

import numpy as np
import pytest
from helpers.mistakes import refuses
from safetensors import safe_open
from safetensors.numpy import save_file

from vggfeat.errors import DataError, DataNotFound, StoreDamaged, StoreError
from vggfeat.store.column import Column, Descriptor
from vggfeat.svm.model import SavedModel, load, save


@pytest.fixture
def model():
    rng = np.random.default_rng(0)
    return SavedModel(
        coef=rng.normal(size=(3, 5)),
        intercept=rng.normal(size=3),
        classes=("bird", "boat", "<b>ug\n"),
        C=(0.5,),
        columns=tuple(
            Column(
                Descriptor("D", "fc8", "softmax", Q), {"flip": True}, 5, tuple("abcde"), (256, 512)
            )
            for Q in (256, 384)
        ),
        origins=("embedded",),
        aggregation={"how": "average", "power": None},
    )


@pytest.mark.parametrize("name", ["model", "model.safetensors", "model.v2"])
def test_a_model_comes_back_as_it_was(tmp_path, model, name):
    """Every field, and every decision to the last bit, survive; the suffix may be left out."""
    path = save(tmp_path / "new" / name, model)
    assert path.suffix == ".safetensors"
    back = load(tmp_path / "new" / name)
    X = np.random.default_rng(1).normal(size=(4, 5))
    np.testing.assert_array_equal(back.scores(X), model.scores(X))
    np.testing.assert_array_equal(back.scores(X), X @ model.coef.T + model.intercept)
    for field in dataclasses.fields(model):
        if field.name not in ("coef", "intercept"):
            assert getattr(back, field.name) == getattr(model, field.name), field.name
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_the_file_is_plain_safetensors(tmp_path, model):
    """The library reads weights and one text in the header; equal models are equal files."""
    path = save(tmp_path / "model", model)
    with safe_open(path, "numpy") as file:
        np.testing.assert_array_equal(file.get_tensor("coef"), model.coef)
        assert list(file.metadata()) == ["vggfeat"]
    assert path.read_bytes() == save(tmp_path / "again", model).read_bytes()


def test_every_flipped_bit_and_every_cut_is_noticed(tmp_path, model):
    """No single flipped bit (one of each byte) and no truncation loads without an error."""
    path = save(tmp_path / "model", model)
    whole = path.read_bytes()
    for position in range(len(whole)):
        flipped = bytearray(whole)
        flipped[position] ^= 1 << position % 8
        path.write_bytes(flipped)
        with pytest.raises(StoreError):
            load(path)
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(StoreError):
            load(path)


def test_changed_weights_are_called_damage(tmp_path, model):
    path = save(tmp_path / "model", model)
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    refuses(lambda: load(path), StoreDamaged, ["checksum", "train it again"])


def test_foreign_and_missing_files_are_refused(tmp_path, model):
    (tmp_path / "text.safetensors").write_text("not a model at all, but long enough")
    save_file({"coef": np.zeros(3)}, tmp_path / "other.safetensors")
    save(tmp_path / "newer", dataclasses.replace(model, format=4))
    for name, kind, named in (
        ("text", StoreError, ["not a model"]),
        ("other", StoreError, ["not a model"]),
        ("newer", StoreError, ["format 4", "format 3"]),
        ("absent", DataNotFound, []),
    ):
        refuses(partial(load, tmp_path / name), kind, [name, *named])


def test_other_dimensions_are_refused_with_both_shapes(model):
    refuses(lambda: model.scores(np.zeros((2, 4))), DataError, ["(N, 5)", "(2, 4)"])
