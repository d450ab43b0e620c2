"""What tells a file from another of its name: any date, and content that has the same date."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from helpers.cli import run
from packing import jpeg

from vggfeat.data.imagesets import find_pictures
from vggfeat.data.remote import stat_of

BILLION = 10**9
INT64 = np.iinfo(np.int64)
# Seconds: Windows' first day, the last and the first that int64 does not hold in ns, the year 2445.
DATES = (-11_644_473_600, -9_223_372_037, 9_223_372_037, 15_000_000_000)


def put(path: Path, content: bytes, seconds: int) -> Path:
    """Write a file of a date; skip the test where the file system does not keep it."""
    path.write_bytes(content)
    os.utime(path, (seconds, seconds))
    if path.stat().st_mtime_ns != seconds * BILLION:
        pytest.skip(f"this file system does not keep a date of {seconds} s")
    return path


def pack_dated(path: Path, content: bytes, dates: dict[str, object]) -> Path:
    """Write a tar of one picture under many names, with a date for each."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for name, date in dates.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            member.pax_headers = {"mtime": str(date)}
            tar.addfile(member, io.BytesIO(content))
    return path


@pytest.mark.parametrize("seconds", DATES[2:])
def test_a_file_may_have_any_date(seconds: int, tmp_path: Path) -> None:
    """Its stat fits into a store, and is the same whatever the date."""
    put(tmp_path / "a.jpg", jpeg(0), seconds)
    [before] = find_pictures([tmp_path / "a.jpg"]).stats()
    np.array(before, np.int64)
    os.utime(tmp_path / "a.jpg", (seconds + 1, seconds + 1))
    assert [before] == find_pictures([tmp_path / "a.jpg"]).stats()


def test_a_member_of_a_tar_may_have_any_date(tmp_path: Path) -> None:
    """Dates that int64 holds are kept, others fit into it, and what is no number is no date."""
    dates = {f"{n}.jpg": date for n, date in enumerate([*DATES, 1.5, 2**80, "nan", "inf", "x"])}
    members = find_pictures([pack_dated(tmp_path / "a.tar", jpeg(0), dates)]).pictures
    times = [member.time for member in members]
    assert all(INT64.min <= time <= INT64.max for time in times)
    assert times[4] == 1_500_000_000
    assert times[6:] == [0, 0, 0]
    assert len(set(times[:6])) == 6


@pytest.mark.parametrize(
    "date",
    [float("nan"), float("-inf"), 1e300, "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00",
     "Sun, 99 Foo 2020", "Mon, 01 Jan 2020 00:00:00 +99999999999999"],
)  # fmt: skip
def test_an_object_may_have_any_date(date: object) -> None:
    """Whatever a server says, a stat has 64 bits."""
    told = stat_of({"ETag": "a", "size": 3, "LastModified": date})
    assert told is not None
    assert all(INT64.min <= number <= INT64.max for number in told)


def test_any_date_is_extracted(tmp_path: Path) -> None:
    """A run computes what has such dates, and finds it the next time."""
    folder = tmp_path / "photos"
    folder.mkdir()
    put(folder / "late.jpg", jpeg(0), DATES[2])
    pack_dated(tmp_path / "a.tar", jpeg(1), {"early.jpg": DATES[0], "never.jpg": "nan"})
    words = ["extract", folder, tmp_path / "a.tar", "--layer", "pool1", "--Q", "32", "--weights",
             "embedded", "--out", tmp_path / "out", "--json"]  # fmt: skip
    assert run(*words).json["computed"] == 3
    assert run(*words).json["present"] == 3
