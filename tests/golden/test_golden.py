"""Every case gives the numbers that are kept of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from golden import kept
from golden.case import CASES, load, take
from golden.inputs import Shared
from golden.rules import compare, table, unused

NAMES = list(load())


@pytest.mark.golden
@pytest.mark.parametrize("file", kept.files(), ids=lambda file: file.stem)
def test_the_numbers_are_those_that_are_kept(file: Path, shared: Shared) -> None:
    """The case of a file, run anew, keeps within the tolerance that the file states."""
    case = CASES[file.stem]
    missed = kept.misses(case, take(case, shared))
    if missed:
        pytest.fail(f"{case.name}: {len(missed)} misses\n{table(missed)}", pytrace=False)


def test_every_case_has_a_file_and_every_file_a_case() -> None:
    """A case that was never recorded guards nothing, nor does a file that nothing reads."""
    assert [file.stem for file in kept.files()] == NAMES


@pytest.mark.parametrize(
    ("path", "required"),
    [
        ("fp32/torch", True),
        ("fp32/winograd", True),
        ("fp32/openvino", True),
        ("fp32/packed", False),
        ("bf16/torch", False),
        ("bf16/packed", False),
        ("bf16/openvino", False),
    ],
)
def test_runtimes_that_every_machine_has_may_not_be_absent(path: str, required: bool) -> None:
    """Were one left out, nothing would be said of it; only what some processors lack may be."""
    content = kept.read(CASES["G03-runtimes"])
    found = {precision: dict(of) for precision, of in content["values"].items()}
    precision, runtime = path.split("/")
    del found[precision][runtime]
    missed = compare(content["values"], found, content["tolerance"], {})
    assert [verdict.path for verdict in missed if not verdict.holds] == [path] * required


@pytest.mark.parametrize("name", NAMES)
def test_every_tolerance_is_used(name: str) -> None:
    """A pattern that fits no path is a mistake, and its numbers would be held exactly."""
    case = CASES[name]
    assert unused(kept.read(case)["values"], case.tolerance) == []
