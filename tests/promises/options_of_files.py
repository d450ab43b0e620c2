"""Rows of the commands of what lies on disk: datasets, weights, store."""

from __future__ import annotations

from promises.option_row import EFFECT, FLAG, FREE, PRINTED, rows

DOWNLOADS = ("--quiet", "--quiet", "download_progress.quiet", True, FLAG)
PARTS = [
    ("--root", "--root there", "{}.root", "there", FREE),
    ("--split", "--split test --split val", "{}.splits", ["test", "val"], "--split exam → 3"),
]
DATASETS = [
    *rows("datasets list", "", ("--json", "--json", EFFECT, None, FLAG)),
    *rows(
        "datasets show",
        "sample",
        ("NAME", "voc2007", "load_card.name", "voc2007", FREE),
        ("--json", "--json", EFFECT, None, FLAG),
    ),
    *(
        row._replace(place=row.place.format(called))
        for command, called in (("fetch", "fetch_dataset"), ("check", "check_dataset"))
        for row in rows(
            f"datasets {command}",
            "sample",
            ("NAME", "voc2007", "{}.name", "voc2007", FREE),
            *PARTS,
            *(PRINTED if command == "check" else (DOWNLOADS, PRINTED[1])),
        )
    ),
]
WEIGHTS = [
    *rows("weights list", "", ("--json", "--json", EFFECT, None, FLAG)),
    *rows(
        "weights fetch",
        "authors",
        ("SOURCE", "torchvision", "fetch.source", "torchvision", "imagenet"),
        ("--net", "--net E", "fetch.net", "E", "--net F"),
        DOWNLOADS,
        ("--json", "--json", EFFECT, None, FLAG),
    ),
    *rows(
        "weights show",
        "weights.safetensors",
        ("FILE", "weights-2.safetensors", "describe.path", "weights-2.safetensors", FREE),
        ("--net", "--net E", "describe.net", "E", "--net F"),
        ("--json", "--json", EFFECT, None, FLAG),
    ),
    *rows(
        "weights convert",
        "weights.safetensors out.pth",
        ("IN", "model.safetensors out.pth", "convert.source", "model.safetensors", FREE),
        ("OUT", "weights.safetensors o.safetensors", "convert.target", "o.safetensors",
         "weights.safetensors out.h5"),
        ("--net", "--net E", "convert.net", "E", "--net F"),
        ("--pixels", "--pixels torchvision", "convert.pixels", "torchvision", "--pixels bgr"),
        ("--json", "--json", EFFECT, None, FLAG),
    ),
]  # fmt: skip
STORE = [
    *(
        row
        for command in ("info", "verify", "repair")
        for row in rows(
            f"store {command}",
            "features",
            ("STORE", "part-1", f"{command}.path", "part-1", FREE),
            *(PRINTED[1:] if command == "info" else PRINTED),
        )
    ),
    *rows(
        "store merge",
        "part-1 part-2 --out whole",
        ("STORE", "part-2 part-1 --out whole", "merge.parts", ["part-2", "part-1"], FREE),
        ("--out", "--out all", "merge.out", "all", FREE),
        *PRINTED,
    ),
    *rows(
        "store pack",
        "features f.h5",
        ("STORE", "part-1 f.h5", "pack.source", "part-1", FREE),
        ("FILE", "features g.h5", "pack.target", "g.h5", FREE),
        ("--force", "--force", "check_file.force", True, FLAG),
        *PRINTED,
    ),
    *rows(
        "store export",
        "features f.csv",
        ("STORE", "part-1 f.csv", "export.source", "part-1", FREE),
        ("FILE", "features g.csv", "export.target", "g.csv", "features g.txt"),
        ("--format", "--format npz", "export.format", "npz", "--format txt"),
        ("--net", "--net D", "choose_columns.nets", ["D"], "--net X → 5"),
        ("--layer", "--layer fc7", "choose_columns.layers", ["fc7"], "--layer fc9 → 5"),
        ("--pool", "--pool average", "choose_columns.pools", ["average"], "--pool mean → 5"),
        ("--Q", "--Q 384", "choose_columns.scales", [384], "--Q wide"),
        ("--aggregate", "--aggregate stack", "Aggregation.how", "stack", "--aggregate mean"),
        ("--normalize", "--normalize none", "Aggregation.normalize", "none", "--normalize l1"),
        ("--power", "--power 0.5", "Aggregation.power", 0.5, "--power 2"),
        ("--raw", "--raw", "export.matrix", None, FLAG),
        ("--force", "--force", "check_file.force", True, FLAG),
        *PRINTED,
    ),
]

FILES = [*DATASETS, *WEIGHTS, *STORE]
