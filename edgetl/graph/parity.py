"""Run a graph on ONNX Runtime's CPU, and compare two results."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from edgetl.arrays import AnyArray, Float32Array
from edgetl.errors import EdgetlError
from edgetl.graph.model import image_input, load_model, model_bytes, one_line

Outputs = dict[str, AnyArray]


class Session:
    """A graph in ONNX Runtime's CPU provider, exact rather than fast. A graph over 2 GiB is given as a file.

    Raises:
        EdgetlError: ONNX Runtime does not take the graph.
    """

    def __init__(self, graph: onnx.ModelProto | Path, optimised: bool = True, threads: int = 2) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # what it logs as an error it raises too, and that becomes one line
        options.intra_op_num_threads = threads
        # On x86 without VNNI the fast u8 x s8 kernels saturate at 16 bits; this key takes the exact ones.
        options.add_session_config_entry("session.x64quantprecision", "1")
        if not optimised:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        content = str(graph) if isinstance(graph, Path) else model_bytes(graph)
        try:
            # This change of layout crashes ONNX Runtime 1.31 on transformers in FP16.
            self._session = onnxruntime.InferenceSession(
                content, options, providers=["CPUExecutionProvider"], disabled_optimizers=["NchwcTransformer"]
            )
        except Exception as error:  # ONNX Runtime's exceptions have no other common base
            raise EdgetlError(f"ONNX Runtime does not take the graph: {one_line(error)}") from error
        self.inputs = tuple(value.name for value in self._session.get_inputs())
        self._names = [output.name for output in self._session.get_outputs()]

    def run(self, inputs: Mapping[str, AnyArray]) -> Outputs:
        """Run the graph: outputs by name, for inputs by name.

        Raises:
            EdgetlError: the inputs do not have the graph's names, types or shapes.
        """
        try:
            values = self._session.run(self._names, inputs)
        except Exception as error:  # as above
            found = " and ".join(f"{value.dtype} {list(value.shape)}" for value in inputs.values())
            raise EdgetlError(f"the graph cannot run on images of {found}: {one_line(error)}") from error
        return dict(zip(self._names, values, strict=True))


class Reference:
    """A session of a graph whose one input is images.

    Raises:
        EdgetlError: ONNX Runtime does not take the graph, or it has not one image input.
    """

    def __init__(self, model: onnx.ModelProto, optimised: bool = True, threads: int = 2) -> None:
        self._input = image_input(model)
        self._session = Session(model, optimised, threads)

    def run(self, images: Float32Array) -> Outputs:
        """Run the graph on images, float32 [n,3,H,W] in [0,1]: outputs by name.

        Raises:
            EdgetlError: the images do not have the input's type or shape.
        """
        return self._session.run({self._input: images})


def run(model: onnx.ModelProto | Path, images: Float32Array) -> Outputs:
    """Run a graph once on images, float32 [n,3,H,W] in [0,1]: outputs by name.

    Raises:
        EdgetlError: the file is no valid model, ONNX Runtime does not take it, or the images do not fit its input.
    """
    return Reference(load_model(model) if isinstance(model, Path) else model).run(images)


def max_difference(a: Mapping[str, AnyArray], b: Mapping[str, AnyArray]) -> float:
    """The largest absolute difference over all outputs; a NaN on either side counts as infinity.

    Raises:
        EdgetlError: the two have different outputs, or an output has different shapes.
    """
    if a.keys() != b.keys():
        raise EdgetlError(f"outputs differ: {', '.join(sorted(a))} against {', '.join(sorted(b))}")
    worst = 0.0
    for name, value in a.items():
        if value.shape != b[name].shape:
            raise EdgetlError(f"output {name!r} has shape {list(value.shape)} against {list(b[name].shape)}")
        # Equal infinities are no difference, though their subtraction is NaN.
        with np.errstate(invalid="ignore"):
            apart = np.abs(value.astype(np.float64) - b[name].astype(np.float64))
        apart[value == b[name]] = 0.0
        worst = max(worst, float(np.nan_to_num(apart, nan=np.inf, posinf=np.inf).max(initial=0.0)))
    return worst
