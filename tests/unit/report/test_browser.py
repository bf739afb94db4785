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

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")

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


def test_the_page_draws_its_pictures_without_an_error_or_a_network(results: Results, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_text(render_html(results), encoding="utf-8")
    command = [str(CHROMIUM), *OPTIONS, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    # One picture of accuracy against latency, and one for each group.
    assert len(re.findall(r'class="plot-container', done.stdout)) == 3
    assert "CONSOLE" not in done.stderr, done.stderr
