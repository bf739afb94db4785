"""An engine's inputs and outputs: names, types, shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetl.arrays import AnyArray
from edgetl.engine.nvidia.deserialize import DeserializedEngine
from edgetl.errors import EdgetlError

Shapes = tuple[tuple[int, ...], ...]

_DTYPES: Mapping[str, npt.DTypeLike] = {
    "FLOAT": np.float32,
    "HALF": np.float16,
    "INT8": np.int8,
    "UINT8": np.uint8,
    "INT32": np.int32,
    "INT64": np.int64,
    "BOOL": np.bool_,
}


@dataclass(frozen=True)
class EngineIO:
    """An input with its least and greatest shape; both are an output's declared shape, with -1 where it is dynamic."""

    name: str
    dtype: np.dtype[Any]
    least: tuple[int, ...]
    most: tuple[int, ...]

    @property
    def elements(self) -> int:
        return prod(self.most)

    def takes(self, value: AnyArray) -> bool:
        if value.dtype != self.dtype or len(value.shape) != len(self.most):
            return False
        return all(low <= n <= high for low, n, high in zip(self.least, value.shape, self.most, strict=True))

    def __str__(self) -> str:
        pairs = zip(self.least, self.most, strict=True)
        shape = " x ".join(str(low) if low == high else f"({low} to {high})" for low, high in pairs)
        return f"{self.name} as {self.dtype} {shape}"


def read_ports(plan: DeserializedEngine) -> tuple[tuple[EngineIO, ...], tuple[EngineIO, ...]]:
    """Read an engine's inputs and its outputs, each in the engine's order.

    Raises:
        EdgetlError: numpy has no such type.
    """
    engine, inputs, outputs = plan.engine, [], []
    for number in range(engine.num_io_tensors):
        name = engine.get_tensor_name(number)
        if engine.get_tensor_mode(name) == plan.trt.TensorIOMode.INPUT:
            least, _, most = (tuple(shape) for shape in engine.get_tensor_profile_shape(name, 0))
            inputs.append(EngineIO(name, _dtype(plan, name), least, most))
        else:
            shape = tuple(engine.get_tensor_shape(name))
            outputs.append(EngineIO(name, _dtype(plan, name), shape, shape))
    return tuple(inputs), tuple(outputs)


def check_inputs(engine: str, ports: Sequence[EngineIO], inputs: Sequence[AnyArray]) -> Shapes:
    """Check the inputs and return their shapes.

    Raises:
        EdgetlError: the engine does not take inputs of their number, type or shape.
    """
    if len(inputs) != len(ports):
        names = ", ".join(port.name for port in ports)
        raise EdgetlError(f"{engine} takes {len(ports)} inputs ({names}), found {len(inputs)}")
    for port, value in zip(ports, inputs, strict=True):
        if not port.takes(value):
            raise EdgetlError(f"{engine} takes {port}, found {value.dtype} {' x '.join(map(str, value.shape))}")
    return tuple(value.shape for value in inputs)


def _dtype(plan: DeserializedEngine, name: str) -> np.dtype[Any]:
    # Not trt.nptype: that of TensorRT 8.6 reads np.bool, which newer numpy removed.
    kind = plan.engine.get_tensor_dtype(name).name
    if kind not in _DTYPES:
        raise EdgetlError(f"{name} is {kind}, which numpy does not have; export the model with FP32 inputs and outputs")
    return np.dtype(_DTYPES[kind])
