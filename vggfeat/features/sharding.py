"""Dealing pictures to processes and machines that work side by side: ``--shard 3/16``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vggfeat.errors import ParameterError

Rows = NDArray[np.int64]
EXPECTED = "one of 1/N … N/N, or auto"
_GOLDEN, _FIRST, _SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


@dataclass(frozen=True)
class Shard:
    """One of several shares of a list of pictures.

    Parameters
    ----------
    part : int
        Which, from 1 on.
    parts : int
        Of how many.

    Raises
    ------
    ParameterError
        If there is no such share.

    Notes
    -----
    The list is dealt like cards: of every `parts` neighbours each share gets one, in an order that
    a fixed hash of their rows draws. Neighbours come from one folder, camera or class, and often
    have one size and shape, so that every share has as many of each kind, whether a list is sorted
    or has a period. It follows from the length of the list alone: every process must be given the
    same list.

    Examples
    --------
    >>> str(Shard(3, 16)), Shard(1, 1).rows(4).tolist()
    ('3/16', [0, 1, 2, 3])
    >>> [Shard(part, 3).rows(7).tolist() for part in (1, 2, 3)]
    [[2, 4, 6], [1, 5], [0, 3]]
    """

    part: int = 1
    parts: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.part <= self.parts:
            raise ParameterError.of("shard", "Shard", EXPECTED, f"{self.part}/{self.parts}")

    def __str__(self) -> str:
        return f"{self.part}/{self.parts}"

    def rows(self, n: int) -> Rows:
        """Return the rows, ascending, that this share has of a list of `n`: shape (m,)."""
        groups = -(-n // self.parts)
        rows = np.arange(groups * self.parts).reshape(groups, self.parts)
        drawn = _hash(rows)
        drawn[rows >= n] = np.iinfo(np.uint64).max  # of the last group the first shares have some
        mine: Rows = rows[:, 0] + drawn.argsort(axis=1, kind="stable")[:, self.part - 1]
        return mine[mine < n]


WHOLE = Shard()


def shard_of(typed: str | None, environment: Mapping[str, str] | None = None) -> Shard:
    """Read ``--shard``.

    Parameters
    ----------
    typed : str or None
        ``"3/16"``; ``"auto"``, which asks the environment; None for the whole.
    environment : mapping, optional
        ``os.environ`` by default. Of a SLURM array the task's number counts from its first and in
        its steps; of torchrun, the rank. Of a torchrun in every task of an array, both: each rank
        of each task is a share.

    Raises
    ------
    ParameterError
        If it is neither, or the environment does not say it.

    Examples
    --------
    >>> shard_of("3/16")
    Shard(part=3, parts=16)
    >>> shard_of("auto", {"RANK": "0", "WORLD_SIZE": "4"})
    Shard(part=1, parts=4)
    """
    if typed is None:
        return WHOLE
    if typed == "auto":
        return _surrounding(os.environ if environment is None else environment)
    part, slash, parts = typed.partition("/")
    if not (slash and part.isdecimal() and parts.isdecimal()):
        raise ParameterError.of("shard", "Shard", EXPECTED, typed)
    return Shard(int(part), int(parts))


def _surrounding(environment: Mapping[str, str]) -> Shard:
    array, ranks = _slurm_array(environment), _torchrun(environment)
    if array is None and ranks is None:
        raise ParameterError(
            "--shard auto finds neither a SLURM array (SLURM_ARRAY_TASK_ID) nor torchrun (RANK, "
            "WORLD_SIZE). Say which share to do: --shard 1/4"
        )
    array, ranks = array or WHOLE, ranks or WHOLE
    return Shard((array.part - 1) * ranks.parts + ranks.part, array.parts * ranks.parts)


def _torchrun(environment: Mapping[str, str]) -> Shard | None:
    if "RANK" not in environment or "WORLD_SIZE" not in environment:
        return None
    return Shard(_number(environment, "RANK") + 1, _number(environment, "WORLD_SIZE"))


def _slurm_array(environment: Mapping[str, str]) -> Shard | None:
    if "SLURM_ARRAY_TASK_ID" not in environment:
        return None
    task, count = (_number(environment, f"SLURM_ARRAY_TASK_{name}") for name in ("ID", "COUNT"))
    first, last = (
        _number(environment, f"SLURM_ARRAY_TASK_{name}", default)
        for name, default in (("MIN", 0), ("MAX", count - 1))
    )
    step = _number(environment, "SLURM_ARRAY_TASK_STEP", 1) or 1
    place, rest = divmod(task - first, step)
    if rest or (last - first) // step + 1 != count:
        raise ParameterError(
            f"--shard auto needs an array without gaps, such as --array=1-{count}. This one has "
            f"{count} tasks between {first} and {last}, so that its task {task} may be any of "
            f"them. To do one share again, name it: --shard 3/{max(count, 3)}"
        )
    return Shard(place + 1, count)


def _number(environment: Mapping[str, str], name: str, default: int | None = None) -> int:
    typed = environment.get(name, "" if default is None else str(default))
    if not typed.isdecimal():
        raise ParameterError(
            f"--shard auto: {name} should be a number and is {typed!r}. Say which share to do: "
            "--shard 1/4"
        )
    return int(typed)


def _hash(rows: Rows) -> NDArray[np.uint64]:
    """Mix the bits of row numbers (SplitMix64), the same on every machine."""
    mixed = rows.astype(np.uint64) * np.uint64(_GOLDEN) + np.uint64(_GOLDEN)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(_FIRST)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(_SECOND)
    return mixed ^ (mixed >> np.uint64(31))
