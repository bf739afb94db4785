"""Fitted weights: what a layer makes comes nearer to what it made in float, and INT8 takes them as they are."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from threadpoolctl import threadpool_limits

from edgetl.config import CalibrationRecipe
from edgetl.graph.model import Wiring, model_bytes
from edgetl.graph.quantize import output_axis, quantize, weight_steps
from edgetl.graph.snr import results, snr_db
from edgetl.graph.weight_rounding import RoundedWeights, rounded_layers, with_rounded
from tests.calibrating import calibrate

KINDS = {
    "plain": {},
    "stride": {"strides": [2, 3]},
    "dilated": {"dilations": [2, 1], "pads": [2, 0, 1, 1]},
    "depthwise": {"group": 8},
    "grouped": {"group": 2, "pads": [0, 0, 0, 0]},
}


def layered(sketch, **attributes: object) -> tuple[onnx.ModelProto, str]:
    """A Conv with these attributes behind one whose channels go along with each other, and the tensor it makes."""
    plan = sketch(7)
    wide = plan.node("Relu", [plan.conv(plan.start, 3, 8)])
    layer = plan.conv(wide, 8, 16, groups=attributes.pop("group", 1))
    for name, value in attributes.items():
        kept = [one for one in plan.nodes[-1].attribute if one.name != name]
        del plan.nodes[-1].attribute[:]
        plan.nodes[-1].attribute.extend([*kept, helper.make_attribute(name, value)])
    plan.head("vehicles", plan.features(layer), 16)
    return plan.model(), layer


def table_of(model, pictures, record, method: str = "max"):
    return calibrate(model, [pictures], CalibrationRecipe(method=method), record(len(pictures)))


def weight_noise(model, layer, fitted, pictures) -> float:
    """Signal to noise of what a layer makes with other weights and the same float inputs."""
    exact = results(model, pictures, [layer])[layer]
    return snr_db(exact, results(with_rounded(model, fitted), pictures, [layer])[layer])


def nearest(model, layer):
    """The same layer with every weight on its own nearest step."""
    wiring = Wiring(model.graph)
    node = wiring.nodes[wiring.producers[layer]]
    weight = wiring.array(node.input[1])
    steps = weight_steps(weight, 0).reshape(-1, 1, 1, 1)
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    stored = next(tensor for tensor in copy.graph.initializer if tensor.name == node.input[1])
    stored.CopyFrom(numpy_helper.from_array((np.rint(weight / steps) * steps).astype(np.float32), stored.name))
    return copy


@pytest.mark.parametrize("kind", KINDS)
def test_outputs_on_other_images_are_nearer_than_by_nearest_steps(kind, sketch, images, record):
    model, layer = layered(sketch, **KINDS[kind])
    table = table_of(model, images(16), record)
    fitted = {layer: rounded_layers(model, table, "tensorrt", images(16))[layer]}
    others = images(16, seed=1)
    exact = results(model, others, [layer])[layer]
    plain = snr_db(exact, results(nearest(model, layer), others, [layer])[layer])
    assert weight_noise(model, layer, fitted, others) > plain + 3.0


def test_products_in_the_middle_are_fitted_too_and_the_last_is_not(sketch, images, record):
    plan = sketch(3)
    tensor = plan.node("Relu", [plan.conv(plan.start, 3, 12)])
    gemm = plan.gemm(plan.features(tensor), 12, 20)
    product = plan.node("MatMul", [plan.node("Relu", [gemm]), plan.constant(plan.random.normal(size=(20, 16)))])
    plan.head("vehicles", plan.node("Relu", [product]), 16)
    model = plan.model()
    fitted = rounded_layers(model, table_of(model, images(16), record), "tensorrt", images(16))
    assert set(fitted) == {"conv_2", gemm, product}
    assert fitted[product].bias is None and fitted[gemm].bias is not None
    onnx.checker.check_model(with_rounded(model, fitted), full_check=True)
    before = model_bytes(model)
    moved = with_rounded(model, fitted)
    assert model_bytes(model) == before
    read = {name for node in moved.graph.node for name in node.input}
    assert {tensor.name for tensor in moved.graph.initializer} <= read, "old weights are gone"


@pytest.mark.parametrize("target", ["tensorrt", "onnxruntime"])
def test_int8_takes_them_as_they_are(target, network, images, record):
    """In the steps of the original weights: a scale, and a calibration cache, hold for both."""
    table = table_of(network, images(8), record)
    fitted = rounded_layers(network, table, target, images(8))
    moved = with_rounded(network, fitted)
    written = Wiring(quantize(moved, table, target).graph)
    original = Wiring(network.graph)
    for node in (node for node in written.nodes if node.op_type == "Conv"):
        dequantised = written.producer(node.input[1])
        steps, scale = (written.array(name) for name in dequantised.input[:2])
        own = original.array(original.nodes[original.producers[node.output[0]]].input[1])
        found = fitted[node.output[0]].weight
        np.testing.assert_allclose(scale, weight_steps(own, output_axis(node, own)), rtol=1e-6)
        np.testing.assert_allclose(steps * scale.reshape(-1, 1, 1, 1), found, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("target", ["tensorrt", "onnxruntime"])
def test_what_all_layers_make_in_int8_is_right_in_the_mean(target, network, images, record):
    """Of the images that were fitted to: each layer takes off what it and all before it are off."""
    table = table_of(network, images(16), record, "mse")
    fitted = rounded_layers(network, table, target, images(16))
    exact = results(network, images(16), tuple(fitted))

    def off(layers: dict[str, RoundedWeights]) -> np.ndarray:
        found = results(quantize(with_rounded(network, layers), table, target), images(16), tuple(exact))
        return np.array([np.abs((found[name] - exact[name]).mean(axis=(0, 2, 3))).mean() for name in exact])

    plain, mended = off({}), off(fitted)
    assert (mended[1:] < 0.2 * plain[1:]).all() and len(mended) > 3


def test_layers_behind_make_up_for_what_is_clipped_before_them(sketch, images, record):
    """Two channels hold the same, one twice as much, and is clipped: the layer reads more of the other."""
    plan = sketch(2)
    made = plan.constant(np.array([[1.0, 0, 0], [2.0, 0, 0], [0, 1.0, 0]])[:, :, None, None])
    tensor = plan.node("Conv", ["images", made])
    read = plan.constant(np.array([[0.0, 0.5, 1.0], [1.0, 0.7, 0.0]])[:, :, None, None])
    layer = plan.node("Conv", [tensor, read])
    plan.head("vehicles", plan.features(plan.node("Relu", [layer])), 2)
    model = plan.model()
    table = table_of(model, images(16), record)
    ranges = [one.model_copy(update={"high": one.high / 2}) if one.name == tensor else one for one in table.tensors]
    clipped = table.model_copy(update={"tensors": tuple(ranges)})
    others = images(16, seed=1)
    exact = results(model, others, [layer])[layer]
    fitted = rounded_layers(model, clipped, "tensorrt", images(16))
    plain, mended = (
        snr_db(exact, results(quantize(one, clipped, "tensorrt"), others, [layer])[layer])
        for one in (model, with_rounded(model, fitted))
    )
    assert mended > plain + 2.0


def test_layers_that_stay_in_float_are_fitted_to_what_they_read(network, images, record):
    table = table_of(network, images(16), record, "mse")
    names = list(rounded_layers(network, table, "tensorrt", images(16)))
    kept = names[2:]
    fitted = rounded_layers(network, table, "tensorrt", images(16), kept)
    assert list(fitted) == names and all((fitted[name].weight is None) == (name in kept) for name in names)
    wiring, moved = Wiring(network.graph), Wiring(with_rounded(network, fitted).graph)
    own, other = (one.producer(names[2]) for one in (wiring, moved))
    assert other.input[1] == own.input[1] and other.input[2] != own.input[2]
    exact = results(network, images(16), kept)

    def off(layers: dict[str, RoundedWeights]) -> np.ndarray:
        found = results(quantize(with_rounded(network, layers), table, "tensorrt", kept), images(16), kept)
        return np.array([np.abs((found[name] - exact[name]).mean(axis=(0, 2, 3))).mean() for name in kept])

    bare = {name: fitted[name] for name in names[:2]}
    assert (off(fitted) < 0.3 * off(bare)).all()


def test_a_layer_in_float_before_all_others_stays_as_it_is(network, images, record):
    table = table_of(network, images(8), record, "mse")
    first = next(iter(rounded_layers(network, table, "tensorrt", images(8))))
    node = Wiring(network.graph).producer(first)
    found = rounded_layers(network, table, "tensorrt", images(8), [first])[first]
    assert found.weight is None
    np.testing.assert_array_equal(found.bias, Wiring(network.graph).array(node.input[2]))


def test_the_number_of_threads_changes_no_bit(network, images, record):
    table = table_of(network, images(8), record)
    found = []
    for threads in (1, 2):
        with threadpool_limits(threads):
            found.append(model_bytes(with_rounded(network, rounded_layers(network, table, "tensorrt", images(8)))))
    assert found[0] == found[1]


def test_a_layer_of_a_kind_that_is_not_known_is_left_alone(sketch, images, record):
    model, layer = layered(sketch, auto_pad="SAME_UPPER")
    node = next(node for node in model.graph.node if node.output[0] == layer)
    kept = [one for one in node.attribute if one.name != "pads"]
    del node.attribute[:]
    node.attribute.extend(kept)
    fitted = rounded_layers(model, table_of(model, images(4), record), "tensorrt", images(4))
    assert layer not in fitted and fitted


def test_a_network_of_nothing_else_stays_as_it_is(sketch, images, record):
    plan = sketch()
    weight = plan.constant(plan.random.normal(0.0, 0.3, (4, 3, 3, 3)))
    wide = plan.node("Relu", [plan.node("Conv", [plan.start, weight], auto_pad="SAME_UPPER")])
    plan.head("vehicles", plan.features(wide), 4)
    model = plan.model()
    assert rounded_layers(model, table_of(model, images(4), record), "tensorrt", images(4)) == {}


def test_weights_that_two_layers_share_are_fitted_for_each(sketch, images, record):
    plan = sketch()
    first = plan.node("Relu", [plan.conv(plan.start, 3, 3)])
    second = plan.conv(first, 3, 3)
    plan.nodes[-1].input[1] = plan.nodes[-3].input[1]
    plan.head("vehicles", plan.features(plan.node("Relu", [second])), 3)
    model = plan.model()
    fitted = rounded_layers(model, table_of(model, images(8), record), "tensorrt", images(8))
    moved = Wiring(with_rounded(model, fitted).graph)
    names = {node.input[1] for node in moved.nodes if node.op_type == "Conv"}
    assert len(names) == 2
    for name, found in fitted.items():
        np.testing.assert_array_equal(moved.array(moved.producer(name).input[1]), found.weight)
