"""TensorRT's times of layers, on each generation's bindings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from edgetl.engine.layer_times import origins
from edgetl.engine.runtime import BuildOptions, RunOptions, build_engine, get_runtime, time_layers
from edgetl.errors import EdgetlError
from tests.unit.engine.nvidia.standin_tensorrt import GENERATIONS, Play

Array = NDArray[np.float32]


def build(graph: Path) -> Path:
    engine = graph.with_name("e.engine")
    build_engine(get_runtime("tensorrt"), graph, engine, BuildOptions())
    return engine


@pytest.mark.parametrize("version", GENERATIONS)
def test_every_generation_times_its_layers(
    version: str, graph: Path, images: Array, generation: Callable[[str], Play]
) -> None:
    play = generation(version)
    times = time_layers(build(graph), [images[:1]], runs=3)
    find = origins(onnx.load(graph))
    assert {find(layer): layer.ms for layer in times.layers} == {
        node.name: float(len(node.input)) for node in onnx.load(graph).graph.node
    }
    assert times.runs == 3
    assert {"IExecutionContext.profiler", "IExecutionContext.report_to_profiler"} <= play.touched


def test_layers_in_a_cuda_graph_have_no_times(graph: Path, images: Array, generation: Callable[[str], Play]) -> None:
    generation("10.3.0")
    engine = build(graph)
    with pytest.raises(EdgetlError, match="no times of layers in a CUDA graph; leave cuda-graph out"):
        time_layers(engine, [images[:1]], run=RunOptions(cuda_graph=True))
