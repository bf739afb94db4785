"""Several processes that build at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import onnx
import pytest

from edgetl.artifacts.engine_manifest import read_manifest
from edgetl.artifacts.files import sha256_file

pytest.importorskip("tensorrt_rtx", reason="the extra rtx is not installed")

BUILD = """
import sys
from pathlib import Path
from edgetl.engine.runtime import BuildOptions, build_engine, get_runtime
graph, engine = map(Path, sys.argv[1:3])
print(build_engine(get_runtime("tensorrt-rtx"), graph, engine, BuildOptions()))
"""


def build_together(orders: list[tuple[Path, Path]]) -> list[str]:
    processes = [
        subprocess.Popen([sys.executable, "-c", BUILD, *map(str, order)], stdout=subprocess.PIPE, text=True)
        for order in orders
    ]
    outputs = [process.communicate(timeout=120)[0].strip() for process in processes]
    assert [process.returncode for process in processes] == [0] * len(orders)
    return outputs


def test_of_several_builders_of_one_engine_one_builds_and_the_others_take_it(graph: Path, tmp_path: Path) -> None:
    engine = tmp_path / "engines" / "one.engine"
    assert sorted(build_together([(graph, engine)] * 3)) == ["False", "False", "True"]
    assert read_manifest(engine).graph_sha256 == sha256_file(graph)
    assert sorted(path.name for path in engine.parent.iterdir()) == ["one.engine", "one.engine.json"]


def test_two_builders_leave_a_whole_engine(graph: Path, variants: dict[str, onnx.ModelProto], tmp_path: Path) -> None:
    other = tmp_path / "other.onnx"
    onnx.save(variants["other weights"], other)
    engine = tmp_path / "engines" / "one.engine"
    assert build_together([(graph, engine), (other, engine)]) == ["True", "True"]
    manifest = read_manifest(engine)
    assert manifest.graph_sha256 == sha256_file(graph if manifest.graph == graph.name else other)
