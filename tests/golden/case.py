"""What a case is, the list of all, and how one is run.

A case is a function of the inputs that returns nested plain values::

    @case(
        "G01-decode",
        command="decode and rescale, Q = 32 and 48",
        tolerance={"*/means/*": {"abs": 1.0}},
    )
    def decoding(inputs: Inputs) -> dict[str, Any]:
        photos = inputs["I1"]
        ...

It may return `Found` instead, with arrays (compared side by side only, never committed) and the
margins that the rules "choice" and "order" look into.
"""

from __future__ import annotations

import math
import os
import pkgutil
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from golden.inputs import Inputs, Shared
from golden.rules import Rule, kind_of

DIGITS = 9
HERE = Path(__file__).parent


@dataclass(frozen=True)
class Found:
    """What a case found.

    Parameters
    ----------
    values : mapping
        Nested dicts and lists of numbers and strings; these are kept.
    arrays : mapping
        By name; those whose name begins with ``scores`` are compared number by number, others by
        their norm. Kept by `golden.collect`, not in JSON.
    margins : mapping
        By path: for "choice" the list of values that may be chosen, for "order" score by id.
    """

    values: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    margins: Mapping[str, Any] = field(default_factory=dict)


Function = Callable[[Inputs], "Found | Mapping[str, Any]"]


@dataclass(frozen=True)
class Case:
    """One case of the golden tests.

    Parameters
    ----------
    name : str
        Number and words; also the name of its JSON file.
    command : str
        The command's words or the call, for the reader.
    tolerance : mapping
        Rule by pattern; see `golden.rules`.
    function : callable
        What is run.
    """

    name: str
    command: str
    tolerance: Mapping[str, Rule]
    function: Function

    @property
    def file(self) -> Path:
        """Where its numbers are kept."""
        return HERE / f"{self.name}.json"


@dataclass(frozen=True)
class Taken:
    """One run of a case, as it is kept and compared."""

    values: dict[str, Any]
    arrays: dict[str, np.ndarray]
    margins: dict[str, Any]
    inputs_sha256: dict[str, str]
    seconds: float


CASES: dict[str, Case] = {}


def case(
    name: str,
    *,
    command: str,
    tolerance: Mapping[str, Rule] | None = None,
) -> Callable[[Function], Function]:
    """Put a function on the list of cases."""
    for rule in (tolerance or {}).values():
        kind_of(rule)

    def enlist(function: Function) -> Function:
        known = CASES.get(name)
        if known and known.function.__qualname__ != function.__qualname__:
            raise ValueError(f"There are two cases {name}.")
        CASES[name] = Case(name, command, dict(tolerance or {}), function)
        return function

    return enlist


def load() -> dict[str, Case]:
    """Import all cases; return them by name, in order."""
    for module in pkgutil.iter_modules([str(HERE / "cases")]):
        import_module(f"golden.cases.{module.name}")
    return dict(sorted(CASES.items()))


def select(words: list[str]) -> list[Case]:
    """Find cases by name or number; all where no word is given.

    Raises
    ------
    ValueError
        If there is no such case.
    """
    cases = load()
    if unknown := [w for w in words if not any(w in (n, n.split("-")[0]) for n in cases)]:
        raise ValueError(f"There is no case {', '.join(unknown)}. There are: {', '.join(cases)}.")
    return [c for n, c in cases.items() if not words or {n, n.split("-")[0]} & set(words)]


def take(case: Case, shared: Shared) -> Taken:
    """Run a case, in a folder and with a home of its own, away from the network."""
    work = shared.work(case.name)
    environment = {"VGGFEAT_HOME": str(work / "home"), "VGGFEAT_OFFLINE": "1"}
    inputs = Inputs(shared, work)
    start = time.perf_counter()
    try:
        with mock.patch.dict(os.environ, environment):
            os.environ.pop("VGGFEAT_DATA", None)
            found = case.function(inputs)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    seconds = time.perf_counter() - start
    if not isinstance(found, Found):
        found = Found(found)
    sums = {name: shared.sha256(name) for name in sorted(inputs.used)}
    margins, values = plain(found.margins), plain(found.values)
    return Taken(values, dict(found.arrays), margins, sums, seconds)


def plain(value: Any) -> Any:
    """Make plain JSON values: floats of nine digits, keys of text, no NumPy."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else str(value)
    if value is None or isinstance(value, bool | int | str):
        return value
    raise TypeError(f"A case returns plain values, not {type(value).__name__}: {value!r}")
