"""The one builder for every TensorRT: a prepared graph in, an engine out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgetl.engine.layer_precisions import graph_precisions, read_structure
from edgetl.engine.nvidia import timing_cache
from edgetl.engine.nvidia.device import CudaDevice
from edgetl.engine.nvidia.faults import explain_builder, explain_parser
from edgetl.engine.nvidia.generations import TensorRTPackage, has, network_flags
from edgetl.engine.nvidia.int8_calibrator import make_calibrator, read_cache
from edgetl.engine.nvidia.monitor import Log, make_monitor
from edgetl.engine.options import BuildOptions, BuildResources
from edgetl.errors import EdgetlError

_MB = 2**20
# Unless it is set, a layer's scratch memory is at most a quarter of the device's: on a Jetson the system needs it too.
_WORKSPACE_DIVISOR = 4


@dataclass(frozen=True)
class BuildJob:
    """One build. ``device`` is the GPU of this machine, None where it has none."""

    product: TensorRTPackage
    trt: Any
    graph: Path
    options: BuildOptions
    resources: BuildResources
    device: CudaDevice | None

    @property
    def title(self) -> str:
        return f"{self.product.title} {self.trt.__version__}"


def build(job: BuildJob) -> bytes:
    """Build an engine and return it serialised.

    Networks are strongly typed: the prepared graph holds the precision, and no builder flag changes it. TensorRT 8, and
    DLA cores up to TensorRT 10, know weak typing only; there the flags allow the precisions that are in the graph.

    Raises:
        EdgetlError: TensorRT does not take the graph or the options, or runs out of memory.
    """
    model = read_structure(job.graph)
    precisions = graph_precisions(model)
    weak = _is_weak(job, precisions)
    log = Log(job.trt)
    builder = job.trt.Builder(log.logger)
    if builder is None:  # the bindings return None where TensorRT finds no driver
        raise EdgetlError(f"{job.title} does not start: {explain_builder(log.errors, model)}")
    network = builder.create_network(network_flags(job.trt, weak))
    parser = job.trt.OnnxParser(network, log.logger)
    if not parser.parse_from_file(str(job.graph)):
        raise EdgetlError(f"{job.title} cannot read {job.graph}: {explain_parser(parser, job.trt, model, log.errors)}")
    config = builder.create_builder_config()
    _configure(job, builder, config)
    config.add_optimization_profile(_profile(builder, network, job.options))
    calibrator = _allow_precisions(job, config, precisions) if weak else None
    with _progress(job, config), _timing(job, config):
        serialised = builder.build_serialized_network(network, config)
        if serialised is None:
            raise EdgetlError(f"{job.title} cannot build {job.graph}: {explain_builder(log.errors, model)}")
    del calibrator  # the builder holds no reference of its own
    return bytes(memoryview(serialised))


def _is_weak(job: BuildJob, precisions: frozenset[str]) -> bool:
    """Whether the network has to be weakly typed.

    Raises:
        EdgetlError: this TensorRT's DLA or calibration cannot do what the job asks for.
    """
    if job.resources.calibration_cache is not None:
        if not has(job.trt, "calibration"):
            raise EdgetlError(
                f"{job.title} takes no calibration cache; give it a graph in INT8 (edgetl prepare --precision int8)"
            )
        if "int8" in precisions:
            raise EdgetlError(f"{job.graph} is INT8 already; give the FP32 or FP16 graph with --calibration-cache")
        return True
    if job.options.dla_core is None or not has(job.trt, "weak typing"):
        return not has(job.trt, "strong typing")
    if "int8" in precisions:
        raise EdgetlError(
            f"a DLA core takes no Q/DQ nodes from {job.title}, and {job.graph} has some; give the FP16 graph, with "
            "--calibration-cache for INT8"
        )
    if "fp16" not in precisions:
        raise EdgetlError(
            f"{job.graph} is FP32 and a DLA core computes in FP16 or INT8; prepare it with --precision fp16, or give "
            "--calibration-cache"
        )
    return True


def _configure(job: BuildJob, builder: Any, config: Any) -> None:
    trt, options = job.trt, job.options
    # Without details the engine inspector lists the layers' names alone, and no precisions.
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if options.optimization_level is not None:
        config.builder_optimization_level = options.optimization_level
    workspace_mb = options.workspace_mb
    if workspace_mb is None and job.device is not None:
        workspace_mb = job.device.memory_mb // _WORKSPACE_DIVISOR
    if workspace_mb is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace_mb * _MB)
    if options.sparse:
        config.set_flag(trt.BuilderFlag.SPARSE_WEIGHTS)
    if options.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if (level := options.hardware_compatible) is not None:
        if level == "same-compute-capability" and not has(trt, "same compute capability"):
            raise EdgetlError(f"{job.title} cannot build for every device of a compute capability; leave it out")
        config.hardware_compatibility_level = getattr(trt.HardwareCompatibilityLevel, level.replace("-", "_").upper())
    if job.product.ahead_of_time:
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(trt.ComputeCapability, str(options.compute_capability)), 0)
    if options.dla_core is not None:
        _use_dla(job, builder, config, options.dla_core)


def _use_dla(job: BuildJob, builder: Any, config: Any, core: int) -> None:
    if core >= builder.num_DLA_cores:  # they are counted from 0
        raise EdgetlError(f"DLA core {core} is asked for, and {job.title} finds {builder.num_DLA_cores} on this device")
    if job.options.min_batch != job.options.max_batch:
        raise EdgetlError("a DLA core takes one batch size alone; give --batches with one number, such as --batches 1")
    config.default_device_type = job.trt.DeviceType.DLA
    config.DLA_core = core
    if job.options.gpu_fallback:
        config.set_flag(job.trt.BuilderFlag.GPU_FALLBACK)


def _allow_precisions(job: BuildJob, config: Any, precisions: frozenset[str]) -> Any:
    """Allow a weakly typed network's precisions; return the calibrator, which must live as long as the build."""
    flags, cache = job.trt.BuilderFlag, job.resources.calibration_cache
    # With a cache, FP16 too: a DLA core has no FP32 for the layers that the cache gives no scale.
    if "fp16" in precisions or cache is not None:
        config.set_flag(flags.FP16)
    if "int8" in precisions or cache is not None:
        config.set_flag(flags.INT8)
    if cache is None:
        return None
    config.int8_calibrator = calibrator = make_calibrator(job.trt, read_cache(cache))
    return calibrator


def _profile(builder: Any, network: Any, options: BuildOptions) -> Any:
    """An optimization profile with the range of a dynamic batch; a fixed batch keeps its size.

    Raises:
        EdgetlError: a dimension besides the batch is dynamic.
    """
    profile = builder.create_optimization_profile()
    for number in range(network.num_inputs):
        tensor = network.get_input(number)
        batch, *rest = tensor.shape
        if -1 in rest:
            shape = " x ".join("?" if size == -1 else str(size) for size in rest)
            raise EdgetlError(f"input {tensor.name} is N x {shape}, expected a fixed size; export the graph with one")
        batches = (options.min_batch, options.opt_batch, options.max_batch) if batch == -1 else (batch,) * 3
        profile.set_shape(tensor.name, *((size, *rest) for size in batches))
    return profile


@contextmanager
def _progress(job: BuildJob, config: Any) -> Iterator[None]:
    """Report progress where the builder can; raise KeyboardInterrupt where the user interrupted the build."""
    monitor = None
    if has(job.trt, "progress"):
        config.progress_monitor = monitor = make_monitor(job.trt, job.resources.on_progress)
    try:
        yield
    except EdgetlError:  # a cancelled build returns no engine, as a failed one does
        if monitor is None or not monitor.interrupted:
            raise
    if monitor is not None and monitor.interrupted:
        raise KeyboardInterrupt


@contextmanager
def _timing(job: BuildJob, config: Any) -> Iterator[None]:
    """Let the build use the timing cache of this device and version, and add what it measured."""
    if job.resources.timing_caches is None or job.device is None or not job.product.times_kernels:
        yield
        return
    identity = (job.product.runtime, job.trt.__version__, job.device.title, job.device.capability, job.device.driver)
    path = timing_cache.cache_file(job.resources.timing_caches, *identity)
    timing_cache.use(config, path)
    yield
    timing_cache.keep(config, path)
