"""``vggfeat extract --out x.csv``: one file for other tools, made by way of a store beside it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

from vggfeat._io.remote import is_address
from vggfeat._io.text import counted, size
from vggfeat.cli.targets import check_file, check_folder
from vggfeat.errors import ParameterError
from vggfeat.store.export import export
from vggfeat.store.feature_files import WRITERS, list_files
from vggfeat.store.runs import FAILED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vggfeat.data.partition import Partition
    from vggfeat.settings import Features
    from vggfeat.store.column import Descriptor

_READ = {
    "csv": "import pandas\n  table = pandas.read_csv({!r})",
    "parquet": "import pandas\n  table = pandas.read_parquet({!r})",
    "npz": "import numpy\n  X = numpy.load({!r})['X']",
    "npy": "import numpy\n  X = numpy.load({!r})",
}
# A folder may have a dot in its name, as run.1 and net.E have: what ends in these is a file.
_OTHER_FILES = """
    xlsx xls xlsm ods tsv tab dat json jsonl ndjson yaml yml toml xml html md
    h5 hdf5 hdf nc mat pkl pickle joblib pt pth bin safetensors onnx pq feather arrow orc avro arff
    rds rdata sav dta db sqlite sqlite3 zip gz tgz bz2 xz zst tar 7z
"""


class Destination(NamedTuple):
    """A store and, where one file is asked for, this file: then the store is there on the way.

    It lies beside the file, so that a run that was stopped goes on, and is removed with the end.
    """

    store: str
    file: Path | None = None

    @classmethod
    def of(cls, out: str, shard: Partition, *, force: bool) -> Self:
        """Tell a file by its ending, and refuse what cannot be written.

        Raises
        ------
        StoreError
            If the file is there and may not be replaced, or something is in the way.
        ParameterError
            If one file is asked for of a share, or a file of a kind that is not written.
        """
        if _ending(out) in _OTHER_FILES.split() and not is_address(out) and not Path(out).exists():
            raise ParameterError(
                f"--out {out}: no file of this kind is written. One file ends in "
                f"{', '.join(f'.{ending}' for ending in WRITERS)}, of which spreadsheets open "
                ".csv; the folder of a store has another name."
            )
        if _ending(out) not in WRITERS or is_address(out):
            check_folder("--out", out)
            return cls(out)
        target = cls(f"{out}.partial", Path(out))
        for path in (*list_files(Path(out)), target.failed):
            check_file("--out", path, force=force)
        if shard.parts > 1:
            raise ParameterError(
                f"--out {out} is one file, and --shard makes a part of it. Name a folder for all "
                f"parts, and then: vggfeat store export FOLDER {out}"
            )
        return target

    @property
    def failed(self) -> Path:
        """Where the reasons are why images of the file could not be used."""
        assert self.file is not None
        return self.file.with_suffix(f".{FAILED}")

    def write(self, columns: Sequence[Descriptor], names: Sequence[str], features: Features) -> str:
        """Write a row for each image, as for an SVM, and remove the store; say what was written."""
        from vggfeat.features.aggregate import Aggregation

        assert self.file is not None
        combine = Aggregation(features.aggregate, features.normalize, features.power).rows
        rows = export(
            self.store, self.file, _ending(self.file), columns=columns, names=names, matrix=combine
        )
        self.clear()
        return f"{self.file} ({counted(rows, 'row')}, {size(self.file.stat().st_size)})"

    def clear(self) -> None:
        """Remove the store; keep its list of images that could not be used."""
        reasons = Path(self.store) / FAILED
        self.failed.unlink(missing_ok=True)
        if reasons.exists():
            shutil.copyfile(reasons, self.failed)
        shutil.rmtree(self.store)

    def in_python(self) -> str:
        """Say how to read the file."""
        return f"\nIn Python:\n  {_READ[_ending(self.file)].format(str(self.file))}"


def _ending(path: object) -> str:
    return Path(str(path)).suffix.lower().removeprefix(".")
