"""Joining a Ray cluster, and raising what goes wrong in it as if it went wrong here."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from vggfeat.errors import DeviceError, MissingExtra, VggfeatError

TRIES = 3  # starts after a failure that Ray could not mend, without any progress
REACH_SECONDS = 10.0  # for the head of a cluster to answer
STUCK_SECONDS = 900.0  # without anything done, after which Ray Data gives up


def connect(address: str | None = None) -> None:
    """Join a Ray cluster, unless this process is in one already.

    Parameters
    ----------
    address : str, optional
        ``"auto"`` for the cluster of this machine, or ``"host:6379"``; by default that of
        ``RAY_ADDRESS``, else that of this machine, else a new one of this machine alone.

    Raises
    ------
    MissingExtra
        If Ray is not installed.
    DeviceError
        If no cluster answers.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to anybody
    # Ray tells of lost workers on stdout, where results go; it mends them, or an error is raised.
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise MissingExtra.of("A Ray cluster", "ray", "ray") from error
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # what matters is raised
    if ray.is_initialized():
        return
    try:
        _reach(address)
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise DeviceError(
            f"No Ray cluster answers at {address or 'this machine'}: {_last_line(error)} Start one "
            "with `ray start --head`, and with `ray start --address=HEAD:6379` on the other nodes; "
            "or leave the address out to use this machine alone. A cluster that asks for a token "
            "wants RAY_AUTH_MODE=token on all nodes and here, and its token."
        ) from error


def _reach(address: str | None) -> None:
    """Fail at once where nothing listens: Ray itself would try for many minutes."""
    host, _, port = (address or os.environ.get("RAY_ADDRESS", "")).rpartition(":")
    if host and "/" not in host and port.isdigit():
        with socket.create_connection((host, int(port)), timeout=REACH_SECONDS):
            pass


class Lost(DeviceError):
    """The cluster failed, and another start may help."""


@contextmanager
def plainly() -> Iterator[None]:
    """Raise the error of a worker as if it had been raised here."""
    import ray

    try:
        yield
    except (ray.exceptions.RayError, ray.data.exceptions.ExecutionTimeoutError) as error:
        cause = getattr(error, "cause", None)
        if isinstance(cause, VggfeatError):
            raise cause from None
        raise Lost(
            f"The Ray cluster could not go on: {_last_line(cause or error)} What was complete is "
            "kept: run the same command again."
        ) from error


@contextmanager
def data_context() -> Iterator[None]:
    """Set what the stages need of Ray Data; who else uses it in this process keeps theirs."""
    import ray

    context = ray.data.DataContext.get_current()
    wanted = {
        "enable_progress_bars": False,
        "print_on_execution_start": False,
        "raise_original_map_exception": True,
        "target_max_block_size": 1 << 20,  # or rows would wait for others to go on with them
        "max_consecutive_actor_init_deaths": TRIES,
        "execution_no_progress_timeout_s": STUCK_SECONDS,
    }
    before = {name: getattr(context, name) for name in wanted}
    try:
        for name, value in wanted.items():
            setattr(context, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(context, name, value)


def _last_line(error: BaseException) -> str:
    """Return the last line of a message: of a traceback, what it is about."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[-1].rstrip(".") + "."
