"""What --quality stands for, with and without the authors' weights on this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from vggfeat.data.datasets import load_card
from vggfeat.errors import WeightsError
from vggfeat.experiments import quality as module
from vggfeat.experiments.quality import preset
from vggfeat.nets.config import layers_of
from vggfeat.nets.registry import Source, source_of
from vggfeat.recipes import open_svm_recipe
from vggfeat.settings import Features

ACTION = load_card("voc2012-action").defaults


def at_hand(monkeypatch: pytest.MonkeyPatch, *nets: str, damaged: str = "") -> None:
    """Make files of the authors' nets as good as verified; half a gigabyte each would be needed."""

    def cached(source: Source) -> Path | None:
        if source.net == damaged:
            raise WeightsError("not the published file")
        return Path("weights") if source.net in nets and source.name == "authors" else None

    monkeypatch.setattr(module, "cached", cached)


def test_best_is_the_papers_fusion_where_both_nets_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nets D and E of the authors, fc7, with the data set's scales, aggregation and views."""
    at_hand(monkeypatch, "D", "E")
    for name, scales, how in (
        ("voc2007", (256, 384, 512, 640, 768), "average"),
        ("caltech101", (256, 384, 512), "stack"),
    ):
        best = preset("best", load_card(name).defaults)
        assert (best.nets, best.weights, best.layers) == (("D", "E"), ("authors",), ("fc7",))
        assert (best.Q, best.aggregate, best.power) == (scales, how, None)
    assert preset("best", ACTION).views == ("image", "box")
    assert preset("best", Features()).Q == (256, 384, 512)


@pytest.mark.parametrize(("nets", "damaged"), [((), ""), (("D",), ""), (("E",), ""), (("D",), "E")])
def test_best_is_the_embedded_recipe_where_one_is_missing(
    nets: tuple[str, ...], damaged: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is downloaded, and a file that is not the published one stops nothing."""
    at_hand(monkeypatch, *nets, damaged=damaged)
    assert preset("best", Features()) == open_svm_recipe("embedded-best").features
    action = preset("best", ACTION)
    assert (action.weights, action.views) == (("embedded",), ("image", "box"))


def test_the_cache_is_what_is_looked_at(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty cache has neither; a file of the right name and the wrong bytes is none either."""
    monkeypatch.setenv("VGGFEAT_HOME", str(tmp_path))
    assert not module.authors_at_hand()
    (tmp_path / "weights").mkdir()
    for net in "DE":
        (tmp_path / "weights" / source_of("authors", net).files[0].name).write_bytes(b"not it")
    assert not module.authors_at_hand()


def test_fast_needs_no_file_and_less_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fast is embedded whatever is there, and sends fewer pixels through the net than best."""
    at_hand(monkeypatch, "D", "E")
    fast = preset("fast", ACTION)
    assert (fast.weights, fast.views) == (("embedded",), ("image", "box"))
    at_hand(monkeypatch)
    best = preset("best", Features())
    assert max(fast.Q) <= max(best.Q)
    assert sum(Q * Q for Q in fast.Q) < sum(Q * Q for Q in best.Q)


@pytest.mark.parametrize("name", ["embedded-best", "embedded-fast"])
def test_the_embedded_recipes_need_nothing_but_what_ships(name: str) -> None:
    """One net, D, its embedded weights, and layers up to pool5."""
    features = open_svm_recipe(name).features
    kinds = {layer.name: layer.kind for layer in layers_of("D")}
    assert (features.nets, features.weights) == (("D",), ("embedded",))
    assert all(kinds[layer] in ("conv", "pool") for layer in features.layers)
