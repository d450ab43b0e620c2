"""What settings refuse, in plain words: the option or key, what is allowed, and what was given."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from numbers import Integral
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from vggfeat.errors import DataError, ParameterError

Model = TypeVar("Model")
SHOULD = "Input should be "
"""How pydantic begins to say what would be right."""
IN_WORDS = {
    "a number": ("float_type", "float_parsing"),
    "an integer": ("int_type", "int_parsing", "int_from_float", "int_parsing_size"),
    "true or false": ("bool_type", "bool_parsing"),
    "text": ("string_type",),
    "a list": ("tuple_type", "list_type"),
    "a table": ("model_type", "dict_type", "model_attributes_type"),
}
"""What would be right, by the kinds of pydantic's errors that say it for programmers."""
LONG = 60  # characters of what was given


def checked(make: Callable[..., Model], **given: Any) -> Model:
    """Make settings, and say which option is wrong in the words of all other errors.

    Raises
    ------
    ParameterError
        For the first that is wrong.
    """
    try:
        return make(**given)
    except ValidationError as error:
        raise parameter_error(error, make) from error


def check_each(model: type[BaseModel], given: Mapping[str, Any], flags: Mapping[str, str]) -> None:
    """Refuse each setting that is wrong by itself, before others stand beside it.

    Parameters
    ----------
    model : type
    given : mapping
        Some of its settings.
    flags : mapping
        What a user typed for them, by their names.

    Raises
    ------
    ParameterError
        Naming what was typed.

    Examples
    --------
    >>> from vggfeat.settings import Features
    >>> check_each(Features, {"views": ["face"]}, {"views": "--view"})
    Traceback (most recent call last):
    vggfeat.errors.ParameterError: --view must be 'image' or 'box'. Got 'face' instead.
    """
    try:
        model(**given)
    except ValidationError as error:
        if any(wrong["loc"] for wrong in error.errors()):
            raise parameter_error(error, model, flags) from error


def parameter_error(
    error: ValidationError, model: Callable[..., Any], flags: Mapping[str, str] | None = None
) -> ParameterError:
    """Make an error of the first setting that is wrong, named as in Python or as it was typed."""
    first = error.errors()[0]
    said, got, right = first["msg"].removeprefix("Value error, "), first["input"], expected(first)
    if not first["loc"]:
        return ParameterError(f"These settings do not fit together: {said}.")
    which = ".".join(str(part) for part in first["loc"] if isinstance(part, str))
    typed = (flags or {}).get(str(first["loc"][0]))
    if first["type"] == "extra_forbidden":
        names = getattr(model, "model_fields", ())
        near = get_close_matches(which, names, 1)
        right = f"the nearest is {near[0]!r}" if near else f"only {', '.join(names)}"
        return ParameterError(f"{model.__name__} has no setting {which!r}, {right}.")
    if not right:
        return ParameterError(f"{typed or which}: {said}. Got {got!r} instead.")
    if typed:
        return ParameterError(f"{typed} must be {right}. Got {got!r} instead.")
    return ParameterError.of(which, model.__name__, right, got)


def expected(wrong: ErrorDetails) -> str:
    """Return in plain words what a setting must be; empty where the message says all.

    Examples
    --------
    >>> from vggfeat.settings import Features
    >>> try:
    ...     Features(flip="wide")
    ... except ValidationError as error:
    ...     print(expected(error.errors()[0]))
    true or false
    """
    for words, kinds in IN_WORDS.items():
        if wrong["type"] in kinds:
            return words
    if wrong["type"] == "too_short":
        return f"a list of at least {wrong['ctx']['min_length']}"
    if wrong["type"] == "string_pattern_mismatch":
        return f"text that matches {wrong['ctx']['pattern']}"
    return wrong["msg"].removeprefix(SHOULD) if wrong["msg"].startswith(SHOULD) else ""


def is_count(value: object) -> bool:
    """Tell whether a value is an int from 1 on, be it numpy's; True is none.

    Examples
    --------
    >>> [is_count(value) for value in (256, 0, "256", 256.0, True)]
    [True, False, False, False, False]
    """
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 1


def data_error(said: str, error: Exception, model: type[BaseModel]) -> DataError:
    """Make an error of one that a file of settings caused, with a sentence for each wrong key.

    Parameters
    ----------
    said : str
        What the file is not.
    error : Exception
        Of pydantic's, or another.
    model : type
        What the file should hold, which knows the keys that there are.

    Examples
    --------
    >>> from vggfeat.settings import Features
    >>> try:
    ...     Features(flip="wide", power=2, agregate="max")
    ... except ValidationError as error:
    ...     print(data_error("own.toml is no set of features", error, Features))
    own.toml is no set of features:
      flip must be true or false. Got 'wide'.
      power must be less than or equal to 1. Got 2.
      agregate is no key of it; the nearest is aggregate.
    """
    if not isinstance(error, ValidationError):
        return DataError(f"{said}: {error}")
    every = error.errors(include_url=False)
    # A list whose entries are refused is refused for having none.
    inner = {wrong["loc"][:end] for wrong in every for end in range(1, len(wrong["loc"]))}
    wrongs: dict[str, list[ErrorDetails]] = {}
    for wrong in every:
        if wrong["loc"] not in inner:
            wrongs.setdefault(_place(wrong, model), []).append(wrong)
    lines = [_sentence(place, alike, model) for place, alike in wrongs.items()]
    return (
        DataError(f"{said}: {lines[0]}")
        if len(lines) == 1
        else DataError(f"{said}:", *(f"  {line}" for line in lines))
    )


def _place(wrong: ErrorDetails, model: type[BaseModel]) -> str:
    """Name a key by those above it; of a value of several types, without the type."""
    place = wrong["loc"]
    if len(place) > 1 and isinstance(place[-1], str) and not _keys(model, place[:-1]):
        place = place[:-1]
    return ".".join(map(str, place))


def _sentence(place: str, wrongs: Sequence[ErrorDetails], model: type[BaseModel]) -> str:
    """Say what is wrong with a key, and what is allowed there."""
    first = wrongs[0]
    if first["type"] == "missing":
        return f"{place} is missing."
    if first["type"] == "extra_forbidden":
        keys = _keys(model, first["loc"][:-1])
        near = get_close_matches(str(first["loc"][-1]), keys, 1)
        right = f"the nearest is {near[0]}" if near else f"there are {', '.join(keys)}"
        return f"{place} is no key of it; {right}."
    if right := " or ".join(dict.fromkeys(filter(None, map(expected, wrongs)))):
        return f"{place} must be {right}. Got {first['input']!r:.{LONG}}."
    said = first["msg"].removeprefix("Value error, ")
    return f"{place}: {said}" if place else said


def _keys(model: type[BaseModel], above: Sequence[int | str]) -> list[str]:
    """List the keys of a model's table, by the keys above it; those of a mapping are anyone's."""
    within: type[BaseModel] | None = model
    for key in above:
        if within and key in within.model_fields:
            within = _model_in(within.model_fields[str(key)].annotation)
    return [field.alias or name for name, field in within.model_fields.items()] if within else []


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """Find the model in a field's type, be it of one or of several."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_model_in, get_args(annotation))), None)
