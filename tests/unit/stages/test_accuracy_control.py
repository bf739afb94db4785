"""The search for a mix: what it shows its judge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from edgetl.artifacts.bundle import Preprocessing
from edgetl.artifacts.data_index import Sample
from edgetl.artifacts.files import sha256_file
from edgetl.artifacts.measurements import AccuracyEstimate
from edgetl.config import CalibrationRecipe, QdqFormat
from edgetl.graph.model import Wiring
from edgetl.graph.qdq_placement import place_qdq
from edgetl.stages.accuracy_control import AccuracyControlSearch
from edgetl.stages.accuracy_evaluator import AccuracyDrop
from edgetl.stages.calibrator import Calibrator
from edgetl.stages.quantization_variants import PrecisionAssignment

SIZE, CHANNELS = 8, 4
LAYERS = ("first", "depthwise", "third", "fourth", "fifth", "last")


class Strict:
    """A judge whom nothing contents, so that everything is tried; he likes the second thing best."""

    metric, images = "accuracy", 8
    fp32: Mapping[str, AccuracyEstimate] = {"last": AccuracyEstimate(value=1.0, low=1.0, high=1.0, n=8)}

    def __init__(self) -> None:
        self.asked = 0

    def drops(self, graphs: Sequence[onnx.ModelProto]) -> dict[str, AccuracyDrop]:
        self.asked += 1
        drop = 0.5 if self.asked == 2 else 1.0
        return {"last": AccuracyDrop(AccuracyEstimate(value=1.0 - drop, low=0.0, high=1.0, n=8), drop, 0.0, drop, drop)}


def network() -> onnx.ModelProto:
    """Convolutions one after another, one of them depthwise; the last makes the result. None can be equalised."""
    random, nodes, weights, tensor = np.random.default_rng(0), [], [], "images"
    for name in LAYERS:
        groups = CHANNELS if name == "depthwise" else 1
        shape = (CHANNELS, 3 if name == "first" else CHANNELS // groups, 3, 3)
        values = {"weight": random.normal(0.1, 0.3, shape), "bias": random.normal(0.0, 0.1, CHANNELS)}
        weights += [
            numpy_helper.from_array(value.astype(np.float32), f"{name}/{kind}") for kind, value in values.items()
        ]
        inputs = [tensor, f"{name}/weight", f"{name}/bias"]
        nodes.append(helper.make_node("Conv", inputs, [name], kernel_shape=[3, 3], pads=[1] * 4, group=groups))
        if name != "last":
            nodes.append(helper.make_node("Sigmoid", [name], [f"{name}/activation"]))
            tensor = f"{name}/activation"
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", 3, SIZE, SIZE])
    result = helper.make_tensor_value_info("last", TensorProto.FLOAT, ["N", CHANNELS, SIZE, SIZE])
    graph = helper.make_graph(nodes, "network", [images], [result], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def weights(model: onnx.ModelProto) -> dict[str, NDArray[np.float32]]:
    wiring = Wiring(model.graph)
    return {node.output[0]: wiring.array(node.input[1]) for node in wiring.nodes if node.op_type == "Conv"}


def drawn(folder: Path) -> list[Sample]:
    random, samples = np.random.default_rng(1), []
    for number in range(8):
        path = folder / f"{number}.png"
        Image.fromarray(random.integers(0, 256, (SIZE, SIZE, 3), np.uint8)).save(path)
        samples.append(Sample(path=path.name, label="", sha256=sha256_file(path)))
    return samples


@pytest.mark.parametrize("target", get_args(QdqFormat))
def test_weights_are_fitted_in_int8_layers_and_no_others(target: QdqFormat, listener: Any, tmp_path: Path) -> None:
    model, tried = network(), list[PrecisionAssignment]()
    calibration = Calibrator(
        samples=drawn(tmp_path),
        root=tmp_path,
        preprocessing=Preprocessing.square(SIZE),
        recipe=CalibrationRecipe(method="max"),
        reporter=listener,
    )

    def shown(mixed: PrecisionAssignment) -> list[onnx.ModelProto]:
        tried.append(mixed)
        return [mixed.model]

    guarding = AccuracyControlSearch(Strict(), 0.1, target, calibration.refined, shown, listener)
    seen = calibration.observe(model)
    chosen, guard = guarding.search(seen.observation, calibration.variants(model, seen, target))
    assert chosen is None
    assert [attempt.variant for attempt in guard.attempts[:2]] == ["max", "max, weights fitted"]
    plain, fitted, *without = tried
    assert without and all(mixed.excluded for mixed in without)
    assert {attempt.variant for attempt in guard.attempts[2:]} == {"max, weights fitted"}
    own = weights(model)
    for mixed in (fitted, *without):
        wiring = Wiring(mixed.model.graph)
        in_int8 = {wiring.nodes[position].output[0] for position in place_qdq(wiring, target, mixed.excluded).layers}
        changed = {name for name, weight in weights(mixed.model).items() if not np.array_equal(weight, own[name])}
        assert changed == in_int8, mixed.excluded
    assert all(np.array_equal(weight, own[name]) for name, weight in weights(plain.model).items())
