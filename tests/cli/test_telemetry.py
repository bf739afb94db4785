"""Nothing is sent, and nothing is left in the home or the temporary folder, by edgetl or by what it rests on."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

WriteStudy = Callable[..., Path]

# The program, and then what the kernel has counted of packets that found no way out of the network namespace.
ALONE = '"$@"; code=$?; cat /proc/net/snmp /proc/net/snmp6; exit $code'


def _without_routes(home: Path, *command: object, **environment: str) -> tuple[int, list[str]]:
    """How often something reached for the network in vain, and the files left in the home and the temporary folder."""
    folders = {"HOME": home / "home", "TMPDIR": home / "tmp"}
    for folder in folders.values():
        folder.mkdir(parents=True)
    kept = {key: value for key, value in os.environ.items() if "TELEMETRY" not in key and key != "XDG_CACHE_HOME"}
    done = subprocess.run(
        ["unshare", "--map-root-user", "--net", "sh", "-c", ALONE, "sh", *map(str, command)],
        env=kept | {name: str(folder) for name, folder in folders.items()} | {"OMP_NUM_THREADS": "1"} | environment,
        capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    if done.returncode != 0 and done.stderr.startswith("unshare: "):
        pytest.skip(f"no network namespace can be made here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    names, values = (line for line in lines if line[:1] == ["Ip:"])
    six = next(int(line[1]) for line in lines if line[:1] == ["Ip6OutNoRoutes"])
    files = [path.relative_to(home).as_posix() for path in home.rglob("*") if not path.is_dir()]
    return int(values[names.index("OutNoRoutes")]) + six, files


EDGETL = (sys.executable, "-m", "edgetl")
# ONNX Runtime looks up its server some ten seconds after it was imported.
PROFILE = ("profile", "--seconds", 18, "--width", 0.0001, "--threads", 1, "--no-energy")


@pytest.mark.slow
def test_profiling_reaches_for_no_network_and_leaves_no_file(finished: Path, tmp_path: Path) -> None:
    graph = finished / "run" / "graphs" / "combined.fp32.onnx"
    assert _without_routes(tmp_path / "alone", *EDGETL, *PROFILE, graph) == (0, [])


@pytest.mark.slow
def test_an_attempt_would_be_seen(finished: Path, tmp_path: Path) -> None:
    """And a user who asks ONNX Runtime to report usage is heard."""
    graph = finished / "run" / "graphs" / "combined.fp32.onnx"
    attempts, files = _without_routes(tmp_path / "alone", *EDGETL, *PROFILE, graph, ORT_DISABLE_TELEMETRY="0")
    if not files:
        pytest.skip("this ONNX Runtime reports no usage")
    assert attempts > 0
    assert any("onnxruntime" in file for file in files)


@pytest.mark.slow
def test_a_whole_study_and_work_on_plain_files_send_nothing(write_study: WriteStudy, tmp_path: Path) -> None:
    study, run = write_study(tmp_path), tmp_path / "run"
    graph, images, int8 = run / "graphs" / "combined.fp32.onnx", run / "data", tmp_path / "int8.onnx"
    for number, command in enumerate(
        [
            ["run", study, "-o", run, "--threads", 1, "--seconds", 0.3],
            ["prepare", graph, "--precision", "int8", "--calibration-images", images, "-o", int8],
            ["build-engine", graph, "-o", tmp_path / "engine.onnx"],
            ["predict", graph, images, "-o", tmp_path / "drawn"],
            ["doctor"],
        ]
    ):
        assert _without_routes(tmp_path / f"alone{number}", *EDGETL, *command) == (0, []), command[0]
