"""The page in a real browser."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from edgetl.artifacts.results import Results
from edgetl.report.html import render_html

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")]

OPTIONS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--virtual-time-budget=5000",
    "--enable-logging=stderr",
]

# plotly.js names what a figure holds and it does not know: attributes, values, traces that the bundle lacks. What it
# knows and has no use for (the colour of a grid that is not shown) is "unused".
VALIDATE = """<script>
for (const [id, figure] of Object.entries(figures)) {
  const {data, layout} = painted(figure, getComputedStyle(document.documentElement));
  const faults = (Plotly.validate(data, layout) || []).filter(fault => fault.code !== "unused");
  for (const fault of faults) console.error(id, fault.msg);
}
</script>"""


def browse(results: Results, folder: Path) -> str:
    """The page as Chromium has drawn it, after plotly.js has found no fault in its figures."""
    page = folder / "report.html"
    page.write_text(render_html(results).replace("</body>", VALIDATE + "</body>"), encoding="utf-8")
    command = [str(CHROMIUM), *OPTIONS, f"--user-data-dir={folder / 'profile'}", "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "CONSOLE" not in done.stderr, done.stderr
    return done.stdout


def pictures(page: str) -> int:
    return len(re.findall(r'class="plot-container', page))


def test_the_page_draws_its_pictures_without_an_error_or_a_network(results: Results, tmp_path: Path) -> None:
    assert pictures(browse(results, tmp_path)) == 3, "accuracy against latency, and each of two groups"


def test_the_page_of_a_sweep_draws_two_pictures_more(swept: Results, tmp_path: Path) -> None:
    assert pictures(browse(swept, tmp_path)) == 5


def test_the_page_of_detectors_draws_its_pictures(detected: Results, tmp_path: Path) -> None:
    assert pictures(browse(detected, tmp_path)) == 3


def test_the_page_with_the_way_from_file_to_answer_draws_one_more(on_the_way: Results, tmp_path: Path) -> None:
    assert pictures(browse(on_the_way, tmp_path)) == 4
