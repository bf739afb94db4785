"""Two precisions of one network, compared layer by layer."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgetl.config import CalibrationRecipe
from edgetl.errors import EdgetlError
from edgetl.graph.equalize import equalize
from edgetl.graph.fp16 import to_fp16
from edgetl.graph.layer_comparison import compare_layers
from edgetl.graph.parity import run
from edgetl.graph.quantize import quantize
from edgetl.graph.sensitivity import mixed_precision_graph
from tests.calibrating import calibrate

NAMES = ("a.onnx", "b.onnx")


def named(pictures):
    return [(f"{number}.png", pictures[number : number + 1]) for number in range(len(pictures))]


def test_a_graph_against_itself_has_no_noise(network, images):
    found = compare_layers(network, network, named(images(3)), NAMES)
    assert found.images == 3
    assert {layer.snr_db for layer in found.layers} == {120.0}
    assert [layer.op for layer in found.layers] == ["Conv"] * 7 + ["Gemm"] * 2
    assert {(output.snr_db, output.max_abs_difference, output.top1_agreement) for output in found.outputs} == {
        (120.0, 0.0, 1.0)
    }


@pytest.mark.parametrize("precision", ["fp16", "tensorrt", "onnxruntime", "mix"])
def test_the_figures_of_the_outputs_are_those_of_running_both(precision, network, images, table_for):
    other = {
        "fp16": lambda: to_fp16(network),
        "mix": lambda: mixed_precision_graph(network, table_for(network), "tensorrt", ["conv_2"]),
    }.get(precision, lambda: quantize(network, table_for(network), precision))()
    found = compare_layers(network, other, named(images(6)), NAMES)
    exact, theirs = run(network, images(6)), run(other, images(6))
    assert len(found.layers) == 9
    for output in found.outputs:
        x, y = exact[output.output].astype(np.float64), theirs[output.output].astype(np.float64)
        expected = 10 * np.log10(np.square(x).sum() / np.square(x - y).sum())
        assert output.snr_db == pytest.approx(expected, abs=0.5)
        assert output.max_abs_difference == pytest.approx(np.abs(x - y).max(), rel=0.1)
        assert output.top1_agreement == (x.argmax(1) == y.argmax(1)).mean()


def test_the_layer_that_breaks_is_where_the_noise_begins(network, images):
    broken = onnx.ModelProto()
    broken.CopyFrom(network)
    third = [node for node in network.graph.node if node.op_type == "Conv"][2]
    weight = next(tensor for tensor in broken.graph.initializer if tensor.name == third.input[1])
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(1.5), weight.name))
    layers = compare_layers(network, broken, named(images(2)), NAMES).layers
    noisy = [layer.snr_db < 120.0 for layer in layers]
    assert noisy.index(True) == 2
    assert layers[2].layer == third.output[0]


@pytest.mark.parametrize("target", ["tensorrt", "onnxruntime"])
def test_channels_that_were_divided_count_as_what_they_stand_for(target, sketch, images, record):
    plan = sketch(3)
    tensor = plan.start
    for inputs in (3, 8, 8):
        tensor = plan.node("Relu", [plan.conv(tensor, inputs, 8)])
    plan.head("vehicles", plan.features(tensor), 8)
    model = plan.model()
    equal = equalize(model, target, images(8))
    assert equal != model
    assert min(layer.snr_db for layer in compare_layers(model, equal, named(images(4)), NAMES).layers) > 100.0
    table = calibrate(equal, [images(8)], CalibrationRecipe(method="max"), record(8))
    int8 = quantize(equal, table, target)
    noise = [layer.snr_db for layer in compare_layers(model, int8, named(images(4)), NAMES).layers]
    assert min(noise) > 20.0 and max(noise) < 100.0
    assert min(layer.snr_db for layer in compare_layers(int8, model, named(images(4)), NAMES).layers) > 20.0


def test_the_worst_images_come_first(network, images, table_for):
    pictures = images(5)
    pictures[3] *= 40.0  # far beyond what was calibrated
    found = compare_layers(network, quantize(network, table_for(network), "tensorrt"), named(pictures), NAMES)
    assert found.worst_images[0].image == "3.png"
    assert [one.snr_db for one in found.worst_images] == sorted(one.snr_db for one in found.worst_images)


def test_graphs_with_other_outputs_and_no_images_are_refused(network, sketch, images):
    with pytest.raises(EdgetlError, match=r"a\.onnx has the outputs vehicles, signs, b\.onnx has vehicles"):
        compare_layers(network, sketch().chain(["conv"]), named(images(1)), NAMES)
    with pytest.raises(EdgetlError, match="no images"):
        compare_layers(network, network, [], NAMES)
