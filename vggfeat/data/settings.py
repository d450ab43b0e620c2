"""What pictures are described by: nets, layers, scales, and how descriptors become one row."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from vggfeat.errors import DataError, ParameterError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

Model = TypeVar("Model")

SHOULD = "Input should be "
"""How pydantic begins to say what would be right."""
IN_OTHER_WORDS = {"missing": "is missing", "extra_forbidden": "nothing of that name is known here"}
LONG = 60  # characters of what was given
_SHOULD = re.compile(r"^\w+ should ")
_ASIDE = re.compile(r", unable to parse.*| after validation.*")
_OF_A_NET = re.compile(r"[A-E](-[A-Za-z0-9]+)?=")


def _several(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


class Features(BaseModel):
    """Settings of descriptors, as a card, a recipe or a command line gives them.

    Parameters
    ----------
    nets : tuple of str
        Configurations of Table 1; the descriptors of several are stacked.
    weights : str or tuple of str
        A source or a file; for some nets alone as ``NET=…``.
    layers : tuple of str
        Layers whose dense maps are pooled, stacked.
    Q : tuple of int
        Test scales: smallest side of the rescaled picture, in pixels.
    aggregate : {"average", "max", "stack"}
        Across scales.
    normalize, pool, flip, exif
        See :class:`~vggfeat.features.aggregate.Aggregation` and
        :class:`~vggfeat.features.dense.DenseExtractor`.
    power : float in (0, 1], optional
        Signed power before L2; beyond the paper.
    views : tuple of {"image", "box"}
        What of a picture is looked at; both are stacked (Appendix B, VOC action classification).

    Examples
    --------
    >>> Features(nets=("D", "E"), Q=(256, 384, 512)).but(aggregate="stack", power=None).aggregate
    'stack'
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    nets: tuple[str, ...] = Field(default=("D",), min_length=1)
    weights: Annotated[tuple[str, ...], BeforeValidator(_several)] = ("auto",)
    layers: tuple[str, ...] = Field(default=("fc7",), min_length=1)
    Q: tuple[Annotated[int, Field(ge=1)], ...] = Field(default=(256,), min_length=1)
    flip: bool = True
    pool: str = "average"
    normalize: Literal["descriptor", "locations", "none"] = "descriptor"
    aggregate: Literal["average", "max", "stack"] = "average"
    power: float | None = Field(default=None, gt=0, le=1)
    exif: bool = True
    views: tuple[Literal["image", "box"], ...] = Field(default=("image",), min_length=1)

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        for name in ("nets", "layers", "Q", "views"):
            given = getattr(self, name)
            if len(set(given)) < len(given):
                raise ValueError(f"{name} names {given} with one of them twice")
        for net in self.nets:
            self.weights_of(net)
        return self

    def weights_of(self, net: str) -> str:
        """Name the source or file of a net's weights.

        Examples
        --------
        >>> Features(nets=("D", "E"), weights=("authors", "E=mine.pth")).weights_of("E")
        'mine.pth'
        """
        own = [one.removeprefix(f"{net}=") for one in self.weights if one.startswith(f"{net}=")]
        general = [one for one in self.weights if not _OF_A_NET.match(one)]
        if len(own) > 1 or (not own and len(general) != 1):
            raise ValueError(
                f"weights {self.weights} name not one source or file of net {net}; write one for "
                "all nets, or NET=FILE for each"
            )
        return (own or general)[0]

    def but(self, **given: Any) -> Features:
        """Return these settings with others where they are given, that is, not None.

        Raises
        ------
        ParameterError
            If a setting is none of its choices.
        """
        known = {name: value for name, value in given.items() if value is not None}
        return checked(Features, **{**self.model_dump(), **known})


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
        first = error.errors()[0]
        said = first["msg"].removeprefix("Value error, ")
        if not first["loc"]:
            raise ParameterError(f"These settings do not fit together: {said}.") from error
        which = ".".join(str(part) for part in first["loc"] if isinstance(part, str))
        if said.startswith(SHOULD):
            right = said.removeprefix(SHOULD)
            raise ParameterError.of(which, make.__name__, right, first["input"]) from error
        raise ParameterError(f"{which}: {said}. Got {first['input']!r} instead.") from error


def refused(said: str, error: Exception, given: Mapping[str, object]) -> DataError:
    """Make an error of one that a file of settings caused, with a line for each wrong field.

    Parameters
    ----------
    said : str
        What the file is not.
    error : Exception
        Of pydantic's, or another.
    given : mapping
        What the file holds.

    Examples
    --------
    >>> given = {"Q": ["wide"], "power": 2, "scale": 1}
    >>> try:
    ...     Features(**given)
    ... except ValidationError as error:
    ...     print(refused("own.toml is no set of features", error, given))
    own.toml is no set of features:
      Q.0: must be a valid integer. Got 'wide' instead.
      power: must be less than or equal to 1. Got 2 instead.
      scale: nothing of that name is known here
    """
    lines = _fields(error, given) if isinstance(error, ValidationError) else [str(error)]
    if len(lines) == 1:
        return DataError(f"{said}: {lines[0]}")
    return DataError(f"{said}:", *(f"  {line}" for line in lines))


def _fields(error: ValidationError, given: Mapping[str, object]) -> list[str]:
    found = error.errors()
    wrong: dict[str, list[ErrorDetails]] = {}
    for one in found:
        # A list is also said to be empty when what it holds is wrong.
        within = [other for other in found if len(other["loc"]) > len(one["loc"])]
        if all(other["loc"][: len(one["loc"])] != one["loc"] for other in within):
            wrong.setdefault(_place(one, given), []).append(one)
    return [": ".join(filter(None, (place, _wrong(of)))) for place, of in wrong.items()]


def _place(one: ErrorDetails, given: Any) -> str:
    """Name a field as the file does; pydantic also names which of several types it tried."""
    named = []
    for part in one["loc"]:
        known = range(len(given)) if isinstance(given, list) else given
        if isinstance(known, dict | range) and part in known:
            named.append(str(part))
            given = given[part]
    if one["type"] == "missing":
        named.append(str(one["loc"][-1]))
    return ".".join(named)


def _wrong(of: list[ErrorDetails]) -> str:
    """Say what is wrong with one field, of which several types may have been tried."""
    kind, said = of[0]["type"], of[0]["msg"]
    if kind in IN_OTHER_WORDS:
        return IN_OTHER_WORDS[kind]
    if not _SHOULD.match(said):
        return said.removeprefix("Value error, ")
    right = [_SHOULD.sub("", _ASIDE.sub("", one["msg"])) for one in of]
    right = [one.replace("a valid tuple", "a list") for one in right]
    return f"must {' or '.join(right)}. Got {of[0]['input']!r:.{LONG}} instead."
