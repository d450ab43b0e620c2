"""Which of the paper's figures stand beside which nets."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import pytest
from storing import make_store

from vggfeat.classification.evaluate import EvaluatedNet, find_published
from vggfeat.classification.tables import keeping_last
from vggfeat.cli.ilsvrc import open_one
from vggfeat.cli.working import Work
from vggfeat.nets import runtimes
from vggfeat.settings import Execution
from vggfeat.store.column import Column, Descriptor

THREE = (256, 384, 512)


def rows(*tested: EvaluatedNet, mode: str = "dense") -> list[str]:
    """Name the paper's lines of these nets."""
    return [line.partition(": ")[2] for line in find_published(tested, mode)]


@pytest.mark.parametrize(
    ("tested", "expected"),
    [
        # The authors' D was trained at jittered S, which the paper tests at 384, not at 256.
        (EvaluatedNet("D", (256,), source="authors"), []),
        (EvaluatedNet("D", (384,), source="authors"), ["D, S = [256; 512]"]),
        (EvaluatedNet("D", (256,), S=256, source="mine"), ["D, S = 256"]),
        (EvaluatedNet("D", (384,), S=256), []),
        (EvaluatedNet("D", (384,), S=(256, 512)), ["D, S = [256; 512]"]),
        (EvaluatedNet("D", (384,), source="torchvision"), []),  # whose S nobody tells
        (EvaluatedNet("D", (384, 256, 512), source="authors"), ["D, S = [256; 512]"]),
        (EvaluatedNet("fused", (0,)), []),
    ],
)
def test_a_line_is_of_the_same_training_scale(tested: EvaluatedNet, expected: list[str]) -> None:
    """The scale that weights were trained at decides; where it is not known nothing compares."""
    assert rows(tested) == expected


def test_seven_nets_are_the_submission_each_at_its_own_scales() -> None:
    """Table 6's first line, in any order, where all training scales are known and the same."""
    seven = [
        EvaluatedNet("D", THREE, (256, 512)),
        EvaluatedNet("E", (352, 384, 416), 384),
        EvaluatedNet("C", (224, 256, 288), 256),
        EvaluatedNet("D", (224, 256, 288), 256),
        EvaluatedNet("E", (224, 256, 288), 256),
        EvaluatedNet("D", (352, 384, 416), 384),
        EvaluatedNet("C", (352, 384, 416), 384),
    ]
    [errors] = find_published(seven, "dense").values()
    assert errors == (24.7, 7.5)
    assert not rows(*[net._replace(S=None) if net.S == 256 else net for net in seven])
    assert not rows(*seven[1:])
    assert not rows(seven[0]._replace(S=384), *seven[1:])


def test_two_nets_with_one_known_scale() -> None:
    """E & D of jittered S: not with an E of another, or of one that nobody tells."""
    D, E = EvaluatedNet("D", THREE, source="authors"), EvaluatedNet("E", THREE, (256, 512))
    assert rows(D, E, mode="both") == ["D & E, multi-crop & dense"]
    assert rows(D, E._replace(S=384), mode="both") == rows(D, E._replace(S=None)) == []


def test_a_network_is_opened_once_while_it_is_asked_for() -> None:
    """Rows of the same net and mode have the same network; another takes its place."""
    open_net = mock.Mock(side_effect=lambda *_: object())
    opener = keeping_last(open_net)
    pools = ("softmax", "softmax", "crops5", "softmax")
    first, again, _, other = (opener("D", "authors", pool, None) for pool in pools)
    assert first is again is not other
    assert [call.args[2] for call in open_net.call_args_list] == ["softmax", "crops5", "softmax"]


def test_a_network_has_the_precision_of_the_store_that_it_is_for(tmp_path: Path) -> None:
    """On a machine that computes in bf16 too, scores that are kept in fp32 go on in fp32."""
    name = Descriptor("A", "fc8", "softmax", 256)
    made = Column(name, {"weights": "A", "precision": "fp32"}, 5)
    make_store(tmp_path / "kept", [made], ["a.png"])
    open_ = mock.Mock(side_effect=lambda extraction: mock.Mock(extraction=extraction))
    with (
        mock.patch.object(runtimes, "has_bf16", return_value=True),
        mock.patch.object(Work, "_open", lambda self, extraction: open_(extraction)),
    ):
        opener = open_one(Work(Execution(device="cpu"), quiet=True))
        precision = {
            folder: opener("A", "authors", "softmax", tmp_path / folder).extraction.precision
            for folder in ("kept", "new")
        }
    assert precision == {"kept": "fp32", "new": "bf16"}
