"""The part of `golden.adapter` for training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from helpers.training import OnProgress

from golden.adapter.svm import base_name

Array = np.ndarray


class Training:
    """A tiny network that learns two classes: the settings, the set, and where runs lie.

    Parameters
    ----------
    images : Path
        Folder of class folders.
    make : callable
        Makes the network (a torch module) that every run begins with.
    settings
        Of the run, by their names.
    """

    def __init__(self, images: Path, make: Callable[[int], Any], **settings: Any) -> None:
        from vggfeat.settings import Training
        from vggfeat.train.data import open_trainset

        self.settings = Training(net="A", **settings)
        self.data = open_trainset(images, val_fraction=0.25, seed=self.settings.seed)
        self.make = make

    def run(self, out: Path, *, stop_after: int = 0, resume: bool = False) -> list[dict[str, Any]]:
        """Train, or stop after so many updates; return what each epoch came to."""
        from vggfeat.train.init import Start
        from vggfeat.train.loop import Engine, train

        def begin(net: str, *, num_classes: int, **_: Any) -> Start:
            return Start(self.make(num_classes), (), ())

        seen: list[Any] = []

        def progress(told: Any) -> None:
            seen.append(told)
            if len(seen) == stop_after:
                raise KeyboardInterrupt

        engine = Engine(device="cpu", workers=0, minutes=0.0)
        with (
            mock.patch("vggfeat.train.loop.start", begin),
            mock.patch("vggfeat.train.loop.CHECK", 1),
            mock.patch("vggfeat.train.loop.write_best"),
        ):
            try:
                done = train(
                    self.settings, self.data, out, engine=engine, resume=resume,
                    monitor=OnProgress(progress),
                )  # fmt: skip
            except KeyboardInterrupt:
                return []
        keys = ("learning_rate", "loss", "top1", "val_loss", "val_top1")
        return [{key: row[key] for key in keys} for row in done.history]

    def state(self, out: Path) -> dict[str, Array]:
        """Read weights and velocities of a run's last checkpoint."""
        from safetensors.numpy import load_file

        return load_file(out / "last.safetensors")

    def weights(self, out: Path) -> dict[str, Array]:
        """Read the weights alone, by the network's own names."""
        state = self.state(out)
        return {name[4:]: value for name, value in state.items() if name.startswith("net.")}

    def batches(self, epoch: int) -> Iterator[tuple[list[str], Array, Array]]:
        """Go through an epoch's batches: names, crops (B, 3, 224, 224) of uint8, labels."""
        for batch in self._batches(epoch):
            names = [self._name(int(row)) for row in batch.rows]
            yield names, batch.pixels.numpy(), batch.labels.numpy()

    def draws(self, epoch: int) -> dict[str, list[Any]]:
        """Tell by name how each image is drawn in an epoch: rescaled size, offset, mirrored."""
        from vggfeat.train.augment import crop_of, draw

        found = {}
        for row in range(len(self.data.train)):
            drawn = draw(self.settings.seed, epoch, row)
            place = crop_of(256, 288, self.settings.S, drawn)
            found[self._name(row)] = [*place.size, *place.offset, drawn.flip]
        return found

    def inputs(self, epoch: int, out: Path) -> Iterator[tuple[Any, Any]]:
        """Go through what the network sees in an epoch of a run: x (B, 3, 224, 224), labels."""
        from vggfeat.nets.preprocessing import PixelConvention
        from vggfeat.train.augment import Colours, draw, to_input
        from vggfeat.train.checkpoint import read

        told = read(out / "last.safetensors")[1]
        colours = Colours.from_dict(told["colours"])
        pixels = PixelConvention.from_json(told["pixels"])
        for batch in self._batches(epoch):
            draws = [draw(self.settings.seed, epoch, int(row)) for row in batch.rows]
            yield to_input(batch.pixels, pixels, draws, colours), batch.labels

    def _batches(self, epoch: int) -> Iterator[Any]:
        from vggfeat.train.loader import Loader

        how = {"batch_size": self.settings.batch, "S": self.settings.S, "seed": self.settings.seed}
        with Loader(self.data.train, **how) as loader:
            yield from loader.batches(epoch)

    def _name(self, row: int) -> str:
        return base_name(self.data.train.name(row))


def learning_rates(accuracies: Sequence[float], **settings: Any) -> list[float]:
    """Follow a schedule through validation accuracies: the rate of each epoch."""
    import torch

    from vggfeat.settings import Training
    from vggfeat.train.checkpoint import Position
    from vggfeat.train.loop import finished, make_optimiser, make_scheduler, step_scheduler

    chosen = Training(epochs=len(accuracies), **settings)
    optimiser = make_optimiser(chosen, torch.nn.Linear(1, 1))
    scheduler = make_scheduler(chosen, optimiser)
    here = Position(learning_rate=optimiser.param_groups[0]["lr"])
    rates = []
    for accuracy in accuracies:
        if finished(chosen, here):
            break
        rates.append(here.learning_rate)
        here.epoch += 1
        here.learning_rate = step_scheduler(scheduler, optimiser, accuracy)
    return rates
