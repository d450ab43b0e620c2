"""At which scales a net is tested (Section 3.2)."""

from __future__ import annotations

import json

from vggfeat.nets.weights import Weights
from vggfeat.train.augment import SIDE

JITTERED = (256, 512)
"""The range of S of the authors' nets, which stands for an S that is not known."""


def find_test_scales(weights: Weights, *, multi_scale: bool = False) -> tuple[int, ...]:
    """Find the test scales Q of a net by the training scale S that its weights tell.

    Parameters
    ----------
    weights : Weights
    multi_scale : bool
        Whether a net of a fixed S is tested at S − 32, S and S + 32; at Q = S otherwise. One of
        jittered S is always tested at both ends of its range and in the middle.

    Examples
    --------
    >>> from vggfeat.nets.preprocessing import CAFFE
    >>> fixed = Weights("D", {}, CAFFE, "", "", about={"S": "256"})
    >>> find_test_scales(fixed), find_test_scales(fixed, multi_scale=True)
    ((256,), (224, 256, 288))
    >>> find_test_scales(Weights("D", {}, CAFFE, "", "", about={"S": "[256, 512]"}))
    (256, 384, 512)
    """
    S = json.loads(weights.about.get("S", json.dumps(JITTERED)))
    if isinstance(S, list):
        return S[0], sum(S) // 2, S[1]
    # A network sees 224 pixels at once: a smaller image has no class scores.
    return tuple(Q for Q in (S - 32, S, S + 32) if Q >= SIDE) if multi_scale else (S,)
