"""The weights of a network with all that belongs to them: pixels, source, licence, digest."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from vggfeat._io.download import Progress
from vggfeat.errors import ParameterError, PixelsAssumedWarning, WeightsError, WeightsNotFound
from vggfeat.nets import formats, registry
from vggfeat.nets.config import convolutions, parameter_layers
from vggfeat.nets.preprocessing import (
    CONVENTIONS,
    PixelConvention,
    convention,
    name_of_pixels,
)
from vggfeat.settings import net_name


@dataclass(frozen=True, eq=False)
class Weights:
    """Parameters of a net, and what must be known to use them.

    Parameters
    ----------
    net : str
        Configuration of Table 1.
    state : dict
        ``conv1_1.weight`` (out, in, k, k), ``conv1_1.bias`` (out,), … ``fc6.weight`` (out, 25088);
        float32; only the layers that were asked for.
    pixels : PixelConvention
        How pixels must be prepared, and how max-pools round.
    source : str
        ``"authors"``, ``"torchvision"``, ``"embedded"``, or the name of a file.
    licence : str
        Their licence, ``"unknown"`` where a file does not say.
    assumed : bool
        Whether `pixels` is what files of this kind usually have, the file not saying.
    origin : str
        What :func:`load` takes to load them again: the name of a source, or a file's path.
    about : dict of str to str
        What else their file keeps.
    drawn : tuple of str
        Layers that are drawn at random, for training to begin with.
    """

    net: str
    state: dict[str, Tensor]
    pixels: PixelConvention
    source: str
    licence: str
    assumed: bool = False
    origin: str = ""
    about: dict[str, str] = field(default_factory=dict)
    drawn: tuple[str, ...] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        """What the outputs of fc8 are called, where the file says it; else empty."""
        return tuple(json.loads(self.about.get("classes", "[]")))

    def __deepcopy__(self, memo: object) -> Weights:
        """Nothing changes them, so that scikit-learn's clones share half a gigabyte."""
        return self

    @property
    def sha256(self) -> str:
        """Digest up to the last layer that was loaded; see :meth:`digest`."""
        return list(self._digests.values())[-1]

    def digest(self, layer: str) -> str:
        """Return the digest of the parameters that a layer needs.

        It is made of names, shapes and float32 numbers: the same whatever file they came from, and
        whatever other layers were loaded.

        Examples
        --------
        >>> first, five = (load("embedded", layers=(layer,)) for layer in ("pool1", "pool5"))
        >>> first.digest("pool1") == five.digest("pool1") == first.sha256
        True
        """
        self._check_covers([layer])
        return self._digests[parameter_layers(self.net, [layer])[-1]]

    @cached_property
    def _digests(self) -> dict[str, str]:
        """The digest of all parameters up to each layer that has some."""
        digest, found = hashlib.sha256(), {}
        for layer in parameter_layers(self.net, ["fc8"]):
            for name in sorted(name for name in self.state if _layer_of(name) == layer):
                tensor = self.state[name].detach().to("cpu", torch.float32).contiguous()
                digest.update(f"{name}{tuple(tensor.shape)}".encode())
                digest.update(tensor.numpy().astype("<f4", copy=False).data)
                found[layer] = digest.copy().hexdigest()
        return found

    def restricted(self, layers: Iterable[str]) -> Weights:
        """Return only the parameters that these layers need; refuse to go without one."""
        needed = self._check_covers(layers)
        state = {name: values for name, values in self.state.items() if _layer_of(name) in needed}
        return replace(self, state=state)

    def _check_covers(self, layers: Iterable[str]) -> list[str]:
        """Return the layers whose parameters some layers need."""
        needed = parameter_layers(self.net, layers)
        there = set(map(_layer_of, self.state))
        if missing := [layer for layer in needed if layer not in there]:
            raise WeightsError(
                f"The weights of net {self.net} from {self.source} lack {', '.join(missing)}. "
                "Load them for these layers."
            )
        return needed


@dataclass(frozen=True)
class Description:
    """What ``vggfeat weights show`` prints of a file."""

    path: Path
    format: str
    net: str
    layers: tuple[str, ...]
    parameters: int
    dtype: str
    sha256: str
    pixels: PixelConvention
    assumed: bool
    source: str
    licence: str
    ignored: tuple[str, ...]


def load(
    weights: str | os.PathLike[str] | Weights = "auto",
    net: str = "D",
    layers: Sequence[str] = ("fc7",),
    *,
    pixels: PixelConvention | str | None = None,
    progress: Progress | None = None,
) -> Weights:
    """Load the parameters that some layers of a net need.

    Parameters
    ----------
    weights : str, path or Weights
        ``"auto"``, the same weights on every machine: for D and E the authors', of which
        ``"embedded"`` stands in where it covers the layers and the whole file is not cached; for
        A and B torchvision's. Or ``"authors"`` (D, E), ``"torchvision"`` (A, B, D, E),
        ``"embedded"`` (D, convolutions, fp16), a file, or weights that are already loaded.
    net : str
        Configuration of Table 1.
    layers : sequence of str
        Layers that will be computed, as :func:`vggfeat.nets.config.resolve_layer` takes them.
    pixels : PixelConvention or {"caffe", "torchvision"}, optional
        Overrides the convention of a file that does not state its own, or states a wrong one.
    progress : callable, optional
        Called with bytes so far and bytes in all during a download.

    Warns
    -----
    PixelsAssumedWarning
        If a file does not state its convention, and none is given.

    Raises
    ------
    ParameterError
        If pixels are given for weights that have a name, and with it their own.
    WeightsNotFound
        If they are not on this machine and cannot be downloaded, or if there are none.
    WeightsError
        If the file is damaged, of another net, or lacks a layer.

    Examples
    --------
    >>> found = load("embedded", "D", layers=("pool5",))
    >>> found.pixels.channels, found.licence, len(found.state)
    ('BGR', 'CC BY 4.0 (K. Simonyan, A. Zisserman)', 26)
    """
    net = net_name(net)
    needed = parameter_layers(net, layers)
    own = None if pixels is None else convention(pixels)
    if isinstance(weights, Weights):
        if weights.net != net:
            raise WeightsError(f"These weights are those of net {weights.net}, not of net {net}.")
        found = weights.restricted(layers)
    elif isinstance(weights, str) and weights in registry.NAMES:
        if own:
            raise ParameterError.ignored(
                "pixels", f"the weights {weights}, whose pixels are known", "files of weights"
            )
        name = _choose_source(net, needed) if weights == "auto" else weights
        found = _from_registry(name, net, needed, progress)
    else:
        found = _from_file(Path(weights).expanduser(), net, needed)
        if found.assumed and not own:
            warnings.warn(_assumption(found), PixelsAssumedWarning, stacklevel=2)
    _check_finite(found)
    return replace(found, pixels=own, assumed=False) if own else found


def lacking_source(weights: str, net: str, layers: Sequence[str]) -> registry.Source | None:
    """Return the published weights that :func:`load` would download; None where nothing is.

    Examples
    --------
    >>> lacking_source("embedded", "D", ["pool5"]) is None
    True
    """
    if weights not in registry.NAMES:
        return None
    name = _choose_source(net, parameter_layers(net, layers)) if weights == "auto" else weights
    source = registry.source_of(name, net)
    return None if registry.cached(source) else source


def describe(path: Path | str, net: str | None = None) -> Description:
    """Tell what a file of weights holds.

    Examples
    --------
    >>> from vggfeat._io import assets
    >>> shown = describe(assets.asset("vgg_d_conv_fp16.safetensors"))
    >>> shown.net, shown.dtype, f"{shown.parameters:,}"
    ('D', 'float16', '14,714,688')
    """
    raw = formats.read(path, net)
    whole = _weights(raw, raw.state)
    return Description(
        raw.path,
        raw.format,
        raw.net,
        tuple(raw.layers),
        sum(tensor.numel() for tensor in whole.state.values()),
        ", ".join(sorted({parameter.dtype for parameter in raw.parameters.values()})),
        whole.sha256,
        raw.pixels,
        raw.assumed,
        whole.source,
        whole.licence,
        raw.ignored,
    )


def convert(
    source: Path | str,
    target: Path | str,
    net: str | None = None,
    pixels: PixelConvention | str | None = None,
) -> Description:
    """Rewrite a file of weights as ``.safetensors`` or ``.pth``; return what was written.

    Parameters
    ----------
    source, target : Path or str
        Any format that is read; a format that is written.
    net : str, optional
        The configuration, where the shapes leave it open.
    pixels : PixelConvention or {"caffe", "torchvision"}, optional
        The convention, where the file does not state it.

    Warns
    -----
    PixelsAssumedWarning
        If the file does not state its convention, and none is given; nor does the copy then.

    Raises
    ------
    WeightsError
        If the source cannot be read, or has numbers that are NaN or infinite.
    """
    raw = formats.read(source, net)
    found = _weights(raw, raw.state)
    _check_finite(found)
    assumed = found.assumed and pixels is None
    if assumed:
        warnings.warn(_assumption(found), PixelsAssumedWarning, stacklevel=2)
    written = formats.write(
        target,
        found.state,
        found.pixels if pixels is None else convention(pixels),
        net=found.net,
        source=found.source,
        licence=found.licence,
        assumed=assumed,
        about=found.about,
    )
    return describe(written)


def _assumption(weights: Weights) -> str:
    """Say which pixels are taken for those of a file, and how to name others."""
    [other] = [name for name, known in CONVENTIONS.items() if known != weights.pixels][:1]
    name = name_of_pixels(str(weights.pixels))
    return (
        f"{weights.source} does not say which pixels its network takes; those of {name} are "
        f"assumed ({weights.pixels}). If they are others, all numbers are wrong: give "
        f"pixels={other!r} (extract, svm and classify have it), or state them in a copy: vggfeat "
        f"weights convert {weights.origin} COPY.safetensors --pixels {other}"
    )


def _choose_source(net: str, needed: list[str]) -> str:
    """Name the source that ``auto`` means."""
    if ("authors", net) in registry.SOURCES:
        here = registry.cached(registry.source_of("authors", net))
        covered = net == registry.EMBEDDED.net and _has_embedded(needed)
        return "embedded" if covered and here is None else "authors"
    if ("torchvision", net) in registry.SOURCES:
        return "torchvision"
    raise WeightsNotFound(
        f"No weights of net {net} are public. Train it: vggfeat train --net {net}; "
        "or name a file of yours: weights=FILE."
    )


def _from_registry(name: str, net: str, needed: list[str], progress: Progress | None) -> Weights:
    source = registry.source_of(name, net)
    if source is registry.EMBEDDED and not _has_embedded(needed):
        others = "Use layers=('pool5',), or weights='authors' for the whole net"
        if registry.LAST in needed:
            others = f"Name authors, torchvision, or {registry.WHOLE}"
        raise WeightsError(
            f"The embedded weights of net D end at pool5 and lack {needed[-1]}. {others}."
        )
    raw = formats.read(registry.fetch(name, net, progress, layers=needed), net)
    return Weights(net, raw.take(needed), source.pixels, name, source.licence, origin=name)


def _from_file(path: Path, net: str, needed: list[str]) -> Weights:
    if not path.is_file():
        raise WeightsNotFound(
            f"{path} is no file, and none of the named weights {', '.join(registry.NAMES)}."
        )
    raw = formats.read(path, net)
    return _weights(raw, raw.take(needed))


def _weights(raw: formats.RawWeights, state: dict[str, Tensor]) -> Weights:
    said = raw.metadata if not raw.assumed else {}
    return Weights(
        raw.net,
        state,
        raw.pixels,
        said.get("source", raw.path.name),
        raw.metadata.get("licence", "unknown"),
        raw.assumed,
        str(raw.path.resolve()),
        raw.about,
    )


def _check_finite(weights: Weights) -> None:
    """Refuse NaN: torchvision publishes a file whose classifier is not a number."""
    for name, tensor in weights.state.items():
        if not all(end.isfinite() for end in tensor.aminmax()):
            whose = weights.origin or weights.source
            raise WeightsError(
                f"{whose}: {name} holds numbers that are NaN or infinite. "
                "Use other weights, or only layers before it."
            )


def _layer_of(name: str) -> str:
    return name.rpartition(".")[0]


def _has_embedded(needed: list[str]) -> bool:
    return set(needed) <= {layer.name for layer in convolutions(registry.EMBEDDED.net)}
