"""``vggfeat store export`` of some columns of a store."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers.cli import run
from storing import FC7, LARGE, POOL5, make_store

from vggfeat.errors import StoreError


@pytest.mark.parametrize("kind", ["npz", "csv", "parquet"])
def test_the_command_exports_one_column(tmp_path: Path, kind: str) -> None:
    """Of a store of several, by the options that name it; what is not there is refused."""
    pandas = pytest.importorskip("pandas")
    make_store(tmp_path / "f", [FC7, LARGE, POOL5])
    words = ("store", "export", tmp_path / "f", tmp_path / f"x.{kind}", "--raw", "-q")
    run(*words, "--net", "D", "--layer", "fc7", "--pool", "average", "--Q", "384")
    if kind == "npz":
        with np.load(tmp_path / "x.npz") as arrays:
            assert list(arrays) == ["names", LARGE.descriptor.path[1:]]
    else:
        read = {"csv": pandas.read_csv, "parquet": pandas.read_parquet}[kind]
        _, *columns = read(tmp_path / f"x.{kind}").columns
        assert columns
        assert all(name.startswith(LARGE.descriptor.path[1:]) for name in columns)
    done = run(*words, "--layer", "fc6", "--force", status=StoreError.exit_status)
    assert "--layer fc7, pool5" in done.err
