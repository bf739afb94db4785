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
    known = sorted(
        (name for name in vars(trt.ComputeCapability) if name.startswith("SM")), key=lambda name: int(name[2:])
    )
    if wanted not in known:
        raise EdgetlError(
            f"TensorRT-RTX {trt.__version__} cannot build for compute capability {wanted}; it knows {', '.join(known)}"
        )
    return wanted, getattr(trt.ComputeCapability, wanted)


def _parse(trt: Any, network: Any, log: _Log, graph: Path) -> None:
    parser = trt.OnnxParser(network, log.logger)
    if not parser.parse_from_file(str(graph)):
        reason = _explain(parser.get_error(0)) if parser.num_errors else log.first_error()
        raise EdgetlError(f"TensorRT-RTX cannot read {graph}: {reason}")


def _explain(fault: Any) -> str:
    """The node by name, or by number where it has none. The description alone may be as short as ``false``."""
    node = f"node {fault.node_name() or fault.node()} ({fault.node_operator()}): " if fault.node_operator() else ""
    kind = fault.code().name.replace("_", " ").lower()
    return f"{node}{kind}: {' '.join(fault.desc().split())}"


def _profile(builder: Any, network: Any, max_batch: int) -> Any:
    """Batch 1 is what devices run; up to ``max_batch`` is allowed. A graph with a fixed batch keeps it.

    Raises:
        EdgetlError: another dimension than the batch is open.
    """
    profile = builder.create_optimization_profile()
    for number in range(network.num_inputs):
        tensor = network.get_input(number)
        batch, *rest = tensor.shape
        if -1 in rest:
            shape = " x ".join("?" if size == -1 else str(size) for size in rest)
            raise EdgetlError(f"input {tensor.name} is N x {shape}, expected a fixed size; export the graph with one")
        least, most = (1, max_batch) if batch == -1 else (batch, batch)
        profile.set_shape(tensor.name, (least, *rest), (least, *rest), (most, *rest))
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
