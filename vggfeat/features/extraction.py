"""What determines a descriptor: the settings of an extraction and their fingerprint."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from vggfeat.errors import ParameterError

POOLS = ("average", "max", "cells", "softmax", "posteriors")
SCORES = "fc8"  # the layer whose map is of class scores
_CROPS = re.compile(r"crops([1-9][0-9]?)")
LOCATIONS = ("raw", "l2")
PRECISIONS = ("fp32", "bf16", "fp16")


class Part(NamedTuple):
    """One array of a store: the descriptors of one net, layer and pooling at one scale Q."""

    net: str
    layer: str
    pool: str
    Q: int


@dataclass(frozen=True)
class Extraction:
    """All settings that change a descriptor's numbers, and none that do not.

    Parameters
    ----------
    net : str
        Configuration of Table 1, for example ``"D"``.
    weights_sha256 : str
        Digest of the parameters used.
    layers : tuple of str
        Layers whose dense maps are pooled.
    flip : bool
        Whether descriptors are averaged with those of the mirror image (Appendix B).
    pool : str
        How a dense map becomes one descriptor: ``"average"``, the paper's; ``"max"``; ``"cells"``,
        the averages over four quarters of the picture (beyond the paper, a level of a spatial
        pyramid); or several, each an array of its own: ``"average+max"``. Of fc8, a picture's
        posteriors (Section 3.2): ``"softmax"``, of the class scores averaged over locations, the
        paper's; ``"posteriors"``, averaged over locations after the soft-max; ``"crops5"``,
        averaged over a grid of 5×5 crops of 224 pixels, or of any other side up to 99.
    locations : {"raw", "l2"}
        Whether the descriptor of every location is L2-normalised before pooling.
    exif : bool
        Whether the orientation that a camera recorded is applied.
    precision : {"fp32", "bf16", "fp16"}
        Precision class of the network's arithmetic.
    resampling, decoder : str
        The one implementation of each, by name.
    pixels : str
        The pixel convention of the weights, with the rounding of pools: ``str`` of a
        :class:`~vggfeat.nets.pixels.PixelConvention`. Empty where no network is fed.

    Examples
    --------
    >>> one = Extraction("D", "ab12", ("pool5",))
    >>> one.fingerprint == Extraction("D", "ab12", ("pool5",), flip=False).fingerprint
    False
    >>> one.parts([256, 384])
    [Part(net='D', layer='pool5', pool='average', Q=256),
     Part(net='D', layer='pool5', pool='average', Q=384)]
    """

    net: str
    weights_sha256: str
    layers: tuple[str, ...]
    flip: bool = True
    pool: str = "average"
    locations: str = "raw"
    exif: bool = True
    precision: str = "fp32"
    resampling: str = "pillow-bilinear-antialias"
    decoder: str = "pillow"
    pixels: str = ""

    def __post_init__(self) -> None:
        unknown = [how for how in self.pools if how not in POOLS and not crops_in(how)]
        if len(set(self.pools)) < len(self.pools) or unknown:
            expected = f"one of {', '.join(map(repr, POOLS))}, 'crops5', or several joined by +"
            raise ParameterError.of("pool", "Extraction", expected, self.pool)
        for name, choices in (
            ("locations", LOCATIONS),
            ("precision", PRECISIONS),
        ):
            if getattr(self, name) not in choices:
                raise ParameterError.not_one_of(name, "Extraction", choices, getattr(self, name))
        if any(map(gives_posteriors, self.pools)):
            self._check_scores()

    def _check_scores(self) -> None:
        if self.layers != (SCORES,):
            raise ParameterError(
                f"The pool {self.pool!r} makes posteriors of class scores, which {SCORES} has "
                f"alone, not {', '.join(self.layers)}. Use the layer {SCORES}, or the pool "
                "'average'."
            )
        if self.locations != "raw":
            raise ParameterError(
                f"The pool {self.pool!r} makes posteriors of class scores as they are: with "
                "normalised locations there are none. Leave --normalize locations out."
            )

    @property
    def fingerprint(self) -> str:
        """SHA-256 over all settings; features of different fingerprints are never mixed."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()

    @property
    def pools(self) -> tuple[str, ...]:
        """The poolings whose results are kept, each in an array of its own."""
        return tuple(self.pool.split("+"))

    def parts(self, scales: Iterable[int]) -> list[Part]:
        """List the arrays that an extraction at these scales makes, in stacking order."""
        return [
            Part(self.net, layer, pool, Q)
            for layer in self.layers
            for pool in self.pools
            for Q in scales
        ]

    def path(self, part: Part) -> str:
        """HDF5 path of a part: ``/D/Q384``, or ``/D/pool5/Q384`` where several layers are kept.

        Examples
        --------
        >>> several = Extraction("D", "ab12", ("pool4", "pool5"), pool="average+max")
        >>> several.path(Part("D", "pool5", "max", 384))
        '/D/pool5/max/Q384'
        """
        layer = [part.layer] if len(self.layers) > 1 else []
        pool = [part.pool] if len(self.pools) > 1 else []
        return "/" + "/".join([self.net, *layer, *pool, f"Q{part.Q}"])

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain JSON types."""
        return {**asdict(self), "layers": list(self.layers)}

    @classmethod
    def from_dict(cls, settings: dict[str, Any]) -> Extraction:
        """Inverse of :meth:`to_dict`."""
        return cls(**{**settings, "layers": tuple(settings["layers"])})


def crops_in(pool: str) -> int:
    """Side of the grid of crops that a pooling looks at; 0 where it pools a dense map.

    Examples
    --------
    >>> crops_in("crops5"), crops_in("average")
    (5, 0)
    """
    found = _CROPS.fullmatch(pool)
    return int(found[1]) if found else 0


def gives_posteriors(pool: str) -> bool:
    """Tell whether a pooling makes a picture's posteriors, which add up to 1.

    Examples
    --------
    >>> gives_posteriors("softmax"), gives_posteriors("average")
    (True, False)
    """
    return pool in ("softmax", "posteriors") or crops_in(pool) > 0
