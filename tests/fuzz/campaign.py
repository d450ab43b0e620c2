"""A campaign: what is tried, and what may come of it."""

from __future__ import annotations

import os
import random
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fuzz.mutation import mutated
from vggfeat.errors import VggfeatError

OWNED = "owned"  # a file of this name appears above the folder where hostile code was run


class Campaign:
    """Files of one kind, mutated and crafted, and what reads them.

    It may write in `folder` and nowhere else. `cases` are tried by default, each for some `seconds`
    at most; `tokens` are inserted into files, and `allowed` are events that are no crime here.
    """

    name = ""
    cases = 1000
    seconds = 20.0
    tokens: Sequence[bytes] = ()
    allowed: tuple[str, ...] = ()

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seeds = list(self.prepare())
        self.made = list(self.crafted())

    def prepare(self) -> Sequence[bytes]:
        """Make the files that are mutated, with the library of their format."""
        raise NotImplementedError

    def crafted(self) -> Sequence[Any]:
        """Make hostile files that no mutation finds; they are tried first."""
        return ()

    def case(self, dice: random.Random, number: int) -> Any:
        """Make one case; the same for the same dice."""
        return self.made[number] if number < len(self.made) else self.drawn(dice)

    def drawn(self, dice: random.Random) -> Any:
        """Draw a case that is not crafted."""
        return mutated(dice, self.seeds, self.tokens)

    def attempt(self, case: Any) -> None:
        """Read it, or refuse it by an error of vggfeat; any other error is a broken promise."""
        raise NotImplementedError

    def lost(self, seed: int, number: int) -> str:
        """Try a case; return what went wrong, or nothing."""
        # A process that was started anew draws the same cases from here on.
        case = self.case(random.Random(f"{self.name} {seed} {number}"), number)
        try:
            self.attempt(case)
        except VggfeatError as error:
            problem = "" if str(error).strip() else "an error without a word"
        except MemoryError:  # a file may promise more than there is
            problem = ""
        except BaseException as error:
            problem = "".join(traceback.format_exception(error)[-6:])
        else:
            problem = ""
        if (self.folder.parent / OWNED).exists():
            (self.folder.parent / OWNED).unlink()
            problem += "code of the file was run"
        return problem


class Hostile:
    """What a pickle makes when it is loaded carelessly: a file above the campaign's folder."""

    def __init__(self, folder: Path) -> None:
        self.where = folder.parent / OWNED

    def __reduce__(self) -> tuple[Any, tuple[str, int]]:
        return os.open, (str(self.where), os.O_CREAT | os.O_WRONLY)
