"""What the outputs of a network are called, and in which order they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from vggfeat._io.text import counted
from vggfeat.data.datasets import load_card
from vggfeat.errors import ParameterError, WeightsError
from vggfeat.nets.weights import Weights

CARD = "ilsvrc2012"
BOXES = "localisation"  # the kind of a net that predicts boxes
BESIDE = "classes.txt"
SHOWN = 20  # classes that an error lists


@dataclass(frozen=True)
class Classes:
    """The classes of a network's outputs, in their order.

    Parameters
    ----------
    keys : tuple of str
        What a folder of each class is called: for ILSVRC the synset (wnid).
    names : tuple of str
        What people call it.

    Examples
    --------
    >>> classes = ilsvrc_classes()
    >>> classes.keys[281], classes.names[281], len(classes)
    ('n02123045', 'tabby', 1000)
    """

    keys: tuple[str, ...]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.keys)


@cache
def ilsvrc_classes() -> Classes:
    """Return ILSVRC-2012's 1,000 classes, sorted by synset, as the authors' Caffe models have them.

    Their names are torchvision's.
    """
    from torchvision.models import VGG16_Weights

    categories = VGG16_Weights.IMAGENET1K_V1.meta["categories"]
    return Classes(tuple(load_card(CARD).classes), tuple(categories))


def named(keys: Sequence[str]) -> Classes:
    """Name classes by what their folders are called; synsets of ILSVRC have names of their own."""
    known = dict(zip(ilsvrc_classes().keys, ilsvrc_classes().names, strict=True))
    return Classes(tuple(keys), tuple(known.get(key, key) for key in keys))


def chosen(asked: Sequence[str], keys: Sequence[str], owner: str) -> list[str]:
    """Find the keys of classes that are asked for by key or by name.

    Parameters
    ----------
    asked : sequence of str
        As they are typed.
    keys : sequence of str
        Those that there are.
    owner : str
        Who has them, for the error.

    Raises
    ------
    ParameterError
        For a class that is not there.

    Examples
    --------
    >>> chosen(["tabby", "n02124075"], ["n02123045", "n02124075"], "the net")
    ['n02123045', 'n02124075']
    """
    names = named(keys).names
    known = dict(zip(names, keys, strict=True)) | {key: key for key in keys}
    if unknown := [one for one in asked if one not in known]:
        few = ", ".join(map(repr, names[:SHOWN]))
        rest = f", … ({len(keys):,} in all)" if len(keys) > SHOWN else ""
        raise ParameterError.of("class", owner, f"one of {few}{rest}", unknown[0])
    return list(dict.fromkeys(known[one] for one in asked))


def classes_of(weights: Weights) -> Classes:
    """Find what the outputs of fc8 are called.

    What ``vggfeat train`` wrote says it; of another file, ``net.pth``, a text file beside it does,
    with a class in each line: ``net.classes.txt``, or ``classes.txt`` for all files of a folder.
    Without any, 1,000 outputs are ILSVRC's.

    Parameters
    ----------
    weights : Weights
        With those of fc8.

    Raises
    ------
    WeightsError
        If there are not as many names as outputs, two are the same, or the net tells no classes
        but boxes.
    """
    if weights.about.get("kind") == BOXES:
        raise WeightsError(
            f"The net in {weights.origin} predicts boxes, not classes. Use it with "
            "`vggfeat localize`, and name a classification net here."
        )
    outputs = len(weights.state["fc8.bias"])
    keys, where = weights.classes, weights.origin
    file = Path(weights.origin)
    own, shared = (file.parent / name for name in (f"{file.stem}.{BESIDE}", BESIDE))
    listed = own if own.is_file() else shared
    if not keys and file.is_file() and listed.is_file():
        # Editors on Windows mark UTF-8 by three bytes, which are no part of a name.
        text = listed.read_text(encoding="utf-8-sig", errors="surrogateescape")
        keys, where = tuple(text.splitlines()), str(listed)
    if not keys and outputs == len(ilsvrc_classes()):
        return ilsvrc_classes()
    if not keys:
        raise WeightsError(
            f"The net in {weights.origin or weights.source} has {outputs} outputs, and nothing "
            f"says what they are called. Write {own}, with a class in each line."
        )
    if len(keys) != outputs:
        advice = f"Correct {listed.name}: a class in each line, in the order of the outputs"
        if where == str(shared):  # which may be right for another net
            advice += (
                f"; or give it the name of the file that it is of, as {own.name} is this one's"
            )
        raise WeightsError(
            f"The net in {weights.origin or weights.source} has {counted(outputs, 'output')}, but "
            f"{where} names {counted(len(keys), 'class')}. {advice}."
        )
    if twice := [key for place, key in enumerate(keys) if key in keys[:place]]:
        raise WeightsError(
            f"{where} names {twice[0]!r} twice, so that outputs {keys.index(twice[0]) + 1} and "
            f"{len(keys) - keys[::-1].index(twice[0])} of the net cannot be told apart. Give each "
            "class a name of its own."
        )
    return named(keys)
