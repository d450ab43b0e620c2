"""How a net is tested (Section 3.2): by which poolings of fc8, at which scales; and its scores.

Each pooling is a column of a store, so that to average two modes computes only what neither has
computed before.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import get_args

from vggfeat._io.assets import home
from vggfeat.classification.classes import classes_of
from vggfeat.classification.scores import Scores
from vggfeat.data.imageset import ImageSet
from vggfeat.data.partition import WHOLE, Partition
from vggfeat.features.extractor import DenseExtractor
from vggfeat.features.pipeline import extract
from vggfeat.features.summary import Progress, Summary
from vggfeat.nets.weights import Weights
from vggfeat.settings import Mode, NetEvaluation
from vggfeat.store.store import FeatureStore
from vggfeat.train.augment import SIDE

JITTERED = (256, 512)
"""The range of S of the authors' nets, which stands for an S that is not known."""


def find_pools(evaluation: NetEvaluation) -> tuple[str, ...]:
    """Name the poolings of fc8 that are averaged.

    The network runs over the whole image, over a grid of crops, or both are averaged (Table 5); of
    the dense map class scores are averaged over locations, as the paper has it, or posteriors.

    Examples
    --------
    >>> find_pools(NetEvaluation(mode="both")), find_pools(NetEvaluation(mode="multicrop", grid=3))
    (('softmax', 'crops5'), ('crops3',))
    """
    dense = "softmax" if evaluation.locations == "scores" else "posteriors"
    crops = f"crops{evaluation.grid}"
    pools = {"dense": (dense,), "multicrop": (crops,), "both": (dense, crops)}
    return pools[evaluation.mode]


def find_mode(pools: Sequence[str]) -> str:
    """Name the paper's mode of evaluation that averages these poolings; empty if none does.

    Examples
    --------
    >>> find_mode(("softmax", "crops5")), find_mode(("posteriors",))
    ('both', '')
    """
    for mode in get_args(Mode):
        if set(find_pools(NetEvaluation(mode=mode))) == set(pools):
            return str(mode)
    return ""


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


def default_store(extractor: DenseExtractor) -> Path:
    """Folder below the cache in which the scores of a net are kept, of whatever images."""
    return home() / "scores" / extractor.cache_key


def score(
    images: ImageSet,
    extractor: DenseExtractor,
    scales: Sequence[int],
    folder: Path | None = None,
    *,
    shard: Partition = WHOLE,
    progress: Progress | None = None,
    extract: Callable[..., Summary] = extract,
) -> tuple[list[Scores], Summary]:
    """Run a net over images, and keep their posteriors; what a store has is not computed again.

    Parameters
    ----------
    images : ImageSet
    extractor : DenseExtractor
        Of fc8, with poolings as from :func:`find_pools`.
    scales : sequence of int
        Test scales Q.
    folder : Path, optional
        The store; by default one below the cache.
    shard : Partition
        Which share of the images to do. Several processes or machines can do one each, into the
        same folder; the whole is then put together by a last run, which finds all of it there.
    progress : callable, optional
        Is told how it goes on.
    extract : callable
        What computes, as :func:`~vggfeat.features.pipeline.extract` does; with what is done with
        bad images, and how many decode.

    Returns
    -------
    scores, summary
        Of each pooling its scores, and what was done in all.

    Raises
    ------
    WeightsError
        If nothing says what the outputs of the net are called.
    """
    images = images if shard == WHOLE else images.take(shard.rows(len(images)))
    outputs = classes_of(extractor.weights).keys
    store = FeatureStore(folder or default_store(extractor), "a")
    summary = extract(
        images,
        extractor,
        scales,
        store,
        outputs=outputs,
        share=shard.share,
        progress=progress,
    )
    net, names = extractor.extraction.net, tuple(images.names)
    pools = extractor.extraction.pools
    return [Scores(store, net, (pool,), tuple(scales), names) for pool in pools], summary
