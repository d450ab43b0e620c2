"""What the outputs of a network are called, and in which order they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from vggfeat.data.cards import load_card
from vggfeat.errors import WeightsError
from vggfeat.ilsvrc.regression import KIND
from vggfeat.nets.weights import Weights

CARD = "ilsvrc2012"
BESIDE = "classes.txt"


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

    def to_json(self) -> str | list[str]:
        """Return what a store keeps: the keys, or of ILSVRC's the name of their card."""
        return CARD if self.keys == ilsvrc_classes().keys else list(self.keys)

    @classmethod
    def from_json(cls, told: str | Sequence[str]) -> Classes:
        """Inverse of :meth:`to_json`.

        Examples
        --------
        >>> Classes.from_json(["n02123045", "my own"]).names
        ('tabby', 'my own')
        """
        return ilsvrc_classes() if isinstance(told, str) else named(told)


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


def classes_of(weights: Weights) -> Classes:
    """Find what the outputs of fc8 are called.

    What ``vggfeat train`` wrote says it; of another file a ``classes.txt`` beside it does, with a
    class in each line. Without either, 1,000 outputs are ILSVRC's.

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
    if weights.about.get("kind") == KIND:
        raise WeightsError(
            f"The net in {weights.origin} predicts boxes, not classes. Use it with "
            "`vggfeat localize`, and name a classification net here."
        )
    outputs = len(weights.state["fc8.bias"])
    keys, where = weights.classes, weights.origin
    file = Path(weights.origin)
    listed = file.parent / BESIDE
    if not keys and file.is_file() and listed.is_file():
        # Editors on Windows mark UTF-8 by three bytes, which are no part of a name.
        text = listed.read_text(encoding="utf-8-sig", errors="surrogateescape")
        keys, where = tuple(text.splitlines()), str(listed)
    if not keys and outputs == len(ilsvrc_classes()):
        return ilsvrc_classes()
    if not keys:
        raise WeightsError(
            f"The net in {weights.origin or weights.source} has {outputs} outputs, and nothing "
            f"says what they are called. Write {listed}, with a class in each line."
        )
    if len(keys) != outputs:
        raise WeightsError(
            f"The net in {weights.origin or weights.source} has {outputs} outputs, but {where} "
            f"names {len(keys)} classes. Correct {listed.name}: a class in each line, in the order "
            "of the outputs."
        )
    if twice := [key for place, key in enumerate(keys) if key in keys[:place]]:
        raise WeightsError(
            f"{where} names {twice[0]!r} twice, so that outputs {keys.index(twice[0]) + 1} and "
            f"{len(keys) - keys[::-1].index(twice[0])} of the net cannot be told apart. Give each "
            "class a name of its own."
        )
    return named(keys)
