"""One checksum for all files: every flipped bit and every cut is seen."""

from __future__ import annotations

import hashlib
from pathlib import Path

from vggfeat._io.checksums import (
    append_checksum,
    append_checksum_to,
    has_valid_checksum,
    sha256,
    sha256_array,
    sha256_file,
    strip_checksum,
)

CONTENT = bytes(range(256)) * 3


def test_the_last_line_is_the_digest_of_what_is_before_it(tmp_path: Path) -> None:
    """In memory and in a file alike, as sha256sum prints it."""
    whole = append_checksum(CONTENT)
    assert whole == CONTENT + f"\nsha256 {hashlib.sha256(CONTENT).hexdigest()}\n".encode()
    assert strip_checksum(whole) == CONTENT
    path = tmp_path / "a"
    path.write_bytes(CONTENT)
    assert sha256_file(path) == sha256(CONTENT) == hashlib.sha256(CONTENT).hexdigest()
    append_checksum_to(path)
    assert path.read_bytes() == whole
    assert has_valid_checksum(path)


def test_every_flipped_bit_and_every_cut_is_seen(tmp_path: Path) -> None:
    """Also in the line itself."""
    whole, path = append_checksum(CONTENT[:40]), tmp_path / "a"
    cases = [whole[:length] for length in range(len(whole))]
    for position in range(len(whole)):
        flipped = bytearray(whole)
        flipped[position] ^= 1 << position % 8
        cases.append(bytes(flipped))
    for content in [*cases, whole + b"\n", b""]:
        path.write_bytes(content)
        assert strip_checksum(content) is None
        assert not has_valid_checksum(path)


def test_arrays_of_other_shapes_have_other_digests() -> None:
    """The same bytes may be another array."""
    digests = {sha256_array("f4", shape, b"12345678") for shape in [(2, 1), (1, 2), (2,)]}
    assert len({*digests, sha256_array("i4", (2,), b"12345678")}) == 4
