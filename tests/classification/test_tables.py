"""Which of the paper's figures stand beside which nets."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import pytest
from storing import make_store

from vggfeat.classification.tables import keeping_one
from vggfeat.cli import errors
from vggfeat.cli.working import Work
from vggfeat.nets import runtimes
from vggfeat.recipes import Evaluated, published
from vggfeat.settings import Execution
from vggfeat.store.column import Column, Descriptor

THREE = (256, 384, 512)


def rows(*tested: Evaluated, mode: str = "dense") -> list[tuple[str, bool]]:
    """Name the lines of the paper, and whether they have a difference."""
    return [(line.row, not line.unlike) for line in published(tested, mode)]


@pytest.mark.parametrize(
    ("tested", "expected"),
    [
        # The authors' D was trained at jittered S, which the paper tests at 384, not at 256.
        (Evaluated("D", (256,), source="authors"), []),
        (Evaluated("D", (384,), source="authors"), [("D, S = [256; 512]", True)]),
        (Evaluated("D", (256,), S=256, source="mine"), [("D, S = 256", True)]),
        (Evaluated("D", (384,), S=256), []),
        (Evaluated("D", (384,), S=(256, 512)), [("D, S = [256; 512]", True)]),
        # Nothing says how torchvision's nets compare: the paper's lines, without a difference.
        (
            Evaluated("D", (384,), source="torchvision"),
            [("D, S = 384", False), ("D, S = [256; 512]", False)],
        ),
        (Evaluated("D", (384, 256, 512), source="authors"), [("D, S = [256; 512]", True)]),
        (Evaluated("fused", (0,)), []),
    ],
)
def test_a_line_is_of_the_same_training_scale(
    tested: Evaluated, expected: list[tuple[str, bool]]
) -> None:
    """The scale that weights were trained at decides, where it is known."""
    assert rows(tested) == expected


def test_seven_nets_are_the_submission_each_at_its_own_scales() -> None:
    """Table 6's first line, in any order, whether or not all training scales are known."""
    seven = [
        Evaluated("D", THREE, (256, 512)),
        Evaluated("E", (352, 384, 416), 384),
        Evaluated("C", (224, 256, 288), 256),
        Evaluated("D", (224, 256, 288), 256),
        Evaluated("E", (224, 256, 288), 256),
        Evaluated("D", (352, 384, 416), 384),
        Evaluated("C", (352, 384, 416), 384),
    ]
    [line] = published(seven, "dense")
    assert line.paper == (24.7, 7.5)
    assert not line.unlike
    unsure = [one._replace(S=None) if one.S == 256 else one for one in seven]
    [line] = published(unsure, "dense")
    assert line.paper == (24.7, 7.5)
    assert line.unlike == "the training scale S of net C is not known"
    assert not rows(*seven[1:])
    assert not rows(seven[0]._replace(S=384), *seven[1:])


def test_two_nets_with_one_known_scale() -> None:
    """E & D of jittered S: not with an E that is known to be of another."""
    D, E = Evaluated("D", THREE, source="authors"), Evaluated("E", THREE)
    assert rows(D, E, mode="both") == [("D & E, multi-crop & dense", False)]
    assert rows(D, E._replace(S=(256, 512)), mode="both") == [("D & E, multi-crop & dense", True)]
    assert rows(D, E._replace(S=384), mode="both") == []


def test_a_network_is_opened_once_while_it_is_asked_for() -> None:
    """Rows of the same net and mode have the same network; another takes its place."""
    opened: list[tuple[object, ...]] = []

    def open_net(*asked: object) -> object:
        opened.append(asked)
        return object()

    opener = keeping_one(open_net)
    first = opener("D", "authors", "softmax", None)
    assert opener("D", "authors", "softmax", None) is first
    opener("D", "authors", "crops5", None)
    assert opener("D", "authors", "softmax", None) is not first
    assert [pool for _, _, pool, _ in opened] == ["softmax", "crops5", "softmax"]


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
        opener = errors.opener(Work(Execution(device="cpu"), quiet=True))
        precision = {
            folder: opener("A", "authors", "softmax", tmp_path / folder).extraction.precision
            for folder in ("kept", "new")
        }
    assert precision == {"kept": "fp32", "new": "bf16"}
