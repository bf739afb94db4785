"""What pip finds for a Jetson: the core and each extra from wheels, for the Python of JetPack 6 and of JetPack 7."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

pytestmark = [
    pytest.mark.index,
    pytest.mark.skipif("EDGETL_INDEX" not in os.environ, reason="asks the package index; make check-index runs it"),
]

PLATFORMS = [f"manylinux_2_{minor}_aarch64" for minor in range(17, 36)] + ["manylinux2014_aarch64", "linux_aarch64"]
SOURCE_ONLY = {"pycuda"}
"""Built on the device. What it needs in turn comes from wheels."""

PYCUDA_NEEDS = ["mako", "platformdirs>=2.2.0", "pytools>=2011.2"]


def requirements(extra: str) -> list[str]:
    found = [Requirement(text) for text in metadata.requires("edgetl") or []]
    chosen = [one for one in found if one.marker is None or one.marker.evaluate({"extra": extra})]
    wanted = [f"{one.name}{one.specifier}" for one in chosen if one.name not in SOURCE_ONLY]
    return wanted + (PYCUDA_NEEDS if any(one.name in SOURCE_ONLY for one in chosen) else [])


@pytest.mark.parametrize("python", ["3.10", "3.12"])
@pytest.mark.parametrize("extra", ["", "report", "tensorrt", "train", "detect"])
def test_a_jetson_installs_from_wheels(python: str, extra: str, tmp_path: Path) -> None:
    command = [
        *(sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--only-binary", ":all:"),
        *("--target", tmp_path, "--report", tmp_path / "report.json"),
        *("--python-version", python, "--implementation", "cp"),
    ]
    platforms = [word for name in PLATFORMS for word in ("--platform", name)]
    done = subprocess.run(
        [*map(str, command), *platforms, *requirements(extra)], capture_output=True, text=True, timeout=540
    )
    assert done.returncode == 0, done.stderr
    chosen = json.loads((tmp_path / "report.json").read_text())["install"]
    files = [entry["download_info"]["url"].rpartition("/")[2] for entry in chosen]
    assert len(files) >= 15 and all("aarch64" in name or "-none-any" in name for name in files), files
