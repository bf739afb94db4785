"""TensorRT-RTX: builds ahead of time for a chosen compute capability, without a GPU.

Networks are strongly typed: the precision is in the prepared graph, no builder flag changes it.
"""

from __future__ import annotations

import threading
from pathlib import Path
from types import ModuleType
from typing import Any

from edgetl.engine.runtime import BuildOptions, Engine, Spelling
from edgetl.errors import EdgetlError, MissingExtraError

NAME = "tensorrt-rtx"
SUFFIX = ".engine"
SPELLING: Spelling = "tensorrt"

_DEFAULT_CAPABILITY = "SM86"


def target(options: BuildOptions) -> dict[str, str]:
    trt = _module()
    return {"tensorrt-rtx": trt.__version__, "compute capability": _capability(trt, options)[0]}


def unsupported(precision: str) -> str | None:
    del precision
    return None


def build(graph: Path, engine: Path, options: BuildOptions) -> None:
    trt = _module()
    log = _Log(trt)
    builder = trt.Builder(log.logger)
    network = builder.create_network(0)
    _parse(trt, network, log, graph)
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(_capability(trt, options)[1], 0)
    config.add_optimization_profile(_profile(builder, network, options.max_batch))
    serialized = builder.build_serialized_network(network, config)
    if serialized is None:
        raise EdgetlError(f"TensorRT-RTX cannot build {graph}: {log.first_error()}")
    engine.write_bytes(memoryview(serialized))


def load(engine: Path, threads: int) -> Engine:
    del threads
    raise EdgetlError(
        f"{engine.name} needs an NVIDIA GPU to run, which this version does not drive yet; "
        "evaluate and profile with runtime onnxruntime"
    )


def _module() -> ModuleType:
    try:
        import tensorrt_rtx  # absent on most machines
    except ImportError as error:
        raise MissingExtraError("runtime tensorrt-rtx", "rtx", error) from error
    module: ModuleType = tensorrt_rtx
    return module


def _capability(trt: Any, options: BuildOptions) -> tuple[str, Any]:
    wanted = options.compute_capability or _DEFAULT_CAPABILITY
    known = sorted(name for name in vars(trt.ComputeCapability) if name.startswith("SM"))
    if wanted not in known:
        raise EdgetlError(
            f"TensorRT-RTX {trt.__version__} cannot build for compute capability {wanted}; it knows {', '.join(known)}"
        )
    return wanted, getattr(trt.ComputeCapability, wanted)


def _parse(trt: Any, network: Any, log: _Log, graph: Path) -> None:
    parser = trt.OnnxParser(network, log.logger)
    if not parser.parse_from_file(str(graph)):
        faults = [parser.get_error(number) for number in range(parser.num_errors)]
        first = (
            f"node {faults[0].node_name()} ({faults[0].node_operator()}): {faults[0].desc()}"
            if faults
            else log.first_error()
        )
        raise EdgetlError(f"TensorRT-RTX cannot read {graph}: {' '.join(str(first).split())}")


def _profile(builder: Any, network: Any, max_batch: int) -> Any:
    """Batch 1 is what devices run; up to ``max_batch`` is allowed."""
    profile = builder.create_optimization_profile()
    for number in range(network.num_inputs):
        tensor = network.get_input(number)
        rest = tuple(tensor.shape)[1:]
        profile.set_shape(tensor.name, (1, *rest), (1, *rest), (max_batch, *rest))
    return profile


class _Log:
    """Keeps the builder's errors for the one line that the user sees, and its chatter off the terminal."""

    def __init__(self, trt: Any) -> None:
        errors: list[str] = []
        lock = threading.Lock()

        class Logger(trt.ILogger):  # type: ignore[misc]  # the bindings have no types
            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: Any, message: str) -> None:
                if severity <= trt.ILogger.ERROR:
                    with lock:
                        errors.append(message)

        self._errors = errors
        self.logger = Logger()

    def first_error(self) -> str:
        return " ".join(self._errors[0].split()) if self._errors else "it gave no reason"
