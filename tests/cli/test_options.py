"""Options made from settings: what is typed arrives, and nothing else is said to be set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import typer
from helpers.cli import run as run_vggfeat
from helpers.commands import commands, labels
from helpers.mistakes import refuses
from pydantic import Field
from typer.testing import CliRunner

from vggfeat.cli import options
from vggfeat.errors import ParameterError
from vggfeat.settings import SVM, Dense, Execution, Features, Settings


class Light(Settings):
    """Settings of every kind."""

    colours: tuple[Literal["red", "blue"], ...] = Field(
        default=("red",), description="Several.", json_schema_extra={"flags": ["--colour", "-c"]}
    )
    power: float | None = Field(default=None, gt=0, description="In W.")
    lamps: Annotated[int, Field(ge=1)] = Field(default=2, ge=1, description="How many.")
    dimmed: bool = Field(default=True, description="Whether.")


def run(*words: str, typed_only: bool = False) -> Any:
    """Run a command whose options are made from these settings; return what it was given."""
    given: list[Any] = []
    names = tuple(Light.model_fields)
    group = options.typed_options(Light) if typed_only else options.model_options(Light, *names)
    app = typer.Typer()

    @app.command()
    @options.with_options(light=group)
    def command(*, light: Light, where: str = "here") -> None:
        given.append(light)

    CliRunner().invoke(app, words, catch_exceptions=False, standalone_mode=False)
    [found] = given
    return found


@pytest.fixture(autouse=True)
def panel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the settings of these tests a heading."""
    monkeypatch.setitem(options.PANELS, Light, "Light")  # type: ignore[arg-type]  # any settings


def test_what_was_typed_is_what_is_set() -> None:
    """Also where the default was typed; the rest has its defaults, and is not said to be set."""
    found = run("-c", "blue", "--colour", "red", "--no-dimmed", "--lamps", "2")
    assert found == Light(colours=("blue", "red"), dimmed=False, lamps=2)
    assert found.model_fields_set == {"colours", "dimmed", "lamps"}
    assert run().model_fields_set == set()


def test_a_layer_is_what_was_typed_alone() -> None:
    """It stands over settings of a data set or a recipe, whose values no default may replace."""
    assert run(typed_only=True) == {}
    assert run("--power", "2", "--dimmed", typed_only=True) == {"power": 2.0, "dimmed": True}


@pytest.mark.parametrize("typed_only", [False, True])
@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--colour", "green"), ["--colour", "'red' or 'blue'", "'green'"]),
        (("--power", "0"), ["--power", "greater than 0", "0.0"]),
    ],
)
def test_a_wrong_value_is_told_in_a_line_that_names_the_flag(
    words: Sequence[str], named: Sequence[str], typed_only: bool
) -> None:
    """As it was typed, not as Python has it."""
    refused = refuses(lambda: run(*words, typed_only=typed_only), ParameterError, named)
    assert (len(refused.lines), refused.exit_status) == (1, 2)


@pytest.mark.parametrize(
    ("name", "model", "without"),
    [
        ("svm", Features, set()),
        ("extract", Dense, set()),
        ("classify", Dense, {"layers", "pool"}),
        ("svm", SVM, set()),
        ("svm", Execution, {"runtime"}),
    ],
)
def test_a_setting_is_an_option_by_itself(
    name: str, model: type[Settings], without: set[str]
) -> None:
    """A new field of the model needs nothing else to be typed."""
    there = {parameter.name for parameter in labels(commands()[name]).values()}
    assert set(model.model_fields) - without <= there


@pytest.mark.parametrize("typed", ["--pool=median", "--layer=pool9", "--dtype=int8"])
def test_a_parameter_is_named_as_the_option_that_was_typed(typed: str, tmp_path: Path) -> None:
    """Also where it is refused by what takes it, which is used from Python as well."""
    (tmp_path / "a.png").write_bytes(b"")
    ran = run_vggfeat("extract", ".", "--weights", "embedded", typed, status=2, cwd=tmp_path)
    assert ran.err.startswith(f"Error: {typed.partition('=')[0]} ")
