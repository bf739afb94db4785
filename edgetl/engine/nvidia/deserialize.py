"""Load engine files into TensorRT, and list their layers."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgetl.artifacts.engine_manifest import EngineLayer
from edgetl.artifacts.files import read_bytes
from edgetl.engine.nvidia.generations import TensorRTPackage
from edgetl.engine.nvidia.monitor import Log
from edgetl.engine.options import BuildOptions
from edgetl.errors import EdgetlError

# The first pattern that is found counts: a tensor's entry names its memory format too.
_TYPES = (
    (r"int8|kint8", "int8"),
    (r"bf16|bfloat16", "bf16"),  # first: its name holds the next one's
    (r"fp16|half|float16", "fp16"),
    (r"fp8", "fp8"),
    (r"fp32|\bfloat\b|float32", "fp32"),
    (r"int32", "int32"),
    (r"int64", "int64"),
    (r"bool", "bool"),
)


@dataclass(frozen=True)
class DeserializedEngine:
    """A deserialised engine, with the objects that must live as long as it does."""

    product: TensorRTPackage
    trt: Any
    log: Log
    runtime: Any
    engine: Any


def deserialise(product: TensorRTPackage, path: Path, options: BuildOptions) -> DeserializedEngine:
    """Load an engine file into TensorRT, which trusts it: the caller has checked what the file is.

    Raises:
        EdgetlError: TensorRT does not take it.
    """
    trt = product.load()
    log = Log(trt)
    runtime = trt.Runtime(log.logger)
    if runtime is None:
        raise EdgetlError(f"{product.title} {trt.__version__} does not start: {_reason(log)}")
    if options.version_compatible:
        runtime.engine_host_code_allowed = True  # such an engine brings its own runtime
    if options.dla_core is not None:
        runtime.DLA_core = options.dla_core
    engine = runtime.deserialize_cuda_engine(read_bytes(path))
    if engine is None:
        raise EdgetlError(f"{product.title} {trt.__version__} cannot load {path}: {_reason(log)}; build it again")
    return DeserializedEngine(product, trt, log, runtime, engine)


def _reason(log: Log) -> str:
    return log.errors[0][:300] if log.errors else "it gave no reason"


def layers(plan: DeserializedEngine) -> tuple[EngineLayer, ...]:
    """List the layers that the builder made of the graph, and the precision of each."""
    text = plan.engine.create_engine_inspector().get_engine_information(plan.trt.LayerInformationFormat.JSON)
    return parse_layers(text)


def parse_layers(text: str) -> tuple[EngineLayer, ...]:
    """Read the layers from the JSON of the engine inspector.

    Up to TensorRT 10 a tensor has one field ``Format/Datatype``, from 11 on two. A layer that was built without details
    is only a name.
    """
    try:
        listed = json.loads(text).get("Layers", [])
    except (ValueError, AttributeError):
        return ()
    found = []
    for layer in listed:
        if isinstance(layer, str):
            found.append(EngineLayer(name=layer, operator="unknown", precision="unknown"))
        elif isinstance(layer, dict):
            name, operator = str(layer.get("Name", "")), str(layer.get("LayerType", "unknown"))
            found.append(EngineLayer(name=name, operator=operator, precision=_precision(layer)))
    return tuple(found)


def _precision(layer: Mapping[str, Any]) -> str:
    """The type of the first input or, without one, of the first output; "unknown" where no type is given."""
    for tensor in (*layer.get("Inputs", []), *layer.get("Outputs", [])):
        if isinstance(tensor, dict):
            types = " ".join(str(value) for key, value in tensor.items() if re.search("format|type", key, re.I)).lower()
            found = next((name for pattern, name in _TYPES if re.search(pattern, types)), None)
            if found is not None:
                return found
    return "unknown"
