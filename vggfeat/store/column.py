"""A column: the descriptors of one net, layer, pooling and scale, and the settings behind them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from vggfeat._io.checksums import sha256
from vggfeat._io.text import printable
from vggfeat.errors import StoreDamaged

JSON = Any  # what json.dumps writes


class Descriptor(NamedTuple):
    """The name of a column.

    Parameters
    ----------
    net : str
        Configuration of Table 1.
    layer : str
        Layer whose dense map is pooled.
    pool : str
        How it is pooled.
    Q : int
        Test scale: smallest side of the rescaled image, in pixels (Section 3.2).

    Examples
    --------
    >>> Descriptor("D", "pool5", "average", 256).path
    '/D/pool5/average/Q256'
    """

    net: str
    layer: str
    pool: str
    Q: int

    @property
    def path(self) -> str:
        """The path of its array in shards, views and packed files."""
        return f"/{self.net}/{self.layer}/{self.pool}/Q{self.Q}"

    @property
    def file(self) -> str:
        """The name of the column's file in a store."""
        return f"columns/{self.path[1:].replace('/', '.')}.json"

    @classmethod
    def parse(cls, path: str) -> Descriptor:
        """Inverse of :attr:`path`.

        Raises
        ------
        ValueError
            If it is no such path.

        Examples
        --------
        >>> Descriptor.parse("/D/pool5/average/Q256")
        Descriptor(net='D', layer='pool5', pool='average', Q=256)
        """
        parts = path.split("/")
        if len(parts) != 5 or parts[0] or not all(parts[1:]) or not parts[4][1:].isdecimal():
            raise ValueError(f"{path} is not the path of a column, such as /D/pool5/average/Q256")
        return cls(parts[1], parts[2], parts[3], int(parts[4][1:]))


@dataclass(frozen=True)
class Column:
    """What a column is: its name, the settings that change its numbers, its width.

    Parameters
    ----------
    descriptor : Descriptor
    settings : mapping
        Plain JSON values. Two columns of one name whose settings differ are never mixed. A setting
        younger than the format is left out where it has the value the software had before.
    width : int
        D, the numbers of a descriptor.
    outputs : tuple of str
        What the D numbers are called, where they are class scores.
    S : int or pair of int, optional
        The training scale of the weights, where their file says it (Section 3.1).

    Examples
    --------
    >>> column = Column(Descriptor("D", "pool5", "average", 256), {"flip": True}, 512)
    >>> column.digest[:8], Column.from_json(column.to_json(), "here") == column
    ('68ace771', True)
    """

    descriptor: Descriptor
    settings: Mapping[str, JSON]
    width: int
    outputs: tuple[str, ...] = ()
    S: JSON = None

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the settings as sorted, compact JSON."""
        return _sha256(self.settings)

    def is_like(self, other: Column) -> bool:
        """Tell whether rows of both may be mixed, whatever their outputs are called."""
        return (self.digest, self.width) == (other.digest, other.width)

    def to_dict(self) -> dict[str, JSON]:
        """Return all of it as plain JSON types."""
        return {
            "path": self.descriptor.path,
            "digest": self.digest,
            "settings": dict(self.settings),
            "width": self.width,
            "outputs": list(self.outputs),
            "S": self.S,
        }

    def to_json(self) -> str:
        """Return the content of the column's file, whose last field is the SHA-256 of the others.

        What outputs are called may differ from what shards say: who gave other names corrects them.
        """
        held = self.to_dict()
        return json.dumps({**held, "sha256": _sha256(held)}, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, where: object) -> Column:
        """Inverse of :meth:`to_json`, and of :meth:`to_dict` as JSON, which has no checksum."""
        try:
            held = json.loads(text)
            descriptor, outputs = Descriptor.parse(held["path"]), tuple(held["outputs"])
            S = tuple(held["S"]) if isinstance(held["S"], list) else held["S"]
            column = cls(descriptor, dict(held["settings"]), int(held["width"]), outputs, S)
            if column.digest != held["digest"]:
                raise ValueError("its settings are not those of its digest")
            if held.pop("sha256", None) not in (None, _sha256(column.to_dict())):
                raise ValueError("its content is not that of its checksum")
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise StoreDamaged(
                f"{where} is damaged: {error}. Make it anew of the shards with: vggfeat store "
                "repair, on the store's folder."
            ) from error
        return column


def _sha256(held: Mapping[str, JSON]) -> str:
    return sha256(json.dumps(held, sort_keys=True, separators=(",", ":")).encode())


DEFAULT = "the default"
"""Said of a setting that a column does not name; see ``Extraction.numbers``."""


def differences(
    old: Mapping[str, JSON], new: Mapping[str, JSON], first: str = "stored", second: str = "asked"
) -> str:
    """List, a line each, the settings in which two columns differ.

    Examples
    --------
    >>> print(differences({"flip": True, "exif": True}, {"flip": False, "exif": True}))
      flip: stored True → asked False
    """
    return "\n".join(
        printable(f"  {name}: {first} {old.get(name, DEFAULT)} → {second} {new.get(name, DEFAULT)}")
        for name in {**old, **new}
        if old.get(name) != new.get(name)
    )
