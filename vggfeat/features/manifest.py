"""The manifest of a feature store: which settings made it, and who wrote it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from vggfeat._io.text import printable
from vggfeat.errors import FingerprintMismatch, StoreDamaged, StoreError
from vggfeat.features.catalogue import DTYPES, Header
from vggfeat.features.extraction import Extraction
from vggfeat.features.place import Place

FORMAT = "vggfeat features"
VERSION = 1
MANIFEST = "manifest.json"


@dataclass
class Manifest:
    """What a store holds and how it was made.

    Parameters
    ----------
    dtype : {"float32", "float16"}
        Type of all descriptors.
    nets : dict
        For each net the ``settings`` of its extraction, their ``fingerprint`` and the
        ``provenance`` given by the run that last wrote features.
    asked : int
        Number of pictures that the last run was asked for.

    Examples
    --------
    >>> manifest = Manifest("float32")
    >>> manifest.admit(Extraction("D", "ab12", ("fc7",)), {"device": "cpu"}, "features")
    >>> manifest.admit(Extraction("D", "ab12", ("fc7",), flip=False), {}, "features")
    Traceback (most recent call last):
    ...
    vggfeat.errors.FingerprintMismatch: features holds features of net D ... settings:
      flip: stored True → asked False
    Use another --out for the new settings, or ask for the stored ones.
    """

    dtype: str
    nets: dict[str, dict[str, Any]] = field(default_factory=dict)
    asked: int = 0

    def extraction(self, net: str) -> Extraction:
        """Return the extraction that made the features of a net."""
        return Extraction.from_dict(self.nets[net]["settings"])

    def admit(self, extraction: Extraction, provenance: dict[str, Any], where: object) -> None:
        """Add an extraction, or refuse it if its net is held with other settings."""
        held = self.nets.get(extraction.net)
        if held is None:
            self.nets[extraction.net] = {
                "settings": extraction.to_dict(),
                "fingerprint": extraction.fingerprint,
                "provenance": provenance,
            }
        elif held["fingerprint"] != extraction.fingerprint:
            raise FingerprintMismatch(
                f"{printable(where)} holds features of net {printable(extraction.net)} that were "
                "made with other settings:\n"
                f"{differences(held['settings'], extraction.to_dict())}\n"
                "Use another --out for the new settings, or ask for the stored ones."
            )

    def admit_dtype(self, dtype: str, where: object) -> None:
        """Refuse descriptors of another type."""
        if self.dtype != dtype:
            raise StoreError(
                f"{where} holds {self.dtype}, which cannot be mixed with {dtype}. Ask for "
                f"{self.dtype}, or use another --out."
            )

    def admit_headers(self, headers: Iterable[Header], where: object) -> None:
        """Add the nets of shards, written by others perhaps, and refuse what does not fit."""
        admitted: list[dict[str, Any]] = []  # thousands of shards have the very same object
        for header in headers:
            if any(settings is header.settings for settings in admitted):
                continue
            admitted = [*admitted[-8:], header.settings]
            for net, settings in header.settings.items():
                shard = f"{where} (shard {header.key})"
                self.admit(extraction_of(settings, shard), header.provenance[net], shard)
            if header.dtype != self.dtype:
                raise StoreError(
                    f"The shard {header.key} of {where} holds {header.dtype}, the manifest says "
                    f"{self.dtype}. Move the shard to a store of its own."
                )

    def to_json(self) -> str:
        """Return the text of ``manifest.json``; its last line is the digest of the others."""
        return _sealed({"format": FORMAT, "version": VERSION, **asdict(self)})

    @classmethod
    def from_json(cls, text: str, where: object) -> Manifest:
        """Inverse of :meth:`to_json`.

        Raises
        ------
        StoreDamaged
            If the text cannot be read.
        StoreError
            If it is no store's manifest, or that of a newer vggfeat.
        """
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise _damaged(where, error) from error
        if isinstance(content, dict) and content.pop("sha256", None) and _sealed(content) != text:
            raise _damaged(where, "its text is not what was written")
        if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
            raise StoreError(f"{where} belongs to something else. Choose another --out.")
        if content.pop("version", None) != VERSION:
            raise StoreError(f"{where} was written by a newer vggfeat. Upgrade to read it.")
        try:
            manifest = cls(**content)
            for record in manifest.nets.values():
                extraction_of(record["settings"], where)
                if not isinstance(record["provenance"], dict):
                    raise TypeError("provenance is no object")
                hash(record["fingerprint"])
            if manifest.dtype not in DTYPES or not isinstance(manifest.asked, int):
                raise TypeError(f"dtype {manifest.dtype!r}, asked {manifest.asked!r}")
        except (AttributeError, KeyError, TypeError) as error:
            raise _damaged(where, error) from error
        return manifest

    @classmethod
    def read(cls, place: Place) -> Manifest | None:
        """Read the manifest of a store, if it has one."""
        content = place.read(MANIFEST)
        if content is None:
            return None
        return cls.from_json(content.decode("utf-8", "replace"), f"{place}/{MANIFEST}")

    def write(self, place: Place) -> None:
        """Write the manifest of a store, unless it is there already."""
        content = self.to_json().encode()
        if place.read(MANIFEST) != content:
            place.write(MANIFEST, content)

    def found(self, place: Place) -> bool:
        """Write the manifest of a new store, unless another writer was first: return False."""
        return place.write_new(MANIFEST, self.to_json().encode())


def _sealed(content: dict[str, Any]) -> str:
    text = json.dumps(content, indent=2, default=str)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return json.dumps({**content, "sha256": digest}, indent=2, default=str) + "\n"


def _damaged(where: object, error: object) -> StoreDamaged:
    folder, _, name = str(where).rpartition("/")
    advice = f" Make it anew of the shards with: vggfeat store repair {folder or '.'}."
    return StoreDamaged(f"{where} is damaged: {error}.{advice if name == MANIFEST else ''}")


def extraction_of(settings: dict[str, Any], where: object) -> Extraction:
    """Return the extraction with these settings, as stored in ``where``."""
    if "pixels" not in settings:
        raise StoreError(
            f"{where} was made by an early vggfeat, which did not keep how pixels are fed to the "
            "network. Make it anew."
        )
    try:
        made = Extraction.from_dict(settings)
        texts = [made.net, made.weights_sha256, made.resampling, made.decoder, made.pixels]
        if not all(isinstance(one, str) for one in [*texts, *made.layers]):
            raise TypeError("a name is no text")
        return made
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StoreError(
            f"{where} has settings that this vggfeat does not know ({error}). Upgrade to read it; "
            "if it was not made by a newer version, it is damaged."
        ) from error


def differences(
    one: dict[str, Any], other: dict[str, Any], first: str = "stored", second: str = "asked"
) -> str:
    """List, a line each, the settings in which two extractions differ."""
    return "\n".join(
        printable(f"  {name}: {first} {one.get(name)} → {second} {other.get(name)}")
        for name in {**one, **other}
        if one.get(name) != other.get(name)
    )
