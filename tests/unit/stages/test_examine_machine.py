from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from edgetl.artifacts.inspection import DoctorReport
from edgetl.engine.nvidia.device import CudaDevice
from edgetl.errors import EdgetlError
from edgetl.report.terminal import health_lines
from edgetl.stages import examine_machine

ORIN = CudaDevice("Orin", "SM87", 16, 7620, True, "12.6")


def needs(health: DoctorReport) -> dict[str, tuple[str | None, str | None]]:
    return {need.what: (need.missing, need.fix) for need in health.capabilities}


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examine_machine, "find_device", lambda: ORIN)


def hide(monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    real = examine_machine.importlib.util.find_spec
    monkeypatch.setattr(
        examine_machine.importlib.util, "find_spec", lambda name: None if name in modules else real(name)
    )


def test_nothing_that_is_only_named_is_imported() -> None:
    code = "import sys; from edgetl.stages.examine_machine import examine; examine(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "torchvision", "timm", "onnxruntime", "tensorrt", "tensorrt_rtx", "pycuda", "cuda"} & set(
        done.stdout.split()
    )


def test_a_machine_without_a_gpu_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> CudaDevice:
        raise EdgetlError("no NVIDIA driver is here")

    monkeypatch.setattr(examine_machine, "find_device", none)
    hide(monkeypatch, "nothing")
    health = examine_machine.examine()
    assert health.facts["gpu"] == {"device": "no NVIDIA driver is here"}
    assert health.facts["packages"]["onnx"]


def test_missing_packages_are_named_with_a_remedy(
    monkeypatch: pytest.MonkeyPatch, device: None, tmp_path: Path
) -> None:
    hide(monkeypatch, "torch", "timm", "jinja2", "tensorrt_rtx", "tensorrt", "pycuda", "cuda")
    found = needs(examine_machine.examine(tmp_path))
    assert found["run, finetune and export of a study"] == ("torch, timm not installed", "pip install 'edgetl[train]'")
    assert found["report with its page"] == ("jinja2 not installed", "pip install 'edgetl[report]'")
    assert found["build-engine --runtime tensorrt-rtx"][1] == "pip install 'edgetl[rtx]'"
    assert found["build-engine --runtime tensorrt"][0] == "tensorrt not installed"
    assert found["running TensorRT engines"][1] == (
        "sudo apt install cuda-toolkit, then PATH=/usr/local/cuda/bin:$PATH pip install 'edgetl[tensorrt]'"
    )
    assert found["CUDA graphs of TensorRT engines"][1] == "pip install 'cuda-bindings==12.*'"


def test_what_is_of_the_system_alone_is_told(monkeypatch: pytest.MonkeyPatch, device: None, tmp_path: Path) -> None:
    (tmp_path / "usr/lib/python3.10/dist-packages/tensorrt").mkdir(parents=True)
    (tmp_path / "usr/local/cuda").mkdir(parents=True)
    hide(monkeypatch, "tensorrt", "pycuda")
    found = needs(examine_machine.examine(tmp_path))
    missing, mend = found["build-engine --runtime tensorrt"]
    assert missing == "tensorrt is the system's and this environment does not see it"
    assert mend is not None and mend.endswith("-m venv --system-site-packages .venv")
    assert found["running TensorRT engines"][1] == "PATH=/usr/local/cuda/bin:$PATH pip install 'edgetl[tensorrt]'"


def test_the_lines_say_what_the_json_says(device: None) -> None:
    health = examine_machine.examine()
    lines = list(health_lines(health))
    assert any(line.startswith("gpu: name Orin, capability SM87") for line in lines)
    for need in health.capabilities:
        assert any(need.what in line for line in lines)
        assert need.fix is None or any(need.fix in line for line in lines)
    assert DoctorReport.model_validate_json(health.model_dump_json()) == health
    assert json.loads(health.model_dump_json())["facts"]["gpu"]["memory_mb"] == 7620
