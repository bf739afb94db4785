from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgetl.engine.runtime import BuildOptions, Engine, build_engine, get_runtime, load_engine
from edgetl.errors import EdgetlError
from edgetl.measure.scenarios.interleave import ScenarioPlan
from edgetl.stages.scenario_request import ScenarioRequest
from edgetl.stages.scenarios import TOGETHER, FileSubjects, file_rates, measure_scenarios
from edgetl.stages.stage import ProgressReporter

QUICK = ScenarioPlan(seconds=0.001, warmup_ms=1.0, slice_ms=2.0, min_rounds=2)
Opens = dict[str, Callable[[], Engine]]


def network(batch: int | str) -> onnx.ModelProto:
    weight = numpy_helper.from_array(np.random.default_rng(0).random((4, 3, 3, 3), dtype=np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("Conv", ["images", "w"], ["out"], kernel_shape=[3, 3])],
        "network",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [batch, 3, 16, 16])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [batch, 4, 14, 14])],
        [weight],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture(scope="module")
def opens(tmp_path_factory: pytest.TempPathFactory) -> Opens:
    """Two engines: one takes any number of images, one takes them one by one."""
    folder, found = tmp_path_factory.mktemp("engines"), {}
    for name, batch in (("any", "N"), ("one", 1)):
        graph, engine = folder / f"{name}.onnx", folder / f"{name}.engine.onnx"
        onnx.save(network(batch), graph)
        build_engine(get_runtime("onnxruntime"), graph, engine, BuildOptions())
        found[name] = partial(load_engine, engine, threads=1)
    return found


def measured(
    opens: Opens, order: ScenarioRequest, listener: ProgressReporter, rates: dict[str, float] | None = None
) -> list[Any]:
    return list(measure_scenarios(order, FileSubjects(opens, order, rates or {}), QUICK, listener))


def test_a_query_is_one_inference_where_the_engine_takes_as_many_images(
    opens: Opens, listener: ProgressReporter
) -> None:
    order = ScenarioRequest(("single-stream", "multi-stream"), query_size=5)
    found = [(one.scenario, one.title, one.query_size, one.batch) for one in measured(opens, order, listener)]
    assert found == [
        ("single-stream", "any", 1, 1),
        ("single-stream", "one", 1, 1),
        ("multi-stream", "any", 5, 5),
        ("multi-stream", "one", 5, 1),
    ]


def test_offline_refuses_a_batch_that_an_engine_does_not_take(opens: Opens, listener: ProgressReporter) -> None:
    order = ScenarioRequest(("offline",), batch=4, streams=2)
    with pytest.raises(EdgetlError, match=r"one does not take 4 images at once; export it with a dynamic batch"):
        measured(opens, order, listener)
    (found,) = measured({"any": opens["any"]}, order, listener)
    assert (found.batch, found.streams) == (4, 2) and found.throughput_ips.low > 0.0


@pytest.mark.slow
def test_files_together_are_one_deployment(opens: Opens, listener: ProgressReporter) -> None:
    cadence, concurrent = measured(
        opens, ScenarioRequest(("cadence", "concurrent")), listener, {"any": 20.0, "one": 40.0}
    )
    assert cadence.title == concurrent.title == TOGETHER
    assert [(part.name, part.rate_hz) for part in cadence.parts] == [("any", 20.0), ("one", 40.0)]
    assert [part.name for part in concurrent.alone] == ["any", "one"]


class Queueing:
    """A real engine that also has TensorRT's way to queue an inference."""

    def __init__(self, engine: Engine) -> None:
        self._engine, self.started = engine, 0

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        return self._engine.shapes

    def infer(self, *inputs: Any) -> dict[str, Any]:
        return self._engine.infer(*inputs)

    def start(self, *inputs: Any) -> Done:
        self.started += 1
        return Done(self._engine.infer(*inputs))


class Done:
    ready = True

    def __init__(self, outputs: dict[str, Any]) -> None:
        self._outputs = outputs

    def result(self) -> dict[str, Any]:
        return self._outputs


def test_engines_that_can_queue_are_asked_to_where_several_run_at_once(
    opens: Opens, listener: ProgressReporter
) -> None:
    queueing = {name: Queueing(load()) for name, load in opens.items()}
    both: Opens = {name: partial(lambda engine: engine, engine) for name, engine in queueing.items()}
    measured(both, ScenarioRequest(("single-stream",)), listener)
    assert [engine.started for engine in queueing.values()] == [0, 0]
    measured(both, ScenarioRequest(("concurrent",)), listener)
    assert all(engine.started > 0 for engine in queueing.values())


def test_a_file_is_named_by_its_path_or_its_stem_where_that_is_one_file_s_alone() -> None:
    order = ScenarioRequest(("cadence",), (("a", 5.0), ("y/b.onnx", 7.0), ("x/b.onnx", 9.0)))
    names = ["x/a.onnx", "x/b.onnx", "y/b.onnx"]
    assert file_rates(order, names) == {"x/a.onnx": 5.0, "x/b.onnx": 9.0, "y/b.onnx": 7.0}
    with pytest.raises(EdgetlError, match=r"--rate b=7 names no file.*; there are x/a.onnx, x/b.onnx, y/b.onnx"):
        file_rates(ScenarioRequest(("cadence",), (("b", 7.0),)), names)


def test_one_file_has_nothing_to_run_beside() -> None:
    with pytest.raises(EdgetlError, match=r"concurrent needs two files or more, and a\.onnx is alone"):
        file_rates(ScenarioRequest(("concurrent",)), ["a.onnx"])
    assert file_rates(ScenarioRequest(("offline",)), [str(Path("a.onnx"))]) == {}
