"""What INT8 can be made of: the graph as it is, with weights fitted, with channels equalised."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from edgetl.artifacts.bundle import Preprocessing
from edgetl.artifacts.data_index import Sample
from edgetl.artifacts.files import sha256_bytes, sha256_file
from edgetl.config import CalibrationRecipe
from edgetl.graph.model import model_bytes
from edgetl.graph.parity import run
from edgetl.graph.quantize import quantize
from edgetl.graph.snr import mean_snr_db, results, snr_db
from edgetl.stages.calibrator import Calibrator
from edgetl.stages.quantization_variants import QuantizationVariant

SIZE, CHANNELS = 16, 8


def uneven_network(activation: str = "Relu") -> onnx.ModelProto:
    """Three convolutions; what the first makes reaches very differently far in its channels."""
    random, nodes, weights, tensor = np.random.default_rng(0), [], [], "images"
    far = np.exp2(random.uniform(-4, 4, CHANNELS))
    for number in range(3):
        inputs = 3 if number == 0 else CHANNELS
        weight = random.normal(0.1, 0.3, (CHANNELS, inputs, 3, 3))
        weight = weight * far[:, None, None, None] if number == 0 else weight
        weight = weight / far[None, :, None, None] if number == 1 else weight
        weights.append(numpy_helper.from_array(weight.astype(np.float32), f"w{number}"))
        nodes.append(helper.make_node("Conv", [tensor, f"w{number}"], [f"c{number}"], pads=[1] * 4))
        nodes.append(helper.make_node(activation, [f"c{number}"], [f"r{number}"]))
        tensor = f"r{number}"
    weights.append(numpy_helper.from_array(random.normal(size=(CHANNELS, 3)).astype(np.float32), "w"))
    nodes += [
        helper.make_node("GlobalAveragePool", [tensor], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["features"]),
        helper.make_node("MatMul", ["features", "w"], ["logits"]),
    ]
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", 3, SIZE, SIZE])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 3])
    graph = helper.make_graph(nodes, "uneven", [images], [logits], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model


@pytest.fixture
def calibration(tmp_path: Path, listener: Any) -> Any:
    random, samples = np.random.default_rng(1), []
    for number in range(24):
        path = tmp_path / f"{number}.png"
        coarse = random.integers(0, 256, (SIZE // 4, SIZE // 4, 3), np.uint8)
        Image.fromarray(coarse.repeat(4, 0).repeat(4, 1)).save(path)
        samples.append(Sample(path=path.name, label="", sha256=sha256_file(path)))

    def calibration(method: str) -> Calibrator[Sample]:
        return Calibrator(samples, tmp_path, Preprocessing.square(SIZE), CalibrationRecipe(method=method), listener)

    return calibration


def made(calibration: Calibrator[Sample], model: onnx.ModelProto) -> tuple[Any, Any]:
    """What INT8 can be made of, and what the images showed."""
    shown = calibration.observe(model)
    return calibration.variants(model, shown, "tensorrt"), shown.observation


def snr(form: QuantizationVariant, exact: Any, pictures: Any) -> float:
    mixed = form.assign_precision("tensorrt")
    return mean_snr_db(exact, results(quantize(mixed.model, mixed.table, "tensorrt"), pictures, tuple(exact)))


def test_auto_takes_what_disturbs_least_and_tells_what_all_came_to(calibration) -> None:
    model = uneven_network()
    (best, *others), seen = made(calibration("auto"), model)
    assert best.table.variant == "channels equalised, weights fitted" and best.images is not None
    noise = [trial.snr_db for trial in best.table.trials]
    assert noise == sorted(noise, reverse=True)
    assert best.table.trials[0].method == best.description == f"{best.table.method}, {best.table.variant}"
    assert len(noise) == len({trial.method for trial in best.table.trials}) == len([best, *others]) == 7
    exact = results(model, seen.probe_images)
    (plain,) = (form for form in others if form.description == best.table.method)
    assert snr(best, exact, seen.probe_images) > snr(plain, exact, seen.probe_images) + 3.0
    moved = run(best.assign_precision("tensorrt").model, seen.probe_images)["logits"]
    assert snr_db(run(model, seen.probe_images)["logits"], moved) > 50.0
    assert best.table.graph_sha256 == sha256_bytes(model_bytes(best.model)) != plain.table.graph_sha256


def test_where_nothing_can_be_equalised_weights_are_fitted_alone(calibration) -> None:
    forms, _ = made(calibration("auto"), uneven_network("Sigmoid"))
    assert {form.table.variant for form in forms} == {"", "weights fitted"}


def test_another_method_is_what_it_says_and_can_be_mended(calibration) -> None:
    images = calibration("max")
    (form,), seen = made(images, uneven_network())
    assert (form.description, form.table.variant, form.images) == ("max", "", None)
    assert images.refined(form, seen, "tensorrt").description == "max, channels equalised, weights fitted"


def test_layers_that_are_kept_in_float_keep_their_own_weights(calibration) -> None:
    model = uneven_network()
    images = calibration("max")
    (form,), seen = made(images, model)
    fitted = images.refined(form, seen, "tensorrt")
    own = {tensor.name: tensor for tensor in model.graph.initializer}
    mixed = fitted.assign_precision("tensorrt", ["c1"]).model
    weights = {node.output[0]: node.input[1] for node in mixed.graph.node if node.op_type == "Conv"}
    assert weights["c1"] == "w1" and weights["c0"] not in own and weights["c2"] not in own


def test_a_last_layer_that_goes_back_to_float_gets_its_own_weights_back(calibration) -> None:
    (form, *_), seen = made(calibration("auto"), uneven_network())
    (note,) = form.table.last
    in_int8 = replace(form, table=form.table.model_copy(update={"last": (note.model_copy(update={"int8": True}),)}))
    fitted = calibration("auto").refined(QuantizationVariant.plain(uneven_network(), in_int8.table), seen, "tensorrt")

    def weight(form: QuantizationVariant) -> str:
        return next(
            str(node.input[1])
            for node in form.assign_precision("tensorrt").model.graph.node
            if node.op_type == "MatMul"
        )

    assert weight(fitted) != "w"
    assert weight(replace(fitted, table=fitted.table.with_last_in_float())) == "w"
