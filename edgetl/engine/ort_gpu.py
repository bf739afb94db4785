"""ONNX Runtime on a GPU, by its CUDA or its TensorRT provider, where an onnxruntime that has them is installed."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime

from edgetl.arrays import Float32Array
from edgetl.config import QdqFormat
from edgetl.engine.layer_precisions import graph_layers, graph_precisions, read_structure
from edgetl.engine.layer_times import LayerTimes
from edgetl.engine.nvidia.device import find_device
from edgetl.engine.nvidia.timing_cache import cache_folder
from edgetl.engine.options import BATCHES, BuildOptions, BuildResources, RunOptions, refuse_options
from edgetl.engine.ort import ERRORS_ONLY, OrtEngine, session
from edgetl.engine.runtime import BuildInfo, Engine
from edgetl.errors import EdgetlError


@dataclass(frozen=True)
class GpuProvider:
    """A `Runtime` that uses one of ONNX Runtime's providers and refuses graphs that need the CPU too."""

    NAME: str
    provider: str
    QDQ_FORMAT: QdqFormat
    SUFFIX: str = ".onnx"

    def target(self, options: BuildOptions) -> dict[str, str]:
        refuse_options(self.NAME, options, BATCHES, "leave it out, or use --runtime tensorrt")
        return self.here(options)

    def here(self, options: BuildOptions) -> dict[str, str]:
        del options
        if self.provider not in onnxruntime.get_available_providers():
            raise EdgetlError(
                f"this onnxruntime ({onnxruntime.__version__}) has no {self.provider}; install one that has: "
                "pip uninstall onnxruntime, then pip install onnxruntime-gpu"
            )
        device = find_device()
        return {
            "onnxruntime": onnxruntime.__version__,
            "provider": self.provider,
            "compute capability": device.capability,
            "device": device.title,
        }

    def unsupported(self, precision: str) -> str | None:
        if precision == "int8" and self.QDQ_FORMAT == "onnxruntime":
            return "ONNX Runtime's CUDA provider has no INT8 convolutions: it would compute between Q/DQ nodes in FP32"
        return None

    def build(self, graph: Path, engine: Path, options: BuildOptions, resources: BuildResources) -> BuildInfo:
        """Write the optimised graph. TensorRT's provider compiles at loading, and its engine is the graph itself."""
        del options, resources
        settings = self._settings()
        if self.QDQ_FORMAT == "onnxruntime":
            settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
            settings.optimized_model_filepath = str(engine)
            self._session(graph, settings)
        else:
            shutil.copyfile(graph, engine)
            self._session(engine, settings)  # what the provider refuses, it refuses now and not at the first load
        return BuildInfo({"device": find_device().title}, graph_layers(read_structure(engine)))

    def load(self, engine: Path, options: BuildOptions, run: RunOptions) -> Engine:
        del options
        if run.cuda_graph or run.scratch is not None:
            raise EdgetlError(f"{self.NAME} takes no CUDA graphs and no shared scratch memory; use runtime tensorrt")
        return OrtEngine(engine.name, self._session(engine, self._settings()))

    def layer_times(
        self, engine: Path, options: BuildOptions, run: RunOptions, inputs: Sequence[Float32Array], runs: int
    ) -> LayerTimes:
        del engine, options, run, inputs, runs
        raise EdgetlError(
            f"{self.NAME} tells no times of layers: on a GPU ONNX Runtime's profiler times how long work takes to "
            "queue; use runtime tensorrt"
        )

    def _settings(self) -> onnxruntime.SessionOptions:
        settings = onnxruntime.SessionOptions()
        settings.log_severity_level = ERRORS_ONLY
        settings.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        return settings

    def _session(self, path: Path, settings: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
        options: dict[str, Any] = {}
        if self.QDQ_FORMAT == "tensorrt":
            precisions = graph_precisions(read_structure(path))
            options = {
                "trt_fp16_enable": "fp16" in precisions,
                "trt_int8_enable": "int8" in precisions,
                "trt_engine_cache_enable": True,
                "trt_engine_cache_path": str(cache_folder() / "onnxruntime"),
            }
        loaded = session(path, settings, [(self.provider, options)])
        # Where a provider's libraries are missing, ONNX Runtime warns and takes the CPU.
        if loaded.get_providers()[0] != self.provider:
            raise EdgetlError(
                f"ONNX Runtime {onnxruntime.__version__} cannot start {self.provider} and took "
                f"{loaded.get_providers()[0]} instead; see edgetl doctor"
            )
        return loaded


CUDA = GpuProvider("onnxruntime-cuda", "CUDAExecutionProvider", "onnxruntime")
TENSORRT = GpuProvider("onnxruntime-tensorrt", "TensorrtExecutionProvider", "tensorrt")
