"""Write what TensorRT's Python bindings offer, generation by generation, as JSON.

    python read_bindings.py WHEEL... -o bindings.json

The bindings' wheels hold no TensorRT: the libraries that they are linked to are made here, empty but for the few
symbols that are looked up at import. Each wheel must be of the Python that runs this. Needs a C compiler, and no GPU.
"""

from __future__ import annotations

import argparse
import inspect
import json
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

CLASSES = (
    "Builder", "EngineInspector", "ICudaEngine", "IBuilderConfig", "IExecutionContext", "IHostMemory",
    "IInt8EntropyCalibrator2", "ILogger", "INetworkDefinition", "IOptimizationProfile", "IOutputAllocator",
    "IProfiler", "IProgressMonitor", "IRuntimeCache", "IRuntimeConfig", "ITensor", "ITimingCache", "Logger",
    "OnnxParser", "ParserError", "Runtime",
)  # fmt: skip
ENUMS = (
    "BuilderFlag", "ComputeCapability", "CudaGraphStrategy", "DataType", "DeviceType", "ErrorCode",
    "ExecutionContextAllocationStrategy", "HardwareCompatibilityLevel", "LayerInformationFormat", "MemoryPoolType",
    "NetworkDefinitionCreationFlag", "OnnxParserFlag", "ProfilingVerbosity", "TensorIOMode", "TensorLocation",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wheels", nargs="+", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    found = dict(sorted((read_wheel(wheel) for wheel in options.wheels), key=lambda item: _numbers(item[0])))
    options.output.write_text(as_text(found))


def as_text(found: dict[str, Any]) -> str:
    """A line for each generation, so that a new one is a line in a difference."""
    lines = (f"{json.dumps(version)}: {json.dumps(api, sort_keys=True)}" for version, api in found.items())
    return "{\n" + ",\n".join(lines) + "\n}\n"


def read_wheel(wheel: Path) -> tuple[str, dict[str, Any]]:
    """The version in a wheel's name, and its API."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        zipfile.ZipFile(wheel).extractall(folder)
        library = next(folder.glob("*/tensorrt.so"))
        _write_libraries(library, folder)
        # A process of its own for each: two bindings in one process would share their classes' names.
        code = f"import sys; sys.path[:0] = [{str(folder)!r}, {str(Path(__file__).parent)!r}]\n"
        code += f"import json, {library.parent.name} as trt, read_bindings\nprint(json.dumps(read_bindings.api(trt)))"
        done = subprocess.run(
            [sys.executable, "-c", code], env={"LD_LIBRARY_PATH": scratch}, check=True, capture_output=True, text=True
        )
    return wheel.name.split("-")[1].partition(".post")[0], json.loads(done.stdout)


def _write_libraries(bindings: Path, folder: Path) -> None:
    """Libraries under the names that the bindings were linked to, with every symbol that nothing else provides."""
    dynamic = subprocess.run(["readelf", "-dW", bindings], check=True, capture_output=True, text=True).stdout
    needed = [name for name in re.findall(r"NEEDED.*\[(.+)\]", dynamic) if name.startswith("libnv")]
    table = subprocess.run(
        ["nm", "-D", "--undefined-only", bindings], check=True, capture_output=True, text=True
    ).stdout
    symbols = [line.split()[-1] for line in table.splitlines() if line.split()[0] == "U"]
    wanted = [name for name in symbols if re.search(r"INTERNAL$|nvuffparser|nvcaffeparser|^get|^initLib", name)]
    source = folder / "empty.c"
    source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in wanted if "@" not in name))
    for name in needed:
        subprocess.run(["cc", "-shared", "-fPIC", "-w", "-fno-builtin", source, "-o", folder / name], check=True)


def api(trt: Any) -> dict[str, Any]:
    """Classes with their methods' signatures and their properties' types, and enumerations with their values."""
    return {
        "classes": {name: _members(getattr(trt, name)) for name in CLASSES if hasattr(trt, name)},
        "enums": {name: sorted(getattr(trt, name).__members__) for name in ENUMS if hasattr(trt, name)},
        "severities_are_ordered": bool(trt.ILogger.ERROR <= trt.ILogger.WARNING <= trt.ILogger.INFO),
    }


def _members(kind: type) -> dict[str, Any]:
    named = {name: inspect.getattr_static(kind, name) for name in dir(kind) if not name.startswith("_")}
    properties = {name: _type(value) for name, value in named.items() if isinstance(value, property)}
    methods = {
        name: _signatures(name, value.__doc__ or "")
        for name, value in named.items()
        if callable(value) and not (kind.__name__ == "INetworkDefinition" and name.startswith("add_"))
    }
    constants = sorted(named.keys() - properties.keys() - {name for name in named if callable(named[name])})
    return {"properties": properties, "methods": methods, "writable": _writable(named), "constants": constants}


def _writable(named: dict[str, Any]) -> list[str]:
    return sorted(name for name, value in named.items() if isinstance(value, property) and value.fset is not None)


def _type(value: property) -> str:
    return _returned((value.fget.__doc__ or "").strip() if value.fget else "")


def _signatures(name: str, text: str) -> list[dict[str, Any]]:
    """Of every overload: the arguments' names (all but self), how many have no default, and what is returned."""
    lines = re.findall(rf"^(?:\d+\. )?{name}\((.*)\)( -> .*)?$", text, flags=re.M)
    lines = [line for line in lines if line[0] != "*args, **kwargs"]
    found = []
    for arguments, returned in lines:
        given = [part for part in _split(arguments) if not part.startswith(("self", "*"))]
        required = sum("=" not in part for part in given)
        names = [part.partition(":")[0].partition("=")[0].strip() for part in given]
        found.append({"arguments": names, "required": required, "returns": _returned(returned)})
    return found


def _split(arguments: str) -> list[str]:
    """At the commas outside brackets."""
    parts, depth, start = [], 0, 0
    for position, letter in enumerate(arguments):
        depth += (letter in "([<{") - (letter in ")]>}")
        if letter == "," and depth == 0:
            parts.append(arguments[start:position].strip())
            start = position + 1
    return [part for part in (*parts, arguments[start:].strip()) if part]


def _returned(signature: str) -> str:
    """The last word of a type: ``tensorrt_bindings.tensorrt.ITensor`` is ``ITensor``."""
    kind = signature.rpartition("->")[2].strip() if "->" in signature else ""
    return kind.rpartition(".")[2] if re.fullmatch(r"[\w.]+", kind) else kind


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


if __name__ == "__main__":
    main()
