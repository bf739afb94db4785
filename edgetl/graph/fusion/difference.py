"""The reason, in words, why two layers that read the same tensors are not the same."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
import onnx
from onnx import numpy_helper

from edgetl.arrays import AnyArray, Float64Array
from edgetl.graph.fusion.numbering import SCALED, attribute_key

STATISTICS = "batch-norm statistics differ although weights are equal: was batch norm left in training mode?"

_WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_STATISTICS_SLOTS = {3, 4}
# How far a row of weights may be from a multiple of another, relative to its length.
_ROUNDING = {np.dtype(np.float64): 1e-4, np.dtype(np.float32): 1e-4, np.dtype(np.float16): 2e-3}
_INT8_ROUNDING = 2e-2  # of weights that were rounded to 127 steps
_FEW = 4


@dataclass(frozen=True)
class ComparedNode:
    """A node with its inputs.

    ``inputs``: the number of each input, None where an optional one is left out. ``values``: the value of each
    constant one. ``quantised``: a DequantizeLinear makes these values. ``first``: the node reads the images.
    """

    owner: str
    node: onnx.NodeProto
    version: int
    inputs: tuple[int | None, ...]
    values: tuple[AnyArray | None, ...]
    quantised: bool
    first: bool


def difference(a: ComparedNode, b: ComparedNode) -> str:
    """The reason why two layers with the same data inputs are not the same."""
    if (a.node.domain, a.node.op_type) != (b.node.domain, b.node.op_type):
        return f"operator differs: {_both(a, b, a.node.op_type, b.node.op_type)}"
    if attribute_key(a.node, a.version) != attribute_key(b.node, b.version):
        one, other = ({item.name: _attribute_text(item) for item in layer.node.attribute} for layer in (a, b))
        name = min((name for name in one.keys() | other.keys() if one.get(name) != other.get(name)), default="")
        values = _both(a, b, one.get(name, "its default"), other.get(name, "its default"))
        return f"attribute {name} differs: {values}"
    slots = {slot for slot, (one, other) in enumerate(zip_longest(a.inputs, b.inputs)) if one != other}
    if not slots:
        return "which of its outputs are used differs"
    if a.node.op_type in SCALED:
        return f"scales differ: {_both(a, b, _scale(a), _scale(b))}"
    if a.node.op_type == "BatchNormalization":
        return STATISTICS if slots <= _STATISTICS_SLOTS else "batch-norm weights differ"
    return _constant(a, b, min(slots))


def _both(a: ComparedNode, b: ComparedNode, one: object, other: object) -> str:
    return f"{one} in {a.owner}, {other} in {b.owner}"


def _attribute_text(item: onnx.AttributeProto) -> str:
    value = onnx.helper.get_attribute_value(item)
    if isinstance(value, onnx.TensorProto):
        return _short(numpy_helper.to_array(value)) or "a tensor"
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _scale(layer: ComparedNode) -> str:
    scale, *zero_point = (_short(value) or "per channel" for value in layer.values[1:] if value is not None)
    return f"{scale} (zero point {zero_point[0]})" if zero_point and zero_point[0] != "0" else scale


def _constant(a: ComparedNode, b: ComparedNode, slot: int) -> str:
    what = {1: "weight", 2: "bias"}.get(slot, "constant") if a.node.op_type in _WEIGHTED else "constant"
    missing = next((layer.owner for layer in (a, b) if layer.inputs[slot : slot + 1] in {(), (None,)}), None)
    if missing is not None:
        return f"{missing} has no {what} here"
    one, other = a.values[slot], b.values[slot]
    if one is None or other is None:
        return f"{what} differs"
    if (one.shape, one.dtype) != (other.shape, other.dtype):
        return f"{what} differs in shape or type: {_both(a, b, _kind(one), _kind(other))}"
    if a.node.op_type == "Conv":
        return _folded(a, one, other, what) or f"{what} differs{_by_up_to(one, other)}"
    few = _short(one)
    return f"{what} differs: {_both(a, b, few, _short(other))}" if few else f"{what} differs{_by_up_to(one, other)}"


def _folded(layer: ComparedNode, one: AnyArray, other: AnyArray, what: str) -> str:
    """The reason if a batch norm behind a Conv, or a normalisation before it, was folded into it."""
    if what == "bias":
        return f"bias differs although weights are equal; if batch norm is folded into it, {STATISTICS}"
    tolerance = _INT8_ROUNDING if layer.quantised else _ROUNDING.get(one.dtype, 0.0)
    factors = factors_between(one, other, 0, tolerance)
    if factors is not None:
        told = f"{factors.min():.3g} to {factors.max():.3g}"
        return f"weight differs by a factor per channel ({told}); if batch norm is folded into it, {STATISTICS}"
    if layer.first and factors_between(one, other, 1, tolerance) is not None:
        return "weight differs by a factor per input channel: another normalisation is folded into it"
    return ""


# Weights of a damaged file may be anything, even signalling NaNs and infinities.
_any_numbers = np.errstate(invalid="ignore", over="ignore")


@_any_numbers
def factors_between(one: AnyArray, other: AnyArray, axis: int, tolerance: float) -> Float64Array | None:
    """The factor between each slice of ``one`` along an axis and that of ``other``; None where a slice is no multiple.

    Batch norm scales a Conv's weight W to W[c] * gamma[c] / sqrt(variance[c] + epsilon): other statistics, other
    positive factors. Slices of zeros, or of a single number, prove nothing; there must be others.
    """
    rows, others = (np.moveaxis(x, axis, 0).reshape(x.shape[axis], -1).astype(np.float64) for x in (one, other))
    length = np.linalg.norm(rows, axis=1)
    told = length > 0
    if rows.shape[1] < 2 or not told.any() or others[~told].any():
        return None
    factors = (rows * others).sum(axis=1)[told] / length[told] ** 2
    apart = np.linalg.norm(others[told] - factors[:, None] * rows[told], axis=1)
    alike = (factors > 0) & (apart <= tolerance * factors * length[told])
    return factors if alike.all() else None


@_any_numbers
def _by_up_to(one: AnyArray, other: AnyArray) -> str:
    if not np.issubdtype(one.dtype, np.number) or not one.size:
        return ""
    return f" by up to {np.abs(one.astype(np.float64) - other.astype(np.float64)).max():.2g}"


def _short(value: AnyArray) -> str:
    """The numbers of a small array; nothing for a large one."""
    if value.size > _FEW or not (np.issubdtype(value.dtype, np.number) or value.dtype == np.bool_):
        return ""
    numbers = ", ".join(f"{item:.6g}" for item in value.ravel().tolist())
    return numbers if value.size == 1 else f"[{numbers}]"


def _kind(value: AnyArray) -> str:
    return f"{value.dtype} {list(value.shape)}"
