"""Each mistake that people make has its exit status, and an error that says what would be right.

The error comes before any work: no network runs, and where the weights are not at fault they are
not read. Nothing is written.
"""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from helpers.cli import Ran, run
from helpers.commands import root
from helpers.networks import PIXELS
from support import noise, random_state
from trees import draw_jpeg, write_voc

from vggfeat.cli.watching import MonitoredTrainer
from vggfeat.features.extractor import DenseExtractor
from vggfeat.nets import formats

LINES = 6  # of an error, at most
EMBEDDED = "--layer pool2 --Q 32 --weights embedded"


class Mistake(NamedTuple):
    """What is typed, the exit status, and what the error names: what is wrong, what is right."""

    words: str
    status: int
    names: tuple[str, ...]


def rows(text: str) -> list[Mistake]:
    """Read a table: a mistake a line, as ``words → status: name | name``."""
    found = []
    for line in filter(None, map(str.strip, text.splitlines())):
        words, _, right = line.partition(" → ")
        status, _, names = right.partition(": ")
        found.append(Mistake(words, int(status), tuple(names.split(" | "))))
    return found


# 2 a wrong setting, 3 data, 4 weights, 5 store or model, 6 device, 8 a missing extra.
BEFORE_WEIGHTS = rows("""
    frobnicate → 2: frobnicate
    extract nowhere → 3: nowhere | spelling
    extract images/none.png → 3: images/none.png | spelling
    extract empty → 3: empty | .png | @paths.txt
    extract texts → 3: texts | .png
    extract @absent.txt → 3: absent.txt
    extract list.csv → 3: list.csv | file, label | 'path'
    extract images --net D → 4: VGG_ILSVRC_16_layers.caffemodel | --weights embedded
    extract images --net F → 2: net | 'A', 'A-LRN', 'B' | 'F'
    extract images --net C → 4: net C | vggfeat train | --weights FILE
    extract images --net E --weights embedded → 4: embedded has net D, not E | torchvision
    extract images --layer pool9 → 2: layer | 'pool5' | 'pool9'
    extract images --layer conv5_4 → 2: layer | net D | 'conv5_3' | 'conv5_4'
    extract images --layer pool5 --Q 0 → 2: Q | 1 | Got 0
    extract images --layer pool5 --Q -3 → 2: Q | 1 | Got -3
    extract images --layer pool5 --Q big → 2: --Q | integer
    extract images --layer pool5 --Q 32 --Q 32 → 2: Q | twice
    extract images --layer pool2 --pool mean → 2: pool | 'average' | 'max' | 'gem3' | 'mean'
    extract images --layer pool2 --device tpu → 2: device | 'auto', 'cpu', 'cuda', 'mps' | 'tpu'
    extract images --layer pool2 --device cuda:77 → 6: cuda:77 | --device auto
    extract images --layer pool2 --precision int8 → 2: precision | 'fp32', 'bf16' | 'int8'
    extract images --layer pool2 --on-bad-image ignore → 2: --on-bad-image | 'skip' or 'error'
    extract images --layer pool2 --dtype float64 → 2: dtype | 'float32', 'float16' | 'float64'
    extract images --normalize l2 → 2: normalize | 'locations' | 'l2'
    extract images --quality medium → 2: quality | 'fast', 'standard', 'best', 'paper' | 'medium'
    extract images --workers 0 → 2: --workers | 1
    extract images --shard 4/3 → 2: shard | 1/N … N/N | '4/3'
    extract images --shard half → 2: shard | 1/N … N/N | 'half'
    extract images --shard auto → 2: --shard | SLURM_ARRAY_TASK_ID | 1/4
    extract images --engine spark → 2: --engine | 'local' or 'ray' | 'spark'
    extract images --address auto → 2: --address | --engine ray
    extract images --out notes.txt → 5: --out notes.txt | folder
    extract images --out notes.txt/f → 5: --out notes.txt/f | another place
    extract images --weights none.pth → 4: none.pth | auto, authors, torchvision, embedded
    extract images --layr pool2 → 2: --layr | --layer

    svm → 2: --dataset
    svm --dataset imagenet21k → 3: imagenet21k | sample | folder for each class
    svm --dataset ilsvrc2012 → 3: ilsvrc2012 | vggfeat train
    svm --dataset empty → 3: empty | empty/cat/1.jpg
    svm --dataset images → 3: images | images/cat/1.jpg
    svm --dataset single → 3: single | 'cat' | at least two
    svm --dataset nothing.csv → 3: nothing.csv | empty | path
    svm --dataset header.csv → 3: header.csv | rows
    extract header.csv → 3: header.csv | rows
    extract zeros.csv → 3: zeros.csv, line 2 | zero byte
    extract utf16.csv → 3: utf16.csv | zero bytes | UTF-8
    svm --dataset own.toml → 3: own.toml | lost.csv | data | --root
    svm --dataset protocol.toml → 3: [protocol] | seedd | seed | splits | an integer | 'x'
    svm --dataset nolabel.csv → 3: nolabel.csv | 'label' | it has path | --label-column
    svm --dataset broken.toml → 3: broken.toml | line 1
    svm --dataset caltech101 --root classes → 3: classes | --root | 101_ObjectCategories.tar.gz
    svm --dataset classes --loss logistic → 2: loss | 'squared_hinge' | 'logistic'
    svm --dataset classes --solver stream --loss hinge → 2: hinge | --loss auto
    svm --dataset classes --solver newton → 2: solver | 'gram' | 'newton'
    svm --dataset classes --C -1 → 2: --C | greater than 0 | Got -1.0
    svm --dataset classes --C one → 2: --C | must be a number | 'one'
    svm --dataset classes --c-split cv9 → 2: --c-split | 'train-val' or 'cv3' | 'cv9'
    svm --dataset classes --c-split train-val → 2: --c-split | mean class recall | voc2007 | labels
    svm --dataset classes --shared-C → 2: --shared-C | classes | voc2007 | labels
    svm --dataset classes --no-shared-C → 2: --no-shared-C | classes
    svm --dataset classes --difficult drop → 2: --difficult | classes | voc2007
    svm --dataset labels.csv --difficult drop → 2: --difficult | labels | voc2007
    svm --dataset caltech101 --shared-C → 2: --shared-C | caltech101 | voc2007
    svm --dataset classes --root images → 2: --root | classes | caltech101
    svm --dataset classes --power 2 → 2: power | 1 | Got 2.0
    svm --dataset classes --power -0.5 → 2: power | greater than 0 | Got -0.5
    svm --dataset classes --aggregate sum → 2: aggregate | 'stack' | 'sum'
    svm --dataset classes --view face → 2: view | 'image' or 'box' | 'face'
    svm --dataset classes --view box → 3: boxes | --view image
    svm --dataset classes --submission s → 3: classes | public | --submission
    svm --dataset classes --jobs 0 → 2: jobs | -1 | Got 0
    svm --dataset classes --features notes.txt → 5: notes.txt | vggfeat extract
    svm --dataset classes --save notes.txt/m → 5: --save notes.txt/m | another place
    svm --dataset classes --save . → 5: . is a folder | Name a file
    svm --dataset classes --save / → 5: / is a folder | Name a file
    svm --dataset classes --save .. → 5: .. is a folder | Name a file
    svm --dataset classes --save saved/.. → 5: saved/.. is a folder | Name a file
    svm --dataset classes --save taken.safetensors → 5: taken.safetensors is a folder | Name a file
    svm --dataset classes --save taken → 5: taken.safetensors is a folder | Name a file
    svm --dataset classes --report notes.txt/r.html → 5: --report notes.txt/r.html | another place

    run → 2: RECIPE
    run nowhere → 3: nowhere | table11-voc2007 | my.toml
    run broken.toml → 3: broken.toml | line 1
    run recipe.toml → 3: recipe.toml | dataset is missing | datset | features.net | nets
    run tests.toml → 3: tests.toml | 'classification' or 'localization' | 'voc'
    run chain.toml → 3: chain.toml | 'epoch' | 'epochs'
    run table11-voc2007 --set Q=256 → 2: Q=256 | features.Q=[256,384]
    run table11-voc2007 --set training.epochs=2 → 2: training | features and classifier
    run table11-voc2007 --set features.W=3 → 2: 'W' | nets, Q
    run table11-voc2007 --set features.Q=-3 → 2: --set features.Q | 1 | Got -3
    run table11-voc2007 --set features.Q=[64,64] → 2: --set features.Q=[64,64] | twice
    run train-a --set training.S=100 → 2: --set training.S | 224
    run table03-single-scale --set features.Q=256 → 2: table03-single-scale | features
    run embedded-fast --set classifier.c_split=cv3 → 2: c_split | sample | voc2007
    run table11-voc2007 --data x → 2: --data | table11-voc2007 | --help
    run table11-voc2007 --dataset nowhere → 3: nowhere | sample
    run table11-voc2007 --root nowhere → 3: nowhere | VOCdevkit | vggfeat datasets fetch voc2007
    run table11-voc2007 --report images → 5: --report images | a file
    run table03-single-scale → 2: table03-single-scale | --data ILSVRC_ROOT
    run table03-single-scale --data nowhere → 3: nowhere | class folders
    run table03-single-scale --data x --weights D=a.pth → 2: weights | d-256=FILE | 'D'
    run train-a → 2: train-a | --data ILSVRC_ROOT
    run train-a --data nowhere → 3: nowhere | class folders
    run train-a --data classes --report r.html → 2: --report | train-a
    run train-a --data classes --runs r → 2: --runs | train-a
    run table11-voc2007 --tensorboard → 2: --tensorboard | table11-voc2007
    run table11-voc2007 --runs r → 2: --runs | table11-voc2007
    run table03-single-scale --data x --report r.html → 2: --report | table03-single-scale
    run table03-single-scale --data x --out r → 2: --out | table03-single-scale

    predict none images → 3: none | vggfeat svm --dataset
    predict . images → 5: . is a folder | Name a file
    predict notes.txt images → 5: notes.txt | vggfeat svm --save
    predict a.safetensors images → 5: a.safetensors | vggfeat svm --save
    predict model nowhere → 3: nowhere | spelling
    predict model images --top 0 → 2: --top | 1
    predict model images --device tpu → 2: device | 'cpu' | 'tpu'
    predict model images --on-bad-image ignore → 2: --on-bad-image | 'skip' or 'error'
    predict model images --weights none.pth → 4: none.pth | --weights
    predict model images --csv none/s.csv → 5: --csv none/s.csv | folder none
    predict model images --csv images → 5: --csv images | a file

    explain none images → 3: none | vggfeat svm --dataset
    explain model images --class zebra → 2: class | 'cat', 'dog' | 'zebra'
    explain model images --out notes.txt → 5: --out notes.txt | folder
    explain model images --csv none/s.csv → 5: --csv none/s.csv | folder none

    classify → 2: images | --data
    classify images --data classes → 2: images | --data
    classify nowhere → 3: nowhere | spelling
    classify --data nowhere → 3: nowhere | class folders
    classify --data empty → 3: images in empty
    classify --data images → 3: images | class folders | list
    classify images --weights none.pth → 4: none.pth
    classify images --mode crop → 2: mode | 'dense', 'multicrop' or 'both' | 'crop'
    classify images --locations mean → 2: locations | 'scores' or 'posteriors' | 'mean'
    classify images --grid 0 → 2: grid | greater than or equal to 1 | Got 0
    classify images --results r → 2: --results | --data
    classify images --shard 1/2 --csv c → 2: --csv | --shard
    classify images --shard 1/2 --top 5 → 2: --top | --shard
    classify --data classes --shard 3/2 → 2: shard | 1/N … N/N | '3/2'
    classify images --Q 256 --multi-scale → 2: --Q | --multi-scale
    classify images --weights embedded → 4: embedded | pool5 | fc8
    classify images --csv none/s.csv → 5: --csv none/s.csv | folder none

    fuse → 2: STORES
    fuse images → 5: images | vggfeat classify
    fuse features → 5: pool2 | posteriors | vggfeat classify
    fuse images --results r → 2: --results | --data

    train --out a → 2: --data
    train --data classes → 2: --out
    train --data nowhere --out a → 3: nowhere | class folders
    train --data images --out a → 3: images | images/cat/1.jpg
    train --data single --out a → 3: single | 'cat' | at least two
    train --data classes --out notes.txt → 5: --out notes.txt | folder
    train --data classes --out a --net F → 2: 'F' | 'A', 'A-LRN', 'B'
    train --data classes --out a --init xavier → 2: init | 'glorot', 'paper', 'kaiming' | 'xavier'
    train --data classes --out a --S 200 → 2: --S | 224 | Got [200]
    train --data classes --out a --S 1 --S 2 --S 3 → 2: S | S_min and S_max
    train --data classes --out a --batch 0 → 2: batch | 1 | Got 0
    train --data classes --out a --lr -1 → 2: --learning-rate | greater than 0 | Got -1.0
    train --data classes --out a --dropout 1 → 2: dropout | less than 1 | Got 1.0
    train --data classes --out a --step 1 --epochs 1 → 2: steps | epochs = 1 | 2 epochs
    train --data parts --out a → 3: seg_test | --val parts/seg_test | --val-fraction
    train --data classes --out a --step 3 --patience 2 → 2: --patience | --step
    train --data classes --out a --step 99 → 2: steps | 73 | 99
    train --data classes --out a --freeze all → 2: freeze | 'none' or 'conv' | 'all'
    train --data classes --out a --val nowhere → 3: nowhere | --val
    train --data classes --out a --val-fraction 2 → 2: --val-fraction | (0, 1) | 2.0
    train --data classes --out a --device cuda:77 → 6: cuda:77 | --device auto
    train --data classes --out a --workers -1 → 2: --workers | 0
    train --data classes --out a --micro 0 → 2: --micro | 1

    localize train --data nowhere --out a → 3: nowhere | VOCdevkit/VOC2007
    localize train --data classes --out a → 3: classes | --boxes
    localize train --data VOC2007 --out a --init absent.pth → 2: init | 'embedded' | absent.pth
    localize train --data VOC2007 --out a --class cow → 2: class | 'cat', 'dog' | 'cow'
    localize train --data VOC2007 --out a --freeze convv → 2: freeze | 'none' or 'conv' | 'convv'
    localize train --data VOC2008 --out a → 3: VOC2008 | _<split>.txt | annotations | only train.txt
    localize train --data VOC2009 --out a → 3: VOC2009 | 1.psd | .png
    localize train --data VOC2007 --out a --boxes nowhere → 2: --boxes | ILSVRC
    localize train --data VOC2007 --out a --batch 0 → 2: batch | 1 | Got 0
    localize train --data VOC2007 --out a --S 100 → 2: S | 224 | Got 100
    localize predict images --class cat → 2: --model
    localize predict images --model nowhere --class cat → 4: nowhere | vggfeat localize train
    localize predict nowhere --model a --class cat → 3: nowhere | spelling
    localize predict images --model a --class cat --top 2 → 2: --top | --class
    localize predict images --model a --class cat --match best → 2: match | 'iou' or 'overfeat'
    localize predict images --model a --class cat --threshold 3 → 2: threshold | 1 | 3.0
    localize evaluate --model a → 2: --data
    localize evaluate --data VOC2007 --model nowhere → 4: nowhere | vggfeat localize train
    localize evaluate --data VOC2007 --model a --labels s → 2: --labels | --classifier
    localize evaluate --data VOC2007 --model a --Q 256 → 2: --Q | --classifier
    localize evaluate --data VOC2007 --model a@256 → 2: --model | --classifier
    localize evaluate --data VOC2007 --model a --model b → 2: --model | --classifier
    localize evaluate --data VOC2007 --model a --threshold 0.3 → 2: --threshold | --classifier

    datasets list sample → 2: sample
    datasets show nowhere → 3: nowhere | sample
    datasets show card.toml → 3: card.toml | reader | kind
    datasets fetch nowhere → 3: nowhere | sample
    datasets fetch voc2007 --split nothing → 3: 'nothing' | test, train, trainval, val
    datasets fetch voc2007 --root notes.txt → 3: notes.txt | --root
    datasets check voc2007 --root nowhere → 3: nowhere | VOCdevkit | vggfeat datasets fetch voc2007

    weights list embedded → 2: embedded
    weights fetch nobody → 2: 'authors', 'torchvision' | 'nobody'
    weights fetch auto → 2: 'authors', 'torchvision' | 'auto'
    weights fetch authors --net A → 4: net D, E, not A | torchvision
    weights fetch authors --net F → 2: net | 'A', 'A-LRN', 'B' | 'F'
    weights show authors → 4: authors | net D | vggfeat weights fetch authors --net D
    weights show embedded --net E → 4: embedded has net D, not E | torchvision
    weights show none.pth → 4: none.pth | spelling
    weights convert a.safetensors notes.txt/b.pth → 5: notes.txt/b.pth | another place

    store info nowhere → 5: nowhere | vggfeat extract | vggfeat extract
    store info notes.txt → 5: notes.txt | HDF5 | vggfeat store pack
    store verify images → 5: images | manifest.json
    store repair images → 5: images | manifest.json
    store merge features → 2: --out
    store merge features other --out both → 5: flip | True | same
    store merge features images --out both → 5: images | manifest.json
    store merge features --out features → 5: features | another --out
    store pack images x.h5 → 5: images | manifest.json
    store pack features none/x.h5 → 5: none/x.h5 | folder none
    store pack features none/ → 5: none/ | none/features.h5
    store export features none/ --format csv → 5: none/ | folder
    store export features x.xlsx → 2: format | 'npz', 'npy', 'csv', 'parquet' | 'xlsx'
    store export features x.csv --Q 512 → 5: --Q 512 | --Q 32
    store export features x.csv --layer fc9 → 5: --layer fc9 | --Q 32
    store export features x.csv --aggregate mean → 2: aggregate | 'stack' | 'mean'
    store export features x.csv --normalize locations → 2: --normalize locations | another store
    store export features x.csv --raw --aggregate stack → 2: --raw | --aggregate
    store export features images --format csv → 5: images | a file
""")
OF_WEIGHTS = rows("""
    weights show notes.txt → 4: notes.txt | .safetensors, .pth
    extract images --layer pool2 --weights nothing.pth → 4: nothing.pth | damaged
    extract images --layer pool2 --weights nothing.safetensors → 4: nothing.safetensors | damaged
    extract images --layer pool2 --weights a.safetensors → 4: a.safetensors | A | not of net D
    extract images --net A --layer pool4 --weights a.safetensors → 4: a.safetensors | conv4_2
    extract images --layer pool2 --Q 32 --no-flip --out features → 5: features | flip | --out
    predict model images --weights a.safetensors → 4: a.safetensors | not of net D
    predict model images --weights nothing.pth → 4: nothing.pth | damaged
    classify images --weights a.safetensors → 4: a.safetensors | fc8
    classify images --weights nothing.pth → 4: nothing.pth | damaged
    train --data classes --out a --net E --init embedded → 4: embedded | net D | not E
    train --data classes --out a --init nothing.pth → 4: nothing.pth | damaged
    localize predict images --model a.safetensors --class cat → 4: a.safetensors | fc8
    localize predict images --model model.safetensors --class cat → 4: SVM | vggfeat predict
    weights show a.safetensors --net D → 4: a.safetensors | A | not of net D
    weights convert a.safetensors b.xyz → 2: .safetensors or .pth | b.xyz
    weights convert a.safetensors b.pth --pixels bgr → 2: pixels | 'caffe', 'torchvision' | 'bgr'
""")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make what people have: images, classes, lists, a store, a model; and what is broken."""
    from PIL import Image

    root = tmp_path_factory.mktemp("mistakes")
    drawn = {f"images/{n}.png" for n in range(3)}
    drawn |= {f"classes/{label}/{n}.png" for label in ("cat", "dog") for n in range(8)}
    drawn |= {f"single/cat/{n}.png" for n in range(3)}
    drawn |= {f"parts/seg_{p}/{c}/{n}.png" for p in ("train", "test") for c in "ab" for n in "12"}
    for seed, name in enumerate(sorted(drawn)):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise(48, 40, seed)).save(root / name)
    for name in ("empty", "texts", "taken.safetensors"):
        (root / name).mkdir()
    texts = {
        "texts/notes.txt": "none",
        "notes.txt": "none",
        "nothing.pth": "none",
        "nothing.safetensors": "none",
        "list.csv": "file,label\nimages/0.png,cat\n",
        "nolabel.csv": "path\nimages/0.png\nimages/1.png\n",
        "labels.csv": "path,labels\nimages/0.png,cat\nimages/1.png,\nimages/2.png,cat|dog\n",
        "broken.toml": "title = \n",
        "card.toml": 'name = "x"\nkind = "y"\n',
        "recipe.toml": 'title = "x"\ndatset = "sample"\n[features]\nnet = "D"\n',
        "tests.toml": 'protocol = "voc"\n',
        "chain.toml": '[[links]]\nname = "a"\ntraining = { epoch = 3 }\n',
        "own.toml": 'name = "own"\nfolder = "lost.csv"\n',
        "protocol.toml": 'name = "x"\nreader = "folders"\n[protocol]\nseedd = 1\nsplits = "x"\n',
        "nothing.csv": "",
        "header.csv": "path,label\n",
        "zeros.csv": "path,label\nimages/0\0.png,cat\n",
        "utf16.csv": "p\0a\0t\0h\0\n",
    }
    for name, text in texts.items():
        (root / name).write_text(text)
    objects = {"train": {"1": (1, -1), "2": (-1, 1)}, "val": {"3": (1, -1), "4": (-1, 1)}}
    for year in (2007, 2008, 2009):
        write_voc(root / f"VOC{year}", ("cat", "dog"), objects)
    for path in (root / "VOC2008").glob("ImageSets/Main/*_*.txt"):
        path.unlink()
    shutil.rmtree(root / "VOC2008" / "Annotations")
    for path in (root / "VOC2009" / "JPEGImages").iterdir():
        path.rename(path.with_suffix(".psd"))
    state = random_state("A", ["pool2"])
    formats.write(root / "a.safetensors", state, PIXELS, net="A", source="drawn", licence="none")
    home = {"VGGFEAT_HOME": str(tmp_path_factory.mktemp("home"))}
    first = ("--layer", "pool2", "--Q", "32", "--no-flip", "--out", "other")
    run("extract", "images", *shlex.split(EMBEDDED), "--out", "features", cwd=root, env=home)
    run("extract", "images", "--weights", "embedded", *first, cwd=root, env=home)
    saved = ("--save", "model", "--jobs", "1")
    run("svm", "--dataset", "classes", *shlex.split(EMBEDDED), *saved, cwd=root, env=home)
    return root


@pytest.fixture(autouse=True)
def _no_work(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let the test fail where a network runs or is trained."""

    def working(*args: object, **options: object) -> None:
        raise AssertionError("the work began")

    monkeypatch.setattr(DenseExtractor, "describe_finite", working)
    monkeypatch.setattr(MonitoredTrainer, "__call__", working)


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    """Tell all that is in a folder, with sizes and times of the last change of files."""
    return {
        str(path): (path.stat().st_size, path.stat().st_mtime_ns) if path.is_file() else (0, 0)
        for path in folder.rglob("*")
    }


def error_of(ran: Ran) -> list[str]:
    """Return the lines of the error, out of the box that the parser of options draws."""
    lines = [line.strip(" │") for line in ran.err.splitlines()]
    boxed = [line for line in lines if line.startswith(("╭", "╰"))]
    if boxed:
        return [line for line in lines if line and not line.startswith(("╭", "╰", "Usage", "Try"))]
    start = next(n for n, line in enumerate(lines) if line.startswith("Error: "))
    return lines[start:]


def check(mistake: Mistake, folder: Path) -> Ran:
    """Make a mistake, and look at all that is promised of its answer."""
    before = listing(folder)
    ran = run(*shlex.split(mistake.words), status=mistake.status, cwd=folder)
    error = error_of(ran)
    assert "Traceback" not in ran.err
    assert len(error) <= LINES, ran.err
    for name in mistake.names:
        assert name in " ".join(error), f"{name!r} is not named: {error}"
    assert ran.out == ""
    assert listing(folder) == before
    return ran


@pytest.mark.parametrize("mistake", BEFORE_WEIGHTS, ids=[one.words for one in BEFORE_WEIGHTS])
def test_mistakes_are_told_before_weights_are_read(
    mistake: Mistake, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error is all that is said, before any weights are read."""

    def reading(path: Path) -> None:
        raise AssertionError(f"{path} was read")

    monkeypatch.setattr(formats, "find_format", reading)
    ran = check(mistake, folder)
    assert ran.err.lstrip().startswith(("Error: ", "Usage: ", "╭─ Error"))


@pytest.mark.parametrize("mistake", OF_WEIGHTS, ids=[one.words for one in OF_WEIGHTS])
def test_mistakes_that_weights_show(mistake: Mistake, folder: Path) -> None:
    """What only the weights can tell is told before a network runs."""
    check(mistake, folder)


def test_a_place_that_may_not_be_written(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder without leave is refused before the work whose result would be lost."""
    (tmp_path / "locked").mkdir()
    access = os.access
    locked = tmp_path / "locked"  # root may write everywhere, so that the answer is put in
    monkeypatch.setattr(os, "access", lambda path, mode: path != locked and access(path, mode))
    for words in ("svm --dataset classes --report", "predict model images --csv"):
        check(Mistake(f"{words} {locked}/r", 5, (f"{locked}", "another place")), folder)


def test_no_readable_image_is_an_error(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command that could read nothing says so at its end, after the reason of each image."""
    draw_jpeg(tmp_path / "torn" / "a.jpg")
    whole = (tmp_path / "torn" / "a.jpg").read_bytes()
    (tmp_path / "torn" / "a.jpg").write_bytes(whole[: len(whole) // 2])
    out = str(tmp_path / "out")
    for words in (
        ["extract", tmp_path / "torn", *shlex.split(EMBEDDED), "--out", out],
        ["predict", "model", tmp_path / "torn"],
        ["explain", "model", tmp_path / "torn", "--out", f"{out}-drawn"],
    ):
        ran = run(*words, status=3, cwd=folder)
        assert "a.jpg" in ran.err or "failed.csv" in ran.err
        assert "No image could be read" in ran.err


def test_every_command_is_in_the_table() -> None:
    """No command is left out."""

    def named(group: Any, before: str = "") -> Iterator[str]:
        for name, command in getattr(group, "commands", {}).items():
            yield from named(command, f"{before}{name} ")
        if not hasattr(group, "commands"):
            yield before

    mistakes = [f"{one.words} " for one in (*BEFORE_WEIGHTS, *OF_WEIGHTS)]
    for name in named(root()):
        assert any(words.startswith(name) for words in mistakes), name
