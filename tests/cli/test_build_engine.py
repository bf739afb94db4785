"""build-engine on a plain graph: what is printed, what is reused, what is refused."""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Done = subprocess.CompletedProcess[str]
Command = Callable[..., Done]


@pytest.fixture
def graph(copied: Path) -> Path:
    return copied / "run" / "graphs" / "combined.fp32.onnx"


def test_the_second_time_the_engine_is_used_again_and_that_is_said(call: Command, graph: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="the extra rtx is not installed")
    build = ["build-engine", graph, "--runtime", "tensorrt-rtx", "--batches", "1,2,4", "-o", tmp_path / "e.engine"]
    first, second = call(*build), call(*build)
    assert (first.returncode, second.returncode) == (0, 0), first.stderr
    assert "built in" in first.stderr and "MB of memory" in first.stderr
    assert "up to date, the engine that is there is used again" in second.stderr
    assert first.stdout == second.stdout == f"{tmp_path / 'e.engine'}\n"
    manifest = json.loads((tmp_path / "e.engine.json").read_text())
    assert [manifest["options"][name] for name in ("min_batch", "opt_batch", "max_batch")] == [1, 2, 4]


def test_the_command_for_trtexec_is_printed_and_nothing_is_built(call: Command, graph: Path) -> None:
    before = sorted(graph.parent.iterdir())
    done = call("build-engine", graph, "--print-trtexec", "8.5", "--batches", "1")
    assert done.returncode == 0, done.stderr
    build, time = (shlex.split(line) for line in done.stdout.splitlines())
    assert build[0] == time[0] == "trtexec"
    assert f"--onnx={graph}" in build and "--buildOnly" in build
    assert sorted(graph.parent.iterdir()) == before


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--print-trtexec", "7.0"], "not for 7.0"),
        (["--runtime", "tensorrt-rtx", "--dla-core", "0"], "tensorrt-rtx takes no dla core"),
        (["--optimization-level", "3"], "onnxruntime takes no optimization level"),
        (["--provider", "cuda", "--runtime", "tensorrt-rtx"], "--provider cuda is one of ONNX Runtime's"),
        (["--batches", "4,2,1"], "batches must be 1 <= min <= opt <= max, found 4, 2, 1"),
        (["--calibration-cache", "none"], "none does not exist"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    options: list[str], reason: str, call: Command, fault: Callable[[Done], str], graph: Path
) -> None:
    assert reason in fault(call("build-engine", graph, *options))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--batches", "one"], "takes N or MIN,OPT,MAX"),
        (["--print-trtexec", "10.3", "--precision", "fp16"], "run edgetl prepare first"),
        (["--optimization-level", "9"], "9 is not in the range"),
    ],
)
def test_what_makes_no_sense_is_a_usage_error(options: list[str], reason: str, call: Command, graph: Path) -> None:
    done = call("build-engine", graph, *options)
    assert done.returncode == 2 and reason in done.stderr


def test_options_of_a_plain_graph_are_refused_for_a_study(call: Command, copied: Path) -> None:
    done = call("build-engine", copied / "study.yaml", "-o", copied / "run", "--optimization-level", "3")
    assert (
        done.returncode == 2
        and "--optimization-level is for a MODEL.onnx; a study file has the section engine" in done.stderr
    )


def test_what_a_runtime_has_not_is_refused_before_an_engine_is_built(call: Command, copied: Path) -> None:
    study = copied / "study.yaml"
    content = study.read_text()
    for setting, reason in (
        ("optimization_level: 3", "onnxruntime takes no optimization level (3 was given)"),
        ("sparse: true", "onnxruntime takes no sparse"),
        ("cuda_graph: true", "onnxruntime has no CUDA graphs"),
        ("share_scratch: true", "no scratch memory to share"),
    ):
        study.write_text(f"{content}\nengine: {{{setting}}}\n")
        done = call("build-engine", study, "-o", copied / "run")
        assert done.returncode == 1 and reason in done.stderr
