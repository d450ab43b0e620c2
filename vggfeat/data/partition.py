"""Shares of a list of images for processes that work side by side: ``--shard 3/16``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vggfeat.errors import ParameterError

Rows = NDArray[np.int64]
EXPECTED = "one of 1/N … N/N, or auto"


@dataclass(frozen=True)
class Partition:
    """One of several shares of a list of images: which, from 1 on, of how many.

    The list is shuffled by a fixed seed and dealt: neighbours come from one folder, camera or
    class, and often have one size, so that every share gets about as many of each kind. It follows
    from the length of the list alone: every process must be given the same list.

    Examples
    --------
    >>> str(Partition(3, 16)), Partition(1, 1).rows(4).tolist()
    ('3/16', [0, 1, 2, 3])
    >>> [Partition(part, 3).rows(7).tolist() for part in (1, 2, 3)]
    [[3, 4, 6], [0, 2], [1, 5]]
    """

    part: int = 1
    parts: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.part <= self.parts:
            raise ParameterError.of("shard", "Partition", EXPECTED, f"{self.part}/{self.parts}")

    def __str__(self) -> str:
        return f"{self.part}/{self.parts}"

    @property
    def share(self) -> tuple[int, int] | None:
        """Both numbers, as a store takes them; None of the whole."""
        return (self.part, self.parts) if self.parts > 1 else None

    def rows(self, n: int) -> Rows:
        """Return the rows (m,), ascending, that this share has of a list of `n`."""
        shuffled = np.random.RandomState(0).permutation(n)
        return np.sort(shuffled[self.part - 1 :: self.parts])


WHOLE = Partition()


def parse_partition(typed: str | None, environment: Mapping[str, str] | None = None) -> Partition:
    """Read ``--shard``.

    It is ``"3/16"``; None for the whole; or ``"auto"``, which asks the environment, ``os.environ``
    by default. Of a SLURM array the task's number counts from its first and in its steps; of
    torchrun, the rank; of a torchrun in every task of an array, each rank of each task is a share.

    Raises
    ------
    ParameterError
        If it is neither, or the environment does not say it.

    Examples
    --------
    >>> parse_partition("3/16")
    Partition(part=3, parts=16)
    >>> parse_partition("auto", {"RANK": "0", "WORLD_SIZE": "4"})
    Partition(part=1, parts=4)
    """
    if typed is None:
        return WHOLE
    if typed == "auto":
        return _from_environment(os.environ if environment is None else environment)
    part, slash, parts = typed.partition("/")
    if not (slash and part.isdecimal() and parts.isdecimal()):
        raise ParameterError.of("shard", "Partition", EXPECTED, typed)
    return Partition(int(part), int(parts))


def _from_environment(environment: Mapping[str, str]) -> Partition:
    in_array = "SLURM_ARRAY_TASK_ID" in environment
    in_torchrun = "RANK" in environment and "WORLD_SIZE" in environment
    if not (in_array or in_torchrun):
        raise ParameterError(
            "--shard auto finds neither a SLURM array (SLURM_ARRAY_TASK_ID) nor torchrun (RANK, "
            "WORLD_SIZE). Say which share to do: --shard 1/4"
        )
    task, tasks = _slurm_array(environment) if in_array else (0, 1)
    of_task = WHOLE
    if in_torchrun:
        rank, ranks = _number(environment, "RANK"), _number(environment, "WORLD_SIZE")
        of_task = Partition(rank + 1, ranks)
    return Partition(task * of_task.parts + of_task.part, tasks * of_task.parts)


def _slurm_array(environment: Mapping[str, str]) -> tuple[int, int]:
    """Return which task of the array this is, from 0 on, and how many there are."""
    task, count = (_number(environment, f"SLURM_ARRAY_TASK_{name}") for name in ("ID", "COUNT"))
    first = _number(environment, "SLURM_ARRAY_TASK_MIN", 0)
    last = _number(environment, "SLURM_ARRAY_TASK_MAX", count - 1)
    step = _number(environment, "SLURM_ARRAY_TASK_STEP", 1) or 1
    place, rest = divmod(task - first, step)
    if rest or (last - first) // step + 1 != count:
        raise ParameterError(
            f"--shard auto needs an array without gaps, such as --array=1-{count}. This one has "
            f"{count} tasks between {first} and {last}, so that its task {task} may be any of "
            f"them. To do one share again, name it: --shard 3/{max(count, 3)}"
        )
    return place, count


def _number(environment: Mapping[str, str], name: str, default: int | None = None) -> int:
    typed = environment.get(name, "" if default is None else str(default))
    if not typed.isdecimal():
        raise ParameterError(
            f"--shard auto: {name} should be a number and is {typed!r}. Say which share to do: "
            "--shard 1/4"
        )
    return int(typed)
