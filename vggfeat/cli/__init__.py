"""The command line; every command is a few lines over the library.

A command is imported when it is run, and what loads torch in its function, so that ``--help`` is
there at once.
"""

from __future__ import annotations

import errno
import io
import os
import sys
import warnings
from importlib import import_module
from importlib.metadata import version
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command, get_group

from vggfeat._io.text import short_of_memory
from vggfeat.cli.console import in_options, interruptible, note, note_error
from vggfeat.errors import ParameterError, VggfeatError

MANY_FILES = (errno.EMFILE, errno.ENFILE)
COMMANDS = {
    "extract": "Run a network densely over images and keep their descriptors in a store.",
    "svm": "Train and test a linear SVM on the features of a labelled data set, as the paper did.",
    "run": "Run a recipe: all rows of a table of the paper, or a chain of networks to train.",
    "predict": "Tell the classes of new images with a saved model.",
    "explain": "Draw which parts of an image speak for a class, and which against it.",
    "classify": "Tell what is in images with a whole network; or, where that is known, how often "
    "it errs.",
    "fuse": "Average the posteriors of several nets (Section 4.4), without running any of them "
    "again.",
    "train": "Train a network of Table 1 by the paper's recipe, or fine-tune one.",
    "localize": "Find where objects are: train, use and test a net that predicts boxes "
    "(Appendix A).",
    "datasets": "List, show, fetch and check data sets.",
    "weights": "List, fetch, show and convert weights.",
    "store": "Look into, check, repair, merge, pack and export feature stores.",
}
"""The first line of each command's help; its module, of that name, has ``command`` or ``group``."""


class Commands(TyperGroup):
    """All commands, each of which is imported when it is run; Ctrl-C and SIGTERM are answered."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.commands = {name: TyperCommand(name, help=said) for name, said in COMMANDS.items()}

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Import the command that was asked for."""
        name, _, left = super().resolve_command(ctx, args)
        return name, name and import_command(name), left

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        with interruptible(lambda: "What was complete is kept."):
            try:
                return super().invoke(ctx)
            except typer.BadParameter as error:
                error.message = _in_words(error)
                raise


def import_command(name: str) -> Any:
    """Return a command, or a group of them, with its options."""
    module = import_module(f"vggfeat.cli.{name}")
    if group := getattr(module, "group", None):
        return get_group(group)
    alone = typer.Typer(add_completion=False, rich_markup_mode="markdown")
    alone.command(name)(module.command)
    return get_command(alone)


app = typer.Typer(
    name="vggfeat",
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


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
    _use_utf8()
    if isinstance(sys.stdout, io.TextIOWrapper):  # a name that its encoding lacks ends no command
        sys.stdout.reconfigure(errors="backslashreplace")
    # Pillow warns of half of what it, and this program, reads.
    warnings.filterwarnings("ignore", "Image size .* exceeds limit", append=True)
    warnings.showwarning = _show_warning
    try:
        app()
    except VggfeatError as error:
        note_error("Error", _as_typed(error))
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


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """Say a warning as all else is said, without the line of code that it is from."""
    note(f"Warning: {in_options(str(message))}")


def _use_utf8() -> None:
    """Begin anew in Python's UTF-8 mode, where the locale's encoding of file names is another.

    Names are bytes to the system, and UTF-8 in stores, lists, archives and tables: read otherwise,
    an image would have another name in each of them. What is printed keeps the encoding.
    """
    if sys.getfilesystemencoding() == "utf-8" or "1" in os.environ.get("PYTHONUTF8", ""):
        return
    os.environ["PYTHONUTF8"] = "1"
    os.environ.setdefault("PYTHONIOENCODING", getattr(sys.stdout, "encoding", "utf-8"))
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606  # itself


def _as_typed(error: VggfeatError) -> VggfeatError:
    """Name a parameter as the option that was typed for it."""
    if not isinstance(error, ParameterError) or not error.parameter:
        return error
    name = error.parameter.replace("_", "-")
    typed = [word.partition("=")[0] for word in sys.argv[1:]]
    flags = [flag for flag in typed if flag in (f"--{name}", f"--no-{name}")]
    return ParameterError(f"{flags[0]} {error.expected}") if flags else error


def _in_words(error: typer.BadParameter) -> str:
    """Say in plain words what an option's value must be, where pydantic has refused it."""
    from pydantic import ValidationError

    from vggfeat.validation import expected

    if isinstance(error.__cause__, ValidationError):
        wrong = error.__cause__.errors()[0]
        if right := expected(wrong):
            return f"It must be {right}. Got {wrong['input']!r} instead."
    return error.message


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
