"""ONNX Runtime on the CPU: the runtime that is everywhere.

Its engine is the graph after ONNX Runtime's own optimiser, laid out for this processor.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnxruntime

from edgetl.arrays import Float32Array
from edgetl.config import QdqFormat
from edgetl.engine.layer_precisions import graph_layers, read_structure
from edgetl.engine.layer_times import LayerTimes
from edgetl.engine.options import BATCHES, BuildOptions, BuildResources, RunOptions, refuse_options
from edgetl.engine.ort_profile import read_profile
from edgetl.engine.processor import multiplies_bytes_exactly, processor
from edgetl.engine.runtime import BuildInfo, Engine
from edgetl.errors import EdgetlError

NAME = "onnxruntime"
SUFFIX = ".onnx"
QDQ_FORMAT: QdqFormat = "onnxruntime"

_CPU = ("CPUExecutionProvider",)
ERRORS_ONLY = 3  # of ONNX Runtime's levels of severity: 0 verbose to 4 fatal
_WARM_UP_RUNS = 3  # the first ones allocate the arena and fault in the weights


def target(options: BuildOptions) -> dict[str, str]:
    refuse_options(NAME, options, BATCHES, "leave it out, or use --runtime tensorrt or tensorrt-rtx")
    return here(options)


def here(options: BuildOptions) -> dict[str, str]:
    del options
    return {"onnxruntime": onnxruntime.__version__, "processor": processor()}


def unsupported(precision: str) -> str | None:
    if precision == "fp16":
        return "ONNX Runtime's CPU has no FP16 kernels: it would convert to FP32 and back"
    return None


def build(graph: Path, engine: Path, options: BuildOptions, resources: BuildResources) -> BuildInfo:
    del options, resources
    settings = _session_options(threads=1)
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    settings.optimized_model_filepath = str(engine)
    try:
        session(graph, settings)
    except EdgetlError as error:
        session(graph, _session_options(threads=1))  # this fails too, and says why, where the graph is at fault
        raise OSError("ONNX Runtime failed to write the engine") from error
    return BuildInfo({}, graph_layers(read_structure(engine)))


def load(engine: Path, options: BuildOptions, run: RunOptions) -> Engine:
    del options
    settings = _session_options(run.threads)
    # The optimiser wrote this file: to optimise it again would cost start-up time and change nothing.
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return OrtEngine(engine.name, session(engine, settings))


def layer_times(
    engine: Path, options: BuildOptions, run: RunOptions, inputs: Sequence[Float32Array], runs: int
) -> LayerTimes:
    del options
    settings = _session_options(run.threads)
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    settings.enable_profiling = True
    with tempfile.TemporaryDirectory() as scratch:
        settings.profile_file_prefix = str(Path(scratch) / "profile")
        watched = session(engine, settings)
        loaded = OrtEngine(engine.name, watched)
        try:
            for _ in range(_WARM_UP_RUNS + runs):
                loaded.infer(*inputs)
        finally:
            profile = Path(watched.end_profiling())
        return read_profile(profile, _WARM_UP_RUNS)


def _session_options(threads: int) -> onnxruntime.SessionOptions:
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.log_severity_level = ERRORS_ONLY
    # Threads of one engine that spin while another runs would falsify both engines' times.
    settings.add_session_config_entry("session.force_spinning_stop", "1")
    if not multiplies_bytes_exactly():
        # The fast u8 x s8 kernels overflow there; the exact ones take twice as long where they are not needed.
        settings.add_session_config_entry("session.x64quantprecision", "1")
    return settings


def session(
    path: Path, settings: onnxruntime.SessionOptions, providers: Sequence[Any] = _CPU
) -> onnxruntime.InferenceSession:
    """Make a session of a graph.

    Raises:
        EdgetlError: ONNX Runtime does not take the graph.
    """
    try:
        return onnxruntime.InferenceSession(str(path), settings, providers=list(providers))
    except Exception as error:  # ONNX Runtime's exception types share no base but Exception
        raise EdgetlError(f"ONNX Runtime {onnxruntime.__version__} cannot load {path}: {_one_line(error)}") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


class OrtEngine:
    """An `Engine` that runs a session of ONNX Runtime."""

    def __init__(self, name: str, session: onnxruntime.InferenceSession) -> None:
        self._name = name
        self._session = session
        self._inputs = [value.name for value in session.get_inputs()]
        self._outputs = [output.name for output in session.get_outputs()]

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        # A dynamic dimension is a name or None; the batch is the only one.
        return tuple(
            tuple(size if isinstance(size, int) else 1 for size in value.shape) for value in self._session.get_inputs()
        )

    def infer(self, *inputs: Float32Array) -> dict[str, Float32Array]:
        try:
            values = self._session.run(None, dict(zip(self._inputs, inputs, strict=True)))
        except Exception as error:  # see `session`
            found = " and ".join(str(list(value.shape)) for value in inputs)
            raise EdgetlError(f"{self._name} cannot run on inputs of {found}: {_one_line(error)}") from error
        return dict(zip(self._outputs, values, strict=True))
