"""Texts: annotations, cards, recipes, lists and manifests."""

from __future__ import annotations

import io
import random
import shutil
from collections.abc import Sequence

import pyarrow
import pyarrow.parquet
from trees import OBJECT, write_voc

from fuzz.campaign import Campaign
from fuzz.mutation import mutated
from vggfeat._io.assets import shared
from vggfeat.data.datasets import load_card, open_dataset
from vggfeat.data.datasets.annotations import read_annotation
from vggfeat.data.datasets.voc import read_voc
from vggfeat.data.imageset import find_images
from vggfeat.recipes import open_recipe

MARKUP = (
    b"<!DOCTYPE a [<!ENTITY x SYSTEM 'file:///etc/passwd'>]>",
    b"&x;",
    b"]]>",
    b"<!--",
    b"&#0;",
)
MARKUP += (
    b"<?xml version='1.0' encoding='utf-7'?>",
    b"<?xml version='1.0' encoding='idna'?>",
    b"<",
)
LINES = (
    b"../../../etc/passwd",
    b"/dev/zero",
    b"\0",
    b"\r",
    b'"',
    b",",
    b"\xff",
    b"\x1b[2J",
    b"\n" * 9,
)
LINES += (b"s3://bucket/a.jpg", b"http://host/a.jpg", b"file:///etc/passwd", b"path")
LINES += (b"\x1b[2J", b"zip://a::b")
TOML = (
    b"[[",
    b"]]",
    b'"""',
    b"= 5",
    b"= []",
    b"= {}",
    b"= nan",
    b'= "../../x"',
    b"= -1",
    b"= 1e999",
)


def xml(*objects: str) -> bytes:
    """Write an annotation."""
    size = "<size><width>50</width><height>40</height></size>"
    return f"<annotation>{size}{''.join(objects)}</annotation>".encode()


class Xml(Campaign):
    """Annotations of ILSVRC and VOC."""

    name = "xml"
    cases = 20_000
    tokens = MARKUP

    def prepare(self) -> Sequence[bytes]:
        (self.folder / "Annotations").mkdir()
        cat = OBJECT.format(name="cat", difficult=1, box=(1, 2, 30, 40))
        return [
            xml(cat),
            xml(cat, cat),
            xml(),
            b"<?xml version='1.0' encoding='ascii'?>" + xml(cat),
        ]

    def crafted(self) -> Sequence[bytes]:
        outside = b"<!ENTITY x SYSTEM 'file:///etc/passwd'>"
        heads = [outside, b"<!ENTITY % p SYSTEM 'http://127.0.0.1:9/'>%p;"]
        made = [b"<!DOCTYPE a [<!ENTITY l0 'ha'>" + head + b"]>" + xml("&l9;&x;") for head in heads]
        made += [b"<!DOCTYPE a SYSTEM 'http://127.0.0.1:9/x.dtd'>" + xml()]
        return [*made, b""]

    def attempt(self, case: bytes) -> None:
        path = self.folder / "Annotations" / "1.xml"
        path.write_bytes(case)
        read_annotation(self.folder, "1")


class Cards(Campaign):
    """Cards of data sets, and recipes."""

    name = "cards and recipes"
    cases = 6000
    tokens = TOML

    def prepare(self) -> Sequence[bytes]:
        recipes = sorted(shared("pipelines").glob("*.toml"))
        return [one.read_bytes() for one in (*sorted(shared("datasets").glob("*.toml")), *recipes)]

    def crafted(self) -> Sequence[bytes]:
        own = b'name = "x"\nreader = "caltech"\nclasses = ["a"]\nfolder = "%s"\n'
        archive = b'[[archives]]\nfile = "%s"\nmd5 = "' + b"0" * 32 + b'"\nneeded_for = ["all"]\n'
        wrapper = archive % b"a.tar" + b'[archives.wrapper]\nfile="%s"\nmember="a"\nurls=[]\n'
        made = [own % b"../../x", own % b"/etc", own % b"a" + archive % b"../x.tar"]
        made += [own % b"a" + wrapper % one for one in (b"../x.zip", b"/tmp/x.zip", b"a\\\\b")]
        made += [own % b"a" + archive % b"a.tar" + b'proof = "../../etc/passwd"\n']
        made += [b'name="x"\nreader="folders"\nasset="../../../../etc"', b'name="x"\nprotocol=5']
        made += [b"a = " + b"9" * 5000, b"\xff"]
        links = b'[[links]]\nname = "%s"\n'
        return [
            *made,
            links % b"../x",
            links % b"a" * 2,
            b"protocol = 1",
            b"links = 5",
            b"rows = 1",
        ]

    def attempt(self, case: bytes) -> None:
        path = self.folder / "own.toml"
        path.write_bytes(case)
        try:
            card = load_card(str(path))
            assert ".." not in card.folder.split("/"), card.folder
            open_dataset(str(path), self.folder, fetch=False)
        finally:
            open_recipe(str(path))


class Lists(Campaign):
    """Lists, CSV and Parquet manifests, and the lists of VOC."""

    name = "lists and manifests"
    cases = 12_000
    tokens = LINES

    def prepare(self) -> Sequence[bytes]:
        table = {"path": ["a.jpg", "b.jpg"], "label": ["x", "y"], "split": ["train", "test"]}
        made = []
        for how in ("none", "snappy", "zstd"):
            out = io.BytesIO()
            pyarrow.parquet.write_table(pyarrow.table(table), out, compression=how)
            made.append(out.getvalue())
        self.parquet = made
        write_voc(self.folder / "tree", ["cat"], {"train": {"000001": (1,)}})
        self.voc = (self.folder / "tree/ImageSets/Main/cat_train.txt").read_bytes()
        csv = b"path,label,split\na.jpg,x,train\nb.jpg,y,test\n"
        return [csv, b'path,label\n"a,b.jpg",""\n', b"a.jpg\nb.jpg\n", b"a.jpg\0b.jpg\0", self.voc]

    def crafted(self) -> Sequence[tuple[str, bytes]]:
        made = [(kind, b"path\n\0\n") for kind in ("csv", "txt")]
        wrong = pyarrow.array([b"\xff\xfe", b"a"], pyarrow.binary()).view(pyarrow.string())
        for column in (wrong, pyarrow.array([[1], [2]]), pyarrow.array([1.5, None])):
            out = io.BytesIO()
            pyarrow.parquet.write_table(pyarrow.table({"path": column}), out)
            made.append(("parquet", out.getvalue()))
        many = b"000001 " + b"9" * 5000 + b" 1\n"
        return [*made, ("voc", many), ("voc", b"../../x 1\n"), ("voc", b"a\0b 1\n")]

    def drawn(self, dice: random.Random) -> tuple[str, bytes]:
        kind = dice.choice(("csv", "txt", "parquet", "voc"))
        seeds = {"parquet": self.parquet, "voc": [self.voc]}.get(kind, self.seeds)
        return kind, mutated(dice, seeds, self.tokens)

    def attempt(self, case: tuple[str, bytes]) -> None:
        kind, content = case
        if kind == "voc":
            tree = self.folder / "tree"
            lists = tree / "ImageSets"
            shutil.copytree(lists / "Main", lists / "Action", dirs_exist_ok=True)
            for task in ("Main", "Action"):
                (lists / task / "cat_train.txt").write_bytes(content)
            try:
                read_voc(tree, ["cat"])
            finally:
                read_voc(tree, ["cat"], "action")
            return
        path = self.folder / f"list.{kind}"
        path.write_bytes(content)
        images = find_images([f"@{path}" if kind == "txt" else str(path)])
        assert len(images.stamps()) == len(images)


CAMPAIGNS = (Xml, Cards, Lists)
