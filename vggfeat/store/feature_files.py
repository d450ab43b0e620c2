"""Files of names, labels and descriptors that other tools read: npz, npy, csv and parquet."""

from __future__ import annotations

import csv
import re
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Any, NamedTuple, Self

import numpy as np

from vggfeat._io.atomic import replacing
from vggfeat.errors import MissingExtra
from vggfeat.store.labels import Labels
from vggfeat.store.shard import Matrix, encode

# Backslashes that would be taken for those of a byte's escape; Python decodes a byte that is no
# UTF-8 to one of these surrogates.
_AS_A_BYTE = re.compile(r"\\+(?=x[0-9a-fA-F]{2}|[\udc80-\udcff])")
Blocks = Iterator[tuple[list[str], dict[str, Matrix]]]


class Content(NamedTuple):
    """What a file is to hold.

    Parameters
    ----------
    about : dict of str
        Of every image its ``name`` and, where any is known, ``label`` and ``split``.
    columns : sequence of str
        Paths of the columns that the arrays are made of.
    blocks : callable
        Begins to read: names and arrays (n, D) of n images after the other.
    """

    about: dict[str, Sequence[str]]
    columns: Sequence[str]
    blocks: Callable[[], Blocks]

    @classmethod
    def of(
        cls,
        names: Sequence[str],
        labels: Labels,
        columns: Sequence[str],
        blocks: Callable[[], Blocks],
    ) -> Self:
        """Take what is known of labels and splits, if anything is."""
        pairs = [labels.get(name, ("", "")) for name in names]
        known = {"label": [pair[0] for pair in pairs], "split": [pair[1] for pair in pairs]}
        known = {what: values for what, values in known.items() if any(values)}
        return cls({"name": names, **known}, columns, blocks)

    def blocks_with_rows(self) -> Iterator[tuple[list[tuple[str, ...]], dict[str, Matrix]]]:
        """Read the arrays in blocks, each with what is known of its images."""
        rows = zip(*self.about.values(), strict=True)
        for names, arrays in self.blocks():
            yield list(islice(rows, len(names))), arrays


def list_files(target: Path) -> list[Path]:
    """Name all files that are written for one: an npy has its names in another beside it.

    Examples
    --------
    >>> [path.name for path in list_files(Path("x.npy"))]
    ['x.npy', 'x.names.csv']
    """
    is_npy = target.suffix.lower() == ".npy"
    return [target, target.with_suffix(".names.csv")] if is_npy else [target]


def _write_npz(target: Path, content: Content) -> None:
    """Write each array as a stream: one pass over the store for each."""
    texts = {f"{what}s": values for what, values in content.about.items()}
    arrays = next(content.blocks())[1]
    if "X" in arrays:
        texts["columns"] = content.columns
    with replacing(target) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for what, values in texts.items():
            with archive.open(f"{what}.npy", "w") as member:
                np.lib.format.write_array(member, np.array(values), allow_pickle=False)
        for path in arrays:
            with archive.open(f"{path}.npy", "w", force_zip64=True) as member:
                _write_array(member, content, path)


def _write_npy(target: Path, content: Content) -> None:
    """Write the one array, and the names in a file beside it."""
    with replacing(target) as temporary, temporary.open("wb") as file:
        _write_array(file, content, next(iter(next(content.blocks())[1])))
    with _open_csv(target.with_suffix(".names.csv")) as writer:
        writer.writerow(content.about)
        writer.writerows(zip(*content.about.values(), strict=True))


def _write_array(file: IO[bytes], content: Content, path: str) -> None:
    width = next(content.blocks())[1][path].shape[1]
    shape = (len(content.about["name"]), width)
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    for _, block in content.blocks():
        file.write(block[path].astype("<f4").tobytes())


def _write_csv(target: Path, content: Content) -> None:
    with _open_csv(target) as writer:
        for number, (rows, arrays) in enumerate(content.blocks_with_rows()):
            if not number:
                fronts = [("x" if path == "X" else f"{path}/", v) for path, v in arrays.items()]
                heads = [f"{front}{at}" for front, v in fronts for at in range(v.shape[1])]
                writer.writerow([*content.about, *heads])
            values = np.concatenate(list(arrays.values()), axis=1).astype(str)
            writer.writerows([*row, *v] for row, v in zip(rows, values.tolist(), strict=True))


@contextmanager
def _open_csv(target: Path) -> Iterator[Any]:
    with (
        replacing(target) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        yield csv.writer(file)


def _write_parquet(target: Path, content: Content) -> None:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingExtra.of("Parquet export", "pyarrow", "parquet") from error

    def table(rows: list[tuple[str, ...]], arrays: dict[str, Matrix]) -> Any:
        texts = {
            what: pa.array(map(_valid, encode(values)), pa.string())
            for what, values in zip(content.about, zip(*rows, strict=True), strict=True)
        }
        lists = {
            path: pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
            for path, values in arrays.items()
        }
        return pa.table({**texts, **lists})

    rows, arrays = next(content.blocks_with_rows())
    schema = table(rows[:1], {path: values[:1] for path, values in arrays.items()}).schema
    with replacing(target) as temporary, pq.ParquetWriter(temporary, schema) as writer:
        for rows, arrays in content.blocks_with_rows():
            writer.write_table(table(rows, arrays))


def _valid(name: bytes) -> str:
    """Write a name in valid UTF-8, each in its own way."""
    text = name.decode("utf-8", "surrogateescape")
    text = _AS_A_BYTE.sub(r"\g<0>\g<0>", text)
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


WRITERS: dict[str, Callable[[Path, Content], None]] = {
    "npz": _write_npz,
    "npy": _write_npy,
    "csv": _write_csv,
    "parquet": _write_parquet,
}
