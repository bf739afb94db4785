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


def browse(results: Results, folder: Path) -> str:
    """The page as Chromium has drawn it."""
    page = folder / "report.html"
    page.write_text(render_html(results), encoding="utf-8")
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
