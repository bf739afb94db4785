"""What lies in the folder where edgetl is called is data: no code from there is run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import edgetl
from tests.hostile import hostile_modules

PROFILE = ("profile", "m.onnx", "--json", "--threads", "1", "--seconds", "0.1", "--no-energy")
# As the installer of a package writes it.
PROGRAM = "import sys\nfrom edgetl.__main__ import main\nif __name__ == '__main__':\n    sys.exit(main())\n"


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "folder"
    for name, code in hostile_modules(tmp_path / "run").items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(code)
    shutil.copy(finished / "run" / "graphs" / "combined.fp32.onnx", folder / "m.onnx")
    return folder


def measured(folder: Path, *command: object, **environment: str) -> None:
    """Assert that the program measures memory, too, and runs nothing of the folder."""
    variables = {**os.environ, "OMP_NUM_THREADS": "1"} | environment
    done = subprocess.run(
        [sys.executable, *map(str, command), *PROFILE], cwd=folder, env=variables, capture_output=True, text=True
    )
    marks = folder.with_name("run")
    assert not marks.exists(), marks.read_text()
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)["deployments"]
    assert row["memory"]["process_mb"] > 0.0, row["memory"]


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "bin" / "edgetl"
    path.parent.mkdir()
    path.write_text(PROGRAM)
    return path


def test_the_program(folder: Path, program: Path) -> None:
    measured(folder, program)


def test_the_module(folder: Path) -> None:
    # Python itself looks for edgetl there first, and nobody can keep it from that.
    shutil.rmtree(folder / "edgetl")
    (folder / "edgetl.py").unlink()
    measured(folder, "-m", "edgetl")


def test_an_edgetl_that_lies_on_a_path_of_the_environment(folder: Path, program: Path, tmp_path: Path) -> None:
    library, seen = tmp_path / "library", tmp_path / "seen"
    shutil.copytree(Path(edgetl.__file__).parent, library / "edgetl", ignore=shutil.ignore_patterns("__pycache__"))
    with (library / "edgetl" / "engine" / "process_memory.py").open("a") as module:
        module.write(f"\nopen({str(seen)!r}, 'a').write(__file__ + chr(10))\n")
    measured(folder, program, PYTHONPATH=str(library))
    both = [str(library / "edgetl" / "engine" / "process_memory.py")] * 2
    assert seen.read_text().splitlines() == both, "the process that measures memory is of the same edgetl"


def test_an_edgetl_that_lies_in_the_folder_itself(program: Path, finished: Path, tmp_path: Path) -> None:
    shutil.copytree(Path(edgetl.__file__).parent, tmp_path / "folder" / "edgetl")
    shutil.copy(finished / "run" / "graphs" / "combined.fp32.onnx", tmp_path / "folder" / "m.onnx")
    measured(tmp_path / "folder", "-m", "edgetl")
