"""Images a second, beside what the machine could do and what a user would pick instead.

    python benchmarks/speed.py                        # everything; an hour or two on two cores
    python benchmarks/speed.py --quick                # a glance
    python benchmarks/speed.py --net E --Q 384 --precision bf16 --only vggfeat openvino-forward
    python benchmarks/speed.py --Q 256 384 512 256,384,512 --device cuda --images 256
    python benchmarks/speed.py --check benchmarks/speed_check.json

Per net, scale and precision the first row is the floor: the operations of the convolutions at the
rate of a large matrix product. All contenders have the same weights and see the same pixels; each
runs in turn, several times over, and its fastest run counts. Descriptors are compared with those of
vggfeat in fp32, computed by plain torch: below a cosine of 0.9999 a row is of different work.

vggfeat runs everywhere; the others at the reference scale, Q = 384 where that is asked for.
--check holds a few ratios against recorded ones and fails if one fell by a quarter; --record
writes them.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import contenders
import made
import ratios
import torch
from aims import reached
from contenders import TORCHVISION_NETS, Work
from floor import machine
from race import CONTENDERS, FLOOR, OURS, Row, race, tell
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from stages import peak, stages, start_up

from vggfeat.nets.runtimes import has_bf16, resolve_device

REFERENCE = (384,)
WHOLE = {
    "net": ["D", "E"],
    "Q": [(256,), (384,), (512,), (256, 384, 512)],
    "images": 16,
    "repeat": 3,
    "matrix": None,
    "only": list(CONTENDERS),
}
QUICK = {
    "net": ["D"],
    "Q": [(96,)],
    "images": 4,
    "repeat": 2,
    "matrix": 1024,
    "only": [name for name in CONTENDERS if name != "timm-compiled"],
}
Scales = tuple[int, ...]
SVM = {
    "VOC 2007": ["--n", "9963", "--classes", "20", "--classes-sklearn", "6"],
    "Caltech-256": ["--n", "30607", "--classes", "256", "--even", "--classes-sklearn", "6"],
}


@dataclass(frozen=True)
class Heat:
    """One work, and who does it."""

    work: Work
    names: tuple[str, ...]


def main(told: Sequence[str] | None = None) -> int:
    """Run what was asked for; 1 if a ratio has fallen."""
    args = arguments(told)
    if args.record:
        ratios.record(args.record, args.repeat)
        return 0
    if args.check:
        return checked(args.check, args.repeat)
    with tempfile.TemporaryDirectory() as folder:
        found = measured(args, Path(folder))
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


def arguments(told: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--net", nargs="+", choices=TORCHVISION_NETS)
    parser.add_argument("--layer", default="pool5", help="a convolution or pool")
    parser.add_argument("--Q", nargs="+", type=scales, help="several at once with commas")
    parser.add_argument("--precision", nargs="+", choices=("fp32", "bf16"))
    parser.add_argument("--shapes", nargs="+", choices=made.SHAPES, default=list(made.SHAPES))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--runtime", default="auto", help="vggfeat's")
    parser.add_argument("--images", type=int)
    parser.add_argument("--repeat", type=int)
    parser.add_argument("--matrix", type=int, help="side of the floor's matrices")
    parser.add_argument("--only", nargs="+", choices=CONTENDERS)
    parser.add_argument("--quick", action="store_true", help="D, Q = 96, four images")
    parser.add_argument("--svm", action="store_true", help="linear SVMs too, which take an hour")
    parser.add_argument("--json", type=Path)
    short = parser.add_mutually_exclusive_group()
    short.add_argument("--check", type=Path, metavar="FILE")
    short.add_argument("--record", type=Path, metavar="FILE")
    args = parser.parse_args(told)
    usual = QUICK if args.quick else WHOLE
    for name, value in usual.items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    return args


def scales(text: str) -> Scales:
    """Read one scale, or several that are computed together."""
    return tuple(int(Q) for Q in text.split(","))


def checked(file: Path, repeat: int) -> int:
    """Hold ratios against recorded ones."""
    if not file.is_file():
        print(f"{file} is not there. Record it: python benchmarks/speed.py --record {file}")
        return 1
    fallen = ratios.check(file, repeat)
    for name in fallen:
        print(f"FALLEN by more than a quarter: {name}", file=sys.stderr)
    return int(bool(fallen))


def measured(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Measure and print everything."""
    console = Console(width=150 if not sys.stdout.isatty() else None)
    device = resolve_device(args.device)
    here = machine(device)
    console.print(", ".join(f"{name} {value}" for name, value in here.items()))
    rows: list[Row] = []
    heats = list(plan(args, folder, device))
    for heat in heats:
        plain = replace(heat.work, precision="fp32", runtime="torch")
        found = race(heat.work, heat.names, args.repeat, reference(plain), args.matrix)
        console.print(table(found))
        rows += found
    told = {
        "machine": here,
        "rows": [row.to_dict() for row in rows],
        "aims": [aim for net in args.net for aim in reached_by(rows, net, args, device)],
        **ours(heats, args),
    }
    print_rest(console, told)
    if args.svm:
        told["svm"] = {name: linear_svm(size) for name, size in SVM.items()}
    return told


def plan(args: argparse.Namespace, folder: Path, device: torch.device) -> Iterator[Heat]:
    """List what is run: everyone at the reference, vggfeat on one shape at other scales."""
    can = [p for p in ("fp32", "bf16") if p == "fp32" or has_bf16(device)]
    first = reference_scale(args)
    for net in args.net:
        weights = made.weights(folder, net, args.layer)
        for Q in args.Q:
            for shapes in args.shapes if first == Q else args.shapes[:1]:
                images = made.images(folder / shapes, args.images, shapes)
                names = args.only if first == Q else [n for n in args.only if n in OURS]
                for precision in [p for p in args.precision or can if p in can]:
                    work = Work(
                        *(net, args.layer, Q, precision, weights, images),
                        *(shapes, device, args.runtime),
                    )
                    yield Heat(work, tuple(names))


def reference_scale(args: argparse.Namespace) -> Scales:
    """Scale at which everyone runs."""
    return REFERENCE if REFERENCE in args.Q else args.Q[0]


@cache
def reference(work: Work) -> Any:
    """Descriptors with which all others must agree."""
    tell(f"reference, {work.net}, Q {'+'.join(map(str, work.scales))}, {work.shapes}")
    return contenders.vggfeat(work)()


def reached_by(
    rows: Sequence[Row], net: str, args: argparse.Namespace, device: torch.device
) -> list[dict[str, object]]:
    """Compare with the aims at the reference scale."""
    return reached(rows, net, list(reference_scale(args)), device.type == "cuda")


def ours(heats: Sequence[Heat], args: argparse.Namespace) -> dict[str, Any]:
    """Measure our own run from within: stages, memory, start-up."""
    works = [heat.work for heat in heats if heat.work.shapes == args.shapes[0]]
    first = reference_scale(args)
    found: dict[str, Any] = {"stages": [], "memory": []}
    for work in works:
        told = {"net": work.net, "Q": list(work.scales), "precision": work.precision}
        if work.scales == first:
            tell(f"stages, {told}")
            found["stages"].append({**told, **stages(work, args.repeat)})
    largest = max(works, key=lambda work: (work.net, max(work.scales), work.precision == "fp32"))
    tell("memory")
    found["memory"] = [peak(many(largest, times)) for times in (1, 4)]
    tell("start-up")
    found["start_up"] = start_up(args.repeat)
    return found


def many(work: Work, times: int) -> Work:
    """Return the same work on so many times the images: memory must not grow with them."""
    folder = work.images[0].parent
    return replace(work, images=made.images(folder, times * len(work.images), work.shapes))


def table(rows: Sequence[Row]) -> Table:
    """Lay out one work: its contenders beside the floor."""
    first = rows[0]
    shapes = "500×375" if first.shapes == "one" else "mixed shapes"
    title = f"net {first.net}, Q = {', '.join(map(str, first.Q))}, {first.precision}, {shapes}"
    found = Table(box=SIMPLE_HEAD, title=title, title_justify="left")
    for name in ("", "images/s", "TFLOP/s", "of the floor", "vggfeat is", "spread", "cosine"):
        found.add_column(name, justify="right" if name else "left", no_wrap=True)
    found.add_column("")
    best = next((row.images_per_s for row in rows if row.name == "vggfeat"), None)
    for row in rows:
        found.add_row(row.name, *figures(row, best), row.note)
    return found


def figures(row: Row, ours: float | None) -> list[str]:
    """Write the figures of a row; empty where there are none."""
    if row.images_per_s is None:
        return [""] * 6
    times = f"{ours / row.images_per_s:.2f}×" if ours else ""
    return [
        f"{row.images_per_s:.2f}",
        f"{row.tflops:.3f}",
        f"{row.ratio:.3f}",
        times,
        "" if row.name == FLOOR else f"{row.spread:.0%}",
        "" if row.agreement is None else f"{row.agreement:.6f}",
    ]


def print_rest(console: Console, told: dict[str, Any]) -> None:
    """Print what is not a row of a table."""
    for aim in told["aims"]:
        verdict = "reached" if aim["ratio"] >= aim["aim"] else "NOT reached"
        console.print(
            f"net {aim['net']}: {aim['ours']} over {aim['theirs']}: {aim['ratio']:.2f}, "
            f"aim {aim['aim']}: {verdict}"
        )
    for each in told["stages"]:
        kept = {k: v for k, v in each.items() if k not in ("net", "Q", "precision", "but forward")}
        stage = ", ".join(f"{name} {ms:.1f}" for name, ms in kept.items())
        console.print(f"net {each['net']}, Q {each['Q']}, {each['precision']}, ms/image: {stage}")
        console.print(f"  everything but forward: {each['but forward']:.1%} of end to end")
    for each in told["memory"]:
        console.print(
            f"memory, net {each['net']}, Q {each['scales']}, {each['precision']}, "
            f"{each['images']} images: {each['gigabytes']:.2f} GB"
        )
    for name, seconds in told["start_up"].items():
        console.print(f"{name}: {seconds:.3f} s")


def linear_svm(size: Sequence[str]) -> dict[str, Any]:
    """Run the benchmark of linear SVMs at a data set's size."""
    from linear_svm import main as run

    return run(size)


if __name__ == "__main__":
    sys.exit(main())
