"""``vggfeat extract``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vggfeat.cli import options
from vggfeat.cli.output import Json, Quiet, facts, note, show, size, work_progress

if TYPE_CHECKING:
    from vggfeat.data.imagesets import ImageSet
    from vggfeat.features.dense import DenseExtractor
    from vggfeat.features.extract import Summary
    from vggfeat.features.store import FeatureStore


def extract_command(
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PICTURES",
            help="Folders, files, globs, @paths.txt, - (standard input), or a CSV manifest with "
            "the columns path, label, split. The current folder by default.",
        ),
    ] = None,
    out: options.Out = Path("features"),
    net: options.Net = "D",
    layer: options.Layers = ["fc7"],  # noqa: B006  # typer reads the default, nothing changes it
    Q: options.Scales = [256],  # noqa: B006
    weights: options.WeightsSource = "auto",
    flip: options.Flip = True,
    pool: options.Pool = "average",
    normalize: Annotated[
        str,
        typer.Option(
            "--normalize",
            help="locations: L2-normalise every location before pooling; descriptors themselves "
            "are kept raw, and normalised when they are used.",
        ),
    ] = "descriptor",
    exif: options.Exif = True,
    dtype: Annotated[str, typer.Option("--dtype", help="On disk: float32 or float16.")] = "float32",
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    on_bad_image: options.OnBadImage = "skip",
    workers: options.Workers = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Run a network densely over pictures and keep their descriptors in a store.

    Every picture is decoded once, rescaled to smallest side Q for each Q, and described by the
    average over all locations and over the mirror image. The store keeps raw descriptors for
    each scale: average, stack and L2 come later, without running the network again. The same
    command again computes only what is missing or has changed.

    For example:

        vggfeat extract pictures/ --layer pool5

        vggfeat extract pictures/ --net E --Q 256 --Q 384 --Q 512 --out features

        find . -name '*.jpg' | vggfeat extract - --layer pool5
    """
    from vggfeat.data.imagesets import find_pictures
    from vggfeat.features.aggregate import Aggregation
    from vggfeat.features.extract import extract
    from vggfeat.features.provenance import provenance
    from vggfeat.features.store import FeatureStore

    images = find_pictures(sources or ["."])
    extractor = open_extractor(
        net,
        layer,
        weights,
        flip,
        pool,
        Aggregation(normalize=normalize).locations,
        exif,
        device,
        precision,
        quiet,
    )
    extractor.check_scales(Q)
    store = FeatureStore(
        out,
        extractor.extraction,
        images.names,
        stats=images.stats(),
        dtype=dtype,
        provenance=provenance(extractor),
    )
    if images.duplicates:
        note(f"{images.duplicates} pictures were named twice; each is described once.", quiet=quiet)
    with work_progress("extract", quiet=quiet) as work:
        summary = extract(
            images,
            extractor,
            Q,
            store,
            on_bad_image=on_bad_image,
            workers=workers,
            progress=work.pictures,
        )
    _report(out, images, extractor, store, summary, as_json)


def open_extractor(
    net: str,
    layers: list[str],
    weights: str,
    flip: bool,
    pool: str,
    locations: str,
    exif: bool,
    device: str,
    precision: str,
    quiet: bool,
) -> DenseExtractor:
    """Load a network, showing a download if there is one, and say what will run where."""
    from vggfeat.cli.output import download_progress
    from vggfeat.features.dense import DenseExtractor
    from vggfeat.features.device import describe_device
    from vggfeat.nets.weights import load

    with download_progress(quiet=quiet) as progress:
        loaded = load(weights, net, layers, progress=progress)
    extractor = DenseExtractor(
        net,
        layers,
        weights=loaded,
        flip=flip,
        pool=pool,
        locations=locations,
        exif=exif,
        device=device,
        precision=precision,
    )
    done = extractor.extraction
    for asked, resolved in zip(layers, done.layers, strict=False):
        if asked != resolved:
            note(f"Layer {asked} is {resolved} of net {net}.", quiet=quiet)
    note(
        f"Net {net}, {', '.join(done.layers)}, weights {loaded.source} "
        f"({loaded.sha256[:12]}), {done.precision} on {describe_device(extractor.device)}",
        quiet=quiet,
    )
    return extractor


def _report(
    out: Path,
    images: ImageSet,
    extractor: DenseExtractor,
    store: FeatureStore,
    summary: Summary,
    as_json: bool,
) -> None:
    from vggfeat.errors import DataError
    from vggfeat.features.device import describe_device

    rate = round(summary.images_per_s, 2)
    dimensions = {
        store.extraction.path(part): dimension for part, dimension in store.dimensions.items()
    }
    result = {
        "store": str(out),
        "pictures": summary.pictures,
        "computed": summary.computed,
        "present": summary.present,
        "skipped": summary.failed,
        "dimensions": dimensions,
        "images_per_s": rate,
        "seconds": round(summary.seconds, 3),
        "device": describe_device(extractor.device),
        "precision": extractor.extraction.precision,
        "not_shown": store.unseen,
        "bytes": store.nbytes,
        "fingerprint": extractor.extraction.fingerprint,
    }
    rows: dict[str, object] = {
        "pictures": f"{summary.pictures - summary.failed} of {len(images)}"
        f"  ({summary.computed} computed, {summary.present} already there)",
        "descriptors": "  ".join(f"{path} ({d})" for path, d in dimensions.items()),
        "rate": f"{rate:g} images/s" if summary.computed else "nothing to compute",
        "device": f"{result['device']}, {result['precision']}",
        "store": f"{out} ({size(store.nbytes)})",
    }
    if summary.failed:
        rows["skipped"] = f"{summary.failed}; reasons in {out / 'failed.csv'}"
    if store.unseen:
        rows["not shown"] = (
            f"{store.unseen} more pictures are kept here; this run did not name them"
        )
    show(result, facts(rows), as_json=as_json)
    if summary.failed:
        note(f"Warning: {summary.failed} pictures could not be read: {out / 'failed.csv'}.")
    if summary.failed == len(images):
        raise DataError("No picture could be read, so that there are no features.")
    if not as_json:
        net = f", {store.extraction.net!r}" if len(store.manifest.nets) > 1 else ""
        typer.echo(
            f"\nIn Python:\n  from vggfeat import FeatureStore, aggregate\n"
            f"  X = aggregate(FeatureStore.open({str(out)!r}{net}).read())"
        )
