"""Files made wrong: bytes changed, cut, doubled and mixed, with a preference for headers."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from typing import Any

NUMBERS = (0, 1, 2, 7, 127, 128, 255, 256, 32767, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1)
LARGEST = 1 << 20  # bytes that a file may grow to
HUGE = (b"-1", b"0", b"1e999", b"99999999999999999999", b"9" * 5000, b"nan", b"null", b"[" * 900)


def mutated(dice: random.Random, seeds: Sequence[bytes], tokens: Sequence[bytes] = ()) -> bytes:
    """Change one of the seeds in one to thirty-two places."""
    data = bytearray(dice.choice(seeds))
    for _ in range(dice.choice((1, 1, 1, 2, 2, 4, 8, 32))):
        how = dice.choice(WAYS)
        how(data, dice, seeds, tokens)
        del data[LARGEST:]
    return bytes(data)


def _place(data: bytearray, dice: random.Random) -> int:
    """Choose a place: anywhere, or as likely among the first ten bytes as the next hundred."""
    if not data:
        return 0
    if dice.random() < 0.5:
        return dice.randrange(len(data))
    near = min(len(data) - 1, int(10 ** dice.uniform(0, 4)))
    return near if dice.random() < 0.8 else len(data) - 1 - near


def _flip(data: bytearray, dice: random.Random, *_: Any) -> None:
    if data:
        data[_place(data, dice)] ^= 1 << dice.randrange(8)


def _byte(data: bytearray, dice: random.Random, *_: Any) -> None:
    if data:
        data[_place(data, dice)] = dice.choice((0, 255, dice.randrange(256)))


def _number(data: bytearray, dice: random.Random, *_: Any) -> None:
    at, width = _place(data, dice), dice.choice((1, 2, 4, 8))
    value = dice.choice(NUMBERS) % (1 << 8 * width)
    data[at : at + width] = value.to_bytes(width, dice.choice(("little", "big")))


def _cut(data: bytearray, dice: random.Random, *_: Any) -> None:
    at = _place(data, dice)
    del data[at : at + dice.choice((1, 4, 16, 256, len(data)))]


def _double(data: bytearray, dice: random.Random, *_: Any) -> None:
    at = _place(data, dice)
    piece = data[at : at + dice.choice((1, 8, 64, 1024))]
    data[at:at] = piece * dice.choice((1, 1, 2, 50))


def _insert(data: bytearray, dice: random.Random, _: Any, tokens: Sequence[bytes]) -> None:
    at = _place(data, dice)
    data[at:at] = dice.choice(tokens) if tokens else dice.randbytes(dice.choice((1, 4, 30)))


def _splice(data: bytearray, dice: random.Random, seeds: Sequence[bytes], _: Any) -> None:
    other = bytearray(dice.choice(seeds))
    start, at = _place(other, dice), _place(data, dice)
    piece = other[start : start + dice.choice((4, 32, 512, len(other)))]
    data[at : at + len(piece)] = piece


def _figure(data: bytearray, dice: random.Random, *_: Any) -> None:
    """Put something else in the place of a number that is written out, as texts have them."""
    if found := list(re.finditer(rb"\d+", data[:20_000])):
        one = dice.choice(found)
        data[one.start() : one.end()] = dice.choice(HUGE)


WAYS: tuple[Callable[..., None], ...] = (
    *(_flip, _byte, _number, _number, _cut, _double),
    *(_insert, _insert, _splice, _figure),
)
