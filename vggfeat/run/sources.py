"""Where the descriptors of one net and view come from: a store that has them, or a network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Any

from vggfeat.data.images import load as load_picture
from vggfeat.data.imagesets import ImageSet
from vggfeat.data.stored import Stat
from vggfeat.errors import DataError, PictureError, StoreError
from vggfeat.features.aggregate import Aggregation, Matrix
from vggfeat.features.extract import Progress, Summary, extract
from vggfeat.features.extractor import DenseExtractor
from vggfeat.features.provenance import provenance
from vggfeat.features.reading import Reader
from vggfeat.features.store import FeatureStore
from vggfeat.nets.sources import NAMES, SOURCES
from vggfeat.nets.table1 import resolve_layer
from vggfeat.nets.weights import load as load_weights
from vggfeat.settings import Extraction, Features
from vggfeat.store.column import Descriptor


@dataclass(frozen=True)
class Source:
    """Descriptors of one net and view.

    Parameters
    ----------
    store : Reader
        What holds them.
    folder : Path
        Where that is.
    held : mapping of str to str
        For every picture that is there its name in the store.
    failed : mapping of str to str
        Reason by name of the pictures that could not be read.
    scales : tuple of int
        Test scales Q.
    extraction : Extraction
        What is asked for, of all that the store has.
    provenance : dict
        What stands behind the descriptors.
    summary : Summary
        What was computed.
    """

    store: Reader = field(repr=False)
    folder: Path
    held: Mapping[str, str] = field(repr=False)
    failed: Mapping[str, str]
    scales: tuple[int, ...]
    extraction: Extraction
    provenance: dict[str, Any]
    summary: Summary

    @property
    def parts(self) -> list[Descriptor]:
        """What is asked for, in stacking order."""
        return self.extraction.parts(self.scales)

    def read(self, names: Sequence[str]) -> dict[Descriptor, Matrix]:
        """Read raw descriptors of pictures, named as in the view."""
        found = self.store.read(self.scales, [self.held[name] for name in names])
        return {part: found[part] for part in self.parts}


def extracted(
    images: ImageSet,
    extractor: DenseExtractor,
    features: Features,
    folder: Path,
    *,
    on_bad_image: str = "skip",
    workers: int | None = None,
    progress: Progress | None = None,
) -> Source:
    """Describe what a store lacks, and read from it."""
    behind = provenance(extractor)
    store = FeatureStore(
        folder, extractor.extraction, images.names, stats=images.stats(), provenance=behind
    )
    summary = extract(
        images,
        extractor,
        features.Q,
        store,
        on_bad_image=on_bad_image,
        workers=workers,
        progress=progress,
    )
    found = store.view_names(features.Q)
    return Source(
        store,
        folder,
        dict(zip(found, found, strict=True)),
        store.failed,
        features.Q,
        extractor.extraction,
        behind,
        summary,
    )


def stored(
    path: Path,
    net: str,
    images: ImageSet,
    features: Features,
    on_bad_image: str = "skip",
    *,
    deterministic: bool = False,
) -> Source | None:
    """Find the descriptors of all these pictures in a store, under whatever names it has.

    A picture is recognised by its content and its name; or, under another name, by its content
    and the name of its file without folder and suffix, where only one picture of the store and
    one of these have both. So what ``vggfeat extract`` made of a folder serves a data set in it.

    Returns
    -------
    Source or None
        None where there is no store, it lacks the net, or it has some of these names but not all
        of the pictures, so that the rest can be computed.

    Raises
    ------
    DataError
        If it holds other pictures, or only some of these; or if it is packed and lacks the net.
    PictureError
        If a picture cannot be read, with ``on_bad_image="error"``.
    StoreError
        If it was made with other settings or weights than those asked for, or without
        `deterministic` where that is wanted.
    """
    if not (path.is_file() or (path / "manifest.json").is_file()):
        return None
    nets = FeatureStore.open_all(path)
    if net not in nets:
        if path.is_dir():
            return None
        raise DataError(
            f"{path} holds the nets {', '.join(nets)}, not {net}, and a packed store takes no "
            "more. Name the folder that it was packed from, or another --features."
        )
    store = nets[net]
    if deterministic:
        store.check_deterministic()
    behind = store.manifest.nets[net]["provenance"]
    asked = _asked(store, features, path, behind)
    lacking = sorted(set(features.Q) - set(store.scales))
    held = {} if lacking else _same_pictures(store, images, features.Q)
    failed = _unreadable(images, held, features)
    if len(held) + len(failed) < len(images):
        if not set(images.names).isdisjoint(store.names) and path.is_dir():
            return None  # the store of these very names: what is missing can be computed
        raise DataError(_incomplete(path, net, features, len(held), images, lacking))
    if failed and on_bad_image == "error":
        name, reason = next(iter(failed.items()))
        raise PictureError(f"{name}: {reason}")
    summary = Summary(len(images), present=len(held), failed=len(failed))
    return Source(store, path, held, failed, features.Q, asked, behind, summary)


def stored_settings(path: Path, base: Features) -> dict[str, Any]:
    """Return the settings with which a store was made, as far as :class:`Features` has them.

    Nets that it lacks have the weights of `base`. Empty where there is no store.
    """
    if not (path.is_file() or (path / "manifest.json").is_file()):
        return {}
    nets = FeatureStore.open_all(path)
    if not nets:
        return {}
    first = next(iter(nets.values()))
    made = first.extraction
    return {
        "nets": tuple(nets),
        "weights": tuple(
            f"{net}={behind['origin']}"
            for net, store in nets.items()
            if (behind := store.manifest.nets[net]["provenance"].get("weights", {})).get("origin")
        )
        + tuple(one for one in base.weights if "=" not in one),
        "layers": made.layers,
        "Q": tuple(first.scales),
        "flip": made.flip,
        "pool": made.pool,
        "exif": made.exif,
        "normalize": "locations" if made.locations == "l2" else "descriptor",
    }


def _asked(store: Reader, features: Features, path: Path, behind: Mapping[str, Any]) -> Extraction:
    """Return what is asked for of a store, and refuse settings that are not its own."""
    made = store.extraction
    layers = tuple(resolve_layer(made.net, layer) for layer in features.layers)
    asked = replace(
        made,
        layers=layers,
        pool=features.pool,
        flip=features.flip,
        exif=features.exif,
        locations=Aggregation(normalize=features.normalize).locations,
    )
    same = ("flip", "exif", "locations")
    wrong = [name for name in same if getattr(made, name) != getattr(asked, name)]
    wrong += ["layers"] if set(layers) - set(made.layers) else []
    wrong += ["pool"] if set(asked.pools) - set(made.pools) else []
    wrong += _other_weights(features.weights_of(made.net), made, behind)
    if wrong:
        source = behind.get("weights", {}).get("source", "unknown")
        raise StoreError(
            f"{path} was made with another setting of {', '.join(wrong)}: layers "
            f"{', '.join(made.layers)}, pool {made.pool}, flip {made.flip}, locations "
            f"{made.locations}, exif {made.exif}, weights {source} ({made.weights_sha256[:12]}), "
            f"pixels {made.pixels}. Ask for these, or name another --features."
        )
    return asked


def _same_pictures(store: Reader, images: ImageSet, scales: Sequence[int]) -> dict[str, str]:
    """Find each picture's name in the store, never the same one for two pictures."""
    complete = set(store.view_names(scales))
    contents: dict[str, Stat] = {
        name: (first, second)
        for name, (first, second) in zip(store.names, store.index.stats.tolist(), strict=True)
        if name in complete and (first, second) != (0, 0)
    }
    known: dict[tuple[str, Stat], list[str]] = {}
    for name, content in contents.items():
        known.setdefault((_stem(name), content), []).append(name)
    found: dict[str, str] = {}
    for name, picture, content in zip(images.names, images.pictures, images.stats(), strict=True):
        if contents.get(name) == content:
            found[name] = name
            continue
        alike = [known.get((stem, content), []) for stem in {_stem(name), _stem(str(picture))}]
        if len(names := [one for names in alike for one in names]) == 1:
            found[name] = names[0]
    claims = Counter(found.values())
    return {name: its for name, its in found.items() if claims[its] == 1 or its == name}


def _other_weights(asked: str, made: Extraction, behind: Mapping[str, Any]) -> list[str]:
    """Name what differs from the weights asked for; a source's name will do: it may not be here."""
    source = behind.get("weights", {})
    if asked == "auto":  # whatever the store has; every result names it
        return []
    if asked in NAMES:
        same = source.get("source", asked) == asked
        known = SOURCES.get((asked, made.net))
        pixels = known.pixels if known else None
    elif asked == source.get("origin") and not Path(asked).is_file():
        return []  # the file that the store was made with, and that is gone
    else:
        loaded = load_weights(asked, made.net, made.layers)
        same, pixels = loaded.sha256 == made.weights_sha256, loaded.pixels
    if not same:
        return ["weights"]
    return [] if pixels is None or str(pixels) == made.pixels else ["pixels"]


def _unreadable(images: ImageSet, held: Mapping[str, str], features: Features) -> dict[str, str]:
    """Say why pictures are not in the store, up to the first that could be."""
    failed = {}
    for name, picture in zip(images.names, images.pictures, strict=True):
        if name in held:
            continue
        try:
            load_picture(picture, features.Q, exif=features.exif)
        except PictureError as error:
            failed[name] = str(error)
        else:
            break
    return failed


def _stem(name: str) -> str:
    return PurePath(name).stem


def _incomplete(
    path: Path, net: str, features: Features, held: int, images: ImageSet, lacking: Sequence[int]
) -> str:
    what = f"nothing at Q = {lacking[0]}" if lacking else f"{held} of the {len(images)} pictures"
    scales = " ".join(f"--Q {Q}" for Q in features.Q)
    layers = " ".join(f"--layer {layer}" for layer in features.layers)
    return (
        f"{path} holds {what}. Extract the rest with `vggfeat extract PICTURES --net {net} "
        f"{layers} {scales} --out {path}`, or name another --features."
    )
