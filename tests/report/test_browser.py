"""The pages in a real browser: no complaint on its console, and no width but the screen's."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
from PIL import Image

from vggfeat.nets.config import layers_of
from vggfeat.report.svm_page import write_page
from vggfeat.report.training_page import write_training_page
from vggfeat.settings import Training

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)

# Measures the page inside a frame of each width, then writes what it found into its own text.
FRAMES = """<!DOCTYPE html><body><script>
addEventListener("load", () => {
  for (const frame of document.querySelectorAll("iframe")) {
    const page = frame.contentDocument, wide = page.documentElement.scrollWidth;
    const alone = page.querySelectorAll("a, [tabindex]").length;
    const drawn = [...page.images].filter((image) => image.naturalWidth > 0).length;
    document.body.append(`${frame.width}: width ${wide}, reached ${alone}, drawn ${drawn}; `);
  }
});
</script><iframe width="400" height="20000" src="page.html"></iframe>
<iframe width="1400" height="9000" src="page.html"></iframe></body>"""


@pytest.mark.skipif(not BROWSER, reason="needs Chromium")
@pytest.mark.parametrize("kind", ["recalls", "precisions"])
def test_a_page_in_chromium(tmp_path, kind, recalls, precisions, maps, parsed):
    """At 400 and 1400 pixels nothing sticks out, images are drawn, and the console is silent."""
    result = recalls(["bird", "boat", "bug"]) if kind == "recalls" else precisions()
    images = {}
    for row in range(120):
        images[str(row)] = tmp_path / f"{row}.jpg"
        Image.new("RGB", (30, 20), (row, 90, 200)).save(images[str(row)])
    more = {"paper": [("Nets D & E", 92.7, 0.5)], "partial": ["train has 70 images, not 2,501"]}
    write_page(
        result,
        tmp_path / "page.html",
        images,
        title="PASCAL VOC 2007",
        run={"Scales": "Q = 256, 384, 512, 640, 768, average; L2", "Device": "cpu, fp32"},
        provenance={"weights": "embedded", "fingerprint": "ab" * 32},
        evidence=maps(result),
        **more,
    )
    page = parsed((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert fits(tmp_path, page) > 6


@pytest.mark.skipif(not BROWSER, reason="needs Chromium")
@pytest.mark.parametrize("epochs", [1, 74])
def test_a_training_page_in_chromium(tmp_path, epochs, parsed):
    """The same of the page of a training run: one epoch, or all of the paper's."""
    history = [
        {
            "epoch": n + 1,
            "learning_rate": 0.01 / 10 ** (n // 20),
            "loss": 7 / (1 + 0.1 * n),
            "top1": n / 100,
            "top5": n / 75,
            "val_loss": 7 / (1 + 0.08 * n),
            "val_top1": n / 105,
            "val_top5": n / 80,
            "images_per_s": 12345.6,
            "waited": 0.034,
        }
        for n in range(epochs)
    ]
    layers = [layer.name for layer in layers_of("E") if layer.kind in ("conv", "fc")]
    write_training_page(
        tmp_path / "page.html",
        Training(net="E", S=(256, 512)),
        history,
        classes=1000,
        finished=epochs > 1,
        taken=layers[:4],
        drawn=layers[4:],
        run={"data": "1,281,167 images to train, 50,000 to validate", "device": "NVIDIA H200"},
        provenance={"their names and labels": "ab" * 32, "weights": "runs/" + "e" * 90},
        failed={"n01440764/" + "n" * 60 + ".JPEG": "truncated"},
    )
    page = parsed((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert fits(tmp_path, page) == 7  # six sections in the navigation, and the table that scrolls


def fits(folder, page):
    """Show page.html at both widths, check it, and return how much is reached by the keyboard."""
    (folder / "frames.html").write_text(FRAMES)
    told = subprocess.run(
        [
            BROWSER,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--allow-file-access-from-files",
            "--enable-logging=stderr",
            f"--user-data-dir={folder / 'profile'}",
            "--dump-dom",
            (folder / "frames.html").as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    complaints = [line for line in told.stderr.splitlines() if "CONSOLE" in line]
    assert not complaints, complaints
    images = sum(tag == "img" for tag, _ in page.tags)
    reached = sum(tag == "a" or "tabindex" in attributes for tag, attributes in page.tags)
    found = re.findall(r"(\d+): width (\d+), reached (\d+), drawn (\d+);", told.stdout)
    assert [(int(width), int(drawn)) for width, _, _, drawn in found] == [
        (400, images),
        (1400, images),
    ]
    assert all(int(wide) <= int(width) and int(r) == reached for width, wide, r, _ in found)
    return reached
