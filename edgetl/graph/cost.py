"""What a graph costs, told from its shapes alone: FLOPs, parameters, bytes, and a relative estimate of its latency."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto

from edgetl.arrays import BoolArray, Int64Array
from edgetl.artifacts.measurements import KernelCost
from edgetl.errors import EdgetlError
from edgetl.graph.model import attribute, tensors_read
from edgetl.graph.sizes import SHAPES, Tensors

BALANCE = 12.0
"""FLOPs that a device does in FP32 while it moves one byte; in FP16 twice and in INT8 four times as many.

Fitted to ONNX Runtime's CPU (one AVX-512 core; ten networks at 96 and 224 pixels, 0.6 to 98 ms): 10 to 12 fit best, and
the spread of latency / estimate (standard deviation of its logarithm) is 0.22, where FLOPs alone leave 0.42 and bytes
alone 0.52. A Jetson is near: MLPerf's ResNet-50 on AGX Orin (INT8, 8.2 GFLOP in 0.64 ms, 205 GB/s) does 63 FLOPs per
byte, which is 16 in FP32.
"""

# Runtimes compute these, value by value, in the kernel that makes their input.
_POINTWISE = frozenset({
    "Abs", "Add", "BatchNormalization", "Cast", "Ceil", "Celu", "Clip", "Div", "Elu", "Erf", "Exp", "Floor", "Gelu",
    "HardSigmoid", "HardSwish", "LeakyRelu", "Log", "Max", "Min", "Mish", "Mul", "Neg", "PRelu", "Pow",
    "QuantizeLinear", "Reciprocal", "Relu", "Round", "Selu", "Sigmoid", "Softplus", "Softsign", "Sqrt", "Sub", "Tanh",
    "ThresholdedRelu", "Where",
})  # fmt: skip
# Other names for the same bytes. Who reads a DequantizeLinear reads the integers behind it.
_VIEWS = frozenset({"DequantizeLinear", "Dropout", "Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"})
_PRODUCTS = frozenset({"Gemm", "MatMul", "MatMulInteger", "QLinearMatMul"})
# The input that holds the weight, [outputs, inputs of a group, *kernel].
_CONVOLUTIONS = {"Conv": 1, "ConvInteger": 1, "QLinearConv": 3}
# Inputs for statistics, scales and zero points: constants, but no parameters.
_SETTINGS = {
    "BatchNormalization": {3, 4},
    "ConvInteger": {2, 3},
    "DequantizeLinear": {1, 2},
    "MatMulInteger": {2, 3},
    "QLinearConv": {1, 2, 4, 5, 6, 7},
    "QLinearMatMul": {1, 2, 4, 5, 6, 7},
    "QuantizeLinear": {1, 2},
    "Resize": {1, 2, 3},
}

# Added to the bits of nodes that multiply, so that a maximum prefers them: more than any type has bits.
_MULTIPLIES = 1 << 16


@dataclass(frozen=True)
class Cost:
    """What a part of a graph costs per image; a constant counts once, however many nodes read it.

    ``activation_bytes`` are read and written ones together. ``relative_latency`` is a latency without a unit: only the
    ratio of two of them means something.
    """

    flops: int
    parameters: int
    weight_bytes: int
    activation_bytes: int
    relative_latency: float


class CostModel:
    """The cost of a graph, of each of its kernels, and of the part that any of its tensors need.

    It is made once per graph, in milliseconds and without reading a weight; each call then takes about 0.1 ms. All is
    for one image where the batch is dynamic, else for the graph's own batch.

    * FLOPs are 2 x multiply-adds of convolutions, matrix products, and Einsums of two operands without an ellipsis.
      All else counts 0, as in ``torch.utils.flop_counter``: biases, other operators, bodies of If, Loop and Scan.
    * Parameters are the elements of constants without scalars, integers that count or index (INT64, BOOL), statistics
      of a BatchNormalization, scales and zero points. A batch norm folded into a convolution has left one bias per
      channel, where torch's modules have two parameters.
    * Nodes that depend on no image (Constant, Shape, a DequantizeLinear of weights, arithmetic on constants) run before
      the first image and cost nothing; their readers read the stored constants behind them.
    * Reshape, Flatten, Squeeze, Unsqueeze, Identity, Dropout and DequantizeLinear only rename bytes. So a Conv between
      Q/DQ reads 1-byte operands.
    * A pointwise node (BatchNormalization, activation, QuantizeLinear, arithmetic) runs in the kernel that makes the
      last of its inputs, if that has its output's size. A tensor goes to memory only if another kernel or the caller
      reads it. TensorRT fuses about as much, ONNX Runtime a little less.
    * The estimate is a roofline (Williams et al., CACM 52(4), 2009): the sum over kernels of the larger of FLOPs /
      `BALANCE` and bytes moved, weights included. FLOPs cost in proportion to the width of the activations: a half in
      FP16, a quarter in INT8.

    Raises:
        EdgetlError: some tensor's size is not told by the graph (an image size that may vary, an output whose size
            depends on values, an unknown operator without a declared output), the graph calls functions of its own,
            or it contradicts itself.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self._outputs = tuple(output.name for output in model.graph.output)
        self._ledger = _Ledger(model)
        entries = self._ledger.entries
        self._amounts = _amounts(entries)
        self._kernels = np.array([entry.kernel for entry in entries], np.int64)
        self._work = np.array([entry.work for entry in entries], np.float64)
        self._traffic = np.array([entry.traffic for entry in entries], np.float64)
        self._bits = np.array([entry.bits for entry in entries], np.int64)
        self._needed: dict[str, BoolArray] = {}

    def cost(self, outputs: Collection[str] | None = None) -> Cost:
        """The cost of the nodes that the named tensors need (by default all outputs).

        It equals the cost of that part of the graph, extracted.

        Raises:
            EdgetlError: the graph has no tensor of that name.
        """
        needed = self._needed_for(self._outputs if outputs is None else outputs)
        kernels = self._kernels[needed]
        work, traffic = (np.bincount(kernels, column[needed]) for column in (self._work, self._traffic))
        flops, parameters, weight_bytes, activation_bytes = self._amounts[needed].sum(axis=0).tolist()
        return Cost(flops, parameters, weight_bytes, activation_bytes, float(np.maximum(work, traffic).sum()))

    def kernels(self) -> tuple[KernelCost, ...]:
        """The cost of every kernel launch that the outputs need, in order."""
        needed = self._needed_for(self._outputs) & (self._kernels > 0)
        kernels = self._kernels[needed]
        # Of the nodes that multiply; a residual in FP32 does not make an INT8 convolution one of FP32.
        widths = self._bits[needed] + (self._amounts[needed, 0] > 0) * _MULTIPLIES
        bits = np.zeros(int(kernels.max(initial=0)) + 1, np.int64)
        np.maximum.at(bits, kernels, widths)
        bits %= _MULTIPLIES
        # Sums of whole numbers below 2**53 are exact.
        flops, moved = (np.bincount(kernels, column[needed]) for column in (self._amounts[:, 0], self._traffic))
        return tuple(KernelCost(int(flops[one]), int(bits[one]), int(moved[one])) for one in np.unique(kernels))

    def peak_activation_bytes(self) -> int:
        """The most memory that activations take at once, each held from its kernel to the last one that reads it.

        The graph's inputs are not counted. A runtime with a good memory plan needs little more.
        """
        needed = self._needed_for(self._outputs)
        last: dict[int, int] = {}
        for position in np.flatnonzero(needed):
            for need in self._ledger.entries[position].needs:
                last[need] = max(last.get(need, 0), int(self._kernels[position]))
        end = int(self._kernels.max(initial=0))
        change = np.zeros(end + 2, np.int64)
        for write in self._ledger.writes.values():
            if needed[write]:
                size = self._ledger.entries[write].activation_bytes
                change[self._kernels[write]] += size
                change[last.get(write, end) + 1] -= size
        return int(np.cumsum(change).max())

    def _needed_for(self, outputs: Iterable[str]) -> BoolArray:
        needed = np.zeros(len(self._kernels), np.bool_)
        for tensor in outputs:
            if tensor not in self._needed:
                own = self._needed[tensor] = np.zeros(len(self._kernels), np.bool_)
                waiting = self._ledger.behind(tensor)
                while waiting:
                    entry = waiting.pop()
                    if not own[entry]:
                        own[entry] = True
                        waiting.extend(self._ledger.entries[entry].needs)
            needed |= self._needed[tensor]
        return needed


@dataclass(frozen=True)
class _Entry:
    """A cost that counts once, however many need it: of a constant, of a node's work, or of writing a tensor to memory.

    ``work`` is the time that the FLOPs take and ``traffic`` that of the bytes, both in the time that one byte takes.
    """

    needs: tuple[int, ...] = ()
    flops: int = 0
    parameters: int = 0
    weight_bytes: int = 0
    activation_bytes: int = 0
    kernel: int = 0
    bits: int = 0
    work: float = 0.0
    traffic: int = 0


def estimate_relative_latency(model: onnx.ModelProto) -> float | None:
    """The relative latency of a graph by `CostModel`; None where the graph does not tell its sizes."""
    try:
        return CostModel(model).cost().relative_latency
    except EdgetlError:  # the size of what NonMaxSuppression leaves is not told
        return None


def _amounts(entries: Sequence[_Entry]) -> Int64Array:
    # Python's integers have no bound, but sums of the array's would overflow unseen.
    rows = [(entry.flops, entry.parameters, entry.weight_bytes, entry.activation_bytes) for entry in entries]
    if any(sum(column) >= 2**63 for column in zip(*rows, strict=True)):
        raise EdgetlError("the tensors of the graph are larger than any machine holds; export the model again")
    return np.array(rows, np.int64).reshape(-1, 4)


class _Ledger:
    """The costs of a graph as entries, and which entries each of them needs.

    Adding up the entries that some outputs need makes costs exact for every set of outputs: writing a tensor to memory
    for one branch alone counts only where that branch is wanted.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.entries: list[_Entry] = []
        self._tensors = Tensors(model)
        self._kernel_count = 0
        # Of each tensor that needs no image: the stored constants behind it, and whether these are parameters.
        self._constants = {tensor.name: self._constant(tensor.name) for tensor in model.graph.initializer}
        self._constant_entries: dict[tuple[str, int], int] = {}
        # Of each other tensor: the one whose bytes it names. Of that one: its kernel (0 for inputs) and entries.
        self._origins = {value.name: value.name for value in model.graph.input if value.name not in self._constants}
        self._kernels = dict.fromkeys(self._origins, 0)
        self._makers: dict[str, int] = {}
        self.writes: dict[str, int] = {}
        for node in model.graph.node:
            self._enter(node)

    def behind(self, tensor: str) -> list[int]:
        """The entries that a caller who reads a tensor needs directly."""
        if tensor in self._constants:
            return list(self._constant_needs(self._constants[tensor]))
        if tensor not in self._origins:
            raise EdgetlError(f"the graph has no tensor {tensor!r}; name one of its outputs")
        return list(self._data_needs([tensor], kernel=-1))  # -1 is no kernel: the caller reads from memory

    def _enter(self, node: onnx.NodeProto) -> None:
        """Enter a node's work, and for each of its outputs that it is written to memory."""
        constants = self._constants_read(node)
        data = [name for name in dict.fromkeys(tensors_read(node)) if name in self._origins]
        if node.op_type in SHAPES or not data:
            made = (name for name in node.output if name)
            self._constants.update((name, constants if node.input else self._constant(name)) for name in made)
            return
        kernel = self._kernel_of(node, data)
        origins = [self._origins[name] for name in data]
        read = sum(self._tensors[name].bytes for name in origins if self._kernels[name] != kernel)
        weight_bytes = sum(self._tensors[name].bytes for name in constants)
        flops = _flops(node, lambda name: self._tensors[name].shape)
        bits = max(self._tensors[name].bits for name in origins)
        entry = self._add(
            _Entry(
                needs=(*self._constant_needs(constants), *self._data_needs(data, kernel)),
                flops=flops,
                activation_bytes=read,
                kernel=kernel,
                bits=bits,
                work=flops * (bits / 32) / BALANCE,
                traffic=read + weight_bytes,
            )
        )
        outputs = [name for name in node.output if name]
        self._makers.update((name, entry) for name in outputs)
        if self._is_view(node):
            self._origins.update((name, self._origins[node.input[0]]) for name in outputs)
            return
        for name in outputs:
            size = self._tensors[name].bytes
            self._origins[name] = name
            self._kernels[name] = kernel
            self.writes[name] = self._add(_Entry((entry,), activation_bytes=size, kernel=kernel, traffic=size))

    def _kernel_of(self, node: onnx.NodeProto, data: Sequence[str]) -> int:
        if self._is_view(node):
            return self._kernels[self._origins[node.input[0]]]
        if node.op_type in _POINTWISE:
            last = max((self._origins[name] for name in data), key=lambda name: self._makers.get(name, -1))
            if self._kernels[last] and self._tensors[last].elements == self._tensors[node.output[0]].elements:
                return self._kernels[last]
        self._kernel_count += 1
        return self._kernel_count

    def _is_view(self, node: onnx.NodeProto) -> bool:
        return node.op_type in _VIEWS and node.input[0] in self._origins

    def _constants_read(self, node: onnx.NodeProto) -> dict[str, bool]:
        settings: set[int] = _SETTINGS.get(node.op_type, set())
        read: dict[str, bool] = {}
        for slot, name in enumerate(node.input):
            for constant, learned in self._constants.get(name, {}).items():
                read[constant] = read.get(constant, False) or (learned and slot not in settings)
        return read

    def _constant(self, name: str) -> dict[str, bool]:
        tensor = self._tensors[name]
        return {name: bool(tensor.shape) and tensor.data_type not in {TensorProto.INT64, TensorProto.BOOL}}

    def _constant_needs(self, constants: Mapping[str, bool]) -> Iterator[int]:
        for name, learned in constants.items():
            tensor = self._tensors[name]
            entries = (_Entry(weight_bytes=tensor.bytes), _Entry(parameters=tensor.elements))
            for kind, entry in enumerate(entries[: 1 + learned]):
                if (name, kind) not in self._constant_entries:
                    self._constant_entries[name, kind] = self._add(entry)
                yield self._constant_entries[name, kind]

    def _data_needs(self, data: Iterable[str], kernel: int) -> Iterator[int]:
        for name in data:
            origin = self._origins[name]
            if name in self._makers:
                yield self._makers[name]
            if self._kernels[origin] != kernel and origin in self.writes:
                yield self.writes[origin]

    def _add(self, entry: _Entry) -> int:
        self.entries.append(entry)
        return len(self.entries) - 1


def _flops(node: onnx.NodeProto, shape: Callable[[str], tuple[int, ...]]) -> int:
    """2 x the multiply-adds of a node, from the shapes of its inputs and outputs."""
    if node.op_type in _CONVOLUTIONS:
        weight = shape(node.input[_CONVOLUTIONS[node.op_type]])
        return 2 * math.prod(shape(node.output[0])) * math.prod(weight[1:])
    if node.op_type == "ConvTranspose":
        return 2 * math.prod(shape(node.input[0])) * math.prod(shape(node.input[1])[1:])
    if node.op_type in _PRODUCTS:
        summed = shape(node.input[0])[0 if attribute(node, "transA", 0) else -1]
        return 2 * math.prod(shape(node.output[0])) * summed
    equation = attribute(node, "equation", b"").decode().replace(" ", "") if node.op_type == "Einsum" else ""
    if equation.count(",") == 1 and "." not in equation:
        letters = equation.partition("->")[0].replace(",", "")
        sizes = dict(zip(letters, (size for name in node.input for size in shape(name)), strict=True))
        return 2 * math.prod(sizes.values())
    return 0
