"""The trtexec commands that build and time what edgetl would: for JetPack 5, whose Python is too old, or by preference.

The flags are those of NVIDIA's samples/common/sampleOptions.cpp of each version.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import onnx

from edgetl.engine.layer_precisions import graph_precisions, read_structure
from edgetl.engine.options import BuildOptions
from edgetl.errors import EdgetlError

_FIRST, _LAST_MAJOR = (8, 5), 11  # JetPack 5 has 8.5
# The versions that brought builder levels with compatible engines, and engines for a whole compute capability.
_LEVELS = (8, 6)
_SAME_CAPABILITY = (10, 13)
_HARDWARE = {"ampere-plus": "ampere+", "same-compute-capability": "sameComputeCapability"}


def parse_version(text: str) -> tuple[int, int]:
    """``10.3`` or ``8.6.1`` as major and minor.

    Raises:
        EdgetlError: it is no version, or one whose flags are not known here.
    """
    found = re.fullmatch(r"(\d+)\.(\d+)(\.\d+)*", text)
    if found is None:
        raise EdgetlError(f"{text!r} is no version of TensorRT; give one such as 8.5, 8.6, 10.3 or 11.4")
    version = int(found[1]), int(found[2])
    if version < _FIRST or version[0] > _LAST_MAJOR:
        raise EdgetlError(f"the flags of trtexec are known for TensorRT 8.5 to {_LAST_MAJOR}, not for {text}")
    return version


def commands(
    graph: Path, engine: Path, options: BuildOptions, version: str, calibration_cache: Path | None
) -> tuple[str, str]:
    """The command that builds the engine of a prepared graph, and the one that times it.

    Raises:
        EdgetlError: trtexec of that version cannot do what the options ask for.
    """
    number = parse_version(version)
    model = read_structure(graph)
    dynamic = _dynamic_inputs(model)

    def shapes(batch: int) -> str:
        return ",".join(f"{name}:{'x'.join(map(str, (batch, *shape)))}" for name, shape in dynamic)

    build = ["trtexec", f"--onnx={graph}", f"--saveEngine={engine}"]
    if dynamic:  # trtexec refuses shapes for a graph with a fixed batch
        sizes = {"min": options.min_batch, "opt": options.opt_batch, "max": options.max_batch}
        build += [f"--{bound}Shapes={shapes(batch)}" for bound, batch in sizes.items()]
    build += [*_precision(model, number, options, calibration_cache), *_building(options, number)]
    build += ["--skipInference" if number >= _LEVELS else "--buildOnly"]
    time = ["trtexec", f"--loadEngine={engine}", *([f"--shapes={shapes(1)}"] if dynamic else [])]
    # One thing on every version: transfers, no CUDA graph, spinning. TensorRT 11 turned all three defaults round.
    time += ["--includeDataTransfers", "--noCudaGraph"] if number[0] >= 11 else ["--useSpinWait"]
    if options.dla_core is not None:
        time.append(f"--useDLACore={options.dla_core}")
    return shlex.join(build), shlex.join(time)


def _precision(
    model: onnx.ModelProto, number: tuple[int, int], options: BuildOptions, cache: Path | None
) -> Iterator[str]:
    """The flags of precision. Types are in the graph: TensorRT 10 has to keep them, 8 to allow them, 11 always does."""
    precisions = graph_precisions(model)
    if cache is not None and number[0] >= 11:
        raise EdgetlError("TensorRT 11 takes no calibration cache; give it a graph in INT8 instead")
    if cache is not None:
        yield from ("--int8", "--fp16", f"--calib={cache}")
    elif number[0] < 10 or (number[0] == 10 and options.dla_core is not None):
        yield from (f"--{precision}" for precision in ("fp16", "int8") if precision in precisions)
    elif number[0] == 10:
        yield "--stronglyTyped"


def _building(options: BuildOptions, number: tuple[int, int]) -> Iterator[str]:
    if options.workspace_mb is not None:
        yield f"--memPoolSize=workspace:{options.workspace_mb}"
    if options.optimization_level is not None or options.version_compatible or options.hardware_compatible:
        _refuse_before(number, _LEVELS, "a builder level or compatible engines")
    if options.optimization_level is not None:
        yield f"--builderOptimizationLevel={options.optimization_level}"
    if options.version_compatible:
        yield "--versionCompatible"
    if options.hardware_compatible == "same-compute-capability":
        _refuse_before(number, _SAME_CAPABILITY, "engines for every device of a compute capability")
    if options.hardware_compatible is not None:
        yield f"--hardwareCompatibilityLevel={_HARDWARE[options.hardware_compatible]}"
    if options.sparse:
        yield "--sparsity=enable"
    if options.dla_core is not None:
        yield f"--useDLACore={options.dla_core}"
    if options.gpu_fallback:
        yield "--allowGPUFallback"
    yield "--profilingVerbosity=detailed"


def _refuse_before(number: tuple[int, int], first: tuple[int, int], what: str) -> None:
    if number < first:
        raise EdgetlError(f"trtexec does {what} from TensorRT {first[0]}.{first[1]} on; leave it out")


def _dynamic_inputs(model: onnx.ModelProto) -> list[tuple[str, tuple[int, ...]]]:
    """The inputs with a dynamic batch, each with its other sizes."""
    constants = {tensor.name for tensor in model.graph.initializer}
    found = []
    for value in model.graph.input:
        dims = value.type.tensor_type.shape.dim
        if value.name in constants or not dims or dims[0].HasField("dim_value"):
            continue
        if any(not dim.HasField("dim_value") for dim in dims[1:]):
            raise EdgetlError(
                f"input {value.name} has an open size beside the batch; export the graph with a fixed one"
            )
        found.append((value.name, tuple(dim.dim_value for dim in dims[1:])))
    return found
