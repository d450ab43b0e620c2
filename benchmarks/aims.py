"""What a run is to reach, as ratios between its own rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from race import FLOOR, Row


@dataclass(frozen=True)
class Side:
    """Which row: a contender, its precision, and the shapes of the images."""

    name: str
    precision: str
    shapes: str

    def tflops(self, rows: Sequence[Row], net: str, Q: list[int]) -> float | None:
        """Find the row's rate, if it was measured and did the same work."""
        for row in rows:
            same = (row.name, row.precision, row.shapes, row.net, row.Q)
            if same == (self.name, self.precision, self.shapes, net, Q):
                return row.tflops if "different work" not in row.note else None
        return None


def _each(shapes: str) -> list[tuple[Side, Side, float]]:
    ours = {precision: Side("vggfeat", precision, shapes) for precision in ("fp32", "bf16")}
    return [
        (ours["bf16"], Side("openvino-forward", "bf16", shapes), 1.0),
        (ours["fp32"], Side("openvino-forward", "fp32", shapes), 1.0),
        (ours["bf16"], Side("torchvision", "fp32", shapes), 5.0),
        (ours["bf16"], Side("timm", "fp32", shapes), 5.0),
        (ours["bf16"], Side("timm-compiled", "bf16", shapes), 1.0),
    ]


AIMS = [
    *_each("one"),
    *_each("mixed"),
    (Side("vggfeat", "bf16", "mixed"), Side("vggfeat", "bf16", "one"), 0.9),
    (Side("vggfeat", "fp32", "mixed"), Side("vggfeat", "fp32", "one"), 0.9),
]
AIMS_GPU = [
    (Side("vggfeat-forward", "bf16", "one"), Side(FLOOR, "bf16", "one"), 0.75),
    (Side("vggfeat", "bf16", "one"), Side(FLOOR, "bf16", "one"), 0.6),
]


def reached(rows: Sequence[Row], net: str, Q: list[int], gpu: bool) -> list[dict[str, object]]:
    """Compare rates per operation, where both rows were measured.

    Returns
    -------
    list of dict
        ``ours``, ``theirs``, ``ratio``, ``aim``.
    """
    found = []
    for ours, theirs, aim in AIMS_GPU if gpu else AIMS:
        here, there = (side.tflops(rows, net, Q) for side in (ours, theirs))
        if here is not None and there is not None:
            names = [f"{side.name} ({side.precision}, {side.shapes})" for side in (ours, theirs)]
            told = {"net": net, "Q": Q, "ours": names[0], "theirs": names[1]}
            found.append({**told, "ratio": here / there, "aim": aim})
    return found
