"""Check that a fused graph has the outputs of the graphs that went into it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from edgetl.arrays import AnyArray
from edgetl.artifacts.fusion_report import Verification
from edgetl.errors import EdgetlError
from edgetl.graph.fusion.inputs import is_image, kind
from edgetl.graph.fusion.numbering import quantises
from edgetl.graph.model import real_inputs
from edgetl.graph.parity import Outputs, Session, max_difference

Feed = dict[str, AnyArray]

_FREE_SIZE = 224  # pixels of images whose size the graph leaves open
# A runtime fuses other nodes where a tensor has more readers, and so rounds differently.
_FP32, _FP16, _INT8 = 1e-4, 1e-2, 5e-2


def random_inputs(model: onnx.ModelProto, count: int, seed: int) -> Feed:
    """Random values for every input: in [0, 1) for numbers, 0 or 1 for integers, any byte for images of bytes.

    Args:
        count: images, for graphs with a dynamic batch.

    Raises:
        EdgetlError: an input is no tensor of numbers, or its shape is not told.
    """
    random, feed = np.random.default_rng(seed), {}
    for value in real_inputs(model.graph):
        shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        free = [count, 0, _FREE_SIZE, _FREE_SIZE] if is_image(value) else [count]
        shape = [size or free[axis] if axis < len(free) else size for axis, size in enumerate(shape)]
        element = value.type.tensor_type.elem_type
        unfit = element in {TensorProto.UNDEFINED, TensorProto.STRING} or element not in TensorProto.DataType.values()
        if not value.type.tensor_type.HasField("shape") or 0 in shape or unfit:
            raise EdgetlError(
                f"input {value.name!r} is {kind(value)}, which random images cannot be made for; export the models "
                "with a fixed shape of numbers, dynamic in the batch at most"
            )
        dtype = helper.tensor_dtype_to_np_dtype(element)
        if np.issubdtype(dtype, np.integer) or dtype == np.bool_:
            feed[value.name] = random.integers(0, 256 if is_image(value) else 2, shape).astype(dtype)
        else:
            feed[value.name] = random.random(shape, np.float32).astype(dtype)
    return feed


def verify(
    fused: Path,
    graphs: Mapping[str, Path],
    tensors: Mapping[str, Mapping[str, str]],
    batches: Sequence[Feed],
    allowed: float,
) -> Verification:
    """Run a fused graph and the original graphs, one after the other, and compare their outputs.

    Args:
        fused: the file of the fused graph.
        graphs: the files of the original graphs, by their prefixes.
        tensors: for each, the names of its tensors in the fused graph.
        batches: inputs of the fused graph.
        allowed: the difference that an output may have, relative to its largest value.

    Raises:
        EdgetlError: ONNX Runtime does not take a graph, or an output is no tensor of numbers.
    """
    together = _run(Session(fused), batches)
    apart: dict[str, float] = {}
    wrong: list[str] = []
    random: list[str] = []
    for prefix, path in graphs.items():
        session = Session(path)
        own = [{name: batch[tensors[prefix][name]] for name in session.inputs} for batch in batches]
        alone, again = _run(session, own), session.run(own[0])
        for name, value in alone[0].items():
            title = f"{prefix}/{name}"
            # What differs from run to run is random, and nothing to compare with.
            if not np.array_equal(value, again[name], equal_nan=np.issubdtype(value.dtype, np.inexact)):
                random.append(title)
                continue
            pairs = [(one[name], other[title]) for one, other in zip(alone, together, strict=True)]
            apart[title] = max(max_difference({title: one}, {title: other}) for one, other in pairs)
            peaks = [np.abs(one[np.isfinite(one)].astype(np.float64)).max(initial=0.0) for one, _ in pairs]
            if apart[title] > allowed * float(max(peaks)):
                wrong.append(title)
    return Verification(max(apart.values(), default=0.0), next(iter(wrong), None), tuple(random))


def tolerance(models: Iterable[onnx.ModelProto]) -> float:
    """The allowed difference of an output, relative to its largest value: more in a lower precision."""
    graphs = [model.graph for model in models]
    if any(quantises(node) for graph in graphs for node in graph.node):
        return _INT8
    halves = {TensorProto.FLOAT16, TensorProto.BFLOAT16}
    return _FP16 if any(tensor.data_type in halves for graph in graphs for tensor in graph.initializer) else _FP32


def _run(session: Session, batches: Sequence[Feed]) -> list[Outputs]:
    results = [session.run(batch) for batch in batches]
    for name, value in results[0].items():
        if not isinstance(value, np.ndarray) or not (np.issubdtype(value.dtype, np.number) or value.dtype == np.bool_):
            raise EdgetlError(f"output {name!r} is no tensor of numbers, so it cannot be compared; remove it")
    return results
