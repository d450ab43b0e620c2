"""What a pickle would build, reckoned from its steps alone, before anything is built.

torch builds nothing but tensors and plain containers of a .pth, and yet a pickle of 200 bytes can
keep it busy for ever: a tuple of two tuples, each the same tuple of two tuples, and so on, has a
few dozen objects and 2 to the power of that many leaves, all of which are visited to hash it.
"""

from __future__ import annotations

import pickletools
import zipfile
from pathlib import Path
from typing import IO, Any

from vggfeat.errors import WeightsError

LARGEST = 256 << 20  # bytes of a pickle, which holds names and shapes, no numbers
MOST = 10_000_000  # objects, each counted as often as it is reached
_PICKLES = 5  # of a file from before torch 1.6: magic number, version, system, objects, keys


def check(path: Path) -> None:
    """Refuse a .pth whose pickle builds more than any state dict has.

    Raises
    ------
    WeightsError
        If it does, or is damaged.
    """
    try:
        if zipfile.is_zipfile(path):
            _check_zipped(path)
        else:
            with path.open("rb") as file:
                for _ in range(_PICKLES):
                    _weigh(file)
    except WeightsError:
        raise
    except Exception as error:  # of a damaged archive or pickle, of a dozen classes
        raise WeightsError(f"it is damaged: {error}") from error


def _check_zipped(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if entry.filename.endswith("data.pkl"):
                if entry.file_size > LARGEST:
                    raise WeightsError(f"its pickle has {entry.file_size:,} bytes")
                with archive.open(entry) as file:
                    _weigh(file)


def _weigh(file: IO[bytes]) -> None:
    """Go through the steps of a pickle with the weight of each object in the object's place."""
    stack: list[int | None] = []  # None is a mark
    memo: dict[int, int | None] = {}
    for step, argument, _ in pickletools.genops(file):
        name, number = step.name, argument if isinstance(argument, int) else 0
        if name.endswith("GET"):
            stack.append(memo[number])
        elif name.endswith("PUT") or name == "MEMOIZE":
            memo[len(memo) if name == "MEMOIZE" else number] = stack[-1]
        elif name == "MARK":
            stack.append(None)
        else:
            weight = 1 + sum(one or 0 for one in _taken(stack, step))
            if weight > MOST:
                raise WeightsError(f"its pickle builds more than {MOST:,} objects")
            stack += [weight] * len(step.stack_after)


def _taken(stack: list[int | None], step: Any) -> list[int | None]:
    """Take from the stack what a step uses."""
    taken: list[int | None] = []
    before = list(step.stack_before)
    if pickletools.markobject in before:
        while (last := stack.pop()) is not None:
            taken.append(last)
        before = before[: before.index(pickletools.markobject)]
    return taken + [stack.pop() for _ in before]
