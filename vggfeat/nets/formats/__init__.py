"""Files of weights: formats in, formats out, and one state dict between them.

A state dict has ``conv1_1.weight`` (out, in, k, k), ``conv1_1.bias`` (out,), … ``fc6.weight``
(out, 25088) with inputs in the order channel, height, width, … as torchvision's networks have.

A format is a module of this package that registers itself; no other file names it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import TYPE_CHECKING

from vggfeat._io.atomic import make_folder, replacing
from vggfeat._io.text import printable, short_of_memory
from vggfeat.errors import MissingExtra, ParameterError, WeightsError, WeightsNotFound
from vggfeat.nets.formats.parameters import Contents, Parameter, identify, name_parameters, pair
from vggfeat.nets.preprocessing import PixelConvention

if TYPE_CHECKING:  # torch takes a second to import
    from torch import Tensor

HEAD = 128  # bytes by which a format is told
STATEMENTS = ("net", "pixels", "source", "licence")  # of every file that we write
ASSUMED = "assumed pixels"  # in place of pixels, where the file that was converted did not say
_TEXT = frozenset(b"\t\n\r" + bytes(range(32, 127)))


@dataclass(frozen=True)
class Format:
    """How files of one format are told from others, read, and perhaps written."""

    name: str
    suffixes: tuple[str, ...]
    sniff: Callable[[Path, bytes], bool]  # by its first HEAD bytes, whether a file is of it
    read: Callable[[Path], Contents]
    write: Callable[[Path, dict[str, Tensor], dict[str, str]], None] | None = None  # with texts


_REGISTRY: dict[str, Format] = {}


def register(format: Format) -> None:  # noqa: A002  # the field's word
    """Add a format to those that are read."""
    _REGISTRY[format.name] = format


@cache
def list_formats() -> tuple[Format, ...]:
    """List the formats, having imported each module of this package.

    Examples
    --------
    >>> [format.name for format in list_formats()]
    ['Caffe', 'Keras', 'MatConvNet', 'ONNX', 'safetensors', 'PyTorch']
    """
    for module in iter_modules(__path__):
        import_module(f"{__name__}.{module.name}")
    return tuple(_REGISTRY.values())


@dataclass(frozen=True)
class RawWeights:
    """What a file of weights holds; its numbers are read when they are taken."""

    path: Path
    format: str
    net: str
    parameters: dict[str, Parameter]  # by their names in the state dict
    pixels: PixelConvention
    assumed: bool  # the file does not state its pixels: they are those of most of its kind
    metadata: dict[str, str]
    ignored: tuple[str, ...]  # parameters of no layer of a VGG net

    @property
    def about(self) -> dict[str, str]:
        """What else a file of ours keeps."""
        return {k: v for k, v in self.metadata.items() if k not in STATEMENTS and not self.assumed}

    @property
    def layers(self) -> list[str]:
        """Names of the layers whose parameters are there, in order."""
        return list(dict.fromkeys(name.rpartition(".")[0] for name in self.parameters))

    @property
    def state(self) -> dict[str, Tensor]:
        """The whole state dict, float32."""
        return self.take(self.layers)

    def take(self, layers: Iterable[str]) -> dict[str, Tensor]:
        """Read the parameters of some layers, float32."""
        wanted = list(layers)
        if missing := [layer for layer in wanted if layer not in self.layers]:
            whole = "use a file with all of them"
            advice = whole if "fc8" in missing else f"ask for an earlier layer, or {whole}"
            raise WeightsError(
                f"{self.path} lacks {', '.join(missing)}: it holds net {self.net} from "
                f"{self.layers[0]} to {self.layers[-1]}. {advice.capitalize()}."
            )
        with _blaming(self.path, self.format):
            return {
                name: parameter.tensor()
                for name, parameter in self.parameters.items()
                if name.rpartition(".")[0] in wanted
            }


def read(path: Path | str, net: str | None = None) -> RawWeights:
    """Open a file of weights in any of the formats; no code in it is ever run.

    The format is told by the content, then by the name.

    Parameters
    ----------
    path : Path or str
        A ``.safetensors``, ``.pth``, ``.caffemodel``, MatConvNet ``.mat``, Keras ``.h5`` or
        ``.onnx`` file. It may end early: a file of convolutions only serves up to pool5.
    net : str, optional
        The configuration it must be of; told from the shapes if not given.

    Raises
    ------
    WeightsError
        If it is damaged, of no known format, or not of a VGG net.
    MissingExtra
        If its format needs a package that is not installed.

    Examples
    --------
    >>> from vggfeat._io import assets
    >>> raw = read(assets.asset("vgg_d_conv_fp16.safetensors"))
    >>> raw.net, raw.layers[-1], raw.take(["conv1_1"])["conv1_1.weight"].shape
    ('D', 'conv5_3', torch.Size([64, 3, 3, 3]))
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise WeightsNotFound(f"There is no weights file {path}. Check the spelling.")
    file_format = find_format(path)
    with _blaming(path, file_format.name):
        contents = file_format.read(path)
        if not contents.pairs:
            some = ", ".join(sorted(contents.ignored)[:5])
            raise WeightsError(
                "it has no layer named as in a VGG net (conv1_1 … fc8)"
                + (f", only {some}" + ", …" * (len(contents.ignored) > 5) if some else "")
            )
        name = identify(contents.pairs, net, contents.metadata.get("net"))
        parameters = name_parameters(contents.pairs, name)
    return RawWeights(
        path,
        file_format.name,
        name,
        parameters,
        contents.pixels or contents.usual,
        contents.pixels is None,
        contents.metadata,
        tuple(contents.ignored),
    )


def find_format(path: Path) -> Format:
    """Tell the format of a file by its content, then by its name."""
    with path.open("rb") as file:
        head = file.read(HEAD)
    for file_format in list_formats():
        if file_format.sniff(path, head):
            return file_format
    # A page or a pointer may have been saved in the place of a file.
    is_text = len(head) > 16 and all(byte in _TEXT for byte in head[:100])
    for file_format in list_formats() if not is_text else ():
        if path.suffix.lower() in file_format.suffixes:
            return file_format
    start = repr(head[:24])[1:] if head else "nothing"
    suffixes = [suffix for file_format in list_formats() for suffix in file_format.suffixes]
    raise WeightsError(
        f"{path} is no file of weights: it begins with {start}. "
        f"The formats that are read are {', '.join(suffixes)}."
    )


def write(
    path: Path | str,
    state: Mapping[str, Tensor],
    pixels: PixelConvention,
    *,
    net: str,
    source: str,
    licence: str,
    assumed: bool = False,
    about: Mapping[str, str] | None = None,
) -> Path:
    """Write a state dict with all that belongs to it: whole or, on an interruption, not at all.

    Parameters
    ----------
    path : Path or str
        ``.safetensors``, with our names; or ``.pth``, with torchvision's names, which torchvision
        loads where it has the net (A, B, D, E) and all layers are there.
    state : mapping
        See the module.
    pixels, net, source, licence, assumed, about
        Kept in the file, pixels that are only `assumed` as such; `about` is what else is to be,
        such as the names of the classes, as JSON.

    Raises
    ------
    WeightsError
        If the state dict is not of this net.
    StoreError
        If the file cannot be written.
    """
    path = Path(path).expanduser()
    writers = {suffix: f.write for f in list_formats() if f.write for suffix in f.suffixes}
    if path.suffix not in writers:
        raise ParameterError.of("path", "write", f"a name in {' or '.join(writers)}", str(path))
    _check(state, net)
    # A tensor that is a view would otherwise bring all of what it is a view of into a .pth.
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    statements = {
        "net": net,
        ASSUMED if assumed else "pixels": pixels.to_json(),
        "source": printable(source),  # a path in it may hold bytes that are no text
        "licence": licence,
        **(about or {}),
    }
    make_folder(path.parent)
    with replacing(path) as temporary:
        writers[path.suffix](temporary, tensors, statements)
    return path


def _check(state: Mapping[str, Tensor], net: str) -> None:
    """Refuse a state dict that is not of a net."""
    parts: dict[str, dict[str, Parameter]] = {}
    for name, tensor in sorted(state.items()):
        layer, _, part = name.rpartition(".")
        dtype = str(tensor.dtype).removeprefix("torch.")
        parts.setdefault(layer, {})[part] = Parameter(tuple(tensor.shape), dtype, tensor.detach)
    if not parts or any(names.keys() != {"weight", "bias"} for names in parts.values()):
        raise WeightsError(f"These are not weights and biases of net {net}: {', '.join(state)}")
    pairs = pair(parts)
    identify(pairs, net)
    name_parameters(pairs, net)


@contextlib.contextmanager
def _blaming(path: Path, name: str) -> Iterator[None]:
    """Name the file in every error; damaged files make the libraries raise anything."""
    try:
        yield
    except WeightsError as error:
        raise WeightsError(f"{path} cannot be used: {error}.") from error
    except (ParameterError, MissingExtra):
        raise
    except Exception as error:
        if short := short_of_memory(error):
            raise WeightsError(
                f"{path} needs more memory than there is ({short}). It is damaged, or too large "
                "for what this machine has left."
            ) from error
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise WeightsError(
            f"{path} cannot be read as {name}; it is damaged, or not of this format: {said[0]}"
        ) from error
