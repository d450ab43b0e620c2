"""What lies beside images and is not read: counted and named, so that nothing vanishes unsaid."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from typing import Any, Self

from vggfeat._io.text import counted

NAMED = 3  # of each kind; --json names more
SUFFIXES = 5  # that are told apart
COUNTS = ("suffixes", "files", "parallel", "parallel_files")
WITHOUT = "without a suffix"


@dataclass
class LeftOut:
    """What a source has beside the images that are read.

    Parameters
    ----------
    suffixes : Counter
        How many files are no images, by suffix.
    files : list of str
        The first of these.
    parallel : Counter
        How many images in tars belong to another of their name, such as masks, by suffixes.
    parallel_files : list of str
        The first of these.
    drawings : list of str
        What vggfeat drew itself.
    linked : dict
        Folders that links lead to again, and under which name each was read.
    loose : list of str
        Images beside the class folders, which are of no class.
    beside : list of str
        Other files and folders there.
    empty : list of str
        Class folders without an image.
    repeated : list of str
        Images that were named again.
    nested : list of str
        Folders that every class folder has, and no images: these may be the classes.
    undecodable : dict
        Images that this machine cannot decode, and what it lacks.

    Examples
    --------
    >>> left_out = LeftOut(empty=["mammal"])
    >>> for name in ("a.txt", "b.txt", "c.pdf", "LICENSE"):
    ...     left_out.add_file(name)
    >>> left_out.notes
    ['4 files are no images and were not read: 2 .txt, 1 .pdf, 1 without a suffix.']
    >>> left_out.warnings
    ['There is no image in the class folder mammal.']
    """

    suffixes: Counter[str] = field(default_factory=Counter)
    files: list[str] = field(default_factory=list)
    parallel: Counter[str] = field(default_factory=Counter)
    parallel_files: list[str] = field(default_factory=list)
    drawings: list[str] = field(default_factory=list)
    linked: dict[str, str] = field(default_factory=dict)
    loose: list[str] = field(default_factory=list)
    beside: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)
    nested: list[str] = field(default_factory=list)
    undecodable: dict[str, str] = field(default_factory=dict)

    def add_file(self, name: str) -> None:
        """Count a file that is no image."""
        self.suffixes[PurePath(name).suffix.lower()] += 1
        if len(self.files) < NAMED:
            self.files.append(name)

    def add_parallel(self, name: str) -> None:
        """Count an image that belongs to another."""
        self.parallel["".join(PurePath(name).suffixes[-2:]).lower()] += 1
        if len(self.parallel_files) < NAMED:
            self.parallel_files.append(name)

    def add(self, other: LeftOut) -> None:
        """Add what another source has."""
        self.suffixes += other.suffixes
        self.files = [*self.files, *other.files][:NAMED]
        self.parallel += other.parallel
        self.parallel_files = [*self.parallel_files, *other.parallel_files][:NAMED]
        self.drawings += other.drawings
        self.linked |= other.linked
        self.loose += other.loose
        self.beside += other.beside
        self.empty += other.empty
        self.repeated += other.repeated
        self.nested += [name for name in other.nested if name not in self.nested]
        self.undecodable |= other.undecodable

    def counts(self) -> dict[str, Any]:
        """Return the counts of files and of parallel images as plain JSON types."""
        return {name: getattr(self, name) for name in COUNTS}

    @classmethod
    def of_counts(cls, counts: Mapping[str, Any]) -> Self:
        """Read what :meth:`counts` gave."""
        suffixes, files, parallel, parallel_files = (counts[name] for name in COUNTS)
        return cls(Counter(suffixes), files, Counter(parallel), parallel_files)

    def below(self, tar: str) -> LeftOut:
        """Return what a tar has beside its images, under names that say so."""
        return replace(
            self,
            files=[f"{tar}/{name}" for name in self.files],
            parallel_files=[f"{tar}/{name}" for name in self.parallel_files],
        )

    @property
    def warnings(self) -> list[str]:
        """Say which classes and folders are not there, though one would think so."""
        lines = []
        if self.empty:
            folders = "folder" if len(self.empty) == 1 else "folders"
            lines.append(f"There is no image in the class {folders} {', '.join(self.empty)}.")
        if self.loose:
            what = "image lies" if len(self.loose) == 1 else "images lie"
            lines.append(
                f"{len(self.loose):,} {what} beside the class folders, of no class and left out: "
                f"{_some(self.loose)}."
            )
        if self.linked:
            pairs = [f"{name} is {first}" for name, first in self.linked.items()]
            lines.append(
                f"{counted(len(pairs), 'folder')} reached again by a link, and not read twice: "
                f"{_some(pairs)}. Name it, too, to have its images under both names."
            )
        if self.nested:
            lines.append(
                f"Every class folder has folders {_some(self.nested)}, and no images of its own. "
                "If these are the classes, call the folders above them train, val and test, or "
                "name one of those."
            )
        for reason, n in Counter(self.undecodable.values()).items():
            name = next(each for each, why in self.undecodable.items() if why == reason)
            lines.append(f"{counted(n, 'image')} cannot be decoded here, such as {name}: {reason}.")
        return lines

    @property
    def notes(self) -> list[str]:
        """Say what else was not read."""
        lines = []
        if total := self.suffixes.total():
            what = "file is no image and was" if total == 1 else "files are no images and were"
            lines.append(f"{total:,} {what} not read: {_kinds(self.suffixes, self.files)}.")
        if total := self.parallel.total():
            what = "image in a tar belongs" if total == 1 else "images in tars belong"
            lines.append(
                f"{total:,} {what} to another of the same name, as a mask does, and "
                f"{'was' if total == 1 else 'were'} not read: "
                f"{_kinds(self.parallel, self.parallel_files)}."
            )
        if drawn := self.drawings:
            what = "drawing" if len(drawn) == 1 else "drawings"
            lines.append(f"{len(drawn):,} {what} of vggfeat's own not read: {_some(drawn)}.")
        if self.beside:
            lines.append(f"Left out, beside the class folders: {_some(self.beside)}.")
        if again := list(dict.fromkeys(self.repeated)):
            what = "image was" if len(again) == 1 else "images were"
            lines.append(f"{len(again):,} {what} named more than once: {_some(again)}.")
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON types."""
        return {
            "files": dict(self.suffixes.most_common()),
            "parallel": dict(self.parallel.most_common()),
            "drawings": self.drawings,
            "linked": self.linked,
            "loose": self.loose,
            "beside": self.beside,
            "empty": self.empty,
            "repeated": self.repeated,
            "nested": self.nested,
            "undecodable": self.undecodable,
        }


def _kinds(suffixes: Counter[str], files: Sequence[str]) -> str:
    """Name the files, if they are few, or count them by suffix."""
    total = suffixes.total()
    if total <= len(files):
        return ", ".join(files)
    most = suffixes.most_common(SUFFIXES)
    kinds = [f"{number:,} {suffix or WITHOUT}" for suffix, number in most]
    others = total - sum(number for _, number in most)
    return ", ".join([*kinds, *([f"{others:,} others"] if others else [])])


def _some(names: Sequence[str]) -> str:
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more:,} more" if more > 0 else "")
