"""A small study, finished once, and two ways to call edgetl: as a process, and inside this one where that will do."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from edgetl.cli import main

Done = subprocess.CompletedProcess[str]

STUDY: dict[str, Any] = {
    "name": "small",
    "data": {"format": "digits", "per_label": 24, "val": 0.25, "test": 0.25},
    "groups": {"round": [0, 6, 8], "ángulo": [1, 4, 7]},
    "backbone": {"name": "edgetl/nano", "image_size": 16},
    "deployments": ["combined", "shared"],
    "precisions": ["fp32", "int8"],
}

# Colour and width that the caller's terminal asks for have no say here.
_ENVIRONMENT = {key: value for key, value in os.environ.items() if key not in {"FORCE_COLOR", "COLUMNS", "NO_COLOR"}}
_ENVIRONMENT |= {"OMP_NUM_THREADS": "1"}


def _start(*arguments: object, env: dict[str, str] | None = None, **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "edgetl", *map(str, arguments)]
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.Popen(command, text=True, env=_ENVIRONMENT | (env or {}), **pipes)


def _run(*arguments: object, **options: Any) -> Done:
    with _start(*arguments, **options) as process:
        try:
            out, err = process.communicate(timeout=120)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    return Done(process.args, process.returncode, out, err)


@pytest.fixture(scope="session")
def edgetl() -> Callable[..., Done]:
    """Run the console program in a process of its own, to its end."""
    return _run


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start the console program; what still runs when the test ends is killed."""
    processes: list[subprocess.Popen[str]] = []
    # Where the tests run in a shell's background or under nohup, signals are ignored, and children would inherit that.
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
    hung_up = signal.signal(signal.SIGHUP, signal.SIG_DFL)

    def start(*arguments: object, **options: Any) -> subprocess.Popen[str]:
        processes.append(_start(*arguments, **options))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()
    signal.signal(signal.SIGINT, inherited)
    signal.signal(signal.SIGHUP, hung_up)


@pytest.fixture
def call(capfd: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """The same program in this process: seconds faster, because torch is imported once for all tests."""

    def call(*arguments: object) -> Done:
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            main([str(argument) for argument in arguments])
        captured = capfd.readouterr()
        assert isinstance(end.value.code, int)
        return Done(arguments, end.value.code, captured.out, captured.err)

    return call


@pytest.fixture(scope="session")
def fault() -> Callable[[Done], str]:
    """The error line of a refused command, once it is known to be one: code 1, the last line, no traceback."""

    def fault(done: Done) -> str:
        assert done.returncode == 1, done.stderr
        assert "Traceback" not in done.stderr
        errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1 and done.stderr.splitlines()[-1] == errors[0], done.stderr
        assert done.stdout == ""
        return errors[0].removeprefix("error: ")

    return fault


def _write_study(folder: Path, **changes: Any) -> Path:
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(STUDY | changes), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def write_study() -> Callable[..., Path]:
    """Write ``study.yaml`` into a folder: the small study, with other values for some of its keys."""
    return _write_study


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``study.yaml`` and its whole run directory ``run``. Not to be changed."""
    folder = tmp_path_factory.mktemp("finished")
    done = _run("run", _write_study(folder), "-o", folder / "run", "--threads", 1, "--seconds", 0.3)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    """The finished study's folder, copied for a test that changes it."""
    return Path(shutil.copytree(finished, tmp_path / "copied"))


@pytest.fixture
def photos(finished: Path, tmp_path: Path) -> Path:
    """An image folder: 24 images of each of ten labels, 0 to 9."""
    folder = tmp_path / "photos"
    shutil.copytree(finished / "run" / "data" / "digits", folder, ignore=shutil.ignore_patterns(".*"))
    return folder


@pytest.fixture(scope="session")
def snapshot() -> Callable[[Path], dict[str, str]]:
    """Path and content (as sha256) of every file below a folder; the lock, which names a process, aside."""

    def snapshot(folder: Path) -> dict[str, str]:
        return {
            path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(folder.rglob("*"))
            if path.is_file() and path.name != ".lock"
        }

    return snapshot
