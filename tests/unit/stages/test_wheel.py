"""The wheel that is sent to devices, as pip sees it."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from edgetl.stages.wheel import build_wheel


@pytest.mark.slow
def test_pip_installs_it_and_finds_the_whole_package(tmp_path: Path) -> None:
    name, content = build_wheel()
    (tmp_path / name).write_bytes(content)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", tmp_path / "lib"]
    subprocess.run([*map(str, pip), str(tmp_path / name)], check=True, capture_output=True)
    installed = tmp_path / "lib" / "edgetl"
    source = Path(__file__).parents[3] / "edgetl"
    ours = {path.relative_to(source) for path in source.rglob("*") if path.is_file() and path.suffix != ".pyc"}
    assert {path.relative_to(installed) for path in installed.rglob("*") if path.is_file()} >= ours
    (metadata,) = (tmp_path / "lib").glob("edgetl-*.dist-info/METADATA")
    assert "Requires-Dist: onnxruntime" in metadata.read_text()
    assert (tmp_path / "lib" / "bin" / "edgetl").is_file()


def test_its_record_holds_the_digest_of_every_file() -> None:
    _, content = build_wheel()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        (record,) = (name for name in archive.namelist() if name.endswith("RECORD"))
        rows = list(csv.reader(archive.read(record).decode().splitlines()))
        assert [name for name, _, _ in rows] == archive.namelist()
        for name, digest, size in rows:
            if name != record:
                found = base64.urlsafe_b64encode(hashlib.sha256(archive.read(name)).digest()).rstrip(b"=").decode()
                assert (digest, int(size)) == (f"sha256={found}", len(archive.read(name)))


def test_equal_content_gives_equal_bytes() -> None:
    assert build_wheel() == build_wheel()
