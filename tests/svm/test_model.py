"""Models on disk: the same decisions, whole or not at all, and damage told from difference."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
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
    """The safetensors library itself reads the weights and finds one text in the header."""
    path = save(tmp_path / "model", model)
    with safe_open(path, "numpy") as file:
        np.testing.assert_array_equal(file.get_tensor("coef"), model.coef)
        assert list(file.metadata()) == ["vggfeat"]


def test_equal_models_are_equal_files(tmp_path, model):
    """Writing twice gives the same bytes."""
    one, two = save(tmp_path / "one", model), save(tmp_path / "two", model)
    assert one.read_bytes() == two.read_bytes()


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
    """A flipped bit among the weights is told as damage, with what to do."""
    path = save(tmp_path / "model", model)
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(StoreDamaged, match=r"checksum does not match.*train it again"):
        load(path)


def test_foreign_and_missing_files_are_refused(tmp_path, model):
    """A text, another safetensors file, a newer format and no file at all each get their error."""
    (tmp_path / "text.safetensors").write_text("not a model at all, but long enough")
    save_file({"coef": np.zeros(3)}, tmp_path / "other.safetensors")
    for name in ("text", "other"):
        with pytest.raises(StoreError, match="is not a model of vggfeat"):
            load(tmp_path / name)
    save(tmp_path / "newer", dataclasses.replace(model, format=4))
    with pytest.raises(StoreError, match="has format 4; this vggfeat reads format 3"):
        load(tmp_path / "newer")
    with pytest.raises(DataNotFound, match="There is no model"):
        load(tmp_path / "absent")


def test_other_dimensions_are_refused(model):
    """Descriptors of another length are refused with both shapes."""
    with pytest.raises(DataError, match=r"shape \(N, 5\). Got \(2, 4\)"):
        model.scores(np.zeros((2, 4)))
