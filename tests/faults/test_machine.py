"""What else a machine does to a run: no space, no leave, no handles, no memory, signals, clocks.

A command that cannot go on says why in a line, ends with a status that is not 0, and leaves all
that it had committed; when the cause is gone, the same command ends as if it had never been.
"""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from campaigns import Campaign, times
from helpers.colours import two_classes, write_colours
from helpers.extraction import content, draw_small
from helpers.killing import (
    Work,
    course,
    ended,
    folder_in_memory,
    forked,
    import_for_training,
)
from helpers.networks import SMALL, TINY, configured
from helpers.seams import (
    checkpoint_every,
    shard_due,
    shard_rows,
    signal_at_batch,
    signal_at_update,
    training_engine,
)
from test_kills import a_model, ended_with, recalls, sound, trained

from vggfeat.cli import main
from vggfeat.cli.console import interruptible
from vggfeat.errors import VggfeatError
from vggfeat.report.tables import write_files
from vggfeat.store.maintenance import verify
from vggfeat.store.store import FeatureStore
from vggfeat.svm import model as models
from vggfeat.train.checkpoint import LAST, read
from vggfeat.train.loop import Engine

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
NOBODY = 65534
MB = 1 << 20
SHORT = 1  # faults of a kind where no more are asked for
SHARE = 0.06  # of the number asked for


@dataclass
class Job:
    """A command, how it is checked, and what it ends with where nothing is wrong."""

    name: str
    work: Callable[[Path], object]
    whole: Callable[[Path], object]
    result: Callable[[Path], Any]
    images: Path
    expected: Any = None
    steps: int = 0

    def measured(self, folder: Path) -> Job:
        """Run it once, uninterrupted."""

        def silent() -> None:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 1)
            os.dup2(nowhere, 2)
            self.work(folder / "uninterrupted")

        self.steps = course(silent).steps
        self.expected = self.result(folder / "uninterrupted")
        return self


@dataclass
class Fault:
    """Something that goes wrong.

    Parameters
    ----------
    name : str
    comes : callable
        Called in the process of the command, when it starts or at a step.
    goes : callable
        Called outside of it, when it has ended.
    later : bool
        Whether it comes at a step.
    statuses : tuple of int
        With which of them the command may end, if it is not done.
    noisy : bool
        Whether other processes that end with it may print a trace.
    """

    name: str
    comes: Work
    goes: Work = lambda: None
    later: bool = True
    statuses: tuple[int, ...] = (1, 3, 4, 5)
    noisy: bool = False


def told(job: Job, out: Path, fault: Fault | None, rng: random.Random) -> tuple[int, str]:
    """Run a command with a fault; return its exit status and what it said."""
    ours, theirs = os.pipe()
    at = rng.randint(1, job.steps) if fault and fault.later else None

    def work() -> None:
        os.dup2(theirs, 1)
        os.dup2(theirs, 2)
        sys.stdout, sys.stderr = (os.fdopen(os.dup(fd), "w", buffering=1) for fd in (1, 2))
        if fault and not fault.later:
            fault.comes()
        job.work(out)

    pid = forked(work, at, fault.comes) if fault and at else forked(work)
    os.close(theirs)
    with os.fdopen(ours, "rb") as said:
        text = said.read().decode("utf-8", "replace")
    return ended(pid), text


def campaign(
    name: str, job: Job, folder: Path, make: Callable[[Path, random.Random], Fault], faults: int
) -> None:
    """Let a fault come again and again, each time to a new run, then let it go on."""
    rng = random.Random(name)
    with Campaign(f"{name}, {job.name}") as counted:
        for number in range(faults):
            out = folder / f"{name}-{number}" / "out"
            out.mkdir(parents=True)
            fault = make(out, rng)
            with counted.trial(f"{name} {number}, {fault.name}"):
                try:
                    status, said = told(job, out, fault, rng)
                finally:
                    fault.goes()
                done = status == 0 and (0 in fault.statuses or job.result(out) == job.expected)
                assert fault.noisy or "Traceback" not in said, said[-1000:]
                assert status <= 0 or any(w in said for w in ("Error", "ted. ")), said
                assert done or status in fault.statuses, f"status {status}: {said}"
                if out.exists():
                    job.whole(out)
                out.mkdir(exist_ok=True)
                status, said = told(job, out, None, rng)
                assert status == 0, said
                job.whole(out)
                assert job.result(out) == job.expected, "another result than without the fault"
            shutil.rmtree(out.parent)


def command(*words: str) -> None:
    """Run the command line in this process."""
    sys.argv = ["vggfeat", *words]
    main()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give a folder that others may look into."""
    tmp_path.chmod(0o755)
    return tmp_path


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Threads of torch would not survive a fork."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Give a folder for what the commands read; each is measured once, in an own home."""
    with folder_in_memory(tmp_path_factory.mktemp("inputs")) as folder:
        folder.chmod(0o755)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("VGGFEAT_HOME", str(folder / "home"))
            patch.setenv("VGGFEAT_OFFLINE", "1")
            yield folder


@pytest.fixture(scope="module")
def extraction(inputs: Path) -> Iterator[Job]:
    """``vggfeat extract`` with the tiny net, whose numbers are exact; a shard holds four images."""
    images = draw_small(inputs / "extraction" / "images")

    def work(out: Path) -> None:
        net = ("--net", "tiny", "--layer", "pool3", "--weights", str(weights))
        # Other precisions run by OpenVINO, whose threads would not survive a fork.
        words = ("--Q", "8", "--Q", "10", "--workers", "2", "--precision", "fp32", "--quiet")
        command("extract", str(images), "--out", str(out), *net, *words)

    with configured({"tiny": TINY}), shard_rows(4):
        weights = write_colours(inputs / "extraction" / "colours.safetensors", "tiny")
        yield Job("extraction", work, sound, content, images).measured(inputs / "extraction")


@contextmanager
def small_training(folder: Path, workers: int) -> Iterator[Job]:
    """``vggfeat train`` with a net A of few channels, and a checkpoint with every update."""
    import_for_training()
    engine = Engine(device="cpu", workers=workers, minutes=0.0)
    classes = two_classes(folder / "classes", each=6)

    def work(out: Path) -> None:
        words = ("--batch", "4", "--epochs", "2", "--seed", "3", "--resume", "--quiet")
        command("train", "--data", str(classes), "--out", str(out), *words)

    with configured(SMALL), checkpoint_every(1), training_engine(engine):
        yield Job("training", work, trained, ended_with, classes).measured(folder)


@pytest.fixture(scope="module")
def training(inputs: Path) -> Iterator[Job]:
    """Training that decodes in its own process."""
    with small_training(inputs / "training", workers=0) as job:
        yield job


@pytest.fixture(scope="module")
def saving(inputs: Path) -> Job:
    """Write an SVM model and the tables of a result, as ``vggfeat svm`` does."""
    result = recalls(0)

    def work(out: Path) -> None:
        try:
            with interruptible():
                models.save(out / "model", a_model(0))
                write_files(result, out)
        except typer.Exit as stopped:
            sys.exit(stopped.exit_code)
        except VggfeatError as error:
            print(f"Error: {error}")
            sys.exit(error.exit_status)

    def whole(out: Path) -> None:
        for path in out.glob("model.*"):
            models.load(path)

    def result_of(out: Path) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in out.iterdir()}

    folder = inputs / "saving"
    return Job("model and report", work, whole, result_of, folder).measured(folder)


@pytest.fixture
def job(request: pytest.FixtureRequest) -> Job:
    """One of the commands."""
    return request.getfixturevalue(request.param)


def each_job(*quick: str) -> pytest.MarkDecorator:
    """Let a fault come to each command; those that are not named only with `make test-faults`."""
    jobs = [
        pytest.param(name, marks=() if name in quick else pytest.mark.slow)
        for name in ("extraction", "training", "saving")
    ]
    return pytest.mark.parametrize("job", jobs, indirect=True)


def mounted(*words: str) -> bool:
    return subprocess.run(["mount", *words], capture_output=True, check=False).returncode == 0


def unmounted(where: Path) -> None:
    subprocess.run(["umount", str(where)], check=True)


@each_job("extraction", "training")
def test_full_disk(job: Job, folder: Path) -> None:
    """On a file system too small for the result, what fits is kept, and the rest comes later."""
    disk = folder / "disk"
    disk.mkdir()
    if not mounted("-t", "tmpfs", "-o", "size=64k", "none", str(disk)):
        pytest.skip("mounting is not permitted")

    def make(out: Path, rng: random.Random) -> Fault:
        out.mkdir(parents=True, exist_ok=True)
        pages = rng.randint(3, 30)
        mounted("-o", f"remount,size={pages * 4}k", str(disk))
        return Fault(f"{pages} pages", lambda: None, bigger, later=False, statuses=(1, 5))

    def bigger() -> None:
        mounted("-o", "remount,size=64m", str(disk))

    try:
        bigger()
        campaign("full disk", job, disk, make, times(SHORT, SHARE))
    finally:
        unmounted(disk)


@each_job("extraction", "saving")
def test_file_size_limit(job: Job, folder: Path) -> None:
    """Under a limit on the size of files all that fits is kept, and the rest comes later."""

    def make(out: Path, rng: random.Random) -> Fault:
        limit = rng.randint(1, 12_000)
        limits = (limit, limit)
        comes = partial(resource.setrlimit, resource.RLIMIT_FSIZE, limits)
        return Fault(f"{limit} bytes", comes, later=rng.random() < 0.5, statuses=(1, 5))

    campaign("file size limit", job, folder, make, times(SHORT, SHARE))


@each_job("extraction")
def test_read_only_folder(job: Job, folder: Path) -> None:
    """A folder on a read-only file system is refused at once, and nothing in it has changed."""
    probe = folder / "probe"
    probe.mkdir()
    if not mounted("--bind", str(probe), str(probe)):
        pytest.skip("mounting is not permitted")
    unmounted(probe)

    def make(out: Path, rng: random.Random) -> Fault:
        mounted("--bind", str(out), str(out))
        mounted("-o", "remount,bind,ro", str(out))
        return Fault("read-only", lambda: None, partial(unmounted, out), False, (5,))

    campaign("read-only folder", job, folder, make, times(SHORT, SHARE / 3))


@each_job("extraction")
def test_permission_taken_away(job: Job, folder: Path) -> None:
    """A user whose leave to write is taken in the middle keeps what is there."""
    if os.getuid():
        pytest.skip("needs root, to become another user and back")

    def make(out: Path, rng: random.Random) -> Fault:
        out.chmod(0o777)
        inner = job.work

        def as_nobody(where: Path) -> None:
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            inner(where)

        def comes() -> None:
            for path in (out, *out.glob("*/")):
                if path.stat().st_uid == NOBODY:
                    path.chmod(0o555)

        def goes() -> None:
            job.work = inner
            for path in (out, *out.glob("*/")):
                path.chmod(0o777)

        os.chown(out, NOBODY, NOBODY)
        job.work = as_nobody
        return Fault("no leave", comes, goes, statuses=(1, 5))

    campaign("permission taken away", job, folder, make, times(SHORT, SHARE))


@each_job("extraction")
def test_folder_deleted(job: Job, folder: Path) -> None:
    """A result that is deleted under its run ends it, and is made anew by the next one."""

    def make(out: Path, rng: random.Random) -> Fault:
        # Where all was written when it happened, the status is 0: nobody looks again.
        return Fault("gone", partial(shutil.rmtree, out, ignore_errors=True), statuses=(0, 1, 5))

    campaign("folder deleted under a run", job, folder, make, times(SHORT, SHARE))


@each_job("extraction")
def test_file_handles(job: Job, folder: Path) -> None:
    """A process that may open no more files says so; no image is called bad for it."""

    def make(out: Path, rng: random.Random) -> Fault:
        spare = rng.randint(0, 12)

        def comes() -> None:
            handles = 1 + max(int(path.name) for path in Path("/proc/self/fd").iterdir())
            resource.setrlimit(resource.RLIMIT_NOFILE, (handles + spare, handles + spare))

        return Fault(f"{spare} handles", comes, later=rng.random() < 0.5, statuses=(1, 3, 4, 5))

    campaign("out of file handles", job, folder, make, times(SHORT, SHARE))


@each_job("extraction")
def test_memory_limit(job: Job, folder: Path) -> None:
    """Where memory ends, so does the run, with a word about it."""

    def make(out: Path, rng: random.Random) -> Fault:
        spare = rng.uniform(0, 40)

        def comes() -> None:
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            limit = pages * resource.getpagesize() + int(spare * MB)
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

        return Fault(f"{spare:.1f} MB", comes, later=rng.random() < 0.5)

    campaign("memory limit", job, folder, make, times(SHORT, SHARE))


@pytest.mark.parametrize(
    ("number", "twice"),
    [
        (signal.SIGTERM, False),
        (signal.SIGINT, True),
        pytest.param(signal.SIGTERM, True, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, False, marks=pytest.mark.slow),
    ],
)
@each_job("extraction")
def test_signals(job: Job, folder: Path, number: signal.Signals, twice: bool) -> None:
    """SIGTERM and Ctrl-C, once or twice, end a command with 143 or 130, with all that is whole."""

    def comes(delay: float) -> None:
        os.kill(os.getpid(), number)
        if twice:
            time.sleep(delay)
            os.kill(os.getpid(), number)

    def make(out: Path, rng: random.Random) -> Fault:
        # By default a process that has not begun yet dies of SIGTERM, as a shell's 143 says.
        statuses = (143, -15) if number == signal.SIGTERM else (130,)
        return Fault(number.name, partial(comes, rng.choice([0, 0.001])), statuses=statuses)

    name = f"{number.name}{' twice' if twice else ''}"
    campaign(name, job, folder, make, times(SHORT, SHARE))


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_stopped_extraction_keeps_what_is_complete(
    extraction: Job, folder: Path, number: int, status: int
) -> None:
    """Every image that was described when the signal came is kept, though no shard was due."""
    with shard_due(), signal_at_batch(16, number):
        found, said = told(extraction, folder / "out", None, random.Random(0))
    assert (found, "run the same command again" in said) == (status, True), said
    store = FeatureStore(folder / "out")
    assert len(store.names) >= 8  # rounds of four images at two scales: four batches or more each
    assert verify(folder / "out") == []


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_stopped_training_keeps_its_last_update(
    training: Job, folder: Path, number: int, status: int
) -> None:
    """Training ends with a checkpoint of the update that it was at, though none was due."""
    engine = Engine(device="cpu", workers=0, minutes=1e9)
    with training_engine(engine), signal_at_update(1, number):
        found, said = told(training, folder / "out", None, random.Random(0))
    assert (found, "to go on from the last checkpoint" in said) == (status, True), said
    assert read(folder / "out" / LAST)[0].step == 1


@each_job("extraction")
def test_clock_set_back(job: Job, folder: Path) -> None:
    """A clock that jumps back by years in the middle of a run changes nothing."""

    def make(out: Path, rng: random.Random) -> Fault:
        back = rng.uniform(1, 3e8)
        real = time.time

        def comes() -> None:
            time.time = lambda: real() - back

        return Fault(f"{back:.0f} s", comes, statuses=())

    campaign("clock set back", job, folder, make, times(SHORT, SHARE))


def test_decoding_worker_killed(folder: Path) -> None:
    """Training whose decoding process is killed says so, and goes on with --resume."""

    def comes() -> None:
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        for child in children[:1]:
            os.kill(int(child), signal.SIGKILL)

    def make(out: Path, rng: random.Random) -> Fault:
        return Fault("a worker", comes, statuses=(3,), noisy=True)

    with small_training(folder, workers=2) as job:
        campaign("decoding worker killed", job, folder, make, times(SHORT, SHARE))
