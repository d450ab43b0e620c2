"""Where the columns of one net and view come from: a store that has them, or a network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vggfeat.data.identity import NOWHERE, id_of, stamp_of
from vggfeat.data.image import load as load_image
from vggfeat.data.image import read_encoded
from vggfeat.data.imageset import ImageSet
from vggfeat.errors import DataError, ImageError, StoreError
from vggfeat.features import pipeline
from vggfeat.features.aggregate import Matrix
from vggfeat.features.extractor import DenseExtractor
from vggfeat.features.summary import Summary
from vggfeat.nets.config import layers_of, resolve_layer, torchvision_names
from vggfeat.nets.preprocessing import name_of_pixels
from vggfeat.nets.registry import NAMES, SOURCES
from vggfeat.nets.weights import load as load_weights
from vggfeat.recipes.quality import SHIPPED, choose_quality, read_quality
from vggfeat.settings import Dense, Extraction, Features
from vggfeat.store.column import Column, Descriptor, differences
from vggfeat.store.storage import MANIFEST, open_storage
from vggfeat.store.store import FeatureStore

Pairs = NDArray[np.int64]
Extract = Callable[..., Summary]
Networks = Callable[[str, FeatureStore | None], DenseExtractor]
"""Opens the network of a configuration of Table 1, in the precision that a store has."""
COLUMNS = ("nets", "layers", "pool", "Q")
"""Settings that a column has in its name."""


@dataclass(frozen=True)
class ViewSource:
    """Columns of one net and view, in a store that has them.

    Parameters
    ----------
    store : FeatureStore
    folder : Path
        Where it lies.
    columns : tuple of Column
        What was asked for, in stacking order.
    held : mapping of str to str
        For every image that is there its name in the store.
    failed : mapping of str to str
        By name, why images could not be used.
    provenance : dict
        What stands behind the descriptors.
    summary : Summary
        What was computed.
    """

    store: FeatureStore = field(repr=False)
    folder: Path
    columns: tuple[Column, ...]
    held: Mapping[str, str] = field(repr=False)
    failed: Mapping[str, str]
    provenance: dict[str, Any]
    summary: Summary

    @property
    def net(self) -> str:
        """The configuration of Table 1."""
        return self.columns[0].descriptor.net

    def read(self, names: Sequence[str]) -> dict[Descriptor, Matrix]:
        """Read raw descriptors of images, named as in the view."""
        columns = [column.descriptor for column in self.columns]
        return self.store.read(columns, [self.held[name] for name in names])


def open_source(
    images: ImageSet,
    net: str,
    features: Features,
    folder: Path,
    networks: Networks,
    *,
    on_bad_image: str = "skip",
    **how: Any,
) -> ViewSource:
    """Read columns from a store; open a network only where something is to be computed.

    An image is recognised by its bytes and its name; or, under another name, by its bytes and the
    name of its file without folder and suffix, where only one image of the store and one of these
    have both. So what ``vggfeat extract`` made of a folder serves a data set in it.

    Parameters
    ----------
    images : ImageSet
    net : str
    features : Features
    folder : Path
        A store, also a packed one; made if absent.
    networks : callable
        Opens a net for a store.
    on_bad_image
        As for :func:`~vggfeat.features.pipeline.extract`.
    **how
        As :func:`extract_source` takes it.

    Raises
    ------
    DataError
        If the store is packed, and lacks something.
    ImageError
        If an image cannot be read, with ``on_bad_image="error"``.
    StoreError
        If columns were made with other settings or weights than those asked for.
    """
    if not has_store(folder):
        how |= {"on_bad_image": on_bad_image}
        return extract_source(images, networks(net, None), features, folder, **how)
    store = FeatureStore(folder)
    asked = _asked(net, features)
    columns = tuple(store.columns[name] for name in asked if name in store.columns)
    for column in columns:
        _refuse_other_settings(store, column, features)
    ids, stamps = _recognise(images, store)
    names = _names_in(store, images, ids)
    is_held = store.has(asked, names, ids, current=True).all(axis=1)
    held = {images.names[row]: names[row] for row in np.flatnonzero(is_held)}
    failed = _unreadable(images, held, features)
    if len(columns) < len(asked) or len(held) + len(failed) < len(images):
        if store.packed:
            raise DataError(_incomplete(folder, net, features, len(held), len(images)))
        how |= {"on_bad_image": on_bad_image, "names": names, "dtype": store.dtype}
        how["seen"] = ids, stamps
        return extract_source(images, networks(net, store), features, folder, **how)
    if failed and on_bad_image == "error":
        name, reason = next(iter(failed.items()))
        raise ImageError(f"{name}: {reason}")
    summary = Summary(len(images), present=len(held), failed=len(failed))
    behind = store.provenance(columns[-1].descriptor)
    return ViewSource(store, folder, columns, held, failed, behind, summary)


def extract_source(
    images: ImageSet,
    extractor: DenseExtractor,
    features: Features,
    folder: Path,
    *,
    names: Sequence[str] | None = None,
    seen: tuple[Pairs, Pairs] | None = None,
    dtype: str = "float32",
    extract: Extract = pipeline.extract,
    **how: Any,
) -> ViewSource:
    """Compute what a store lacks, and read from it.

    Parameters
    ----------
    images : ImageSet
    extractor : DenseExtractor
    features : Features
    folder : Path
        The store.
    names : sequence of str, optional
        What the images are called in the store, where that is something else.
    seen : pair of ndarray (n, 2), optional
        Which images they are and the stamps of their files, 0 where unknown, if that was looked up.
    dtype : str
        The store's.
    extract : callable
        Computes, as :func:`~vggfeat.features.pipeline.extract` does.
    **how
        As it takes it: on_bad_image, workers, progress.
    """
    names = images.names if names is None else tuple(names)
    store = FeatureStore(folder, "a", dtype=dtype)
    if seen is not None:
        _note_unchanged(store, names, *seen)
    summary = extract(replace(images, names=names), extractor, features.Q, store, **how)
    asked = extractor.columns(features.Q)  # settings in the store may be those of a cluster
    columns = tuple(store.columns.get(column.descriptor, column) for column in asked)
    complete = set(store.complete([column.descriptor for column in columns]))
    pairs = list(zip(images.names, names, strict=True))
    held = {own: name for own, name in pairs if name in complete}
    failed = {own: store.failed[name] for own, name in pairs if name in store.failed}
    behind = store.runs[0]["provenance"]
    return ViewSource(store, folder, columns, held, failed, behind, summary)


def choose_features(
    quality: str | None,
    typed: Mapping[str, Any],
    defaults: Features | None = None,
    folder: Path | None = None,
) -> Features:
    """Put what was typed over a quality; without one, over a store's or a data set's settings.

    A store says what its columns are, and a shipped quality that has the same how they become rows.

    Parameters
    ----------
    quality : {"fast", "standard", "best", "paper"}, optional
    typed : mapping
        Settings of :class:`~vggfeat.settings.Features` by name.
    defaults : Features, optional
        The data set's own settings.
    folder : path, optional
        Of a store, whether there is one yet or not.

    Raises
    ------
    ParameterError
        If there is no quality of that name.
    StoreError
        If what is not typed is ambiguous: the store's columns are not every layer with every
        pooling at every scale.
    """
    paper = defaults or read_quality("paper")
    stored = stored_settings(folder, paper, typed) if folder and not quality else {}
    if not stored:
        return choose_quality(quality, typed, defaults).but(**typed)
    alike = [base for base in map(read_quality, SHIPPED) if _has_columns(base, stored)]
    if defaults or not alike:
        return paper.but(**{**stored, **typed})
    others = {name: value for name, value in stored.items() if name not in COLUMNS}
    return alike[0].but(**{**others, **typed})


def _has_columns(features: Features, stored: Mapping[str, Any]) -> bool:
    """Tell whether settings make the columns of a store, in any order."""
    own = features.model_copy(update=stored)
    return all(_as_set(getattr(features, name)) == _as_set(getattr(own, name)) for name in COLUMNS)


def _as_set(value: str | Sequence[Any]) -> set[Any]:
    return set(value.split("+") if isinstance(value, str) else value)


def stored_settings(folder: Path, base: Features, typed: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings with which a store was made, as far as :class:`Features` has them.

    Nets that it lacks have the weights of `base`. Of what is typed (``nets``, ``layers``, ``pool``,
    ``Q``) only columns count, as far as the store has any. Empty where there is no store.

    Raises
    ------
    StoreError
        As :func:`choose_features`.
    """
    if not has_store(folder):
        return {}
    store = FeatureStore(folder)
    if not store.columns:
        return {}
    pool = typed.get("pool")
    named = {
        "net": typed.get("nets"),
        "layer": typed.get("layers"),
        "pool": pool and pool.split("+"),
        "Q": typed.get("Q"),
    }
    found = _take_named(list(store.columns), named)
    _refuse_ambiguous(folder, found, [what for what in ("layer", "pool", "Q") if not named[what]])
    net = found[0].net
    depth = {layer.name: place for place, layer in enumerate(layers_of(net))}
    kept = Extraction.of_column(store.columns[found[0]].settings)
    newest = {one.net: one for one in store.columns}
    origins = {net: store.provenance(one).get("weights", {}) for net, one in newest.items()}
    return {
        "nets": tuple(dict.fromkeys(one.net for one in found)),
        "weights": (
            *(f"{net}={held['origin']}" for net, held in origins.items() if "origin" in held),
            *(source for source in base.weights if "=" not in source),
        ),
        "layers": tuple(
            sorted({one.layer for one in found}, key=lambda name: depth[name.removesuffix("_pre")])
        ),
        "Q": tuple(dict.fromkeys(one.Q for one in found)),
        "pool": "+".join(dict.fromkeys(one.pool for one in found)),
        **{name: kept[name] for name in Dense.model_fields if name in kept},
        "normalize": "locations" if kept["locations"] == "l2" else "descriptor",
        "pixels": _own_pixels(store, found[0]),
    }


def _own_pixels(store: FeatureStore, descriptor: Descriptor) -> str | None:
    """Name the pixels of a column that was made with a file of weights."""
    weights = store.provenance(descriptor).get("weights", {})
    is_file = weights.get("origin", NAMES[0]) not in NAMES
    return name_of_pixels(store.columns[descriptor].settings["pixels"]) if is_file else None


def _take_named(columns: list[Descriptor], named: Mapping[str, Any]) -> list[Descriptor]:
    """Keep the columns of what is named; a name that none has leaves all, as it is to be made."""
    for what, values in named.items():
        columns = [
            one
            for one in columns
            if not values
            or getattr(one, what) in values
            or (what == "layer" and one.layer in map(torchvision_names(one.net).get, values))
        ] or columns
    return columns


def _refuse_ambiguous(folder: Path, columns: list[Descriptor], free: Sequence[str]) -> None:
    """Refuse to choose a layer, pooling or scale where not all are there with all the rest."""
    unclear = []
    for what in free:
        by_rest: dict[tuple[object, ...], set[object]] = {}
        for one in columns:
            rest = tuple(getattr(one, other) for other in one._fields if other != what)
            by_rest.setdefault(rest, set()).add(getattr(one, what))
        if len(set(map(frozenset, by_rest.values()))) > 1:
            unclear.append(f"--{what}")
    if not unclear:
        return
    scales: dict[str, list[str]] = {}
    for one in columns:
        scales.setdefault(f"net {one.net}, {one.layer}, {one.pool}", []).append(str(one.Q))
    raise StoreError(
        f"{folder} does not hold every layer with every pooling at every scale:",
        *(f"  {key}: Q = {', '.join(own)}" for key, own in scales.items()),
        f"Say which you want with {' and '.join(unclear)}.",
    )


def has_store(path: Path | str) -> bool:
    """Tell whether there is a store in a folder or at an address, or a packed one."""
    return Path(path).is_file() or open_storage(path).read(MANIFEST) is not None


def _asked(net: str, features: Features) -> list[Descriptor]:
    """Name the columns of a net that are asked for, in stacking order."""
    layers = dict.fromkeys(resolve_layer(net, layer) for layer in features.layers)
    keys = [(layer, pool) for layer in layers for pool in features.pool.split("+")]
    return [Descriptor(net, *key, Q) for key in keys for Q in features.Q]


def _refuse_other_settings(store: FeatureStore, column: Column, features: Features) -> None:
    extraction = features.of(column.descriptor.net)
    others = {k: v for k, v in column.settings.items() if k not in Extraction.model_fields}
    asked = {
        **others,
        **extraction.numbers,
        "precision": column.settings["precision"],
        **{name: column.settings[name] for name in ("weights", "pixels")},
        **_other_weights(store, column, features),
    }
    if wrong := differences(column.settings, asked):
        raise StoreError(
            f"{store.packed or store.storage} holds {column.descriptor.path} that was made with "
            "other settings:",
            *wrong.splitlines(),
            "Ask for the stored ones, or name another --features.",
        )


def _other_weights(store: FeatureStore, column: Column, features: Features) -> dict[str, str]:
    """Say what the weights asked for are, if they are others; they need not be on this machine."""
    behind = store.provenance(column.descriptor).get("weights", {})
    net, layer = column.descriptor.net, column.descriptor.layer
    asked = features.weights_of(net)
    if asked == "auto":  # whatever the store has; every result names it
        return {}
    if asked in NAMES:
        weights = {} if behind.get("source", asked) == asked else {"weights": asked}
        known = SOURCES.get((asked, net))
        return weights | ({"pixels": str(known.pixels)} if known else {})
    if asked == behind.get("origin") and not Path(asked).is_file():
        return {}  # the file that the store was made with, and that is gone
    loaded = load_weights(asked, net, [layer], pixels=features.pixels)
    return {"weights": loaded.digest(layer), "pixels": str(loaded.pixels)}


def _recognise(images: ImageSet, store: FeatureStore) -> tuple[Pairs, Pairs]:
    """Return which images they are (n, 2), 0 of those that cannot be read, and their stamps.

    What the store has seen under the same name and stamp is not opened, nor what it cannot have
    under any other.
    """
    stamps = images.stamps()
    ids = store.recall(images.names, stamps)
    stems = {PurePath(name).stem for name in store.names}
    for row in np.flatnonzero(~ids.any(axis=1)).tolist():
        if stems.isdisjoint(_stems(images, row)):
            continue
        try:
            ids[row] = id_of(images.images[row], read_encoded(images.images[row]))
        except ImageError:
            continue
        if stamp_of(images.images[row]) != tuple(stamps[row].tolist()):
            stamps[row] = NOWHERE  # replaced since: nobody knows of which file the id is
    return ids, stamps


def _note_unchanged(store: FeatureStore, names: Sequence[str], ids: Pairs, stamps: Pairs) -> None:
    """Note the stamps of equal copies, or a run would hide what is there until it has read them."""
    same = ids.any(axis=1) & (store.identify(names) == ids).all(axis=1)
    rows = np.flatnonzero(same & ~store.recall(names, stamps).any(axis=1)).tolist()
    if rows:
        store.note([names[row] for row in rows], ids[rows], stamps[rows])
        store.save_notes()


def _names_in(store: FeatureStore, images: ImageSet, ids: Pairs) -> tuple[str, ...]:
    """Return each image's name in the store, never the same one for two; its own by default."""
    known: dict[tuple[str, int, int], list[str]] = {}
    for name, image in zip(store.names, store.identify(store.names).tolist(), strict=True):
        known.setdefault((PurePath(name).stem, *image), []).append(name)
    is_current = (store.identify(images.names) == ids).all(axis=1)
    names = []
    for row, own in enumerate(images.names):
        stems = _stems(images, row)
        alike = [name for stem in stems for name in known.get((stem, *ids[row].tolist()), [])]
        is_other = ids[row].any() and not is_current[row] and len(alike) == 1
        names.append(alike[0] if is_other else own)
    claims = Counter(names)
    return tuple(
        name if claims[name] == 1 else own for name, own in zip(names, images.names, strict=True)
    )


def _stems(images: ImageSet, row: int) -> set[str]:
    """Return what an image may be called, without folder and suffix."""
    return {PurePath(images.names[row]).stem, PurePath(str(images.images[row])).stem}


def _unreadable(images: ImageSet, held: Mapping[str, str], features: Features) -> dict[str, str]:
    """Say why images are not in the store, up to the first that could be."""
    failed = {}
    for name, image in zip(images.names, images.images, strict=True):
        if name in held:
            continue
        try:
            load_image(image, features.Q, features)
        except ImageError as error:
            failed[name] = str(error)
        else:
            break
    return failed


def _incomplete(folder: Path, net: str, features: Features, held: int, n: int) -> str:
    scales = " ".join(f"--Q {Q}" for Q in features.Q)
    layers = " ".join(f"--layer {layer}" for layer in features.layers)
    return (
        f"{folder} holds all that is asked for of {held} of the {n} images, and a packed store "
        f"takes no more. Extract the rest with `vggfeat extract IMAGES --net {net} {layers} "
        f"{scales} --out FOLDER` into the folder that it was packed from, or name another "
        "--features."
    )
