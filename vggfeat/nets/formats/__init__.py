"""Files of weights, six formats in, two out, and one state dict between them.

A state dict has ``conv1_1.weight`` (out, in, k, k), ``conv1_1.bias`` (out,), … ``fc6.weight``
(out, 25088) with inputs in the order channel, height, width, … as torchvision's networks have.
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from vggfeat._io.atomic import make_folder, replacing
from vggfeat._io.text import printable, short_of_memory
from vggfeat.errors import ParameterError, WeightsError, WeightsNotFound
from vggfeat.nets.checksums import KEY, OWN, checksums_of, save_tensors
from vggfeat.nets.config import torchvision_names
from vggfeat.nets.formats import caffe, keras, matconvnet, onnx, pytorch
from vggfeat.nets.formats.kinds import format_of
from vggfeat.nets.formats.parameters import Contents, Pair, Parameter, canonical, identified
from vggfeat.nets.preprocessing import PixelConvention

READERS: dict[str, Callable[[Path], Contents]] = {
    "safetensors": pytorch.safetensors_contents,
    "PyTorch": pytorch.pth_contents,
    "Caffe": caffe.contents,
    "MatConvNet": matconvnet.contents,
    "Keras": keras.contents,
    "ONNX": onnx.contents,
}
WRITTEN = (".safetensors", ".pth", ".pt")
VERSION = "2"  # since 2, a .safetensors has checksums
STATED = ("format", OWN, "net", "pixels", "source", "licence", KEY)  # of every file we write


@dataclass(frozen=True)
class RawWeights:
    """What a file of weights holds; its numbers are read when they are taken.

    Parameters
    ----------
    path : Path
        The file.
    format : str
        ``"safetensors"``, ``"PyTorch"``, ``"Caffe"``, ``"MatConvNet"``, ``"Keras"``, ``"ONNX"``.
    net : str
        Configuration of Table 1.
    parameters : dict
        Name in the state dict to the parameter in the file.
    pixels : PixelConvention
        The convention that the file states, or that of most files of its kind.
    assumed : bool
        Whether the file does not state its convention.
    metadata : dict
        ``source`` and ``licence``, where the file has them.
    ignored : tuple of str
        Parameters in the file that belong to no layer of a VGG net.
    """

    path: Path
    format: str
    net: str
    parameters: dict[str, Parameter]
    pixels: PixelConvention
    assumed: bool
    metadata: dict[str, str]
    ignored: tuple[str, ...] = ()

    @property
    def about(self) -> dict[str, str]:
        """What else a file of ours keeps."""
        return {k: v for k, v in self.metadata.items() if k not in STATED and not self.assumed}

    @property
    def layers(self) -> list[str]:
        """Names of the layers whose parameters are there, in order."""
        return [n.removesuffix(".weight") for n in self.parameters if n.endswith(".weight")]

    @property
    def state(self) -> dict[str, Tensor]:
        """The whole state dict, float32."""
        return self.take(self.layers)

    def take(self, layers: Iterable[str]) -> dict[str, Tensor]:
        """Read the parameters of some layers, float32.

        Raises
        ------
        WeightsError
            If the file lacks one of them, or is damaged there.
        """
        wanted = list(layers)
        if missing := [layer for layer in wanted if layer not in self.layers]:
            whole = "use a file with all of them"
            advice = whole if "fc8" in missing else f"ask for an earlier layer, or {whole}"
            raise WeightsError(
                f"{self.path} lacks {', '.join(missing)}: it holds net {self.net} from "
                f"{self.layers[0]} to {self.layers[-1]}. {advice.capitalize()}."
            )
        names = [f"{layer}.{part}" for layer in wanted for part in ("weight", "bias")]
        with _blaming(self.path, self.format):
            return {name: self.parameters[name].tensor() for name in names}


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
    kind = format_of(path)
    with _blaming(path, kind):
        found = READERS[kind](path)
        if not found.pairs:
            some = ", ".join(sorted(found.ignored)[:5])
            raise WeightsError(
                "it has no layer named as in a VGG net (conv1_1 … fc8)"
                + (f", only {some}" + ", …" * (len(found.ignored) > 5) if some else "")
            )
        name = identified(found.pairs, net, found.metadata.get("net"))
        parameters = canonical(found.pairs, name)
    return RawWeights(
        path,
        kind,
        name,
        parameters,
        found.pixels or found.usual,
        found.pixels is None,
        found.metadata,
        tuple(found.ignored),
    )


def write(
    path: Path | str,
    state: Mapping[str, Tensor],
    pixels: PixelConvention,
    *,
    net: str,
    source: str,
    licence: str,
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
    pixels : PixelConvention
        Convention of the weights; kept in the file.
    net, source, licence : str
        Kept in the file as well.
    about : mapping of str to str, optional
        What else is to be kept, such as the names of the classes, as JSON.

    Raises
    ------
    WeightsError
        If the state dict is not of this net.
    StoreError
        If the file cannot be written.
    """
    path = Path(path).expanduser()
    if path.suffix not in WRITTEN:
        raise ParameterError.of("path", "write", f"a name in {' or '.join(WRITTEN)}", str(path))
    _check(state, net)
    # A tensor that is a view would otherwise bring all of what it is a view of into a .pth.
    tensors = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in state.items()
    }
    statements = {
        OWN: VERSION,
        "net": net,
        "pixels": pixels.to_json(),
        "source": printable(source),  # a path in it may hold bytes that are no text
        "licence": licence,
        **(about or {}),
    }
    make_folder(path.parent)
    with replacing(path) as temporary:
        if path.suffix == ".safetensors":
            metadata = {"format": "pt", **statements}
            metadata[KEY] = checksums_of(tensors, metadata)
            save_tensors(tensors, temporary, metadata)
        else:
            with temporary.open("wb") as out:  # torch takes no name that begins with a dot
                torch.save(_for_torchvision(tensors, net, statements), out)
    return path


def _for_torchvision(
    tensors: dict[str, Tensor], net: str, statements: dict[str, str]
) -> OrderedDict[str, Tensor]:
    """Rename to torchvision's modules; our statements ride where load_state_dict passes them by."""
    modules = {ours.removesuffix("_pre"): m for m, ours in reversed(torchvision_names(net).items())}
    state: OrderedDict[str, Tensor] = OrderedDict()
    for name, tensor in tensors.items():
        layer, _, part = name.rpartition(".")
        state[f"{modules[layer]}.{part}"] = tensor
    state._metadata = OrderedDict({"": {"version": 1}, OWN: statements})  # type: ignore[attr-defined]
    return state


def _check(state: Mapping[str, Tensor], net: str) -> None:
    parameters = {
        name: Parameter(tuple(t.shape), str(t.dtype).removeprefix("torch."), t.detach)
        for name, t in state.items()
    }
    layers = {name.rsplit(".", 1)[0] for name in state}
    pairs = {
        name: Pair(parameters[f"{name}.weight"], parameters[f"{name}.bias"])
        for name in sorted(layers)
        if {f"{name}.weight", f"{name}.bias"} <= state.keys()
    }
    if not pairs or 2 * len(pairs) != len(state):
        raise WeightsError(f"These are not weights and biases of net {net}: {', '.join(state)}")
    identified(pairs, net)
    canonical(pairs, net)


@contextlib.contextmanager
def _blaming(path: Path, kind: str) -> Iterator[None]:
    """Name the file in every error; damaged files make the libraries raise anything."""
    try:
        yield
    except WeightsError as error:
        raise WeightsError(f"{path} ({kind}) cannot be used: {error}.") from error
    except ParameterError:
        raise
    except Exception as error:
        if short := short_of_memory(error):
            raise WeightsError(
                f"{path} needs more memory than there is ({short}). It is damaged, or too large "
                "for what this machine has left."
            ) from error
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise WeightsError(
            f"{path} cannot be read as {kind}; it is damaged, or not of this format: {said[0]}"
        ) from error
