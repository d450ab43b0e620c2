"""Where joblib's work runs."""

from __future__ import annotations

import sys

import pytest
from joblib import Parallel, delayed

from vggfeat.errors import MissingExtra, ParameterError
from vggfeat.svm.backends import jobs_backend


@pytest.mark.parametrize(
    ("name", "package", "extra"), [("ray", "ray", "ray"), ("dask", "distributed", "dask")]
)
def test_an_absent_extra_names_the_command(
    monkeypatch: pytest.MonkeyPatch, name: str, package: str, extra: str
) -> None:
    """A backend that is not installed answers with what to type."""
    monkeypatch.setitem(sys.modules, package, None)
    with (
        pytest.raises(MissingExtra, match=rf"pip install 'vggfeat\[{extra}\]'"),
        jobs_backend(name),
    ):
        pass


def test_an_unknown_backend_is_refused() -> None:
    """A name that joblib does not know is an error that lists what there is."""
    with pytest.raises(ParameterError, match="Use loky, ray or dask"), jobs_backend("slurm"):
        pass


def test_dask_runs_the_work() -> None:
    """On a Dask cluster of this process, work comes back in order."""
    distributed = pytest.importorskip("distributed", reason="the extra dask is not installed")
    with (
        distributed.Client(processes=False, dashboard_address=None) as client,
        jobs_backend("dask"),
    ):
        assert Parallel()(delayed(abs)(-number) for number in range(4)) == [0, 1, 2, 3]
        assert client.status == "running"
