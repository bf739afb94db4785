"""Costs against counters that nobody here wrote, against graphs cut out, and against numbers worked out by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.utils import Extractor

from edgetl.artifacts.measurements import KernelCost
from edgetl.errors import EdgetlError
from edgetl.graph.cost import BALANCE, Cost, CostModel
from edgetl.graph.fp16 import to_fp16
from edgetl.graph.model import model_bytes
from edgetl.graph.quantize import quantize

CONVOLUTIONAL = ("torchvision/resnet50", "torchvision/mobilenet_v2", "torchvision/squeezenet1_1", "timm/darknet53")


@dataclass(frozen=True)
class Counted:
    """A trunk as two graphs, and what PyTorch counts in it."""

    raw: Cost
    simplified: Cost
    flops: int
    parameters: int


@cache
def counted(name: str, size: int = 64) -> Counted:
    torch = pytest.importorskip("torch", reason="needs the extra train")
    pytest.importorskip("onnxsim", reason="needs the extra train")
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    from edgetl import config
    from edgetl.graph.simplify import simplify
    from edgetl.train.backbones import load_backbone
    from edgetl.train.onnx_export import export_trunk

    backbone = load_backbone(config.BackboneSettings(name=name, weights=None, image_size=size), Path(), seed=0)
    normalisations = [layer for layer in backbone.trunk.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
    # Fresh networks have many equal tensors (biases of 0, scales of 1), which the exporter would store once.
    for tensor in (*backbone.trunk.parameters(), *(n for layer in normalisations for n in layer.buffers())):
        if tensor.ndim == 1:
            tensor.uniform_(0.5, 1.5)
    # The counter knows no fused attention of a CPU.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.inference_mode():
        backbone.trunk(torch.zeros(1, 3, size, size))
    # The exporter folds batch normalisation: its scale goes into the convolution's weight, its bias becomes the
    # convolution's. The mean and deviation by which images are normalised are constants of the graph.
    folded = sum(layer.num_features for layer in normalisations)
    parameters = sum(parameter.numel() for parameter in backbone.trunk.parameters()) - folded + 3 + 3
    raw = export_trunk(backbone)
    costs = (CostModel(model).cost() for model in (raw, simplify(raw)))
    return Counted(*costs, counter.get_total_flops(), parameters)


@pytest.mark.slow
@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_flops_of_a_network_are_those_that_pytorch_counts(name: str) -> None:
    found = counted(name)
    assert found.raw.flops == found.simplified.flops == found.flops


def test_flops_of_a_transformer_are_those_that_pytorch_counts() -> None:
    found = counted("timm/test_vit", size=160)
    assert found.raw.flops == found.simplified.flops == found.flops


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_parameters_are_those_of_pytorch_after_batch_normalisation_is_folded(name: str) -> None:
    found = counted(name)
    assert found.raw.parameters == found.simplified.parameters == found.parameters
    assert found.simplified.weight_bytes == pytest.approx(4 * found.parameters, rel=0.001)


def graph(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Sequence[int | str]],
    outputs: Sequence[str],
    constants: Mapping[str, NDArray[Any]] | None = None,
) -> onnx.ModelProto:
    declared = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()]
    asked = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    stored = [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()]
    made = helper.make_graph(nodes, "graph", declared, asked, stored)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def weights(*shape: int) -> NDArray[np.float32]:
    return np.ones(shape, np.float32)


def residual_block() -> onnx.ModelProto:
    """On maps of 8 x 8: Conv, Relu, a Conv around which a shortcut goes, pooling, a linear layer."""
    pads = {"pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["images", "w1", "b1"], ["c1"], name="stem", **pads),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], **pads),
        helper.make_node("Add", ["r1", "c2"], ["sum"]),
        helper.make_node("GlobalAveragePool", ["sum"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["features"]),
        helper.make_node("Gemm", ["features", "w3", "b3"], ["scores"]),
    ]
    constants = {"w1": weights(4, 3, 3, 3), "b1": weights(4), "w2": weights(4, 4, 3, 3), "b2": weights(4)}
    constants |= {"w3": weights(4, 2), "b3": weights(2)}
    return graph(nodes, {"images": ["N", 3, 8, 8]}, ["scores"], constants)


def test_costs_of_a_residual_block_are_those_worked_out_by_hand() -> None:
    model = CostModel(residual_block())
    # All four kernels wait for memory: Conv and Relu, Conv and Add, the pooling, the linear layer.
    kernels = (448 + 768 + 1024, 592 + 1024 + 1024 + 1024, 1024 + 16, 40 + 16 + 8)
    assert model.cost() == Cost(32272, 270, 1080, 5928, relative_latency=sum(kernels))


def test_kernels_of_a_residual_block_are_those_worked_out_by_hand() -> None:
    model = CostModel(residual_block())
    assert model.kernels() == (
        KernelCost(flops=2 * 256 * 27, bits=32, bytes=448 + 768 + 1024),
        KernelCost(flops=2 * 256 * 36, bits=32, bytes=592 + 1024 + 1024 + 1024),
        KernelCost(flops=0, bits=32, bytes=1024 + 16),
        KernelCost(flops=16, bits=32, bytes=40 + 16 + 8),
    )
    # While the second runs, the first's map is there for its input and for the shortcut, and so is what it makes.
    assert model.peak_activation_bytes() == 1024 + 1024


def test_int8_kernels_multiply_in_8_bits(network: onnx.ModelProto, table_for: Callable[..., Any]) -> None:
    plain, prepared = (CostModel(one).kernels() for one in (network, quantize(network, table_for(network), "tensorrt")))
    quantised = [kernel for kernel in prepared if kernel.bits == 8 and kernel.flops]
    assert sum(kernel.flops for kernel in quantised) > 0.9 * sum(kernel.flops for kernel in plain)


def test_a_kernel_with_more_flops_than_its_bytes_hide_is_estimated_by_its_flops() -> None:
    nodes = [helper.make_node("Conv", ["images", "w"], ["maps"]), helper.make_node("Relu", ["maps"], ["out"])]
    cost = CostModel(graph(nodes, {"images": ["N", 64, 16, 16]}, ["out"], {"w": weights(64, 64, 3, 3)})).cost()
    assert cost.relative_latency == cost.flops / BALANCE > cost.weight_bytes + cost.activation_bytes


def test_a_part_of_a_graph_costs_what_leads_to_it() -> None:
    model = CostModel(residual_block())
    assert model.cost(["r1"]) == Cost(13824, 112, 448, 768 + 1024, relative_latency=2240)
    # Somebody wants the map before the Relu: it goes to memory as well.
    assert model.cost(["r1", "c1"]).activation_bytes == 768 + 1024 + 1024
    assert model.cost(["c1"]) == Cost(13824, 112, 448, 768 + 1024, relative_latency=2240)
    assert model.cost([]) == model.cost(["images"]) == Cost(0, 0, 0, 0, relative_latency=0)
    assert model.cost(["w1"]) == Cost(0, 108, 432, 0, relative_latency=0)


OPERATORS: dict[str, tuple[onnx.NodeProto, list[tuple[int, ...]], Callable[..., Any]]] = {
    "grouped and strided Conv": (
        helper.make_node("Conv", ["a", "b"], ["out"], group=2, strides=[2, 2]),
        [(1, 8, 9, 11), (6, 4, 3, 5)],
        lambda torch, a, b: torch.nn.functional.conv2d(a, b, stride=2, groups=2),
    ),
    "dilated Conv over one dimension": (
        helper.make_node("Conv", ["a", "b"], ["out"], dilations=[2], pads=[2, 2]),
        [(1, 4, 20), (6, 4, 3)],
        lambda torch, a, b: torch.nn.functional.conv1d(a, b, dilation=2, padding=2),
    ),
    "grouped and strided ConvTranspose": (
        helper.make_node("ConvTranspose", ["a", "b"], ["out"], group=2, strides=[2, 2]),
        [(1, 8, 5, 7), (8, 3, 3, 3)],
        lambda torch, a, b: torch.nn.functional.conv_transpose2d(a, b, stride=2, groups=2),
    ),
    "Gemm of transposed matrices": (
        helper.make_node("Gemm", ["a", "b", "c"], ["out"], transA=1, transB=1),
        [(5, 3), (7, 5), (7,)],
        lambda torch, a, b, c: torch.addmm(c, a.T, b.T),
    ),
    "MatMul of stacked matrices": (
        helper.make_node("MatMul", ["a", "b"], ["out"]),
        [(2, 3, 4, 5), (2, 3, 5, 6)],
        lambda torch, a, b: torch.matmul(a, b),
    ),
    "MatMul of a stack and one matrix": (
        helper.make_node("MatMul", ["a", "b"], ["out"]),
        [(2, 4, 5), (5, 6)],
        lambda torch, a, b: torch.matmul(a, b),
    ),
    "Einsum": (
        helper.make_node("Einsum", ["a", "b"], ["out"], equation="b h i d, b h j d -> b h i j"),
        [(2, 3, 4, 5), (2, 3, 6, 5)],
        lambda torch, a, b: torch.einsum("bhid,bhjd->bhij", a, b),
    ),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_flops_of_an_operator_are_those_that_pytorch_counts(name: str) -> None:
    torch = pytest.importorskip("torch", reason="needs the extra train")
    from torch.utils.flop_counter import FlopCounterMode

    node, shapes, operator = OPERATORS[name]
    with FlopCounterMode(display=False) as counter:
        operator(torch, *(torch.zeros(shape) for shape in shapes))
    model = CostModel(graph([node], dict(zip(node.input, shapes, strict=True)), ["out"]))
    assert model.cost().flops == counter.get_total_flops() > 0


@pytest.mark.parametrize("operator", ["ConvInteger", "QLinearConv", "MatMulInteger", "QLinearMatMul"])
def test_integer_operators_count_as_their_float_ones_do(operator: str) -> None:
    maps, kernel = ((1, 3, 8, 8), (4, 3, 3, 3)) if "Conv" in operator else ((5, 6), (6, 7))
    plain = "Conv" if "Conv" in operator else "MatMul"
    inputs = ["x", "w"] if "Integer" in operator else ["x", "s", "z", "w", "s", "z", "s", "z"]
    constants = {"w": np.ones(kernel, np.uint8), "s": np.array(0.1, np.float32), "z": np.array(3, np.uint8)}
    nodes = [
        helper.make_node("QuantizeLinear", ["images", "s", "z"], ["x"]),
        helper.make_node(operator, inputs, ["out"]),
    ]
    found = CostModel(graph(nodes, {"images": maps}, ["out"], constants))
    expected = CostModel(
        graph([helper.make_node(plain, ["images", "w"], ["out"])], {"images": maps}, ["out"], {"w": weights(*kernel)})
    )
    assert (found.cost().flops, found.cost().parameters) == (expected.cost().flops, expected.cost().parameters)
    assert [one.bits for model in (found, expected) for one in model.kernels() if one.flops] == [8, 32]


def test_statistics_of_a_batch_normalisation_are_stored_but_are_no_parameters() -> None:
    nodes = [
        helper.make_node("Conv", ["images", "w"], ["maps"]),
        helper.make_node("BatchNormalization", ["maps", "scale", "bias", "mean", "variance"], ["out"]),
    ]
    constants = {"w": weights(4, 3, 3, 3)} | {name: weights(4) for name in ("scale", "bias", "mean", "variance")}
    model = CostModel(graph(nodes, {"images": ["N", 3, 8, 8]}, ["out"], constants))
    assert (model.cost().parameters, model.cost().weight_bytes) == (108 + 8, 4 * (108 + 16))
    # What the Conv makes is normalised where it is made.
    assert model.cost().activation_bytes == 4 * (3 * 8 * 8 + 4 * 6 * 6)


def test_a_weight_counts_once_however_many_nodes_read_it() -> None:
    nodes = [
        helper.make_node("Identity", ["w"], ["same"]),
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("MatMul", ["x", "same"], ["b"]),
    ]
    model = CostModel(graph(nodes, {"x": ["N", 4]}, ["a", "b"], {"w": weights(4, 4)}))
    assert (model.cost().parameters, model.cost().weight_bytes) == (16, 64)
    # Each kernel has to fetch it, though.
    assert model.cost().relative_latency == 2 * (64 + 16 + 16)


def test_a_gate_is_a_kernel_of_its_own_because_it_waits_for_the_pooling() -> None:
    nodes = [
        helper.make_node("Conv", ["images", "w"], ["maps"]),
        helper.make_node("Sigmoid", ["maps"], ["sigmoid"]),
        helper.make_node("Mul", ["maps", "sigmoid"], ["swish"]),
        helper.make_node("GlobalAveragePool", ["swish"], ["pooled"]),
        helper.make_node("Mul", ["swish", "pooled"], ["out"]),
    ]
    found = CostModel(graph(nodes, {"images": ["N", 3, 8, 8]}, ["out"], {"w": weights(4, 3, 1, 1)})).kernels()
    assert [one.bytes for one in found] == [768 + 48 + 1024, 1024 + 16, 1024 + 16 + 1024]


def test_a_network_in_fp16_moves_half_the_bytes_and_costs_as_many_flops(network: onnx.ModelProto) -> None:
    full, half = CostModel(network).cost(), CostModel(to_fp16(network)).cost()
    assert (half.flops, half.parameters) == (full.flops, full.parameters)
    assert 0.5 <= half.weight_bytes / full.weight_bytes < 0.6  # heads stay in FP32
    assert 0.5 <= half.activation_bytes / full.activation_bytes < 0.6  # and so do the images
    assert 0.5 <= half.relative_latency / full.relative_latency < 0.6


@pytest.mark.parametrize("target", ["tensorrt", "onnxruntime"])
def test_a_layer_between_qdq_reads_1_byte_operands(
    target: Any, network: onnx.ModelProto, table_for: Callable[..., Any]
) -> None:
    prepared = quantize(network, table_for(network), target)
    plain, quantised = CostModel(network), CostModel(prepared)
    assert quantised.cost().flops == plain.cost().flops
    assert quantised.cost().parameters == plain.cost().parameters
    assert quantised.cost().relative_latency < 0.5 * plain.cost().relative_latency
    layers = [[one for one in model.kernels() if one.flops] for model in (plain, quantised)]
    convs = sum(node.op_type == "Conv" for node in network.graph.node)
    assert [one.bits for one in layers[1][:convs]] == [8] * convs
    assert all(one.bytes < was.bytes for was, one in zip(layers[0][:convs], layers[1], strict=False))


STEPS = ("conv", "shared", "relu", "add", "mul", "pool", "gate", "reshape", "qdq", "split")


def random_graph(sketch: Any, steps: Sequence[tuple[str, int, int]]) -> tuple[onnx.ModelProto, list[str]]:
    """A graph of maps [N,4,16,16], each step on tensors that are there, and the names of all of these."""
    plan = sketch()
    shared, shape = plan.constant(np.ones((4, 4, 3, 3))), numpy_helper.from_array(np.array([0, 4, 256]), "rows")
    back = numpy_helper.from_array(np.array([0, 4, 16, 16]), "maps")
    zero = numpy_helper.from_array(np.array(0, np.int8), "zero")
    plan.initializers += [shape, back, zero]
    scale = plan.constant(np.array(0.1))
    tensors = [plan.conv(plan.start, 3, 4)]
    for step, first, second in steps:
        a, b = tensors[first % len(tensors)], tensors[second % len(tensors)]
        if step == "conv":
            made = plan.conv(a, 4, 4)
        elif step == "shared":
            made = plan.node("Conv", [a, shared], pads=[1, 1, 1, 1])
        elif step == "relu":
            made = plan.node("Relu", [a])
        elif step in {"add", "mul"}:
            made = plan.node(step.capitalize(), [a, b])
        elif step == "pool":
            made = plan.node("MaxPool", [a], kernel_shape=[3, 3], pads=[1, 1, 1, 1])
        elif step == "gate":
            made = plan.node("Mul", [a, plan.node("Sigmoid", [plan.node("GlobalAveragePool", [b])])])
        elif step == "reshape":
            made = plan.node("Reshape", [plan.node("Reshape", [a, "rows"]), "maps"])
        elif step == "qdq":
            made = plan.node("DequantizeLinear", [plan.node("QuantizeLinear", [a, scale, "zero"]), scale, "zero"])
        else:
            made = plan.node("Concat", [plan.node("Slice", [a, "from", "to", "axis"]), b], axis=1)
            made = plan.conv(made, 6, 4)
        tensors.append(made)
    slices = {"from": [0], "to": [2], "axis": [1]}
    plan.initializers += [numpy_helper.from_array(np.array(value), name) for name, value in slices.items()]
    plan.outputs += [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 4, 16, 16]) for name in tensors]
    return plan.model(), tensors


random_steps = st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 11), st.integers(0, 11)), max_size=12)
choice = st.sets(st.integers(0, 11), max_size=4)


def chosen(tensors: Sequence[str], numbers: set[int]) -> list[str]:
    return [name for number, name in enumerate(tensors) if number in numbers]


@settings(max_examples=60)
@given(steps=random_steps, numbers=choice.filter(bool))
def test_a_part_costs_what_it_costs_cut_out(sketch: Any, steps: Any, numbers: set[int]) -> None:
    model, tensors = random_graph(sketch, steps)
    names = chosen(tensors, numbers) or tensors[:1]
    alone = CostModel(Extractor(model).extract_model(["images"], names)).cost()
    assert CostModel(model).cost(names) == replace(alone, relative_latency=pytest.approx(alone.relative_latency))


@settings(max_examples=60)
@given(steps=random_steps, ours=choice, theirs=choice)
def test_a_union_costs_between_its_dearer_and_both(sketch: Any, steps: Any, ours: set[int], theirs: set[int]) -> None:
    model, tensors = random_graph(sketch, steps)
    costs = CostModel(model)
    a, b, union = (costs.cost(chosen(tensors, numbers)) for numbers in (ours, theirs, ours | theirs))
    for field in ("flops", "parameters", "weight_bytes", "activation_bytes", "relative_latency"):
        part, other, both = (getattr(cost, field) for cost in (a, b, union))
        assert max(part, other) <= both * (1 + 1e-9)
        assert both <= (part + other) * (1 + 1e-9)


@settings(max_examples=60)
@given(steps=random_steps, order=st.permutations(range(13)))
def test_the_order_of_outputs_does_not_matter(sketch: Any, steps: Any, order: list[int]) -> None:
    model, tensors = random_graph(sketch, steps)
    shuffled = [tensors[number] for number in order if number < len(tensors)]
    assert CostModel(model).cost(shuffled) == CostModel(model).cost(tensors)


@settings(max_examples=60)
@given(steps=random_steps)
def test_the_costs_of_kernels_add_up_to_that_of_the_graph(sketch: Any, steps: Any) -> None:
    model, _ = random_graph(sketch, steps)
    costs = CostModel(model)
    assert sum(kernel.flops for kernel in costs.kernels()) == costs.cost().flops
    # A constant counts once for the graph, and for every kernel that fetches it.
    assert sum(kernel.bytes for kernel in costs.kernels()) >= costs.cost().activation_bytes + costs.cost().weight_bytes


def test_shapes_that_are_computed_from_the_batch_are_followed() -> None:
    """As exporters repeat a learned token for every image."""
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "zero"], ["n"]),
        helper.make_node("Unsqueeze", ["n", "axes"], ["batch"]),
        helper.make_node("Concat", ["batch", "rest"], ["wanted"], axis=0),
        helper.make_node("Equal", ["wanted", "rest3"], ["free"]),
        helper.make_node("ConstantOfShape", ["three"], ["ones"], value=numpy_helper.from_array(np.array([1]))),
        helper.make_node("Where", ["free", "ones", "wanted"], ["sizes"]),
        helper.make_node("Expand", ["token", "sizes"], ["tokens"]),
        helper.make_node("Concat", ["tokens", "x"], ["out"], axis=1),
    ]
    integers = {"zero": 0, "axes": [0], "rest": [1, 8], "rest3": [-1, -1, -1], "three": [3]}
    constants = {name: np.array(value) for name, value in integers.items()} | {"token": weights(1, 1, 8)}
    model = CostModel(graph(nodes, {"x": ["N", 4, 8]}, ["out"], constants))
    assert model.cost().activation_bytes == 4 * (4 * 8 + 5 * 8)
    assert model.cost().parameters == 8


def test_weights_are_never_read() -> None:
    """So a model of any size costs milliseconds, and its external data need not be there."""
    model = graph([helper.make_node("MatMul", ["x", "w"], ["out"])], {"x": ["N", 100_000]}, ["out"])
    weight = model.graph.initializer.add(name="w", data_type=TensorProto.FLOAT, dims=[100_000, 100_000])
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="weights.bin")
    assert CostModel(model).cost().weight_bytes == 40_000_000_000


def test_bodies_of_control_flow_count_nothing_and_what_they_read_is_needed() -> None:
    def body(name: str) -> onnx.GraphProto:
        node = helper.make_node("MatMul", ["maps", "w"], [name])
        return helper.make_graph([node], name, [], [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 8])])

    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["maps"]),
        helper.make_node("If", ["condition"], ["out"], then_branch=body("yes"), else_branch=body("no")),
    ]
    model = graph(nodes, {"x": ["N", 8]}, ["out"], {"w": weights(8, 8), "condition": np.array(True)})
    found = CostModel(model)
    assert found.cost().flops == found.kernels()[0].flops == 2 * 64
    assert found.kernels()[1].bytes == 32 + 32 + 1  # with the condition


def test_an_operator_unknown_to_onnx_counts_the_bytes_that_are_declared() -> None:
    model = graph([helper.make_node("Own", ["x"], ["out"], domain="own")], {"x": ["N", 8]}, [])
    model.graph.output.append(helper.make_tensor_value_info("out", TensorProto.FLOAT, ["N", 4]))
    assert CostModel(model).cost() == Cost(0, 0, 0, 32 + 16, relative_latency=48)


def test_an_old_file_that_lists_its_weights_as_inputs_has_weights_all_the_same() -> None:
    model = residual_block()
    expected = CostModel(model).cost()
    for tensor in model.graph.initializer:
        model.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    assert CostModel(model).cost() == expected


def test_a_batch_that_is_fixed_is_kept() -> None:
    model = residual_block()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 8
    assert CostModel(model).cost().flops == 8 * CostModel(residual_block()).cost().flops


@pytest.mark.parametrize(
    ("model", "tensor"),
    [
        (graph([helper.make_node("Relu", ["x"], ["out"])], {"x": ["N", 3, "H", "W"]}, ["out"]), "x"),
        (graph([helper.make_node("NonZero", ["x"], ["out"])], {"x": ["N", 3]}, ["out"]), "out"),
        (graph([helper.make_node("Own", ["x"], ["out"], domain="own")], {"x": ["N", 3]}, ["out"]), "out"),
    ],
    ids=["images of any size", "as many as there are", "unknown operator"],
)
def test_a_size_that_the_graph_does_not_tell_is_refused_by_name(model: onnx.ModelProto, tensor: str) -> None:
    with pytest.raises(EdgetlError, match=f"does not tell the size of its tensor '{tensor}'; export it for one"):
        CostModel(model)


def test_a_node_that_does_not_fit_its_inputs_is_refused_by_name() -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["out"], name="wrong")]
    with pytest.raises(EdgetlError, match="MatMul 'wrong' does not fit its inputs: ") as caught:
        CostModel(graph(nodes, {"x": ["N", 3]}, ["out"], {"w": weights(4, 4)}))
    assert "\n" not in str(caught.value)


def test_a_function_of_the_graphs_own_is_refused_because_nobody_sees_into_it() -> None:
    model = graph([helper.make_node("Block", ["x"], ["out"], domain="own")], {"x": ["N", 8]}, [])
    model.graph.output.append(helper.make_tensor_value_info("out", TensorProto.FLOAT, ["N", 8]))
    inner = [helper.make_node("Relu", ["a"], ["b"])]
    model.functions.append(helper.make_function("own", "Block", ["a"], ["b"], inner, list(model.opset_import)))
    with pytest.raises(EdgetlError, match=r"its own function 'Block'.*inline_local_functions"):
        CostModel(model)


def test_tensors_larger_than_any_machine_are_refused() -> None:
    nodes = [helper.make_node("Add", ["x", "x"], ["out"])]
    with pytest.raises(EdgetlError, match="larger than any machine holds"):
        CostModel(graph(nodes, {"x": ["N", 2**40, 2**40]}, ["out"]))


def test_a_tensor_that_is_not_there_is_refused_by_name() -> None:
    with pytest.raises(EdgetlError, match="no tensor 'animals'; name one of its outputs"):
        CostModel(residual_block()).cost(["scores", "animals"])


@settings(max_examples=150)
@given(position=st.floats(0.0, 0.999), byte=st.integers(0, 255))
def test_a_damaged_graph_has_a_cost_or_is_refused(position: float, byte: int, network: onnx.ModelProto) -> None:
    content = bytearray(model_bytes(network))
    content[int(position * len(content))] = byte
    try:
        model = onnx.load_model_from_string(bytes(content))
        onnx.checker.check_model(model)
    except Exception:  # no concern of this test
        return
    try:
        CostModel(model).cost()
    except EdgetlError as error:
        assert "\n" not in str(error)
