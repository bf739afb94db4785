"""Memory that a deployment's engines take, measured in a process of its own.

In one process, an engine reuses the memory that an earlier one gave back: all but the first would look free.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

import edgetl
from edgetl.artifacts.measurements import Memory
from edgetl.engine.nvidia.device import device_memory
from edgetl.engine.process_memory import available_mb, forget_peak, status_mb
from edgetl.engine.runtime import get_runtime, load_engine
from edgetl.errors import EdgetlError

_PROCESSOR = "onnxruntime"

# -I keeps Python from importing what lies in the working directory; so the caller's search path has to be handed over.
_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from edgetl.engine.footprint import main; main(*sys.argv[2:])"
)


def footprint(engines: Sequence[Path], runtime: str, trust: bool = False) -> Memory:
    """Measure by how much memory grows when all engines are loaded and each runs once.

    Args:
        trust: load engines that are not the files that their manifests describe.

    Raises:
        EdgetlError: the process that loads them failed.
    """
    modules = [entry for entry in sys.path if not (Path(entry).exists() and Path(entry).samefile("."))]
    modules.append(str(Path(edgetl.__file__).absolute().parents[1]))  # it may have been found in the working directory
    command = [sys.executable, "-I", "-c", _START, json.dumps(modules), runtime, str(int(trust)), *map(str, engines)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit code {done.returncode}"
        raise EdgetlError(f"the process that measures memory failed: {reason}")
    return Memory.model_validate_json(done.stdout.splitlines()[-1])


def main(runtime: str, trust: str, *engines: str) -> None:
    """Measure in this process and print the figures as JSON."""
    try:
        get_runtime(runtime)  # loaded before measuring: its libraries belong to the process, not to the deployment
        free, shared = (None, None) if runtime == _PROCESSOR else device_memory()
        device_before = 0.0 if free is None else free()
        available = available_mb()
        forget_peak()  # importing may have held more for a moment than the engines will
        before = _held_mb("VmRSS")
        loaded = [load_engine(Path(path), threads=1, trust=trust == "1") for path in engines]
        device_loaded = 0.0 if free is None else free()
        for engine in loaded:
            engine.infer(*(np.zeros(shape, dtype=np.float32) for shape in engine.shapes))
        left = available_mb()
        memory: dict[str, Any] = {
            "process_mb": round(_held_mb("VmHWM") - before, 2),
            "system_mb": None if available is None or left is None else round(available - left, 2),
        }
        if free is None:
            memory["reason"] = "the engines run on the processor"
        else:
            memory["device_loaded_mb"] = round(device_before - device_loaded, 2)
            memory["device_mb"] = round(device_before - free(), 2)
            scratch = [engine.scratch_mb for engine in loaded if isinstance(engine, _HasScratch)]
            memory["device_scratch_mb"] = round(sum(scratch), 2) if scratch else None
            memory["shared"] = shared
        print(Memory(**memory).model_dump_json())
    except EdgetlError as error:
        sys.exit(str(error))  # to stderr, without a traceback: `footprint` quotes the last line


def _held_mb(field: str) -> float:
    held = status_mb(field)
    if held is None:
        raise EdgetlError(f"/proc/self/status has no {field}; memory is measured on Linux only")
    return held


@runtime_checkable
class _HasScratch(Protocol):
    @property
    def scratch_mb(self) -> float: ...
