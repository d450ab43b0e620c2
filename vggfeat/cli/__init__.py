"""The command line; every command is a few lines over the library."""

from __future__ import annotations

import errno
import sys
import warnings
from importlib.metadata import version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from vggfeat._io.text import short_of_memory
from vggfeat.cli.classify import classify_command
from vggfeat.cli.datasets import datasets_app
from vggfeat.cli.explain import explain_command
from vggfeat.cli.extract import extract_command
from vggfeat.cli.fuse import fuse_command
from vggfeat.cli.localize import localize_app
from vggfeat.cli.output import interruptible, note, note_error
from vggfeat.cli.predict import predict_command
from vggfeat.cli.run import run_command
from vggfeat.cli.store import store_app
from vggfeat.cli.svm import svm_command
from vggfeat.cli.train import train_command
from vggfeat.cli.weights import weights_app
from vggfeat.errors import VggfeatError

MANY_FILES = (errno.EMFILE, errno.ENFILE)


class Commands(TyperGroup):
    """All commands; Ctrl-C and SIGTERM are answered also where no long work has begun."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        with interruptible(lambda: "What was complete is kept."):
            return super().invoke(ctx)


app = typer.Typer(
    name="vggfeat",
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("extract")(extract_command)
app.command("svm")(svm_command)
app.command("run")(run_command)
app.command("predict")(predict_command)
app.command("explain")(explain_command)
app.command("classify")(classify_command)
app.command("fuse")(fuse_command)
app.command("train")(train_command)
app.add_typer(localize_app, name="localize")
app.add_typer(datasets_app, name="datasets")
app.add_typer(weights_app, name="weights")
app.add_typer(store_app, name="store")


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"vggfeat {version('vggfeat')}")
        raise typer.Exit


@app.callback()
def _about(
    show_version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Turn images into VGG features, and features into results.

    A network of Simonyan & Zisserman (arXiv 1409.1556) runs densely over every image, rescaled
    to smallest side Q; its descriptors are kept in an HDF5 store, and a linear SVM is trained on
    them, as in the paper's Appendix B.

    **See it work**, offline, on 300 shipped images:

        vggfeat svm --dataset sample

    **Extract features** of your images into ./features:

        vggfeat extract images/ --net D --layer pool5 --Q 256 --Q 384

    **Train and use a classifier** on a folder of class folders:

        vggfeat svm --dataset my_folder --layer pool5 --save model

        vggfeat predict model new_images/

        vggfeat explain model image.jpg

    **Tell what is in images** with a whole network:

        vggfeat classify images/ --net D

    **Find where objects are**, with a net trained to predict boxes:

        vggfeat localize --help

    **Reproduce a table of the paper**:

        vggfeat run table11-voc2007

    **Train a network** by the paper's recipe, or the paper's chain of them:

        vggfeat train --net D --init embedded --freeze conv --data my_folder --out runs/mine

        vggfeat run train-e-jitter --data ILSVRC2012

    Layer pool5 of net D needs no download; fc7, the paper's, is fetched once (`vggfeat weights`).
    Every command has --help with examples, and --json. Exit status: 0 done, 2 a wrong setting,
    3 data, 4 weights, 5 store or model, 6 device, 7 download, 8 a missing extra, 130 interrupted,
    143 terminated.
    """


def main() -> None:
    """Run the command line, and turn errors into one line and an exit status."""
    # Pillow warns of half of what it, and this program, reads.
    warnings.filterwarnings("ignore", "Image size .* exceeds limit", append=True)
    try:
        app()
    except VggfeatError as error:
        note_error("Error", error)
        sys.exit(error.exit_status)
    except (MemoryError, RuntimeError, ImportError, OSError) as error:
        if said := short_of_memory(error):
            note(f"Error: {_no_memory(said)}")
        elif isinstance(error, OSError):
            many = ". Allow more with: ulimit -n 4096" if error.errno in MANY_FILES else ""
            note(f"Error: {error}{many}")
        else:
            raise
        sys.exit(1)


def _no_memory(said: str) -> str:
    if "failed to map" in said:
        return (
            f"Memory ran out while libraries were loaded ({said}). What was complete is kept. Run "
            "the same command again where there is more memory, or allow more with: "
            "ulimit -v unlimited"
        )
    return (
        f"Memory ran out ({said}). What was complete is kept. Run the same command again with "
        "fewer --workers, or where there is more memory."
    )
