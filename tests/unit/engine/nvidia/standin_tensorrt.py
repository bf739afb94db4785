"""TensorRT as its bindings tell, made from ``bindings/bindings.json``: no class has a name that the real one lacks.

Reading or setting a name that a generation does not have fails as it does there, and so does a call with another number
of arguments. What the libraries would do (they are not to be had here) ONNX Runtime does, on a stand-in GPU's memory.
"""

from __future__ import annotations

import enum
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime

API: dict[str, Any] = json.loads((Path(__file__).parent / "bindings" / "bindings.json").read_text())
GENERATIONS = tuple(API)

_ALIASES = {"IParserError": "ParserError", "IEngineInspector": "EngineInspector"}
_DEFAULTS: dict[str, Any] = {"int": 0, "bool": True, "str": "", "None": None}
_KINDS = {1: "FLOAT", 3: "INT8", 6: "INT32", 7: "INT64", 9: "BOOL", 10: "HALF"}


class Play:
    """One generation, and what the test wants of it.

    ``touched`` collects every name that was used. ``refuse`` makes the build fail; ``cores`` is the number of DLA
    cores.
    """

    def __init__(self, version: str, gpu: Any = None) -> None:
        self.version, self.api, self.gpu = version, API[version], gpu
        self.touched: set[str] = set()
        self.refuse: str | None = None
        self.cores = 2
        self.configs: list[Any] = []
        self.flags: list[int] = []
        self.module = self._make_module()

    def _make_module(self) -> ModuleType:
        module = ModuleType("tensorrt")
        module.__version__ = self.version  # type: ignore[attr-defined]
        for name, values in self.api["enums"].items():
            setattr(module, name, enum.IntEnum(name, {value: number for number, value in enumerate(values)}))
        for name, members in self.api["classes"].items():
            setattr(module, name, self._make_class(module, name, members))
        severities = ("INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE")
        assert self.api["severities_are_ordered"]
        for number, name in enumerate(severities):
            setattr(module.ILogger, name, number)
        module.IOutputAllocator = type("IOutputAllocator", (), {})  # type: ignore[attr-defined]  # made by Python alone
        return module

    def _make_class(self, module: ModuleType, name: str, members: dict[str, Any]) -> type:
        play = self

        def new(self: Any, *arguments: Any) -> None:
            object.__setattr__(self, "_held", {})
            play._begin(name, self, arguments)

        def set_attribute(self: Any, attribute: str, value: Any) -> None:
            own = type(self).__name__ == name  # a class that the user derives may hold what it likes
            if own and attribute not in members["writable"]:
                raise AttributeError(f"{name} of TensorRT {play.version} has no writable {attribute}")
            if own:
                play.touched.add(f"{name}.{attribute}")
                self._held[attribute] = value
            else:
                object.__setattr__(self, attribute, value)

        body: dict[str, Any] = {"__init__": new, "__setattr__": set_attribute}
        for attribute, kind in members["properties"].items():
            body[attribute] = self._make_property(module, name, attribute, kind)
        for method, signatures in members["methods"].items():
            body[method] = self._make_method(module, name, method, signatures)
        return type(name, (), body)

    def _make_property(self, module: ModuleType, owner: str, attribute: str, kind: str) -> property:
        def get(instance: Any) -> Any:
            self.touched.add(f"{owner}.{attribute}")
            act = getattr(self, f"_{owner}_{attribute}", None)
            if act is not None:
                return act(instance)
            return instance._held.get(attribute, self._value(module, kind))

        return property(get)

    def _make_method(self, module: ModuleType, owner: str, method: str, signatures: list[dict[str, Any]]) -> Any:
        def call(instance: Any, *arguments: Any) -> Any:
            self.touched.add(f"{owner}.{method}")
            fitting = [s for s in signatures if s["required"] <= len(arguments) <= len(s["arguments"])]
            if not fitting:
                raise TypeError(f"{owner}.{method} of TensorRT {self.version} takes {signatures}, got {len(arguments)}")
            act = getattr(self, f"_{owner}_{method}", None)
            if act is not None:
                return act(instance, *arguments)
            return self._value(module, fitting[0]["returns"])

        return call

    def _value(self, module: ModuleType, kind: str) -> Any:
        bare = kind.rpartition("::")[2]
        bare = _ALIASES.get(bare, bare)
        return getattr(module, bare)() if bare in self.api["classes"] else _DEFAULTS.get(bare)

    # What follows does what the libraries would.

    def _begin(self, name: str, instance: Any, arguments: tuple[Any, ...]) -> None:
        if name == "OnnxParser":
            instance._held["network"] = arguments[0]
        if name == "IBuilderConfig":
            self.configs.append(instance)
            instance._held["flags_set"] = []

    def _Builder_num_DLA_cores(self, builder: Any) -> int:  # noqa: N802
        return self.cores

    def _Builder_create_network(self, builder: Any, flags: int = 0) -> Any:  # noqa: N802
        self.flags.append(flags)
        return self.module.INetworkDefinition()

    def _OnnxParser_parse_from_file(self, parser: Any, path: str) -> bool:  # noqa: N802
        parser._held["network"]._held["model"] = onnx.load(path)
        return True

    def _INetworkDefinition_num_inputs(self, network: Any) -> int:  # noqa: N802
        return len(network._held["model"].graph.input)

    def _INetworkDefinition_get_input(self, network: Any, number: int) -> Any:  # noqa: N802
        value = network._held["model"].graph.input[number]
        tensor = self.module.ITensor()
        dims = value.type.tensor_type.shape.dim
        tensor._held.update(name=value.name, shape=tuple(d.dim_value if d.HasField("dim_value") else -1 for d in dims))
        return tensor

    def _IBuilderConfig_set_flag(self, config: Any, flag: Any) -> None:  # noqa: N802
        config._held["flags_set"].append(flag.name)

    def _IOptimizationProfile_set_shape(self, profile: Any, name: str, least: Any, usual: Any, most: Any) -> None:  # noqa: N802
        profile._held[name] = [tuple(least), tuple(usual), tuple(most)]

    def _IBuilderConfig_add_optimization_profile(self, config: Any, profile: Any) -> int:  # noqa: N802
        config._held["profile"] = {name: shapes for name, shapes in profile._held.items() if isinstance(shapes, list)}
        return 0

    def _IBuilderConfig_create_timing_cache(self, config: Any, content: bytes) -> Any:  # noqa: N802
        cache = self.module.ITimingCache()
        cache._held["known"] = set(content.split())
        return cache

    def _IBuilderConfig_set_timing_cache(self, config: Any, cache: Any, ignore_mismatch: bool) -> bool:  # noqa: N802
        config._held["timing"] = cache
        return b"damaged" not in cache._held["known"]

    def _IBuilderConfig_get_timing_cache(self, config: Any) -> Any:  # noqa: N802
        return config._held["timing"]

    def _ITimingCache_combine(self, cache: Any, other: Any, ignore_mismatch: bool) -> bool:  # noqa: N802
        cache._held["known"] |= other._held["known"]
        return True

    def _ITimingCache_serialize(self, cache: Any) -> bytes:  # noqa: N802
        return b" ".join(sorted(cache._held["known"] - {b"damaged"}))

    def _Builder_build_serialized_network(self, builder: Any, network: Any, config: Any) -> bytes | None:  # noqa: N802
        if self.refuse is not None:
            return None
        monitor = config._held.get("progress_monitor")
        if monitor is not None:
            monitor.phase_start("Building engine", None, 2)
            assert monitor.step_complete("Building engine", 0)
            monitor.phase_finish("Building engine")
        model = network._held["model"]
        if "timing" in config._held:
            config._held["timing"]._held["known"].add(model.graph.node[0].op_type.encode())
        del model.metadata_props[:]
        model.metadata_props.add(key="profile", value=json.dumps(config._held["profile"]))
        return bytes(model.SerializeToString())

    def _Runtime_deserialize_cuda_engine(self, runtime: Any, content: bytes) -> Any:  # noqa: N802
        try:
            model = onnx.load_model_from_string(content)
            session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        except Exception:
            return None
        engine = self.module.ICudaEngine()
        engine._held.update(session=session, model=model, profile=json.loads(model.metadata_props[0].value))
        return engine

    def _values(self, engine: Any) -> list[Any]:
        return [*engine._held["model"].graph.input, *engine._held["model"].graph.output]

    def _ICudaEngine_num_io_tensors(self, engine: Any) -> int:  # noqa: N802
        return len(self._values(engine))

    def _ICudaEngine_get_tensor_name(self, engine: Any, number: int) -> str:  # noqa: N802
        return str(self._values(engine)[number].name)

    def _ICudaEngine_get_tensor_mode(self, engine: Any, name: str) -> Any:  # noqa: N802
        return self.module.TensorIOMode.INPUT if name in engine._held["profile"] else self.module.TensorIOMode.OUTPUT

    def _ICudaEngine_get_tensor_profile_shape(self, engine: Any, name: str, profile: int) -> Any:  # noqa: N802
        return engine._held["profile"][name]

    def _ICudaEngine_get_tensor_shape(self, engine: Any, name: str) -> tuple[int, ...]:  # noqa: N802
        value = next(value for value in self._values(engine) if value.name == name)
        return tuple(d.dim_value if d.HasField("dim_value") else -1 for d in value.type.tensor_type.shape.dim)

    def _ICudaEngine_get_tensor_dtype(self, engine: Any, name: str) -> Any:  # noqa: N802
        value = next(value for value in self._values(engine) if value.name == name)
        return self.module.DataType[_KINDS[value.type.tensor_type.elem_type]]

    def _ICudaEngine_device_memory_size(self, engine: Any) -> int:  # noqa: N802
        return 1000 * len(engine._held["model"].graph.node)

    _ICudaEngine_device_memory_size_v2 = _ICudaEngine_device_memory_size

    def _EngineInspector_get_engine_information(self, inspector: Any, form: Any) -> str:  # noqa: N802
        return json.dumps({"Layers": [{"Name": "a", "LayerType": "conv", "Inputs": [{"Format/Datatype": "Half"}]}]})

    def _ICudaEngine_create_execution_context(self, engine: Any, how: Any = None) -> Any:  # noqa: N802
        context = self.module.IExecutionContext()
        managed = how is not None and getattr(how, "name", "") == "USER_MANAGED"
        context._held.update(engine=engine, shapes={}, addresses={}, allocators={}, own_memory=not managed)
        return context

    def _ICudaEngine_create_execution_context_without_device_memory(self, engine: Any) -> Any:  # noqa: N802
        context = self._ICudaEngine_create_execution_context(engine)
        context._held["own_memory"] = False
        return context

    def _IExecutionContext_set_device_memory(self, context: Any, address: int, size: int) -> None:  # noqa: N802
        context._held["device_memory"] = address

    def _IExecutionContext_set_input_shape(self, context: Any, name: str, shape: Any) -> bool:  # noqa: N802
        context._held["shapes"][name] = tuple(shape)
        return True

    def _IExecutionContext_set_tensor_address(self, context: Any, name: str, address: int) -> bool:  # noqa: N802
        context._held["addresses"][name] = address
        return True

    def _IExecutionContext_set_output_allocator(self, context: Any, name: str, allocator: Any) -> bool:  # noqa: N802
        context._held["allocators"][name] = allocator
        return True

    def _IExecutionContext_get_tensor_shape(self, context: Any, name: str) -> tuple[int, ...]:  # noqa: N802
        shape = self._ICudaEngine_get_tensor_shape(context._held["engine"], name)
        if name in context._held["shapes"]:
            return tuple(context._held["shapes"][name])
        batch = next(iter(context._held["shapes"].values()))[0]
        dims = next(v for v in self._values(context._held["engine"]) if v.name == name).type.tensor_type.shape.dim
        return tuple(batch if d.dim_param == "N" else size for d, size in zip(dims, shape, strict=True))

    def _IExecutionContext_get_max_output_size(self, context: Any, name: str) -> int:  # noqa: N802
        return 4096

    def _IExecutionContext_report_to_profiler(self, context: Any) -> bool:  # noqa: N802
        """Each layer takes as many milliseconds as it has inputs; TensorRT names fused ones by all that is in them."""
        assert context._held["enqueue_emits_profile"] is False, "else each enqueue waits, and reports by itself"
        profiler = context._held["profiler"]
        for node in context._held["engine"]._held["model"].graph.node:
            profiler.report_layer_time(f"{node.name} + {node.op_type}", float(len(node.input)))
        return True

    def _IExecutionContext_execute_async_v3(self, context: Any, handle: int) -> bool:  # noqa: N802
        held = context._held
        assert held["own_memory"] or held.get("device_memory"), "no scratch memory was set"
        shapes, addresses, session = dict(held["shapes"]), dict(held["addresses"]), held["engine"]._held["session"]

        def run() -> None:
            if not held["own_memory"]:
                self.gpu.view(held["device_memory"], (8,), np.uint8)  # it must not have been freed
            kinds = {value.name: np.float32 for value in session.get_inputs()}
            feeds = {name: self.gpu.view(addresses[name], shape, kinds[name]) for name, shape in shapes.items()}
            for value, result in zip(session.get_outputs(), session.run(None, feeds), strict=True):
                allocator = held["allocators"].get(value.name)
                address = addresses[value.name]
                if allocator is not None:
                    address = allocator.reallocate_output(value.name, address, result.nbytes, 256)
                    allocator.notify_shape(value.name, result.shape)
                self.gpu.view(address, result.shape, result.dtype)[...] = result

        self.gpu.streams[handle].add(run)
        return True
