"""The report in a real browser: it is drawn, and the examples are hidden until they are asked for."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from safe_sft.evaluation.gate import Bounds, check_gate
from safe_sft.evaluation.output.files import write_evaluation
from tests.evaluation.helpers import evaluation, result, task

pytestmark = pytest.mark.slow

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=1280,3200"),
)


def browse(folder: Path, page: Path, *arguments: str) -> str:
    names = ("chromium", "chromium-browser", "google-chrome")
    browser = next(filter(None, map(shutil.which, names)), None)
    assert browser, f"This test needs one of {', '.join(names)}: apt-get install chromium"
    command = [browser, *FLAGS, f"--user-data-dir={folder}/profile", *arguments, page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    measured = evaluation(
        result("aligned", "r" * 20),
        result("sft", "c" * 12 + "r" * 8),
        result("aligned", "c" * 20, harmful=False, suite="h"),
        result("sft", "c" * 19 + "r", harmful=False, suite="h"),
        utility=[task("aligned", "+-" * 10), task("sft", "+" * 20)],
    )
    folder = tmp_path_factory.mktemp("report")
    write_evaluation(measured, folder, check_gate(measured, Bounds(max_asr=0.05)))
    return folder / "report.html"


def test_the_browser_draws_the_report(page, tmp_path):
    picture = tmp_path / "report.png"
    said = browse(tmp_path, page, f"--screenshot={picture}")
    assert not re.search(r"Refused to|Content Security Policy|ERR_|Uncaught", said), said
    from matplotlib.image import imread

    pixels = imread(picture)
    assert pixels.shape[:2] == (3200, 1280)
    # The charts' colours of the two models, drawn from SVG inside the page.
    for red, green, blue in ((0x4C, 0x56, 0x6A), (0xC4, 0x4E, 0x52)):
        wanted = [red / 255, green / 255, blue / 255]
        assert (abs(pixels[..., :3] - wanted).max(-1) < 0.02).sum() > 50


def test_examples_are_hidden_until_they_are_asked_for(page, tmp_path):
    # A page of the same report that tells, in its title, how much of the examples is seen.
    probe = (
        "<script>addEventListener('load', () => { const box = document.getElementById('examples');"
        "const closed = box.getBoundingClientRect().height; box.open = true;"
        "document.body.dataset.heights = closed + ' ' + box.getBoundingClientRect().height; })</script></body>"
    )
    text = page.read_text().replace("default-src 'none'", "default-src 'unsafe-inline'").replace("</body>", probe)
    probed = page.with_name("probed.html")
    probed.write_text(text)
    shown = browse(tmp_path, probed, "--dump-dom")
    closed, opened = map(float, re.search(r'data-heights="([\d.]+) ([\d.]+)"', shown).groups())
    assert closed < 100 < opened
