"""Which kind of weights file a file is."""

from __future__ import annotations

from pathlib import Path

from vggfeat.errors import WeightsError
from vggfeat.nets.formats import caffe, onnx, wire

SUFFIXES = {
    ".safetensors": "safetensors",
    ".pth": "PyTorch",
    ".pt": "PyTorch",
    ".caffemodel": "Caffe",
    ".mat": "MatConvNet",
    ".h5": "Keras",
    ".hdf5": "Keras",
    ".onnx": "ONNX",
}
MAGIC = {
    b"PK\x03\x04": "PyTorch",
    b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.": "PyTorch",  # before torch 1.6
    b"\x89HDF\r\n\x1a\n": "Keras",
    b"MATLAB 5.0 MAT-file": "MatConvNet",
}
TEXT = frozenset(b"\t\n\r" + bytes(range(32, 127)))


def format_of(path: Path) -> str:
    """Tell the format of a file by its content, then by its name.

    Raises
    ------
    WeightsError
        If it is none of those that are read; it says what the file begins with.

    Examples
    --------
    >>> from vggfeat._io import assets
    >>> format_of(assets.asset("vgg_d_conv_fp16.safetensors"))
    'safetensors'
    """
    with path.open("rb") as file:
        head = file.read(520)
    if head[512:520] == b"\x89HDF\r\n\x1a\n" and head.startswith(b"MATLAB 7.3"):
        raise WeightsError(
            f"{path} was saved by Matlab with -v7.3. Save it again with -v7, or use the "
            "original imagenet-vgg-verydeep-16.mat."
        )
    for magic, kind in MAGIC.items():
        if head.startswith(magic):
            return kind
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= path.stat().st_size:
        return "safetensors"
    found = None if _is_text(head) else SUFFIXES.get(path.suffix.lower()) or _protobuf(path)
    if found is None:
        shown = repr(head[:24])[1:] if head else "nothing"
        raise WeightsError(
            f"{path} is no file of weights: it begins with {shown}. "
            f"The formats that are read are {', '.join(SUFFIXES)}."
        )
    return found


def _is_text(head: bytes) -> bool:
    """Recognise a page or a pointer that was saved in the place of a file."""
    return len(head) > 16 and all(byte in TEXT for byte in head[:100])


def _protobuf(path: Path) -> str | None:
    """Tell Caffe's and ONNX's messages, which have no magic number, by their fields."""
    try:
        numbers = {found.number for found in wire.fields(wire.mapped(path))}
    except WeightsError:
        return None
    if numbers & caffe.LAYERS.keys():
        return "Caffe" if onnx.GRAPH not in numbers else "ONNX"
    return "ONNX" if onnx.GRAPH in numbers else None
