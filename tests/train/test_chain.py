"""Chains: in order, from the weights before, once, and never from something else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from helpers.colours import two_classes
from helpers.mistakes import refuses
from helpers.networks import SMALL, configured, formula_weights, write_weights
from helpers.seams import checkpoint_every
from helpers.training import OnProgress
from pydantic import ValidationError
from safetensors.torch import load_file

from vggfeat.errors import StoreError, WeightsError
from vggfeat.recipes.training import TrainingRecipe
from vggfeat.train.chain import Linked, train_chain
from vggfeat.train.checkpoint import LAST, read
from vggfeat.train.data import TrainSet, open_trainset
from vggfeat.train.init import Start, start
from vggfeat.train.loop import Engine, train

CPU = Engine(device="cpu", workers=0, minutes=0.0)
LINKS = ("a", "d", "d-fine")
CHAIN = TrainingRecipe(
    training={"S": 224, "batch": 4, "epochs": 2, "learning_rate": 0.05, "dropout": 0.0},
    links=[
        {"name": "a"},
        {"name": "d", "from": "a", "training": {"net": "D"}},
        {"name": "d-fine", "from": "d", "training": {"net": "D", "learning_rate": 0.01}},
    ],
)


@pytest.fixture(autouse=True, scope="module")
def _small() -> Iterator[None]:
    """Train nets A and D of few channels."""
    with configured(SMALL), checkpoint_every(1):
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TrainSet:
    return open_trainset(two_classes(tmp_path_factory.mktemp("images"), grainy=True))


def trained(
    data: TrainSet,
    out: Path,
    chain: TrainingRecipe = CHAIN,
    begin: Callable[..., Start] = start,
    **more: Any,
) -> list[Linked]:
    with mock.patch("vggfeat.train.loop.start", begin):
        return list(train_chain(chain, data, out, trainer=partial(train, engine=CPU, **more)))


@pytest.fixture(scope="module")
def once(data: TrainSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train the chain, for tests that only look at it."""
    out = tmp_path_factory.mktemp("once")
    trained(data, out)
    return out


@pytest.fixture
def there(once: Path, tmp_path: Path) -> Path:
    """Copy the trained chain, for a test that does something to it."""
    return Path(shutil.copytree(once, tmp_path / "runs"))


def test_each_link_begins_from_the_best_weights_of_the_one_it_names(
    data: TrainSet, tmp_path: Path
) -> None:
    """In order; the first from random numbers, each with its own settings."""
    seen = []

    def noted(net: str, **how: Any) -> Start:
        begun = start(net, **how)
        source = how["from_weights"]
        seen.append((net, source and source.net, source and source.origin))
        if source:
            assert len(begun.taken) == {"A": 7, "D": 16}[source.net]  # of D all
            expected, found = load_file(source.origin), begun.net.state_dict()
            for name in begun.taken:
                assert torch.equal(found[f"{name}.weight"], expected[f"{name}.weight"])
                assert torch.equal(found[f"{name}.bias"], expected[f"{name}.bias"])
        return begun

    done = trained(data, tmp_path, begin=noted)
    best = [str(tmp_path / name / "best.safetensors") for name in "ad"]
    assert seen == [("A", None, None), ("D", "A", best[0]), ("D", "D", best[1])]
    assert [(one.out, one.skipped) for one in done] == [(tmp_path / n, False) for n in LINKS]
    for link, rate in zip(done, (0.05, 0.05, 0.01), strict=True):
        assert [row["learning_rate"] for row in link.history] == [rate, rate]
        assert link.best["val_top1"] == max(row["val_top1"] for row in link.history)


def test_what_is_trained_is_not_trained_again(data: TrainSet, there: Path) -> None:
    """A chain begun twice, or one that shares its first links, leaves them as they are."""
    files = {path: path.stat().st_mtime_ns for path in there.rglob("*.safetensors")}
    again = trained(data, there, begin=mock.Mock(side_effect=AssertionError("a network was begun")))
    assert [one.skipped for one in again] == [True] * 3
    assert [one.history for one in again] == [read(there / n / LAST)[0].history for n in LINKS]
    assert {path: path.stat().st_mtime_ns for path in files} == files
    links = (CHAIN.links[0], CHAIN.links[1].model_copy(update={"name": "other"}))
    other = trained(data, there, CHAIN.model_copy(update={"links": links}))
    assert [one.skipped for one in other] == [True, False]


@pytest.mark.parametrize("stop_at", [1, 5, 10])
def test_an_interrupted_chain_ends_with_the_same_bits(
    data: TrainSet, once: Path, tmp_path: Path, stop_at: int
) -> None:
    """In the first, the second or the third link: those before are skipped, the rest go on."""
    stop = mock.Mock(side_effect=[None] * stop_at + [KeyboardInterrupt])
    with pytest.raises(KeyboardInterrupt):
        trained(data, tmp_path, monitor=OnProgress(stop))
    done = trained(data, tmp_path)
    assert sum(one.skipped for one in done) == stop_at // 4  # updates of a link
    for name in (f"{link}/{kind}.safetensors" for link in LINKS for kind in ("last", "best")):
        expected, found = load_file(once / name), load_file(tmp_path / name)
        assert all(torch.equal(expected[key], found[key]) for key in expected)


TWO = """
import sys
from functools import partial
from pathlib import Path
sys.path[:0] = sys.argv[3:]
from helpers.networks import SMALL, configured
from vggfeat.recipes.training import TrainingRecipe
from vggfeat.train.chain import train_chain
from vggfeat.train.data import open_trainset
from vggfeat.train.loop import Engine, train
chain = TrainingRecipe.model_validate_json(Path("chain.json").read_text())
trainer = partial(train, engine=Engine(device="cpu", workers=0))
with configured(SMALL):
    done = list(train_chain(chain, open_trainset(sys.argv[1]), Path(sys.argv[2]), trainer=trainer))
assert not any(one.skipped for one in done)
"""


@pytest.mark.slow  # test_loop compares two processes with one in every run
def test_two_processes_train_a_chain_as_one_does(once: Path, tmp_path: Path) -> None:
    """As torchrun starts them, they meet anew for every link; weights agree to rounding."""
    (tmp_path / "two.py").write_text(TWO)
    (tmp_path / "chain.json").write_text(CHAIN.model_dump_json(by_alias=True))
    root, tests = two_classes(tmp_path / "images", grainy=True), Path(__file__).parents[1]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command = [*torchrun, "--nproc-per-node", "2", "two.py", root, "runs", tests, tests.parent]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(command, cwd=tmp_path, env=env, timeout=120, check=True)
    for name in LINKS:
        found = load_file(tmp_path / "runs" / name / LAST)
        for key, value in load_file(once / name / LAST).items():
            torch.testing.assert_close(found[key], value)


def test_weights_that_changed_are_refused(data: TrainSet, there: Path) -> None:
    """A link that began from an A that is no longer there is not taken for trained; D is no A."""
    again, best = partial(trained, data, there), there / "a" / "best.safetensors"
    write_weights(best, formula_weights("A", num_classes=2))
    refuses(again, StoreError, ["weights"])
    shutil.copy(there / "d" / best.name, best)
    refuses(again, WeightsError, ["net A", "of D"])
    best.unlink()
    refuses(again, StoreError, ["a is trained", str(best)])


def test_another_chain_is_refused_by_name(data: TrainSet, there: Path, tmp_path: Path) -> None:
    """Other images, or a recipe that was changed, whether a link is trained or not."""
    others = open_trainset(two_classes(tmp_path / "images", each=4))
    refuses(lambda: trained(others, there), StoreError, ["data"])
    changed = CHAIN.model_copy(update={"training": {**CHAIN.training, "dropout": 0.3}})
    refuses(lambda: trained(data, there, changed), StoreError, ["dropout: 0.0 → 0.3"])


NET_D = {"name": "d", "training": {"net": "D"}}
E_FROM_D = {"name": "e", "from": "d", "training": {"net": "E"}}


@pytest.mark.parametrize(
    ("links", "names"),
    [
        ([], "links"),
        ([{"name": "../a"}], "links.0.name"),
        ([{"name": "a"}, {"name": "a"}], "'a'"),
        ([{"name": "a", "training": {"net": "F"}}], "'A', 'A-LRN'"),
        ([{"name": "a", "training": {"rate": 1}}], "rate"),
        ([NET_D, E_FROM_D], "e is net E, which cannot begin from net D"),
        ([{"name": "a", "paper": [129.6, 10.4]}], "paper"),
    ],
)
def test_what_could_not_be_trained_is_refused_at_once(links: list[Any], names: str) -> None:
    """Not after the weeks that the links before take."""
    with pytest.raises(ValidationError) as refused:
        TrainingRecipe(links=links)
    assert names in str(refused.value)
