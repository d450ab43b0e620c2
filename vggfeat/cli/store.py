"""``vggfeat store``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vggfeat._io.text import counted, size
from vggfeat.cli import options
from vggfeat.cli.console import Json, Quiet, note, show, spinner
from vggfeat.cli.targets import check_file, check_folder, file_path
from vggfeat.errors import ParameterError, StoreDamaged
from vggfeat.report.tables import render_facts
from vggfeat.settings import Features, net_name
from vggfeat.store.export import choose_columns, export, pack
from vggfeat.store.feature_files import list_files
from vggfeat.store.maintenance import info, repair, verify
from vggfeat.store.merge import merge
from vggfeat.store.store import FeatureStore

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vggfeat.store.maintenance import RepairSummary

group = typer.Typer(
    no_args_is_help=True,
    help="Look into, check, repair, merge, pack and export feature stores.",
    rich_markup_mode="markdown",
)
SHOWN = 8  # shares that are named
_MISSING = "merge it too, or run the same command without --shard into this folder"
Store = Annotated[
    str, typer.Argument(metavar="STORE", help="What `vggfeat extract` wrote, or a packed file.")
]


@group.command("info")
def info_command(store: Store = "features", as_json: Json = False) -> None:
    """Say what a store holds and what made it.

    For example:

        vggfeat store info features
    """
    found = info(store)
    shards = counted(found["shards"], "shard")
    rows: dict[str, object] = {
        "store": f"{store} ({size(found['bytes'])}, {shards}, {found['dtype']})",
        "images": f"{found['images']}; the last run was asked for {found['asked']}, "
        f"{found['failed']} failed",
    }
    if state := _state(found):
        rows["state"] = state
    for net, about in found["nets"].items():
        if "device" in (made := about["provenance"]):
            rows[f"net {net}"] = f"{made['precision']} on {made['device']}"
    for path, column in found["columns"].items():
        mirrored = {True: "with mirror image, ", False: "without mirror image, "}
        flip = mirrored.get(column["settings"].get("flip"), "")  # fused scores do not say
        rows[path] = f"({column['rows']}, {column['D']}), {flip}settings {column['digest'][:12]}"
    show(found, render_facts(rows), as_json=as_json)


def _state(found: Mapping[str, Any]) -> str:
    """Say what is to be done, if anything."""
    missing = _shares(found["missing"])
    if absent := found["absent"]:
        lost = f"{counted(len(absent), 'shard')} of those that features.h5 shows"
        return f"{lost} are not here; `vggfeat store verify` names them"
    begun = [share for share, finished in found["shares"].items() if not finished]
    if begun:
        return f"{_shares(begun)} not finished; run the same command again to go on"
    if found["missing"] and found["shares"]:
        return f"{_shares([*found['shares']])}, finished; {missing} not here"
    if found["missing"]:
        return f"{missing} missing; {_MISSING}"
    if not found["finished"]:
        return "the run was not finished; run the same command again to go on"
    if not found["view"]:
        return "all shares are finished; the same command without --shard writes features.h5"
    return ""


def _shares(shares: Sequence[str]) -> str:
    """Name some shares."""
    others = len(shares) - SHOWN
    more = f" and {others} others" if others > 0 else ""
    return f"{'share' if len(shares) == 1 else 'shares'} {', '.join(shares[:SHOWN])}{more}"


@group.command("verify")
def verify_command(store: Store = "features", quiet: Quiet = False, as_json: Json = False) -> None:
    """Check every shard against its checksum; exit status 5 if anything is wrong.

    For example:

        vggfeat store verify features
    """
    with spinner(f"Verifying {store}", quiet=quiet):
        problems = verify(store)
    lines = problems or [f"{store} is sound."]
    if problems and not Path(store).is_file():
        lines = [*problems, f"Move aside what is damaged, with: vggfeat store repair {store}"]
    show({"sound": not problems, "problems": problems}, *lines, as_json=as_json)
    if problems:
        raise typer.Exit(StoreDamaged.exit_status)


@group.command("repair")
def repair_command(store: Store = "features", quiet: Quiet = False, as_json: Json = False) -> None:
    """Move damaged shards aside; the command that made the store then computes them again.

    Every shard is compared with its checksum; a damaged one is renamed to *.h5.damaged, and the
    view and the index are made anew of the others. What is sound is not touched: if a shard with a
    right checksum cannot be used, it is named, and the exit status is 5. Nobody may write to the
    store meanwhile.

    For example:

        vggfeat store repair features
    """
    with spinner(f"Repairing {store}", quiet=quiet):
        done = repair(store)
    show({"store": store, **asdict(done)}, *_mended(store, done), as_json=as_json)
    if done.left:
        raise typer.Exit(StoreDamaged.exit_status)


def _mended(store: str, done: RepairSummary) -> list[str]:
    """Say what was mended, and what to do next."""
    lines = [f"{name} was set aside: {why}." for name, why in done.aside.items()]
    lines += [
        f"{name} was left where it is, for its bytes are those that were written: {why}."
        for name, why in done.left.items()
    ]
    lines += [f"{name} was made anew." for name in done.rebuilt]
    if done.aside:
        lines.append(f"{counted(len(done.aside), 'file')} set aside.")
    if done.left:
        lines.append(
            "Move each shard that was left to a place outside the store yourself, unless its line "
            "says what else to do, then run the same command again."
        )
    elif done.aside or done.rebuilt:
        lines.append("Run the same command again: it computes what is missing, and nothing else.")
    return lines or [f"{store} is sound; nothing was changed."]


@group.command("merge")
def merge_command(
    parts: Annotated[
        list[str],
        typer.Argument(metavar="STORE...", help="Stores to join; one, to make its shards few."),
    ],
    out: Annotated[str, typer.Option("--out", "-o", help="Folder of the store to make.")],
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Join the stores of several shares, or the many small files of one store.

    Columns of one name must have been made with the same settings. An image that several stores
    hold is kept once, with all columns that any of them has; if one name stands for two images,
    nothing is joined, and both are named. The same command again goes on where it was stopped.

    For example:

        vggfeat store merge features-1 features-2 features-3 --out features
    """
    check_folder("--out", out)
    with spinner(f"Merging into {out}", quiet=quiet):
        done = merge(parts, out)
    text = f"{out} holds {counted(done.images, 'image')}, in {counted(done.shards, 'new shard')}."
    if done.twice:
        text += f" {counted(done.twice, 'image')} of several stores: kept once."
    lines = [text]
    if done.missing:
        lines.append(f"Not finished: {_shares(done.missing)} missing. To finish, {_MISSING}.")
    elif not done.finished:
        lines.append("Not finished: a part's run was not. Run the same command into this folder.")
    show({"store": out, **asdict(done)}, *lines, as_json=as_json)


@group.command("pack")
def pack_command(
    store: Store,
    file: Annotated[str, typer.Argument(metavar="FILE", help="The HDF5 file to write.")],
    force: options.Force = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Make one self-contained HDF5 file of a store.

    For example:

        vggfeat store pack features features-packed.h5
    """
    target = file_path(file)
    check_file("FILE", target, force=force)
    with spinner(f"Packing {store}", quiet=quiet):
        pack(store, target)
    _show_written(target, {}, as_json)


@group.command("export")
@options.with_options(typed=options.typed_options(Features, "aggregate", "normalize", "power"))
def export_command(
    *,
    store: Store,
    file: Annotated[str, typer.Argument(metavar="FILE", help="*.npz, *.npy, *.csv or *.parquet.")],
    format: Annotated[  # noqa: A002  # the option's name
        str | None, typer.Option("--format", help="npz, npy, csv or parquet; by FILE's ending.")
    ] = None,
    net: Annotated[list[str] | None, typer.Option("--net", help="Nets; all by default.")] = None,
    layer: Annotated[
        list[str] | None, typer.Option("--layer", help="Layers; all by default.")
    ] = None,
    pool: Annotated[
        str | None, typer.Option("--pool", help="Poolings, joined by +; all by default.")
    ] = None,
    Q: Annotated[
        list[int] | None, typer.Option("--Q", "-Q", min=1, help="Scales; all by default.")
    ] = None,
    typed: options.Typed,
    raw: Annotated[
        bool, typer.Option("--raw", help="Raw descriptors of every scale, not combined.")
    ] = False,
    force: options.Force = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Write features for other tools: one row for each image, combined as for an SVM.

    With names, and the labels and splits that the images' list, or their class folders, had.

    For example:

        vggfeat store export features features.csv --aggregate stack

        vggfeat store export features fc7.npz --net D --layer fc7 --Q 256 --raw
    """
    from vggfeat.features.aggregate import Aggregation

    target = file_path(file)
    for path in list_files(target):
        check_file("FILE", path, force=force)
    if raw and typed:
        raise ParameterError(
            "--raw is of descriptors that are not combined: --aggregate, --normalize and --power "
            "say nothing to it. Leave out one or the other."
        )
    how = Features(**typed)
    aggregation = Aggregation(how.aggregate, how.normalize, how.power)
    held = FeatureStore(store)
    columns = choose_columns(
        held,
        nets=[net_name(name) for name in net or ()],
        layers=layer or (),
        pools=pool.split("+") if pool else (),
        scales=Q or (),
    )
    aggregation.check(held.columns[name] for name in columns)
    with spinner(f"Exporting {store}", quiet=quiet):
        rows = export(
            store, target, format, columns=columns, matrix=None if raw else aggregation.rows
        )
    if left_out := len(held.names) - rows:
        note(f"{counted(left_out, 'image')} lack a column and are left out.", quiet=quiet)
    _show_written(target, {"rows": rows, "left_out": left_out}, as_json)


def _show_written(target: Path, result: dict[str, Any], as_json: bool) -> None:
    written = target.stat().st_size
    rows = f"{result['rows']} rows, " if result else ""
    text = f"Wrote {target} ({rows}{size(written)})."
    show({"path": str(target), **result, "bytes": written}, text, as_json=as_json)
