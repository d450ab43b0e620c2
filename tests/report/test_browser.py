"""The pages in a real browser: no complaint on its console, and no width but the screen's."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace

import pytest
from helpers.pages import Page
from PIL import Image
from report.results import CLASSES, a_result, a_table
from train.test_summary import HISTORY, summary

from vggfeat.report.page import write_page
from vggfeat.result import Gallery, GalleryImage, Strip

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


def a_page_of_everything(classes):
    """Make a result with long names, many rows, large images and boxes."""
    long = "n01440764/" + "n" * 60
    table = a_table(((0.5, 0.1, 4),) * 100, section="Classes")
    large = Gallery("large", "Large", (Strip(long, (GalleryImage("a", long),) * 5),), size=220)
    result = a_result(classes, notes=(long,), partial=(long,), provenance={"weights": "ab" * 32})
    return replace(result, parts=(*result.parts, replace(table, name="many"), large))


def training_of(epochs):
    rows = [
        {**HISTORY[0], "epoch": n + 1, "learning_rate": 0.01 / 10 ** (n // 20), "loss": 7 / (n + 1)}
        for n in range(epochs)
    ]
    failed = {"n01440764/" + "n" * 60 + ".JPEG": "truncated"}
    return summary(rows, finished=epochs > 1, failed=failed, device="NVIDIA H200")


@pytest.mark.skipif(not BROWSER, reason="needs Chromium")
@pytest.mark.parametrize(
    ("result", "reached"),
    [
        (a_page_of_everything(CLASSES), 15),  # nine sections and six tables that scroll
        (a_page_of_everything(tuple(f"a class of long name {k}" for k in range(40))), 14),
        (training_of(1), 6),
        (training_of(74), 6),
    ],
    ids=["few classes", "many classes", "one epoch", "all epochs"],
)
def test_a_page_in_chromium(tmp_path, result, reached):
    """At 400 and 1400 pixels nothing sticks out, images are drawn, and the console is silent."""

    def open_image(name):
        if name == "lost.jpg":
            raise KeyError(name)
        return Image.new("RGB", (300, 200), (90, 120, 150))

    page = Page(write_page(result, tmp_path / "page.html", open_image))
    (tmp_path / "frames.html").write_text(FRAMES)
    words = "--headless --no-sandbox --disable-gpu --allow-file-access-from-files --dump-dom"
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    address = (tmp_path / "frames.html").as_uri()
    done = subprocess.run(
        [BROWSER, *words.split(), "--enable-logging=stderr", profile, address],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    complaints = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert not complaints, complaints
    images = sum(tag == "img" for tag, _ in page.tags)
    assert sum(tag == "a" or "tabindex" in given for tag, given in page.tags) == reached
    frames = re.findall(r"(\d+): width (\d+), reached (\d+), drawn (\d+);", done.stdout)
    frames = [tuple(map(int, frame)) for frame in frames]
    assert [(width, alone, drawn) for width, _, alone, drawn in frames] == [
        (width, reached, images) for width in (400, 1400)
    ]
    assert all(wide <= width for width, wide, *_ in frames)
