"""A trained classifier in one file that holds no code: safetensors, with JSON in its header."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as parse_tensors
from safetensors.numpy import save as write_tensors

from vggfeat._io.atomic import explain_os_errors, make_folder, write_atomic
from vggfeat._io.checksums import append_checksum, sha256_array, strip_checksum
from vggfeat.errors import DataError, DataNotFound, StoreDamaged, StoreError
from vggfeat.features.provenance import versions
from vggfeat.store.column import Column
from vggfeat.svm.rows import Floats

FORMAT = 3
SUFFIX = ".safetensors"
TRAIN_AGAIN = "Train the model again with: vggfeat svm --save"
_KEY = "vggfeat"
_ARRAYS = ("coef", "intercept")
_MALFORMED = (ValueError, LookupError, TypeError, AttributeError, RecursionError)
_TEXT = (str,)
_LISTS: dict[str, tuple[type, ...]] = {
    "classes": _TEXT,
    "C": (int, float),
    "columns": (dict,),
    "origins": _TEXT,
    "views": _TEXT,
}


@dataclass(frozen=True)
class SavedModel:
    """All that is needed to score new images as the training images were.

    Parameters
    ----------
    coef : array, shape (C, D)
        One row of weights per class.
    intercept : array, shape (C,)
        Bias of each class.
    classes : tuple of str
        Names, in the order of the rows.
    C : tuple of float
        The chosen C; one, or one per class.
    columns : tuple of Column
        What was stacked, in this order, with all settings that made it.
    origins : tuple of str
        Where the weights of each net came from, for example ``"embedded"``.
    aggregation : dict
        How descriptors were combined and normalised.
    views : tuple of str
        What of an image is looked at: ``"image"``, or also a given ``"box"``.
    multi_label : bool
        Whether an image can have several classes.
    versions : dict
        Of Python and the packages that trained it.
    format : int
        Version of the file format.
    """

    coef: Floats = field(repr=False)
    intercept: Floats = field(repr=False)
    classes: tuple[str, ...]
    C: tuple[float, ...]
    columns: tuple[Column, ...]
    origins: tuple[str, ...]
    aggregation: dict[str, Any]
    views: tuple[str, ...] = ("image",)
    multi_label: bool = False
    versions: dict[str, str] = field(default_factory=versions)
    format: int = FORMAT

    @property
    def nets(self) -> tuple[str, ...]:
        """The nets whose descriptors it scores."""
        return tuple(dict.fromkeys(column.descriptor.net for column in self.columns))

    def columns_of(self, net: str) -> list[Column]:
        """Return the columns of a net, in stacking order."""
        return [column for column in self.columns if column.descriptor.net == net]

    @property
    def scales(self) -> tuple[int, ...]:
        """Test scales Q."""
        return tuple(dict.fromkeys(column.descriptor.Q for column in self.columns))

    def scores(self, X: NDArray[Any]) -> Floats:
        """Score descriptors, shape (N, D), for every class: shape (N, C).

        Raises
        ------
        DataError
            If the descriptors have another dimension than those it was trained on.
        """
        D = self.coef.shape[1]
        if X.ndim != 2 or X.shape[1] != D:
            raise DataError(
                f"This model scores descriptors of shape (N, {D}). Got {X.shape}. Extract them "
                "with the settings in the model's 'columns' and 'aggregation'."
            )
        scores: Floats = X @ self.coef.T + self.intercept
        return scores


def refuse_boxes(model: SavedModel) -> None:
    """Refuse a model that needs a box with every image.

    Raises
    ------
    DataError
        Saying which models do not.
    """
    if "box" in model.views:
        raise DataError(
            "This model looks at a given box of each image, which new images do not have. "
            "Train one on whole images: vggfeat svm … --view image --save MODEL"
        )


def save(path: Path, model: SavedModel) -> Path:
    """Write a model whole or not at all.

    Parameters
    ----------
    path : Path
        Where to; ``.safetensors`` is added where it is missing.
    model : SavedModel

    Returns
    -------
    Path
        The file written.

    Raises
    ------
    StoreError
        If the disk is full, the folder may not be written, or the path names no file.

    Examples
    --------
    >>> import tempfile
    >>> model = SavedModel(np.eye(2), np.zeros(2), ("cat", "dog"), (1.0,), (), (), {})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = save(Path(folder) / "model", model)
    ...     path.name, load(Path(folder) / "model").classes
    ('model.safetensors', ('cat', 'dog'))
    """
    path = target_of(path)
    arrays = {name: np.ascontiguousarray(getattr(model, name), dtype="<f8") for name in _ARRAYS}
    plain = {name: value for name, value in vars(model).items() if name not in _ARRAYS}
    plain["columns"] = [column.to_dict() for column in model.columns]
    plain["arrays"] = _digests(arrays)
    # One key only: safetensors writes several in no fixed order, and equal models should be
    # equal files.
    header = append_checksum(json.dumps(plain, sort_keys=True).encode()).decode()
    content = write_tensors(arrays, metadata={_KEY: header})
    make_folder(path.parent)
    write_atomic(path, content)
    return path


def target_of(path: Path) -> Path:
    """Add ``.safetensors`` to a path where it is missing.

    Raises
    ------
    StoreError
        If its last part is no name, as in ``.`` or ``/``.

    Examples
    --------
    >>> target_of(Path("model.v2")).name
    'model.v2.safetensors'
    """
    if path.name in ("", ".."):
        raise StoreError(
            f"A model is a file, and {path} is a folder. Name a file in it, or elsewhere."
        )
    return path if path.suffix == SUFFIX else path.with_name(path.name + SUFFIX)


def load(path: Path) -> SavedModel:
    """Read a model and verify its checksum. Nothing in the file is executed.

    Parameters
    ----------
    path : Path
        As given to :func:`save`, with or without ``.safetensors``.

    Returns
    -------
    SavedModel

    Raises
    ------
    DataNotFound
        If there is no such file.
    StoreDamaged
        If its bytes are not those that were written.
    StoreError
        If it is another kind of file or a folder, or of another format.
    """
    path = _existing(path)
    with explain_os_errors(path, "read"):
        content = path.read_bytes()
    metadata = _metadata(path, content)
    try:
        arrays = parse_tensors(content)
        header = strip_checksum(metadata.encode())
        plain = {} if header is None else dict(json.loads(header))
        intact = header is not None and plain.pop("arrays") == _digests(arrays)
    except (SafetensorError, *_MALFORMED) as error:
        raise StoreDamaged(_advice(path, str(error) or type(error).__name__)) from error
    if not intact:
        raise StoreDamaged(_advice(path, "its checksum does not match"))
    return _built(path, plain, arrays)


def _built(path: Path, plain: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> SavedModel:
    if plain.get("format") != FORMAT:
        version = plain.get("format")
        newer = isinstance(version, int) and version > FORMAT
        raise StoreError(
            f"{path} has format {version}; this vggfeat reads format {FORMAT}. "
            + ("Update it with: pip install --upgrade vggfeat" if newer else TRAIN_AGAIN)
        )
    try:
        for name, kinds in _LISTS.items():
            plain[name] = tuple(plain[name])
            if not all(type(value) in kinds for value in plain[name]):
                raise TypeError(f"{name} {plain[name]!r:.80}")
        for name in ("aggregation", "versions"):
            plain[name] = dict(plain[name])
        plain["columns"] = tuple(
            Column.from_json(json.dumps(column), "its header") for column in plain["columns"]
        )
        model = SavedModel(arrays["coef"], arrays["intercept"], **plain)
    except (LookupError, TypeError, ValueError, StoreDamaged) as error:
        raise StoreDamaged(_advice(path, f"its header is incomplete ({error})")) from error
    if (
        model.coef.ndim != 2
        or model.intercept.ndim != 1
        or not (len(model.coef) == len(model.intercept) == len(model.classes))
    ):
        raise StoreDamaged(_advice(path, "its arrays do not fit its classes"))
    return model


def _existing(path: Path) -> Path:
    for candidate in (path, target_of(path)):
        if candidate.is_file():
            return candidate
    raise DataNotFound(
        f"There is no model {path}. Train one with: vggfeat svm --dataset FOLDER --save {path.name}"
    )


def _metadata(path: Path, content: bytes) -> str:
    """Read our text out of the header: 8 bytes of length, then JSON."""
    length = int.from_bytes(content[:8], "little")
    foreign = StoreError(
        f"{path} is not a model of vggfeat, or is damaged. Give the file that "
        "`vggfeat svm --save` wrote, or train it again."
    )
    if len(content) < 8 + length:
        raise foreign
    try:
        text = json.loads(content[8 : 8 + length])["__metadata__"][_KEY]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise foreign from None
    if not isinstance(text, str) or not text.startswith("{"):  # as that of weights does not
        raise foreign
    return text


def _digests(arrays: dict[str, NDArray[Any]]) -> dict[str, str]:
    return {
        name: sha256_array(str(array.dtype), array.shape, array.tobytes())
        for name, array in arrays.items()
    }


def _advice(path: Path, reason: str) -> str:
    return (
        f"The model {path} is damaged: {reason}. Copy it again from where it came from, or "
        "train it again with: vggfeat svm --save"
    )
