"""Manifests: CSV and Parquet say the same, block by block, and what is wrong is named."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from helpers.mistakes import refuses

from vggfeat.data.datasets.folders import read_labelled
from vggfeat.data.imageset import find_images
from vggfeat.data.sources import lists
from vggfeat.errors import DataError, DataNotFound, ParameterError

parquet = pytest.importorskip("pyarrow.parquet")
pyarrow = pytest.importorskip("pyarrow")


def write(target: Path, **columns: list[object]) -> str:
    parquet.write_table(pyarrow.table(columns), target, row_group_size=4)
    return str(target)


def test_parquet_and_csv_say_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths are relative to either, labels and splits stand beside them, in blocks of any size."""
    monkeypatch.setattr(lists, "LINES_AT_ONCE", 3)
    rows = [(f"d/{n}.jpg", f"c{n % 3}", "train" if n % 2 else "test") for n in range(11)]
    path, label, split = map(list, zip(*rows, strict=True))
    source = write(tmp_path / "m.parquet", extra=[0] * 11, path=path, label=label, split=split)
    lines = ["path,label,split", *map(",".join, rows)]
    (tmp_path / "m.csv").write_text("\n".join(lines))
    one, other = find_images([source]), find_images([str(tmp_path / "m.csv")])
    assert one == other
    assert one.images[7] == tmp_path / "d/7.jpg"
    assert one.labels == tuple(label)
    for images in (one, other):
        for name in ("train", "test"):
            rows = [row for row, own in enumerate(split) if own == name]
            assert images.splits[name].tolist() == rows


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("path,label,split\nd/é 1.jpg,cat,train\nd/2.jpg,dog,test\n", "utf-16"),
        ("path,label,split\nd/é 1.jpg,cat,train\nd/2.jpg,dog,test\n", "utf-8-sig"),
        ("path;label;split\r\nd/é 1.jpg;cat;train\r\nd/2.jpg;dog;test\r\n", "utf-8"),
        ("path\tlabel\tsplit\nd/é 1.jpg\tcat\ttrain\nd/2.jpg\tdog\ttest\n", "utf-8"),
        ('path, label, split\n"d/é 1.jpg" , cat , train\n d/2.jpg,dog ,test \n', "utf-8"),
        ("path,label,split\nd\\é 1.jpg,cat,train\nd\\2.jpg,dog,test\n", "utf-8"),
        ("path,label,split\nd/e\u0301 1.jpg,cat,train\nd/2.jpg,dog,test\n", "utf-8"),
    ],
)
def test_manifests_are_read_as_other_programs_write_them(
    text: str, encoding: str, tmp_path: Path
) -> None:
    """UTF-16, a byte order mark, semicolons, tabs, blanks, quotes, backslashes, other accents."""
    (tmp_path / "d").mkdir()
    for name in ("é 1.jpg", "2.jpg"):
        (tmp_path / "d" / name).write_bytes(b"")
    (tmp_path / "m.csv").write_text(text, encoding, newline="")
    images = find_images([str(tmp_path / "m.csv")])
    assert images.names == ("d/é 1.jpg", "d/2.jpg")
    assert images.labels == ("cat", "dog")
    assert {part: rows.tolist() for part, rows in images.splits.items()} == {
        "train": [0],
        "test": [1],
    }


@pytest.mark.parametrize("at", ["", "@"])
@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("a b.jpg\r\n2.jpg\r\n", "utf-16"),
        ('"a b.jpg"\n"2.jpg"\n', "utf-8"),
        ("  a b.jpg  \n2.jpg\t\n   \n", "utf-8-sig"),
    ],
)
def test_lists_are_read_as_other_programs_write_them(
    text: str, encoding: str, at: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With or without an @ before the name of the list."""
    monkeypatch.chdir(tmp_path)
    for name in ("a b.jpg", "2.jpg"):
        Path(name).write_bytes(b"")
    Path("list.txt").write_text(text, encoding, newline="")
    assert find_images([f"{at}list.txt"]).names == ("a b.jpg", "2.jpg")


@pytest.mark.parametrize("name", ["m.csv", "m.txt"])
def test_a_list_that_is_cut_or_no_list_ends_in_no_trace(name: str, tmp_path: Path) -> None:
    """UTF-16 may end in half a character, and a line may be too long to be a path."""
    text = f"path\n{tmp_path}/a.jpg\n\u00e9{'x' * 5000}\n"
    (tmp_path / "a.jpg").write_bytes(b"")
    (tmp_path / name).write_bytes(text.encode("utf-16")[:-1])
    assert str(find_images([str(tmp_path / name)]).names[-2]).endswith("a.jpg")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("m.csv", "path;label\n2.jpg;cat\nBär.jpg;cat\n"),
        ("m.csv", "path,label\n2.jpg,cat\n2.jpg,Bär\n"),
        ("m.csv", "path,label,split\n2.jpg,a,train\n2.jpg,b,prüf\n"),
        ("m.csv", "Größe,file\n1,2.jpg\n"),
        ("m.txt", "2.jpg\nBär.jpg\n"),
    ],
)
@pytest.mark.parametrize("encoding", ["cp1252", "mac-roman"])
def test_a_list_that_is_not_utf_8_is_refused(
    name: str, text: str, encoding: str, tmp_path: Path
) -> None:
    """As Excel's plain CSV: another encoding is never guessed, be it of a path or of a label."""
    for image in ("2.jpg", "Bär.jpg"):
        (tmp_path / image).write_bytes(b"")
    (tmp_path / name).write_bytes(text.encode(encoding))
    line = 1 if text.startswith("G") else 3 if name == "m.csv" else 2
    error = refuses(
        lambda: find_images([str(tmp_path / name)]), DataError, [name, f"line {line}", "UTF-8"]
    )
    str(error).encode()  # without surrogates


@pytest.mark.parametrize("name", ["m.csv", "m.txt"])
def test_names_of_files_may_be_other_bytes(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As find writes them, where there are such files."""
    monkeypatch.chdir(tmp_path)
    odd = os.fsdecode("Bär.jpg".encode("cp1252"))
    Path(odd).write_bytes(b"")
    head = "path\n" if name == "m.csv" else ""
    Path(name).write_bytes(os.fsencode(f"{head}{odd}\n"))
    assert find_images([name]).names == (odd,)


@pytest.mark.parametrize("blank", ["", ";;", " ; ;\t", '"";;', ";;;;"])
def test_blank_rows_are_no_images(blank: str, tmp_path: Path) -> None:
    """Excel writes them below a table; a row that has a label and no path is an error."""
    text = f"path;label;split\na.jpg;cat;\n{blank}\nb.jpg;dog;\n{blank}\n{blank}\n"
    (tmp_path / "m.csv").write_text(text)
    images = find_images([str(tmp_path / "m.csv")])
    assert (images.names, images.labels) == (("a.jpg", "b.jpg"), ("cat", "dog"))
    (tmp_path / "m.csv").write_text(f"{text} ;cat;\n")
    refuses(lambda: find_images([str(tmp_path / "m.csv")]), DataError, ["m.csv", "no path"])


@pytest.mark.parametrize("path", [r"C:\Users\Ida\1.jpg", "d:/images/1.jpg", r"\\nas\images\1.jpg"])
@pytest.mark.parametrize("name", ["m.csv", "m.txt"])
def test_absolute_paths_of_windows_are_those_of_another_machine(
    path: str, name: str, tmp_path: Path
) -> None:
    """They are shown as they are written; a file of just that name is read."""
    (tmp_path / name).write_text(f"path\n{path}\n" if name == "m.csv" else f"{path}\n")
    named = [name, path, "Windows", "--path-column"]
    error = refuses(lambda: find_images([str(tmp_path / name)]), DataError, named)
    assert f"{tmp_path}/{path}" not in str(error)


def test_what_is_written_is_looked_for_first(tmp_path: Path) -> None:
    """A name may begin with a blank, or have quotes and backslashes, where there is such a file."""
    names = (" 1.jpg", '"2".jpg', "3\\.jpg")
    for name in names:
        (tmp_path / name).write_bytes(b"")
        (tmp_path / name.strip(' "').replace("\\", "")).write_bytes(b"")
    (tmp_path / "m.csv").write_text('path\n 1.jpg\n"""2"".jpg"\n3\\.jpg\n')
    assert find_images([str(tmp_path / "m.csv")]).names == names


@pytest.mark.parametrize(
    ("column", "label", "said"),
    [
        ("label", float("nan"), "NaN"),
        ("labels", float("nan"), "NaN"),
        ("labels", ["a", {"b": 1}], "dict"),
        ("label", {"name": "a"}, "dict"),
        ("path", {"bytes": "a.jpg"}, "no path"),
    ],
)
def test_a_label_that_is_none_is_refused(
    column: str, label: object, said: str, tmp_path: Path
) -> None:
    """No class is called nan or "{'b': 1}", and no file."""
    columns = {"path": ["a.jpg", "b.jpg"], column: [label, label]}
    if isinstance(label, list):
        columns[column] = pyarrow.array([[{"b": 1}]] * 2)
    source = write(tmp_path / "m.parquet", **columns)
    refuses(lambda: find_images([source]), DataError, ["m.parquet", "row 1", said])


@pytest.mark.parametrize("column", ["label", "labels", "tags"])
def test_a_column_of_lists_has_several_labels(column: str, tmp_path: Path) -> None:
    """Whatever it is called; without a value of its own an image shows nothing."""
    tags = [["sky", "bird "], [], [None, "sky"], None]
    paths = [f"{n}.jpg" for n in range(4)]
    source = write(tmp_path / "m.parquet", path=paths, **{column: tags})
    images = find_images([source], label_column=column if column == "tags" else None)
    assert images.label_sets == (("bird", "sky"), (), ("sky",), ())
    assert images.labels == ()


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_columns_may_have_other_names(ending: str, tmp_path: Path) -> None:
    """They are named, and nothing is guessed: the error lists what there is, and the option."""
    columns = {"file": ["a.jpg", "b.jpg"], "breed": ["pug", "collie"], "label": ["dog", "dog"]}
    source = str(tmp_path / f"m.{ending}")
    if ending == "parquet":
        write(tmp_path / "m.parquet", **columns)
    else:
        rows = zip(*columns.values(), strict=True)
        lines = map(",".join, [columns, *rows])
        (tmp_path / "m.csv").write_text("\n".join(lines))
    (tmp_path / "a.jpg").write_bytes(b"")
    images = read_labelled(source, path_column="file", label_column="breed")
    assert (images.names, images.labels) == (("a.jpg", "b.jpg"), ("pug", "collie"))
    assert find_images([source], path_column="file").labels == ("dog", "dog")
    there = ["file, breed, label"]
    refuses(lambda: find_images([source]), DataError, [*there, "--path-column"])
    wrong = {"path_column": "file", "label_column": "race"}
    refuses(lambda: find_images([source], **wrong), DataError, [*there, "race", "--label-column"])
    refuses(lambda: find_images([str(tmp_path)], path_column="file"), ParameterError, ["path"])


def test_a_column_without_a_name_is_no_label(tmp_path: Path) -> None:
    """As that of row numbers, which pandas writes."""
    (tmp_path / "m.csv").write_text(",path\n0,a.jpg\n1,b.jpg\n")
    images = find_images([str(tmp_path / "m.csv")])
    assert (images.names, images.labels) == (("a.jpg", "b.jpg"), ())


def test_a_manifest_without_labels_lists_its_columns(tmp_path: Path) -> None:
    """Which is where one sees what the labels are called."""
    (tmp_path / "m.csv").write_text("path,breed\na.jpg,pug\n")
    source = str(tmp_path / "m.csv")
    refuses(lambda: read_labelled(source), DataError, ["path, breed", "--label-column"])


def test_labels_may_be_numbers_or_absent(tmp_path: Path) -> None:
    """A class may be called 0; a row may have none."""
    source = write(tmp_path / "m.parquet", path=["a.jpg", "b.jpg", "c.jpg"], label=[0, None, 1])
    assert find_images([source]).labels == ("0", "", "1")
    with pytest.raises(DataError, match=r"no label to 'b\.jpg'"):
        read_labelled(source)


def test_bad_parquet_is_refused(tmp_path: Path) -> None:
    """What is wrong is named, with its row."""
    with pytest.raises(DataError, match="needs 'path'"):
        find_images([write(tmp_path / "a.parquet", file=["x.jpg"])])
    with pytest.raises(DataError, match="row 2, names no path"):
        find_images([write(tmp_path / "b.parquet", path=["x.jpg", None])])
    (tmp_path / "c.parquet").write_bytes(b"no parquet at all")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        find_images([str(tmp_path / "c.parquet")])
    with pytest.raises(DataNotFound, match="Check the spelling"):
        find_images([str(tmp_path / "d.parquet")])


def test_long_lists_are_read_piece_by_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names that lie across two pieces come out whole, however lines end."""
    monkeypatch.setattr(lists, "LINES_AT_ONCE", 7)
    monkeypatch.setattr(lists, "BLOCK", 5)
    monkeypatch.chdir(tmp_path)
    names = tuple(f"folder/{'x' * n}{n}.jpg" for n in range(20))
    Path("l.txt").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(names).encode() + b"\n\n")
    assert find_images(["@l.txt"]).names == names
    Path("0.txt").write_bytes("\0".join(["a.jpg", *names]).encode() + b"\0")
    assert find_images(["@0.txt"]).names == ("a.jpg", *names)


def test_a_file_without_lines_is_no_list(tmp_path: Path) -> None:
    """It is named and refused after its first bytes, not read whole for the name of an image."""
    (tmp_path / "video.bin").write_bytes(b"x" * (3 << 20))
    refuses(lambda: find_images([f"@{tmp_path}/video.bin"]), DataError, ["video.bin", "1,048,576"])
