"""``vggfeat datasets``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vggfeat._io.text import size
from vggfeat.cli.console import Json, Quiet, download_progress, grid, note, show
from vggfeat.data.datasets import card_names, check_dataset, fetch_dataset, load_card
from vggfeat.report.tables import render_facts

if TYPE_CHECKING:
    from vggfeat.data.datasets import DatasetCard
    from vggfeat.data.datasets.check import Check
    from vggfeat.svm.protocols import Protocol

INCOMPLETE = 3  # the exit status of an unusable data set

group = typer.Typer(
    no_args_is_help=True, help="List, show, fetch and check data sets.", rich_markup_mode="markdown"
)
Name = Annotated[str, typer.Argument(metavar="NAME", help="A shipped card, or a card (.toml).")]
Root = Annotated[
    Path | None,
    typer.Option(
        "--root",
        help="Where the data lie: the data set's own folder, one above it, or the original "
        "archives. By default VGGFEAT_DATA, or ./data, or beside a card of your own.",
    ),
]
Splits = Annotated[
    list[str] | None,
    typer.Option("--split", help="Split that is wanted, such as test; repeat for several."),
]


@group.command("list")
def list_datasets(as_json: Json = False) -> None:
    """List the data sets that vggfeat knows.

    For example:

        vggfeat datasets list
    """
    cards = [load_card(name) for name in card_names()]
    metrics = [_protocol_of(card).metric for card in cards]
    rows: list[list[object]] = [
        [card.name, len(card.classes), _images(card), metric, _download(card)]
        for card, metric in zip(cards, metrics, strict=True)
    ]
    result = [
        {
            "name": card.name,
            "title": card.title,
            "classes": len(card.classes),
            "counts": card.counts,
            "images": card.images,
            "metric": metric,
            "licence": card.licence,
        }
        for card, metric in zip(cards, metrics, strict=True)
    ]
    table = grid(["data set", "classes", "images", "metric", "download"], rows)
    show({"datasets": result}, table, as_json=as_json)


@group.command("show")
def show_dataset(name: Name, as_json: Json = False) -> None:
    """Show a card: classes, counts, protocol, files, licence and the paper's figures.

    For example:

        vggfeat datasets show voc2007
    """
    card = load_card(name)
    protocol = _protocol_of(card).model_dump(mode="json") if card.kind else dict(card.protocol)
    rows: dict[str, object] = {
        "data set": card.title or card.name,
        "classes": f"{len(card.classes)}: {', '.join(card.classes)}" if card.classes else "",
        "images": _images(card),
        "protocol": _said(protocol),
        "defaults": _said(card.defaults.model_dump()) if card.defaults else "--quality standard",
        "files": _file(card),
        "paper": [f"Table {row.table}, {row}" for row in card.paper],
        "licence": card.licence,
        "source": card.source,
        "citation": card.citation.strip().splitlines(),
    }
    known = {what: value for what, value in rows.items() if value}
    whole = card.model_dump(mode="json") | {"protocol": protocol}
    show(whole, render_facts(known), as_json=as_json)


@group.command("fetch")
def fetch(
    name: Name,
    root: Root = None,
    split: Splits = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Fetch what the protocol needs: resumed where it stopped, verified, unpacked safely.

    What is here already is used. The archives stay beside what was unpacked; they may be removed.

    For example:

        vggfeat datasets fetch voc2007

        vggfeat datasets fetch voc2012 --split test --root /data
    """
    with download_progress(quiet=quiet) as progress:
        tree = fetch_dataset(name, root, split, progress)
    found = check_dataset(name, root, split)
    show({"path": str(tree), **found.to_dict()}, str(tree), as_json=as_json)
    if not found.complete:
        note(f"Warning: it is not whole: `vggfeat datasets check {name}` says what differs.")


@group.command("check")
def check(
    name: Name,
    root: Root = None,
    split: Splits = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Compare what is here with the card, split by split and class by class; change nothing.

    The exit status is 0 for a whole data set, and 3 if anything is missing or extra.

    For example:

        vggfeat datasets check caltech101 --root 101_ObjectCategories
    """
    if (card := load_card(name)).kind:
        _protocol_of(card)
    found = check_dataset(name, root, split)
    _show_check(found, quiet, as_json)
    if not found.complete:
        raise typer.Exit(INCOMPLETE)


def _protocol_of(card: DatasetCard) -> Protocol:
    from vggfeat.svm.protocols import protocol_of  # and scikit-learn, which --help does not need

    return protocol_of(card)


def _show_check(found: Check, quiet: bool, as_json: bool) -> None:
    counts = ", ".join(f"{split} {count:,}" for split, count in found.counts.items())
    verdict = "whole" if found.complete else f"not whole: {len(found.differences)} differences"
    rows: dict[str, object] = {found.name: verdict, "in": found.root, "images": counts}
    if not quiet:
        lists = {"differs": found.differences, "missing": found.missing, "skipped": found.strays}
        rows |= {what: list(lines) for what, lines in lists.items() if lines}
    show(found.to_dict(), render_facts(rows), as_json=as_json)


def _images(card: DatasetCard) -> str:
    if card.counts:
        return ", ".join(f"{split} {count:,}" for split, count in card.counts.items())
    return f"{card.images:,}" if card.images else ""


def _download(card: DatasetCard) -> str:
    needed = [one for one in card.archives if {*one.needed_for} & {*card.required}]
    if needed:
        return size(sum(one.bytes or 0 for one in needed))
    return "none: it ships" if card.asset or card.composed else "by hand"


def _file(card: DatasetCard) -> list[str]:
    return [
        f"{one.file} ({size(one.bytes) if one.bytes else 'size unknown'}; "
        f"{', '.join(one.needed_for)}; "
        f"{f'sha256 {one.sha256}' if one.sha256 else f'known by md5 only, {one.md5}'})"
        for one in card.archives
    ]


def _said(values: dict[str, object]) -> str:
    lists = (list, tuple)
    return "; ".join(
        f"{name.replace('_', ' ')} "
        f"{', '.join(map(str, value)) if isinstance(value, lists) else value}"
        for name, value in values.items()
        if value not in (None, "", ())
    )
