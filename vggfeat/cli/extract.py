"""``vggfeat extract``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from vggfeat._io.text import counted, size
from vggfeat.cli import options
from vggfeat.cli.console import Json, Quiet, note, note_left_out, show, work_progress
from vggfeat.cli.feature_file import Destination
from vggfeat.data.imageset import find_images
from vggfeat.data.partition import parse_partition
from vggfeat.errors import DataError, ParameterError
from vggfeat.recipes.quality import choose_quality
from vggfeat.report.tables import render_facts
from vggfeat.settings import Execution, Features
from vggfeat.store.runs import FAILED, of_share
from vggfeat.store.shard import DTYPES
from vggfeat.store.store import FeatureStore
from vggfeat.store.view import OPEN

if TYPE_CHECKING:
    from vggfeat.cli.working import Work
    from vggfeat.data.imageset import ImageSet
    from vggfeat.data.partition import Partition
    from vggfeat.features.extractor import DenseExtractor
    from vggfeat.features.summary import Summary


class Done(NamedTuple):
    """What the extraction with one net left."""

    extractor: DenseExtractor
    store: FeatureStore
    summary: Summary


class OutputOptions(NamedTuple):
    """Where the descriptors go, which share of how many images they are, and how it is said."""

    target: Destination
    shard: Partition
    images: int
    as_json: bool


@options.with_options(
    typed=options.typed_options(
        Features,
        without=("aggregate", "power", "views"),
        normalize={
            "help": "locations: L2-normalise every location before pooling; descriptors themselves "
            "are kept raw, and normalised when they are used."
        },
    ),
    execution=options.model_options(Execution, *options.DESCRIBING, *options.CLUSTER),
)
def command(
    *,
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="IMAGES",
            help="Folders, files, globs, @paths.txt, - (standard input), CSV or Parquet manifests "
            "with the columns path, label, split, or tars: train-{000..099}.tar. All may be at "
            "addresses: s3://, gs://, https://. The current folder by default.",
        ),
    ] = None,
    relative_to: options.RelativeTo = None,
    path_column: options.PathColumn = None,
    label_column: options.LabelColumn = None,
    out: Annotated[
        str,
        typer.Option(
            "--out",
            "-o",
            help="Folder of the store; or one file of a row for each image, with names and labels: "
            "*.csv, *.parquet, *.npz or *.npy.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = "features",
    force: options.Force = False,
    quality: options.Quality = None,
    typed: options.Typed,
    dtype: Annotated[str, typer.Option("--dtype", help="On disk: float32 or float16.")] = "float32",
    execution: Execution,
    shard: options.Shard = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Run a network densely over images and keep their descriptors in a store.

    Every image is decoded once, rescaled to smallest side Q for each Q, and described by the
    average over all locations and over the mirror image. The store keeps raw descriptors for
    each layer and scale: average, stack and L2 come later, without running the network again. The
    same command again, or one with more layers, poolings, scales or images, computes only what
    is lacking or has changed. Without a net, a layer or weights it is --quality standard, which
    needs no download; with one of them the rest is the paper's.

    For example:

        vggfeat extract images/

        vggfeat extract images/ --out features.csv

        vggfeat extract images/ --net E --Q 256 --Q 384 --Q 512 --out features

        vggfeat extract images/ --out /shared/features --shard 3/16

        vggfeat extract /shared/images --out /shared/features --engine ray --address auto

        find . -name '*.jpg' | vggfeat extract - --layer pool5
    """
    from vggfeat.cli.working import Work

    share = parse_partition(shard)
    target = Destination.of(out, share, force=force)
    if dtype not in DTYPES:
        raise ParameterError.not_one_of("dtype", "extract", DTYPES, dtype)
    features = choose_quality(quality, typed).but(**typed)
    work = Work(execution, quiet)
    images = find_images(
        sources or ["."], relative_to, path_column=path_column, label_column=label_column
    )
    note_left_out(images.left_out, quiet=quiet)
    output = OutputOptions(target, share, len(images), as_json)
    images = images.take(share.rows(len(images))) if share.parts > 1 else images
    done = [_extract(work, images, features, one, output, dtype) for one in features.nets]
    _report(output, images, features, done)


def _extract(
    work: Work, images: ImageSet, features: Features, net: str, output: OutputOptions, dtype: str
) -> Done:
    extractor = work.network_for(features, net, output.target.store)
    store = FeatureStore(output.target.store, "a", dtype=dtype)
    with work_progress("extract", quiet=work.quiet) as progress:
        summary = work.extract(
            images,
            extractor,
            features.Q,
            store,
            on_bad_image=work.execution.on_bad_image,
            workers=work.execution.workers,
            share=output.shard.share,
            progress=progress.images,
        )
    return Done(extractor, store, summary)


def _report(output: OutputOptions, images: ImageSet, features: Features, done: list[Done]) -> None:
    store, target, share = done[-1].store, output.target, output.shard.share
    out = target.store
    total, skipped = _total(done), done[-1].summary.failed
    rate = round(total.images_per_s, 2)
    asked = [column for one in done for column in one.extractor.columns(features.Q)]
    columns = [store.columns.get(column.descriptor, column) for column in asked]
    others = len(set(store.names) - set(images.names))
    result = {
        "store": None if target.file else out,
        "file": target.file and str(target.file),
        "shard": str(output.shard),
        "images": len(images),
        "computed": total.computed,
        "present": total.present,
        "added": [
            {"columns": number, "images": images} for number, images in sorted(total.added.items())
        ],
        "replaced": total.replaced,
        "skipped": skipped,
        "left_out": images.left_out.to_dict(),
        "dimensions": {column.descriptor.path: column.width for column in columns},
        "images_per_s": rate,
        "seconds": round(total.seconds, 3),
        "device": store.begun["device"],
        "precision": columns[-1].settings["precision"],
        "others": others,
        "bytes": store.nbytes,
        "fingerprints": {column.descriptor.path: column.digest for column in columns},
    }
    each = f" by each of {len(done)} nets" if len(done) > 1 else ""
    first, *more = _work(total, len(asked) // len(done))
    rows: dict[str, object] = {
        "images": [f"{len(images) - skipped} of {len(images)}{each}  ({first})", *more],
        "descriptors": "  ".join(f"{c.descriptor.path} ({c.width})" for c in columns),
        "rate": f"{rate:g} images/s" if total.computed else "nothing to compute",
        "device": f"{result['device']}, {result['precision']}",
        "store": f"{out} ({size(store.nbytes)})",
    }
    reasons = f"{out}/{of_share(FAILED, share)}"
    failed = store.failed
    if target.file:
        del rows["store"]
        reasons = str(target.failed)
        if skipped < len(images):
            descriptors = [column.descriptor for column in columns]
            rows["file"] = target.write(descriptors, images.names, features)
        else:
            target.clear()
    if total.replaced:
        rows["replaced"] = [
            f"{counted(total.replaced, 'image')} replaced others of the same name. If they are no",
            "newer versions: the earlier command takes up its rows without computing; keep both",
            "with --relative-to DIR, or another --out",
        ]
    if skipped:
        rows["skipped"] = f"{skipped}; reasons in {reasons}"
    if share:
        rows["shard"] = (
            f"{output.shard} of {output.images:,} images. When all are done, the same command "
            "without --shard puts them in order, or `vggfeat store merge` joins several --out"
        )
    elif not target.file and (shards := len(store.index.headers)) > OPEN:
        rows["view"] = (
            f"features.h5 has names only, since there are {shards:,} shards. Make few large ones "
            f"of them with: vggfeat store merge {out} --out OTHER"
        )
    if others and not share and not target.file:
        rows["others"] = f"{others} more images are kept here; this run did not name them"
    show(result, render_facts(rows), as_json=output.as_json)
    if skipped:
        note(f"Warning: {counted(skipped, 'image')} could not be used: {reasons}.")
    if len(images) and skipped == len(images):
        name, reason = next(iter(failed.items()))
        raise DataError(
            f"No image could be read, so that there are no features. The first, {name}: {reason}"
        )
    if target.file and not output.as_json:
        typer.echo(target.in_python())
    elif not output.as_json and not share:
        typer.echo(_in_python(out, features, [column.descriptor.path for column in columns], store))


def _work(total: Summary, columns: int) -> list[str]:
    """Say of how many images a run computed so many columns, and of how many some of them."""
    whole = total.computed - total.added.total()
    parts = [
        f"{counted(number, 'column')} added to {counted(images, 'image')} that had "
        f"{columns - number} of {columns}"
        for number, images in sorted(total.added.items())
    ]
    return [f"{whole} computed, {total.present} already there", *parts]


def _total(done: list[Done]) -> Summary:
    total = done[0].summary
    for one in done[1:]:
        total = total.plus(one.summary)
    return total


def _in_python(out: str, features: Features, paths: list[str], store: FeatureStore) -> str:
    """Say how to read the features, as these settings combine them."""
    how = f", {features.aggregate!r}" if features.aggregate != "average" else ""
    how += f", normalize={features.normalize!r}" if features.normalize != "descriptor" else ""
    how += f", power={features.power:g}" if features.power else ""
    if {column.path for column in store.columns} == set(paths):
        return (
            "\nIn Python:\n  from vggfeat import FeatureStore, aggregate\n"
            f"  X = aggregate(FeatureStore({out!r}).read(){how})"
        )
    return (
        "\nIn Python:\n  from vggfeat import Descriptor, FeatureStore, aggregate\n"
        f"  columns = [Descriptor.parse(path) for path in {paths!r}]\n"
        f"  X = aggregate(FeatureStore({out!r}).read(columns){how})"
    )
