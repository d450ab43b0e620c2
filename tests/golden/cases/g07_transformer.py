"""G07: the scikit-learn transformer, with a cache and without."""

from __future__ import annotations

import hashlib

from golden.adapter import features as adapter
from golden.case import Found, case
from golden.inputs import Inputs
from golden.summaries import distance, summary, within


@case(
    "G07-transformer",
    command='VGGFeatures(net="D", layer=("pool3", "pool4"), Q=(32, 64), pool="average+max+cells", '
    'aggregate="stack", normalize="descriptor", power=0.5, flip=True, exif=True, '
    'weights="embedded", device="cpu", precision="fp32", n_jobs=1)',
    tolerance={**within("rows/*", 1e-5), "cached/*": {"at_most": 1e-6}},
)
def transforming(inputs: Inputs) -> Found:
    """Rows of the twelve images of I1, and the names of the columns."""
    files = sorted(inputs["I1"].iterdir())
    settings = {
        "layer": ("pool3", "pool4"),
        "Q": (32, 64),
        "pool": "average+max+cells",
        "aggregate": "stack",
        "normalize": "descriptor",
        "power": 0.5,
        "flip": True,
        "exif": True,
    }
    features = adapter.transformer(**settings, cache=None)
    X = features.transform(files)
    cached = adapter.transformer(**settings, cache=inputs.work / "cache")
    names = list(features.get_feature_names_out())
    return Found(
        {
            "rows": {f.name: summary(row) for f, row in zip(files, X, strict=True)},
            "dtype": str(X.dtype),
            "cached": {f"time {n}": distance(cached.transform(files), X) for n in (1, 2)},
            "feature names": {
                "count": len(names),
                "first": names[0],
                "last": names[-1],
                "sha256": hashlib.sha256("\n".join(names).encode()).hexdigest(),
            },
        },
        {"X": X},
    )
