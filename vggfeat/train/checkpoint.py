"""Where a training run stands, in one file that holds no code, written whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from vggfeat._io.atomic import explain_os_errors, file_lock, make_folder, replacing
from vggfeat._io.checksums import append_checksum, strip_checksum
from vggfeat.errors import StoreDamaged, StoreError
from vggfeat.nets.checksums import save_tensors, sha256_tensor
from vggfeat.settings import STEPWISE, Training

LAST = "last.safetensors"
FORMAT = 3
LOCKED = 10.0  # seconds for the workers of a run that was killed to end, and its lock with them
LONG = 40  # characters of what differs that are shown; a digest has more
_KEY = "vggfeat training"


@dataclass
class Position:
    """How far a run has come.

    Parameters
    ----------
    epoch : int
        Epochs that are complete.
    batch : int
        Batches of the next epoch that are done.
    step : int
        Updates in all.
    sums : list of float
        Loss, top-1 and top-5 hits, and images of the epoch so far.
    best : float
        The best validation accuracy so far; −1 before the first.
    learning_rate : float
        Of the next update; 0 before the first.
    scheduler, scaler : dict
        Their states, where they have any.
    history : list of dict
        One row for each complete epoch.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    sums: list[float] = field(default_factory=lambda: [0.0] * 4)
    best: float = -1.0
    learning_rate: float = 0.0
    scheduler: dict[str, Any] = field(default_factory=dict)
    scaler: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)


def save(
    path: Path,
    net: nn.Module,
    optimiser: torch.optim.SGD,
    position: Position,
    told: Mapping[str, Any],
) -> None:
    """Write weights, momentum and position.

    Parameters
    ----------
    path : Path
    net : Module
    optimiser : SGD
        Of the net's parameters.
    position : Position
    told : mapping
        What must be the same to go on: settings, digests; plain JSON types.

    Raises
    ------
    StoreError
        If the disk is full; the checkpoint that was there is intact.
    """
    tensors: dict[str, Tensor] = {}
    for name, parameter in net.named_parameters():
        tensors[f"net.{name}"] = parameter.detach().cpu().contiguous()
        buffer: Tensor | None = optimiser.state.get(parameter, {}).get("momentum_buffer")
        if buffer is not None:
            tensors[f"momentum.{name}"] = buffer.cpu().contiguous()
    header = {
        "format": FORMAT,
        "position": asdict(position),
        "told": dict(told),
        "tensors": {name: sha256_tensor(tensor) for name, tensor in tensors.items()},
    }
    text = append_checksum(json.dumps(header).encode()).decode()
    with replacing(path) as temporary:
        save_tensors(tensors, temporary, {_KEY: text})


def read(path: Path) -> tuple[Position, dict[str, Any]]:
    """Read where a run stands, and what it was told.

    Raises
    ------
    StoreError
        If it is no checkpoint.
    StoreDamaged
        If it cannot be read.
    """
    with explain_os_errors(path, "read"), _opened(path) as file:
        text = (file.metadata() or {}).get(_KEY)
    if text is None:
        raise StoreError(f"{path} is no checkpoint of vggfeat. Name another --out.")
    header = _header(path, text)
    try:
        position = Position(**header["position"])
        _check(position, header["told"])
    except (LookupError, TypeError, ValueError) as error:
        raise _damaged(path, str(error)) from error
    return position, header["told"]


def restore(path: Path, net: nn.Module, optimiser: torch.optim.SGD) -> None:
    """Put weights and momentum of a checkpoint where they belong.

    Raises
    ------
    StoreError
        If it is of another network.
    StoreDamaged
        If its numbers are not those that were written; nothing has changed then.
    """
    with explain_os_errors(path, "read"), _opened(path) as file:
        held = set(file.keys())
        text = (file.metadata() or {}).get(_KEY, "")
        digests = {name: sha256_tensor(file.get_tensor(name)) for name in held}
        if digests != _header(path, text).get("tensors"):
            raise _damaged(path, "its checksum does not match")
        for name, parameter in net.named_parameters():
            key = f"net.{name}"
            if key not in held or file.get_slice(key).get_shape() != list(parameter.shape):
                raise StoreError(
                    f"{path} is the checkpoint of another network: its {name} is "
                    f"{'absent' if key not in held else file.get_slice(key).get_shape()}, and "
                    f"{list(parameter.shape)} here. Name another --out."
                )
            parameter.data.copy_(file.get_tensor(key))
            if (momentum := f"momentum.{name}") in held:
                moved = file.get_tensor(momentum).to(parameter.device)
                optimiser.state[parameter]["momentum_buffer"] = moved.to(
                    memory_format=_format_of(parameter)
                )


@contextmanager
def only_run_in(out: Path) -> Iterator[None]:
    """Refuse a folder in which another run is at work."""
    make_folder(out)
    lock = file_lock(out / LAST)
    with explain_os_errors(out):
        try:
            lock.acquire(timeout=LOCKED)
        except TimeoutError as error:
            raise StoreError(
                f"Another process is training in {out}. Wait until it has ended, or name another "
                "--out. Several processes train one network when torchrun starts them."
            ) from error
    try:
        yield
    finally:
        lock.release()


def load_position(
    out: Path, facts: Mapping[str, Any], *, resume: bool
) -> tuple[Position, dict[str, Any]]:
    """Read where a run stands and what it was begun with, nothing of a new one.

    Raises
    ------
    StoreError
        If there is a run, and it is another or not to be gone on with.
    """
    path = out / LAST
    if not path.exists():
        return Position(), {}
    position, known = read(path)
    if not resume:
        raise StoreError(
            f"{out} holds a training run of {position.epoch} epochs. Go on with --resume, or name "
            "another --out."
        )
    if other := differences(known, facts):
        raise StoreError(
            f"{path} is of a run with other {'; '.join(other)}.",
            "To go on, all of these must be what the run was begun with; only --epochs may "
            "change, and where files lie. Or name another --out.",
        )
    return position, known


def differences(known: Mapping[str, Any], facts: Mapping[str, Any]) -> list[str]:
    """Name what is not as a run was begun with it, in words.

    A setting that the run does not know had the value that is now the default.
    """
    defaults = Training().model_dump(mode="json")
    changes = []
    for name, mine in facts.items():
        theirs = known.get(name)
        if name == "settings":
            theirs = defaults | (theirs or {})
            free = {"epochs"} if mine["schedule"] in STEPWISE else set()
            theirs |= {setting: mine[setting] for setting in free}
        if theirs == mine:
            continue
        if isinstance(mine, dict) and isinstance(theirs, dict):
            changed = [
                f"{key}: {theirs.get(key)!r:.{LONG}} → {mine.get(key)!r:.{LONG}}"
                for key in {**theirs, **mine}
                if theirs.get(key) != mine.get(key)
            ]
            name = f"{name} ({'; '.join(changed)})"
        changes.append(name)
    return changes


def _check(found: Position, told: object) -> None:
    """Refuse a position of other types than are written.

    Raises
    ------
    TypeError
        Naming it.
    """
    numbers = (
        *(found.epoch, found.batch, found.step, found.learning_rate, found.best),
        *found.sums,
    )
    if not all(type(one) in (int, float) for one in numbers) or len(found.sums) != 4:
        raise TypeError(f"its position is {numbers}")
    if not all(isinstance(one, dict) for one in (told, found.scheduler, found.scaler)):
        raise TypeError("its settings or states are no objects")
    if not all(isinstance(row, dict) for row in found.history):
        raise TypeError("its history is no list of epochs")
    if min(found.epoch, found.batch, found.step) < 0:
        raise ValueError("it stands before its beginning")


def _header(path: Path, text: str) -> dict[str, Any]:
    """Return the header if it is what was written."""
    content = strip_checksum(text.encode("utf-8", "surrogatepass"))
    if content is None:
        raise _damaged(path, "its checksum does not match")
    try:
        header: dict[str, Any] = json.loads(content)
        found = header["format"]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise _damaged(path, str(error)) from error
    if found != FORMAT:
        raise StoreError(
            f"{path} is a checkpoint of format {found!r:.9}; this vggfeat reads format {FORMAT}. "
            "Go on with the version that wrote it, or begin anew with another --out, from the "
            "weights of best.safetensors by --init."
        )
    return header


def _opened(path: Path) -> Any:
    try:
        return safe_open(path, "pt")
    except SafetensorError as error:
        raise _damaged(path, str(error)) from error


def _damaged(path: Path, reason: str) -> StoreDamaged:
    return StoreDamaged(
        f"{path} is damaged: {reason}. Copy it again from where it came from; or delete it and "
        "begin anew, from the weights of best.safetensors if they are whole."
    )


def _format_of(parameter: Tensor) -> Any:
    channels_last = parameter.dim() == 4 and parameter.is_contiguous(
        memory_format=torch.channels_last
    )
    return torch.channels_last if channels_last else torch.contiguous_format
