"""G08: a whole network from a file: fc7 as ``extract`` keeps it, and dense maps of fc8."""

from __future__ import annotations

import shutil

from golden.adapter import features as adapter
from golden.case import Found, case
from golden.inputs import Inputs
from golden.making.whole import FILE
from golden.summaries import summary, within

IMAGES = ("wide-0.png", "wide-1.png")


@case(
    "G08-whole-net",
    command="extract wide --net A --layer fc7 --pool average --Q 224 --weights net-A.safetensors; "
    "dense maps of fc8, runtime torch, without mirror image",
    tolerance={
        **within("fc7/rows/*", 1e-5),
        "fc8/*/norm": {"rel": 1e-5},
        "fc8/*/map/*": {"rel_norm": 1e-5},
    },
)
def whole_net(inputs: Inputs) -> Found:
    """Two images of 256 × 224, whose maps have two locations."""
    source, folder, store = inputs["I4"], inputs.work / "wide", inputs.work / "f"
    folder.mkdir()
    for name in IMAGES:
        shutil.copy(source / name, folder)
    told = adapter.extract(
        folder,
        store,
        net="A",
        layers=("fc7",),
        pools=("average",),
        Q=(224,),
        weights=source / FILE,
    )
    rows = adapter.stored(store, "fc7")
    pixels = {name: adapter.rescale(adapter.decode(source / name), 224) for name in IMAGES}
    maps = adapter.dense_maps("A", "fc8", source / FILE, pixels)
    arrays = {f"{name}/{c}": v for name, row in rows.items() for c, v in row.items()}
    return Found(
        {
            "fc7": {**told, "rows": {name: summary(row) for name, row in arrays.items()}},
            "fc8": {
                name: {
                    "shape": dense.shape,
                    "norm": float((dense.astype(float) ** 2).sum() ** 0.5),
                    "map": dense.ravel(),
                }
                for name, dense in maps.items()
            },
        },
        arrays | {f"{name}/fc8": dense for name, dense in maps.items()},
    )
