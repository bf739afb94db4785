from __future__ import annotations

import shlex
from pathlib import Path

import onnx
import pytest

from edgetl.engine.nvidia.trtexec import commands
from edgetl.engine.options import BuildOptions
from edgetl.errors import EdgetlError
from edgetl.graph.fp16 import to_fp16

SHAPES = ["--minShapes=images:1x3x16x16", "--optShapes=images:1x3x16x16", "--maxShapes=images:16x3x16x16"]
DETAILS = "--profilingVerbosity=detailed"


def flags(graph: Path, version: str, cache: Path | None = None, **options: object) -> tuple[list[str], list[str]]:
    made = commands(graph, graph.parent / "my e.engine", BuildOptions(**options), version, cache)  # type: ignore[arg-type]
    build, time = (shlex.split(line) for line in made)
    assert build[:3] == ["trtexec", f"--onnx={graph}", f"--saveEngine={graph.parent / 'my e.engine'}"]
    assert time[:2] == ["trtexec", f"--loadEngine={graph.parent / 'my e.engine'}"]
    return build[3:], time[2:]


@pytest.mark.parametrize(
    ("version", "typing", "end", "measuring"),
    [
        ("8.5.2", ["--fp16"], "--buildOnly", ["--useSpinWait"]),
        ("8.6", ["--fp16"], "--skipInference", ["--useSpinWait"]),
        ("10.3", ["--stronglyTyped"], "--skipInference", ["--useSpinWait"]),
        ("11.4", [], "--skipInference", ["--includeDataTransfers", "--noCudaGraph"]),
    ],
)
def test_flags_are_those_of_the_version(
    version: str, typing: list[str], end: str, measuring: list[str], network: onnx.ModelProto, graph: Path
) -> None:
    onnx.save(to_fp16(network), graph)
    build, time = flags(graph, version)
    assert build == [*SHAPES, *typing, DETAILS, end]
    assert time == ["--shapes=images:1x3x16x16", *measuring]


def test_options_become_flags(graph: Path, tmp_path: Path) -> None:
    options = {"workspace_mb": 64, "optimization_level": 4, "sparse": True, "version_compatible": True,
               "hardware_compatible": "ampere-plus", "dla_core": 1, "gpu_fallback": True}  # fmt: skip
    build, time = flags(graph, "10.3", tmp_path / "cache", **options)
    assert build == [
        *SHAPES, "--int8", "--fp16", f"--calib={tmp_path / 'cache'}", "--memPoolSize=workspace:64",
        "--builderOptimizationLevel=4", "--versionCompatible", "--hardwareCompatibilityLevel=ampere+",
        "--sparsity=enable", "--useDLACore=1", "--allowGPUFallback", DETAILS, "--skipInference",
    ]  # fmt: skip
    assert "--useDLACore=1" in time


def test_a_fixed_batch_takes_no_shapes(variants: dict[str, onnx.ModelProto], graph: Path) -> None:
    onnx.save(variants["fixed batch of 4"], graph)
    assert flags(graph, "10.3") == (["--stronglyTyped", DETAILS, "--skipInference"], ["--useSpinWait"])


@pytest.mark.parametrize(
    ("version", "options", "reason"),
    [
        ("ten", {}, "'ten' is no version of TensorRT; give one such as 8.5"),
        ("7.1", {}, "known for TensorRT 8.5 to 11, not for 7.1"),
        ("12.0", {}, "known for TensorRT 8.5 to 11, not for 12.0"),
        ("8.5", {"optimization_level": 3}, "from TensorRT 8.6 on; leave it out"),
        ("10.3", {"hardware_compatible": "same-compute-capability"}, "from TensorRT 10.13 on; leave it out"),
    ],
)
def test_what_a_version_cannot_do_is_refused(
    version: str, options: dict[str, object], reason: str, graph: Path
) -> None:
    with pytest.raises(EdgetlError) as caught:
        flags(graph, version, **options)
    assert reason in str(caught.value)


def test_tensorrt_11_takes_no_calibration_cache(graph: Path, tmp_path: Path) -> None:
    with pytest.raises(EdgetlError, match="takes no calibration cache"):
        flags(graph, "11.0", tmp_path / "cache")
