"""G04: ``vggfeat extract`` over images of three shapes, six odd ones and three bad ones."""

from __future__ import annotations

from golden.adapter import features as adapter
from golden.case import Found, case
from golden.inputs import Inputs
from golden.summaries import summary, within


@case(
    "G04-extract",
    command="extract photos --net D --layer pool3 --layer pool4 --pool average+max --Q 32 --Q 64 "
    "--weights embedded --flip --exif --normalize descriptor --precision fp32 --device cpu "
    "--workers 1 --out f --json",
    tolerance=within("rows/*", 1e-5),
)
def extracting(inputs: Inputs) -> Found:
    """Keep counts, dimensions, the images that failed, and every row."""
    photos = inputs.copy("I1", "I1b", to="photos")
    store = inputs.work / "f"
    told = adapter.extract(photos, store)
    rows = adapter.stored(store)
    arrays = {f"{name}/{c}": v for name, row in rows.items() for c, v in row.items()}
    return Found(
        {
            **told,
            "failed": adapter.failed(store),
            "names": sorted(rows),
            "columns": sorted(next(iter(rows.values()))),
            "rows": {name: summary(vector) for name, vector in arrays.items()},
        },
        arrays,
    )
