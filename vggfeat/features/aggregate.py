"""Descriptors of several scales, layers and nets become one row for each image (Appendix B)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from numbers import Real
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vggfeat.errors import ParameterError
from vggfeat.settings import Aggregate, Normalize
from vggfeat.store.column import Column, Descriptor

Matrix = npt.NDArray[Any]


def aggregate(
    arrays: Mapping[Descriptor, Matrix] | Sequence[Mapping[Descriptor, Matrix]],
    how: str = "average",
    *,
    normalize: str = "descriptor",
    power: float | None = None,
) -> Matrix:
    """Combine descriptors across scales, then stack layers, poolings, nets and views.

    Parameters
    ----------
    arrays : mapping of Descriptor to ndarray (N, D), or sequence of mappings
        Raw descriptors, as :meth:`FeatureStore.read` returns them; one mapping for each view of
        the images where there are several, as of the whole image and of a box in it.
    how : {"average", "max", "stack"}
        How scales are combined: the paper averages on VOC and stacks on Caltech.
    normalize : {"descriptor", "locations", "none"}
        L2-normalise every descriptor, and the row that they become; ``"locations"`` does the
        same to descriptors whose locations were normalised before pooling; ``"none"`` leaves
        raw values.
    power : float, optional
        Signed power x ↦ sign(x)·|x|^power before every normalisation; 0.5 is the signed square
        root. Beyond the paper.

    Returns
    -------
    ndarray (N, D) of float32

    Raises
    ------
    ParameterError
        For an unknown name, a power outside (0, 1], or no arrays.

    Examples
    --------
    >>> import numpy as np
    >>> small, large = (Descriptor("D", "fc7", "average", Q) for Q in (256, 384))
    >>> arrays = {small: np.array([[3.0, 4.0]]), large: np.array([[0.0, 2.0]])}
    >>> aggregate(arrays, "stack", normalize="none")
    array([[3., 4., 0., 2.]], dtype=float32)
    >>> aggregate(arrays, "average").round(4)
    array([[0.3162, 0.9487]], dtype=float32)
    """
    check_aggregation(how, normalize, power)
    views = [arrays] if isinstance(arrays, Mapping) else list(arrays)
    if not views or not all(views):
        raise ParameterError.of("arrays", "aggregate", "at least one array", arrays)
    tensors = [{name: _to_tensor(values) for name, values in view.items()} for view in views]
    rows: Matrix = combine(tensors, how, normalize, power).numpy()
    return rows


def combine(
    views: Sequence[Mapping[Descriptor, Tensor]],
    how: str = "average",
    normalize: str = "descriptor",
    power: float | None = None,
) -> Tensor:
    """Combine tensors (N, D), a mapping for each view, as :func:`aggregate` does.

    It is differentiable: powers and norms rescale a value by a number that counts as a constant, so
    that a gradient times the descriptors adds up to what it is the gradient of.

    Examples
    --------
    >>> pool5 = Descriptor("D", "pool5", "average", 256)
    >>> values = torch.tensor([[4.0, 0.0, -9.0]], requires_grad=True)
    >>> score = combine([{pool5: values}], power=0.5) @ torch.tensor([1.0, 2.0, 3.0])
    >>> (gradient,) = torch.autograd.grad(score, values)
    >>> torch.allclose((gradient * values).sum(), score)
    True
    """
    blocks: list[Tensor] = []
    for view in views:
        across_scales: dict[tuple[str, str, str], list[Tensor]] = {}
        for descriptor, values in view.items():
            prepared = _prepare(values, normalize, power)
            across_scales.setdefault(descriptor[:3], []).append(prepared)
        blocks += [_combine_scales(scales, how) for scales in across_scales.values()]
    rows = blocks[0] if len(blocks) == 1 else torch.cat(blocks, 1)
    return rows if normalize == "none" else _l2(rows)


@dataclass(frozen=True)
class Aggregation:
    """The settings of :func:`aggregate`, checked before anything is computed.

    Examples
    --------
    >>> Aggregation("stack").to_dict()
    {'how': 'stack', 'normalize': 'descriptor', 'power': None}
    """

    how: str = "average"
    normalize: str = "descriptor"
    power: float | None = None

    def __post_init__(self) -> None:
        check_aggregation(self.how, self.normalize, self.power)

    @property
    def locations(self) -> str:
        """What this asks of the extraction: whether locations are normalised before pooling."""
        return "l2" if self.normalize == "locations" else "raw"

    def check(self, columns: Iterable[Column]) -> None:
        """Refuse columns whose locations were not normalised, if they should be."""
        if self.locations == "l2" and any(c.settings.get("locations") != "l2" for c in columns):
            raise ParameterError(
                "These descriptors were pooled from raw locations, and normalize='locations' needs "
                "others: extract them, with that setting, into another store."
            )

    def rows(
        self, arrays: Mapping[Descriptor, Matrix] | Sequence[Mapping[Descriptor, Matrix]]
    ) -> Matrix:
        """Combine what stores hold into rows (N, D)."""
        return aggregate(arrays, self.how, normalize=self.normalize, power=self.power)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain JSON types."""
        return asdict(self)


def check_aggregation(how: str, normalize: str, power: float | None) -> None:
    """Refuse settings that :func:`aggregate` does not know."""
    if how not in (choices := get_args(Aggregate)):
        raise ParameterError.not_one_of("aggregate", "aggregate", choices, how)
    if normalize not in (choices := get_args(Normalize)):
        raise ParameterError.not_one_of("normalize", "aggregate", choices, normalize)
    if power is not None and not (isinstance(power, Real) and 0 < power <= 1):
        raise ParameterError.of("power", "aggregate", "a float in (0, 1] or None", power)


def _to_tensor(values: Matrix) -> Tensor:
    """Take an array as it is where torch can, and copy one that is read-only."""
    return torch.from_numpy(np.require(values, np.float32, ["C", "W"]))


def _prepare(values: Tensor, normalize: str, power: float | None) -> Tensor:
    if power is not None:
        # Not smaller, as the factor would be infinite: what is smaller stays next to 0.
        sizes = values.detach().abs().clamp(min=torch.finfo(values.dtype).tiny)
        values = values * (sizes ** (power - 1)).masked_fill_(values == 0, 0)
    return values if normalize == "none" else _l2(values)


def _l2(rows: Tensor) -> Tensor:
    """Divide rows by their Euclidean norms; rows of zeros stay zero."""
    norms: Tensor = (rows * rows).sum(1, keepdim=True).sqrt().detach()
    return rows / norms.masked_fill(~(norms > 0), 1)


def _combine_scales(scales: list[Tensor], how: str) -> Tensor:
    if len(scales) == 1:
        return scales[0]
    if how == "stack":
        return torch.cat(scales, 1)
    stacked = torch.stack(scales)
    return stacked.max(0).values if how == "max" else stacked.mean(0)
