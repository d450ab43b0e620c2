"""Results with a part of every kind."""

from __future__ import annotations

import math

from vggfeat.result import (
    Axis,
    BoxMark,
    Gallery,
    GalleryImage,
    Lines,
    Matrix,
    Measure,
    Published,
    Result,
    Series,
    Strip,
    Table,
    TableColumn,
)

CLASSES = ("cat", "dog", "owl")
PAPER = (Published("D (Table 11)", 0.918, 0.01), Published("Zeiler & Fergus", 0.865))


def a_table(rows=((0.75, 0.1, 4), (0.5, math.nan, 6), (math.nan, math.nan, 0)), **more):
    columns = (
        TableColumn("class", "Class"),
        TableColumn("recall", "Recall", "percent", bar=True),
        TableColumn("spread", "±", "percent"),
        TableColumn("tested", "Tested", "int"),
    )
    named = tuple((CLASSES[place % 3], *row) for place, row in enumerate(rows))
    return Table("classes", "Recall of each class", columns, named, "Over all splits.", **more)


def some_lines(**more):
    series = (
        Series("split 1", (0.1, 1.0, 10.0), (0.5, 0.7, 0.6), marks=(1,)),
        Series("split 2", (0.1, 1.0, 10.0), (0.4, 0.8, 0.9), style="dashed"),
        Series("<dog>", (0.1, 1.0, 10.0), (0.2, math.nan, 0.3), style="thin"),
    )
    x, y = Axis("C", log=True), Axis("Recall", "percent")
    return Lines("validation", "Recall against C", x, y, series, **more)


def a_result(classes=CLASSES, **more):
    n = len(classes)
    counts = tuple(tuple(9 if r == c else (r + c) % 3 for c in range(n)) for r in range(n))
    curves = (Series("cat", (0.0, 0.5, 1.0), (1.0, 1.0, 0.5)), Series("owl", (), ()))
    tiles = (
        GalleryImage("a.jpg", "+1.20"),
        GalleryImage("b.jpg", "+0.30 dog", "wrong", (BoxMark((1, 1, 20, 15), "true"),)),
        GalleryImage("lost.jpg", "+0.10", "difficult"),
    )
    settings = {"data set": "pets", "Q": [256, 384], "C": 0.1}
    settings = {"settings": settings, "provenance": {"torch": "2.6", "seeds": {"splits": 0}}}
    parts = (
        a_table(section="Classes"),
        Matrix("confusion", "What was taken for what", classes, classes, counts),
        some_lines(section="Choice of C", events=((3.0, "here"),)),
        Matrix("grid", "Recall of each class and C", classes, ("0.1", "1"),
               ((0.25, 0.5),) * n, "percent", marks=((0, 1),), section="Choice of C"),
        Lines("curves", "Precision and recall", Axis("Recall"), Axis("Precision"), curves,
              panels=True),
        Gallery("ranked", "Ranked first", (Strip("cat", tiles), Strip("dog", ()))),
        Table("all", "All images", (TableColumn("image", "Image"),), (("a.jpg",),), shown=0),
    )  # fmt: skip
    return Result(
        "pets",
        more.pop("title", "Pets"),
        (Measure("recall", "mean class recall", 0.6251, spread=0.013, paper=PAPER),),
        "over 2 random splits",
        parts,
        seconds={"extract": 75.2, "read": 0.012},
        **{**settings, **more},
    )
