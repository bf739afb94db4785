"""The table of differences, held against what the bindings of each TensorRT offer."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from edgetl.engine.nvidia.generations import DIFFERENCES, TENSORRT, TENSORRT_RTX, has, network_flags
from edgetl.errors import EdgetlError
from tests.unit.engine.nvidia.bindings import read_bindings
from tests.unit.engine.nvidia.standin_tensorrt import API, GENERATIONS, Play

EXPECTED = {
    "8.6.1": {"explicit batch flag", "weak typing", "calibration"},
    "10.3.0": {
        "strong typing", "explicit batch flag", "weak typing", "calibration", "progress", "node in parser errors",
        "memory by strategy", "sized device memory", "device memory in 64 bits",
    },
    "11.4.0.106": {
        "strong typing", "progress", "node in parser errors", "same compute capability", "memory by strategy",
        "sized device memory", "device memory in 64 bits",
    },
}  # fmt: skip
EXPECTED["10.14.1.48"] = EXPECTED["10.3.0"] | {"same compute capability"}


@pytest.mark.parametrize("version", EXPECTED)
def test_the_table_tells_what_a_generation_can_do(version: str, generation: Callable[[str], Play]) -> None:
    trt = generation(version).module
    assert {what for what in DIFFERENCES if has(trt, what)} == EXPECTED[version]


def test_the_table_tells_what_tensorrt_rtx_can_do() -> None:
    trt = pytest.importorskip("tensorrt_rtx", reason="the extra rtx is not installed")
    lacking = {"explicit batch flag", "weak typing", "calibration"}
    assert {what for what in DIFFERENCES if has(trt, what)} == DIFFERENCES.keys() - lacking


@pytest.mark.parametrize(
    ("version", "flag"), [("8.6.1", "EXPLICIT_BATCH"), ("10.3.0", "STRONGLY_TYPED"), ("11.4.0.106", "STRONGLY_TYPED")]
)
def test_networks_are_strongly_typed_where_possible(version: str, flag: str, generation: Callable[[str], Play]) -> None:
    trt = generation(version).module
    assert network_flags(trt, weak=False) == 1 << int(trt.NetworkDefinitionCreationFlag[flag])


def test_the_names_of_four_generations_are_known() -> None:
    assert {version.split(".")[0] for version in GENERATIONS} == {"8", "10", "11"}
    assert {"10.3.0", "10.14.1.48", "11.4.0.106"} <= set(GENERATIONS)


@pytest.mark.index
@pytest.mark.skipif("EDGETL_INDEX" not in os.environ, reason="asks the package index; make check-index runs it")
def test_the_names_are_those_of_the_wheels() -> None:
    wheels = sorted(Path(os.environ["EDGETL_INDEX"]).glob("tensorrt*bindings*.whl"))
    assert wheels
    read = dict(read_bindings.read_wheel(wheel) for wheel in wheels)
    assert json.loads(read_bindings.as_text(read)) == API


def test_what_is_not_installed_is_named_with_what_mends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tensorrt", None)
    monkeypatch.setitem(__import__("sys").modules, "tensorrt_rtx", None)
    with pytest.raises(EdgetlError, match=r"needs the module tensorrt, which is not installed; on a Jetson"):
        TENSORRT.load()
    with pytest.raises(EdgetlError, match=r"pip install 'edgetl\[rtx\]'"):
        TENSORRT_RTX.load()
