"""Where joblib's work runs: processes of this machine, a Ray cluster, or a Dask cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from joblib import parallel_config
from joblib.parallel import get_active_backend

from vggfeat.errors import MissingExtra, ParameterError


@contextmanager
def jobs_backend(name: str, address: str | None = None) -> Iterator[None]:
    """Run the work of ``n_jobs`` elsewhere while the context lasts.

    Parameters
    ----------
    name : str
        ``"loky"``, processes of this machine; ``"ray"``; ``"dask"``; or another that joblib knows.
    address : str, optional
        Of the Ray cluster, as for :func:`~vggfeat._io.cluster.connect`. Dask's client is the
        one that this process has, else one of ``DASK_SCHEDULER_ADDRESS``, else of this machine.

    Raises
    ------
    MissingExtra
        If what it needs is not installed.
    ParameterError
        If joblib has no backend of that name.

    Examples
    --------
    >>> from joblib import Parallel, delayed
    >>> with jobs_backend("threading"):
    ...     Parallel(n_jobs=2)(delayed(abs)(number) for number in (-1, 2))
    [1, 2]
    """
    joined = {"ray": _join_ray, "dask": _join_dask}
    if name in joined:
        joined[name](address)
    try:
        config = parallel_config(name)
    except (ValueError, ImportError) as error:
        raise ParameterError(
            f"The jobs backend {name!r} is none that joblib has: {error}. Use loky, ray or dask."
        ) from error
    with config:
        yield


def shared(work: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Keep work, with the arrays in it, in Ray's object store once, where Ray runs it.

    Elsewhere it stays as it is: joblib's own processes map large arrays into memory.

    Examples
    --------
    >>> shared(abs)(-1)
    1
    """
    if type(get_active_backend()[0]).__name__ != "RayBackend":
        return work
    import ray

    return _Stored(ray.put(work))


@dataclass(frozen=True)
class _Stored:
    reference: Any

    def __call__(self, task: Any) -> Any:
        import ray

        return ray.get(self.reference)(task)


def _join_ray(address: str | None) -> None:
    from vggfeat._io.cluster import connect

    connect(address)
    from ray.util.joblib import register_ray

    register_ray()


def _join_dask(_: str | None) -> None:
    try:
        from distributed import Client, default_client
    except ImportError as error:
        raise MissingExtra.of("The jobs backend dask", "dask and distributed", "dask") from error
    try:
        default_client()
    except ValueError:
        Client(set_as_default=True)
