"""Several processes: torchrun's variables by name, and waiting for those that do not come."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from helpers.mistakes import refuses

from vggfeat.errors import DeviceError, ParameterError
from vggfeat.train import distributed
from vggfeat.train.distributed import find_rendezvous, meet, world_size

VARIABLES = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
PAIR = {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1"}
each_rank = pytest.mark.parametrize("rank", ["0", "1"])


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Begin without torchrun's variables, and with nobody met."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    distributed._store.cache_clear()
    yield
    distributed._store.cache_clear()


def free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def set_variables(monkeypatch: pytest.MonkeyPatch, values: dict[str, str]) -> None:
    for name, value in values.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"WORLD_SIZE": ""}, ("WORLD_SIZE", "''")),
        ({"WORLD_SIZE": "four"}, ("WORLD_SIZE", "'four'")),
        ({"WORLD_SIZE": "0", "RANK": "0"}, ("WORLD_SIZE", "'0'", "from 1 on")),
        ({"WORLD_SIZE": "2"}, ("RANK", "not set", "from 0 to 1")),
        ({"RANK": "1"}, ("WORLD_SIZE", "not set")),
        ({"WORLD_SIZE": "2", "RANK": "2"}, ("RANK", "'2'", "from 0 to 1")),
        ({"WORLD_SIZE": "1", "RANK": "1"}, ("RANK", "'1'", "from 0 to 0")),
        ({"WORLD_SIZE": "2", "RANK": "0"}, ("MASTER_ADDR", "not set")),
        (PAIR, ("MASTER_PORT", "not set")),
        (PAIR | {"MASTER_PORT": "99999"}, ("MASTER_PORT", "'99999'")),
        (PAIR | {"MASTER_PORT": "29500", "LOCAL_RANK": "x"}, ("LOCAL_RANK", "'x'")),
    ],
)
def test_wrong_and_half_set_variables_are_named(
    monkeypatch: pytest.MonkeyPatch, values: dict[str, str], named: tuple[str, ...]
) -> None:
    """Which, what it is and should be, and what sets them."""
    set_variables(monkeypatch, values)
    refuses(meet, ParameterError, mentions=(*named, "torchrun"))


def test_one_process_needs_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without variables, with the address alone, or as the only one of torchrun's."""
    for values in ({}, {"MASTER_ADDR": "h"}, {"WORLD_SIZE": "1", "RANK": "0"}):
        set_variables(monkeypatch, values)
        meet()
        assert (find_rendezvous(), world_size()) == (None, 1)


@each_rank
def test_a_missing_process_is_named_within_seconds(
    monkeypatch: pytest.MonkeyPatch, rank: str
) -> None:
    """Whoever waits says for whom, and where they meet."""
    monkeypatch.setattr(distributed, "MEETING", 0.5)
    set_variables(monkeypatch, PAIR | {"RANK": rank, "MASTER_PORT": (port := free_port())})
    begun = time.monotonic()
    mentions = (f"rank {1 - int(rank)} ", f"127.0.0.1:{port}", "WORLD_SIZE")
    refuses(meet, DeviceError, mentions)
    assert time.monotonic() - begun < 5


@each_rank
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_process_that_waits_is_stopped_at_once(
    monkeypatch: pytest.MonkeyPatch, rank: str, number: int
) -> None:
    """Ctrl-C and SIGTERM end the waiting, whose handlers Python must come to run."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    set_variables(monkeypatch, PAIR | {"RANK": rank, "MASTER_PORT": free_port()})
    signal.signal(number, interrupt)  # a fixture of all tests puts back what there was
    begun = time.monotonic()
    sender = threading.Timer(0.3, os.kill, (os.getpid(), number))
    sender.start()
    with pytest.raises(KeyboardInterrupt):
        meet()
    sender.cancel()
    assert time.monotonic() - begun < 5


def test_a_port_that_is_taken_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process of rank 0 cannot open the store where another program listens."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        set_variables(monkeypatch, PAIR | {"MASTER_PORT": port})
        refuses(meet, DeviceError, mentions=("MASTER_PORT", port))
