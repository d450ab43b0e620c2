"""What training begins from, and the batch that suits so many images."""

from __future__ import annotations

from vggfeat.experiments.training import default_batch, net_of_init


def test_small_sets_have_small_batches() -> None:
    """An epoch has eight updates of multiples of eight images; the paper's batch is the most."""
    images = (10, 150, 2_000, 2_048, 1_281_167)
    assert [default_batch(n, 8) for n in images] == [8, 16, 248, 256, 256]


def test_the_net_of_what_training_begins_from() -> None:
    """What is drawn is of no net; a named source has weights of each."""
    nets = [net_of_init(init, "D", "train", ["glorot"]) for init in ("glorot", "embedded")]
    assert nets == [None, "D"]
