"""What the pixels that go into a network must look like, and how its max-pools round."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from vggfeat.errors import ParameterError, WeightsError


@dataclass(frozen=True)
class PixelConvention:
    """How pixels were fed to a network when its weights were made; they are useless without.

    Parameters
    ----------
    channels : {"RGB", "BGR"}
        Order of the three channels.
    range : float
        Value of a full channel before the mean is subtracted: 255.0 or 1.0.
    mean, std : tuple of three float
        Subtracted, then divided by, in the order of `channels` and the units of `range`.
    pool_rounding : {"floor", "ceil"}
        How max-pools round an odd side: Caffe up, torch down (it matters for dense evaluation).

    Raises
    ------
    WeightsError
        If a number is not finite, `range` or `std` is not positive, or a word is none of these.

    Examples
    --------
    >>> PixelConvention.from_json(CAFFE.to_json()) == CAFFE
    True
    >>> print(TORCHVISION)
    RGB 0-1 minus (0.485, 0.456, 0.406) over (0.229, 0.224, 0.225), pools floor
    """

    channels: str
    range: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    pool_rounding: str = "floor"

    def __post_init__(self) -> None:
        """Make floats of whole numbers: what is equal is to have one text; refuse nonsense."""
        object.__setattr__(self, "range", float(self.range))
        object.__setattr__(self, "mean", tuple(float(v) for v in self.mean))
        object.__setattr__(self, "std", tuple(float(v) for v in self.std))
        if (
            (self.channels not in ("RGB", "BGR") or self.pool_rounding not in ("floor", "ceil"))
            or (len(self.mean) != 3 or len(self.std) != 3)
            or not all(map(math.isfinite, (self.range, *self.mean, *self.std)))
            or not (self.range > 0 and min(self.std) > 0)
        ):
            raise WeightsError(f"its pixel convention makes no sense: {str(self)[:200]}")

    def __str__(self) -> str:
        over = "" if self.std == (1.0, 1.0, 1.0) else f" over {self.std}"
        # All of it, to the last digit: stores tell two conventions apart by this text.
        full = repr(self.range).removesuffix(".0")
        return f"{self.channels} 0-{full} minus {self.mean}{over}, pools {self.pool_rounding}"

    def in_rgb(self) -> PixelConvention:
        """Return the convention of the same network once it takes RGB.

        Examples
        --------
        >>> print(CAFFE.in_rgb())
        RGB 0-255 minus (123.68, 116.779, 103.939), pools ceil
        """
        if self.channels == "RGB":
            return self
        return replace(self, channels="RGB", mean=self.mean[::-1], std=self.std[::-1])

    def to_json(self) -> str:
        """Return the convention as a JSON object, as files of weights carry it."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> PixelConvention:
        """Inverse of :meth:`to_json`; any other text is a :class:`WeightsError`."""
        try:
            found: dict[str, Any] = json.loads(text)
            values = (found[each.name] for each in fields(cls))
            return cls(*values)
        except WeightsError:
            raise
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
            raise WeightsError(f"its pixel convention cannot be read: {text[:80]!r}") from error


CAFFE = PixelConvention("BGR", 255.0, (103.939, 116.779, 123.68), pool_rounding="ceil")
TORCHVISION = PixelConvention("RGB", 1.0, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CONVENTIONS = {"caffe": CAFFE, "torchvision": TORCHVISION}


def name_of_pixels(text: str) -> str | None:
    """Name the convention that a column's settings have as a text; None if it has no name.

    Examples
    --------
    >>> name_of_pixels(str(CAFFE))
    'caffe'
    """
    return next((name for name, known in CONVENTIONS.items() if str(known) == text), None)


def convention(pixels: PixelConvention | str) -> PixelConvention:
    """Return a convention given itself or by name.

    Examples
    --------
    >>> convention("caffe").channels
    'BGR'
    """
    if isinstance(pixels, PixelConvention):
        return pixels
    if pixels not in CONVENTIONS:
        raise ParameterError.not_one_of("pixels", "load", CONVENTIONS, pixels)
    return CONVENTIONS[pixels]
