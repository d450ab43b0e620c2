"""``vggfeat classify`` with a whole net A, in a process of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers.cli import run_process
from helpers.colours import paint
from helpers.networks import PIXELS

from vggfeat.nets.formats import write
from vggfeat.nets.weights import Weights


@pytest.mark.slow
def test_a_trained_file_is_all_it_needs(whole_net: Weights, tmp_path: Path) -> None:
    """From a file of net A alone: its net, its classes, its pixels."""
    state = whole_net.state | {
        "fc8.weight": torch.zeros(2, 4096),
        "fc8.bias": torch.tensor([0.0, 1.0]),
    }
    about = {"classes": '["cat", "dog"]'}
    path = tmp_path / "best.safetensors"
    write(path, state, PIXELS, net="A", source="formula", licence="none", about=about)
    paint(tmp_path / "p" / "a.png", "red")
    words = ["classify", "p", "--weights", path, "--Q", "224", "--mode", "both", "--grid", "1"]
    done = run_process(*words, "--json", cwd=tmp_path)
    [image] = done.json["images"]
    assert [one["class"] for one in image["classes"]] == ["dog", "cat"]
    expected = torch.tensor([0.0, 1.0]).softmax(0)[1].item()
    assert image["classes"][0]["probability"] == pytest.approx(expected, abs=1e-4)
    assert "Net A, fc8" in done.err
