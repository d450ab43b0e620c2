"""Install the built wheel where the checkout cannot be seen, and use it there."""

from __future__ import annotations

import shutil
import site
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

WHEEL_HOLDS = (
    "vggfeat/py.typed",
    "vggfeat/assets/vgg_d_conv_fp16.safetensors",
    "vggfeat/assets/LICENSE-vgg_d_conv.txt",
    "vggfeat/assets/clipart10/LICENSE.txt",
    "vggfeat/assets/clipart10/bird/bird_0001.jpg",
    "vggfeat/report/page.css",
    "vggfeat/report/page.html.j2",
    "vggfeat/_share/datasets/sample.toml",
    "vggfeat/_share/datasets/voc2007.toml",
    "vggfeat/_share/pipelines/embedded-best.toml",
    "vggfeat/_share/pipelines/embedded-fast.toml",
    "vggfeat/_share/pipelines/embedded-standard.toml",
    "vggfeat/_share/pipelines/table03-single-scale.toml",
    "vggfeat/_share/pipelines/table04-multi-scale.toml",
    "vggfeat/_share/pipelines/table05-multi-crop.toml",
    "vggfeat/_share/pipelines/table06-fusion.toml",
    "vggfeat/_share/pipelines/table07-state-of-the-art.toml",
    "vggfeat/_share/pipelines/table08-box-regression.toml",
    "vggfeat/_share/pipelines/table09-localisation.toml",
    "vggfeat/_share/pipelines/table10-state-of-the-art.toml",
    "vggfeat/_share/pipelines/table11-caltech101.toml",
    "vggfeat/_share/pipelines/table11-caltech256.toml",
    "vggfeat/_share/pipelines/table11-voc2007.toml",
    "vggfeat/_share/pipelines/table11-voc2012.toml",
    "vggfeat/_share/pipelines/table12-voc2012-action.toml",
    "vggfeat/_share/pipelines/train-a-lrn.toml",
    "vggfeat/_share/pipelines/train-a.toml",
    "vggfeat/_share/pipelines/train-b.toml",
    "vggfeat/_share/pipelines/train-c-jitter.toml",
    "vggfeat/_share/pipelines/train-d-jitter.toml",
    "vggfeat/_share/pipelines/train-e-jitter.toml",
)
SDIST_HOLDS = ("LICENSE", "README.md", "CHANGELOG.md", "CITATION.cff", "Makefile")
FAST = ("--layer", "pool1", "--Q", "16")
COMMANDS = (
    ("--version",),
    ("weights", "list"),
    ("datasets", "check", "sample"),
    ("svm", "--dataset", "few", *FAST, "--jobs", "1", "--quiet", "--save", "model"),
    ("predict", "model", "{asset}/clipart10/boat/boat_0001.jpg", "--quiet"),
)


def check_contents(dist: Path) -> Path:
    """Look for what must travel, and for what must not."""
    [wheel], [sdist] = dist.glob("*.whl"), dist.glob("*.tar.gz")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert not (missing := set(WHEEL_HOLDS) - names), f"the wheel lacks {missing}"
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"vggfeat"}, tops
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    assert not (missing := set(SDIST_HOLDS) - inside), f"the sdist lacks {missing}"
    return wheel


def install(wheel: Path, folder: Path) -> Path:
    """Make an environment that borrows its dependencies, but not the editable vggfeat."""
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    [packages] = (folder / "lib").glob("python*/site-packages")
    # A path in a .pth file is searched, but .pth files in it, the editable's, are not run.
    (packages / "borrowed.pth").write_text("\n".join(site.getsitepackages()))
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--quiet"]
    subprocess.run([*pip, "--disable-pip-version-check", str(wheel)], check=True)
    return python


def copy_few(clipart: Path, folder: Path) -> None:
    """Copy some of the images that ship: the SVM of all of them takes as long as all the rest."""
    for label in ("bird", "boat"):
        (folder / label).mkdir(parents=True)
        for path in sorted((clipart / label).glob("*.jpg"))[:6]:
            shutil.copy(path, folder / label)


def main(dist: Path) -> None:
    """Check contents, then run the wheel's commands from an empty folder."""
    wheel = check_contents(dist)
    with tempfile.TemporaryDirectory() as scratch:
        python = install(wheel.resolve(), Path(scratch) / "env")
        where = "import vggfeat; print(vggfeat.__path__[0])"
        found = subprocess.run(
            [python, "-c", where], cwd=scratch, check=True, capture_output=True, text=True
        ).stdout.strip()
        assert found.startswith(scratch), f"vggfeat was imported from {found}"
        copy_few(Path(found, "assets", "clipart10"), Path(scratch, "few"))
        for command in COMMANDS:
            filled = [part.format(asset=f"{found}/assets") for part in command]
            environment = {"VGGFEAT_HOME": f"{scratch}/home", "VGGFEAT_OFFLINE": "1"}
            subprocess.run(
                [python, "-m", "vggfeat", *filled], cwd=scratch, check=True, env=environment
            )
    print(f"{wheel.name}: {len(COMMANDS)} commands passed outside the checkout")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
