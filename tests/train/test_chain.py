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
from vggfeat.recipes import TrainingRecipe
from vggfeat.train.chain import Linked, train_chain
from vggfeat.train.checkpoint import LAST, read
from vggfeat.train.data import TrainSet, open_trainset
from vggfeat.train.init import Start, start
from vggfeat.train.loop import Engine, train

CPU = Engine(device="cpu", workers=0, minutes=0.0)
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
    return open_trainset(two_classes(tmp_path_factory.mktemp("images")))


def trained(
    data: TrainSet,
    out: Path,
    chain: TrainingRecipe = CHAIN,
    begin: Callable[..., Start] = start,
    **more: Any,
) -> list[Linked]:
    trainer = partial(train, engine=CPU, **more)
    with mock.patch("vggfeat.train.loop.start", begin):
        return list(train_chain(chain, data, out, trainer=trainer))


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


def refusing(*_: object, **__: object) -> Start:
    raise AssertionError("a network was begun")


def test_each_link_begins_from_the_best_weights_of_the_one_it_names(
    data: TrainSet, tmp_path: Path
) -> None:
    """In order; the first from random numbers, each with its own settings."""
    seen = []

    def noted(net: str, **how: Any) -> Start:
        begun = start(net, **how)
        source = how["from_weights"]
        seen.append((net, source and (source.net, source.origin)))
        if source:
            expected = load_file(source.origin)
            shared = {"A": 7, "D": 16}[source.net]  # of A what both have, of D all
            assert len(begun.taken) == shared
            for name, value in begun.net.state_dict().items():
                if name.rpartition(".")[0] in begun.taken:
                    assert torch.equal(value, expected[name])
        return begun

    done = trained(data, tmp_path, begin=noted)
    assert seen == [
        ("A", None),
        ("D", ("A", str(tmp_path / "a" / "best.safetensors"))),
        ("D", ("D", str(tmp_path / "d" / "best.safetensors"))),
    ]
    assert [(one.run.name, one.out, one.skipped, len(one.history)) for one in done] == [
        (name, tmp_path / name, False, 2) for name in ("a", "d", "d-fine")
    ]
    assert [one.history[0]["learning_rate"] for one in done] == [0.05, 0.05, 0.01]
    assert [one.best["val_top1"] for one in done] == [
        max(row["val_top1"] for row in one.history) for one in done
    ]


def test_what_is_trained_is_not_trained_again(data: TrainSet, there: Path) -> None:
    """A chain begun twice, or one that shares its first links, leaves them as they are."""
    files = {path: path.stat().st_mtime_ns for path in there.rglob("*.safetensors")}
    again = trained(data, there, begin=refusing)
    assert [one.skipped for one in again] == [True] * 3
    assert [one.history for one in again] == [
        read(there / name / LAST)[0].history for name in ("a", "d", "d-fine")
    ]
    assert {path: path.stat().st_mtime_ns for path in files} == files
    other = CHAIN.model_copy(
        update={"links": (CHAIN.links[0], CHAIN.links[1].model_copy(update={"name": "other"}))}
    )
    assert [one.skipped for one in trained(data, there, other)] == [True, False]


@pytest.mark.parametrize("stop_at", [1, 5, 10])
def test_an_interrupted_chain_ends_with_the_same_bits(
    data: TrainSet, once: Path, tmp_path: Path, stop_at: int
) -> None:
    """In the first, the second or the third link: those before are skipped, the rest go on."""
    count = iter(range(100))

    def stop(_: object) -> None:
        if next(count) == stop_at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(data, tmp_path, monitor=OnProgress(stop))
    done = trained(data, tmp_path)
    assert sum(one.skipped for one in done) == stop_at // 4  # updates of a link
    for name in ("a", "d", "d-fine"):
        for kind in ("last", "best"):
            one, other = (load_file(out / name / f"{kind}.safetensors") for out in (once, tmp_path))
            assert all(torch.equal(one[key], other[key]) for key in one)


TWO = """
import sys
from functools import partial
from pathlib import Path
sys.path[:0] = sys.argv[3:]
from helpers.networks import SMALL, configured
from vggfeat.recipes import TrainingRecipe
from vggfeat.train.chain import train_chain
from vggfeat.train.loop import train
from vggfeat.train.data import open_trainset
from vggfeat.train.loop import Engine
chain = TrainingRecipe.model_validate_json(Path("chain.json").read_text())
trainer = partial(train, engine=Engine(device="cpu", workers=0))
with configured(SMALL):
    done = list(train_chain(chain, open_trainset(sys.argv[1]), Path(sys.argv[2]), trainer=trainer))
assert not any(one.skipped for one in done)
"""


@pytest.mark.slow  # test_loop compares two processes with one in every run
def test_two_processes_train_a_chain_as_one_does(
    data: TrainSet, once: Path, tmp_path: Path
) -> None:
    """As torchrun starts them, they meet anew for every link; weights agree to rounding."""
    (tmp_path / "two.py").write_text(TWO)
    (tmp_path / "chain.json").write_text(CHAIN.model_dump_json(by_alias=True))
    root = two_classes(tmp_path / "images")
    tests = Path(__file__).parents[1]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
    done = subprocess.run(
        [*command, "2", "two.py", root, "runs", tests, tests.parent],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    for name in ("a", "d", "d-fine"):
        expected, found = (load_file(at / name / LAST) for at in (once, tmp_path / "runs"))
        for key, value in expected.items():
            torch.testing.assert_close(found[key], value)


def test_other_images_are_refused(there: Path, tmp_path: Path) -> None:
    """A chain is of one data set, whether a link is trained or not."""
    others = open_trainset(two_classes(tmp_path / "images", each=4))
    with pytest.raises(StoreError, match="a run with other data"):
        trained(others, there)


def test_another_setting_is_refused_by_name(data: TrainSet, there: Path) -> None:
    """A recipe that was changed does not pass for the one that was trained."""
    changed = CHAIN.model_copy(update={"training": {**CHAIN.training, "dropout": 0.3}})
    with pytest.raises(StoreError, match=r"dropout: 0\.0 → 0\.3"):
        trained(data, there, changed)


def test_weights_that_changed_are_refused(data: TrainSet, there: Path) -> None:
    """A link that began from an A that is no longer there is not taken for trained; D is no A."""
    write_weights(there / "a" / "best.safetensors", formula_weights("A", num_classes=2))
    with pytest.raises(StoreError, match="a run with other weights"):
        trained(data, there)
    shutil.copy(there / "d" / "best.safetensors", there / "a")
    refuses(lambda: trained(data, there), WeightsError, mentions=("net A", "of D"))


def test_weights_that_are_gone_are_named(data: TrainSet, there: Path) -> None:
    """A trained link without its weights says what to do."""
    (there / "a" / "best.safetensors").unlink()
    with pytest.raises(StoreError, match=r"a is trained, but its weights, .* are gone"):
        trained(data, there)


@pytest.mark.parametrize(
    ("links", "said"),
    [
        ([], "links"),
        ([{"name": "../a"}], "links.0.name"),
        ([{"name": "a"}, {"name": "a"}], "two links are called 'a'"),
        ([{"name": "e", "from": "a"}, {"name": "a"}], "begins from 'a', which is no link before"),
        ([{"name": "a", "training": {"net": "F"}}], "must be one of 'A', 'A-LRN'"),
        ([{"name": "a", "training": {"rate": 1}}], "rate"),
        (
            [
                {"name": "d", "training": {"net": "D"}},
                {"name": "e", "from": "d", "training": {"net": "E"}},
            ],
            "e is net E, which cannot begin from net D",
        ),
        ([{"name": "a", "paper": [129.6, 10.4]}], "paper"),
    ],
)
def test_what_could_not_be_trained_is_refused_at_once(links: list[Any], said: str) -> None:
    """Not after the weeks that the links before take."""
    with pytest.raises(ValidationError) as refused:
        TrainingRecipe(links=links)
    assert said in str(refused.value)
