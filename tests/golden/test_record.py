"""Numbers are recorded with a reason, one case at a time, and of a version that is committed."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from golden import case as case_module
from golden import kept, record
from golden.case import Case, Found, load, take
from golden.inputs import Shared

ENTRY = {"commit": "c0ffee", "reason": "another rule"}


@pytest.fixture
def cases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Case]:
    """Two small cases whose files lie in a folder of the test."""
    monkeypatch.setattr(case_module, "HERE", tmp_path)
    made = [
        Case("G98-one", "one", {"x": {"abs": 0.5}}, lambda inputs: {"x": 1.0}),
        Case("G99-two", "two", {}, lambda inputs: {"y": "a"}),
    ]
    return {case.name: case for case in made}


@pytest.fixture
def run(tmp_path: Path, cases: dict[str, Case]) -> Callable[..., Any]:
    """Take values as if the cases had found them."""

    def taken(**values: Mapping[str, Any]) -> dict[str, Any]:
        shared = Shared(tmp_path / "shared")
        found = {name: partial(Found, values[name.split("-")[0]]) for name in cases}
        return {
            name: take(replace(case, function=lambda _, of=name: found[of]()), shared)
            for name, case in cases.items()
        }

    return taken


def test_nothing_is_recorded_without_what_a_reader_needs() -> None:
    """A case, a reason of more than one word, the capped environment, a clean tree."""
    first = next(iter(load()))
    file = f"tests/golden/{first}.json"
    refusals: list[tuple[tuple[Any, ...], str]] = [
        (([], "another rule", {}, []), "CASE"),
        (([first], "", {}, []), "REASON"),
        (([first], "because", {}, []), "REASON"),
        (([first], "another rule", {"OMP_NUM_THREADS": "1"}, []), "OMP_NUM_THREADS"),
        (([first], "another rule", {}, ["vggfeat/errors.py"]), "vggfeat/errors.py"),
        (([first], "another rule", {}, ["tests/golden/G99-two.json"]), "G99-two.json"),
    ]
    for words, mentioned in refusals:
        with pytest.raises(record.Refused, match=mentioned):
            record.check(*words)
    with pytest.raises(ValueError, match="G77"):
        record.check(["G77"], "another rule", {}, [])
    number = first.split("-")[0]
    assert [c.name for c in record.check([number], "another rule", {}, [file])] == [first]


def test_changes_are_those_that_git_sees(tmp_path: Path) -> None:
    """Changed, new and renamed files; none in a clean tree."""

    def git(*words: str) -> None:
        subprocess.run(
            ["git", "-c", "user.name=a", "-c", "user.email=a@b", *words],
            cwd=tmp_path,
            check=True,
            capture_output=True,
        )

    git("init")
    (tmp_path / "a.py").write_text("1")
    (tmp_path / "b.py").write_text("2")
    git("add", ".")
    git("commit", "-m", "first")
    assert record.changed_files(tmp_path) == []
    (tmp_path / "a.py").write_text("3")
    git("mv", "b.py", "c.py")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "new.py").write_text("4")
    assert sorted(record.changed_files(tmp_path)) == ["a.py", "c.py", "folder/new.py"]


def test_the_named_case_is_written_with_its_history(
    cases: dict[str, Case], run: Callable[..., Any]
) -> None:
    """First all is new; then one changes, with a table, and keeps what was said before."""
    first = run(G98={"x": 1.0}, G99={"y": "a"})
    text = record.write(list(cases.values()), cases, first, {**ENTRY, "reason": "first record"})
    assert "G98-one: new" in text
    one, two = cases.values()
    assert kept.misses(one, first["G98-one"]) == []
    text = record.write([one], cases, run(G98={"x": 3.0}, G99={"y": "a"}), ENTRY)
    assert "another rule" in text
    assert "1.0" in text
    assert "3.0" in text
    content = json.loads(one.file.read_text("utf-8"))
    assert content["values"] == {"x": 3.0}
    assert [entry["reason"] for entry in content["history"]] == ["first record", "another rule"]
    assert len(json.loads(two.file.read_text("utf-8"))["history"]) == 1


def test_nothing_is_written_if_another_case_would_change(
    cases: dict[str, Case], run: Callable[..., Any]
) -> None:
    """The refusal names it, with its table; a change within the tolerance is none."""
    one, two = cases.values()
    record.write([one, two], cases, run(G98={"x": 1.0}, G99={"y": "a"}), ENTRY)
    before = one.file.read_bytes(), two.file.read_bytes()
    with pytest.raises(record.Refused, match="G98-one") as refused:
        record.write([two], cases, run(G98={"x": 2.0}, G99={"y": "b"}), ENTRY)
    assert "2.0" in str(refused.value)
    assert (one.file.read_bytes(), two.file.read_bytes()) == before
    record.write([two], cases, run(G98={"x": 1.25}, G99={"y": "b"}), ENTRY)
    assert one.file.read_bytes() == before[0]
    assert json.loads(two.file.read_text("utf-8"))["values"] == {"y": "b"}


def test_settings_and_inputs_are_compared_too(
    cases: dict[str, Case], run: Callable[..., Any]
) -> None:
    """A tolerance that is widened in the code alone is a miss, and so are other inputs."""
    one = cases["G98-one"]
    first = run(G98={"x": 1.0}, G99={"y": "a"})
    record.write([one], cases, first, ENTRY)
    wider = Case(one.name, one.command, {"x": {"abs": 5.0}}, one.function)
    assert [v.path for v in kept.misses(wider, first["G98-one"])] == ["tolerance/x/abs"]
    other = first["G98-one"]
    other.inputs_sha256["I9"] = "ab12"
    assert next(v.path for v in kept.misses(one, other)).startswith("inputs_sha256")


def test_a_file_is_small_sorted_and_has_lists_in_a_line() -> None:
    """What a reviewer cannot read through is refused."""
    text = kept.encode({"b": [1, 2.5], "a": {"c": ["x", "y"]}})
    assert text.index('"a"') < text.index('"b": [1, 2.5]')
    assert json.loads(text) == {"a": {"c": ["x", "y"]}, "b": [1, 2.5]}
    with pytest.raises(ValueError, match="40,000"):
        kept.encode({"a": list(range(20_000))})
