"""Memory that a deployment's engines take, seen from a process of its own.

Memory that one engine gives back is what the next one takes: measured one after another in one process, all but the
first would look free.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

import edgetl
from edgetl.artifacts.measurements import Memory
from edgetl.engine.nvidia.free_memory import device_memory
from edgetl.engine.process_memory import available_mb, forget_peak, status_mb
from edgetl.engine.runtime import Engine, get_runtime, load_engine
from edgetl.errors import EdgetlError

_PROCESSOR = "onnxruntime"

# An isolated process finds no module in the working directory, and none of the caller's either until it is told where.
_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from edgetl.engine.footprint import main; main(*sys.argv[2:])"
)


def footprint(engines: Sequence[Path], runtime: str, trust: bool = False) -> Memory:
    """Growth of memory from loading all engines and running each once.

    Args:
        trust: load engines though they are not the files that their manifests speak of.

    Raises:
        EdgetlError: the process that loads them failed.
    """
    command = [sys.executable, "-I", "-c", _START, json.dumps(_search_path()), runtime, str(int(trust))]
    command += map(str, engines)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit code {done.returncode}"
        raise EdgetlError(f"the process that measures memory failed: {reason}")
    return Memory.model_validate_json(done.stdout.splitlines()[-1])


def _search_path() -> list[str]:
    """Where this process finds modules, without the working directory; at the end that of edgetl, wherever it is."""
    elsewhere = [entry for entry in sys.path if not (Path(entry).exists() and Path(entry).samefile("."))]
    return [*elsewhere, str(Path(edgetl.__file__).absolute().parents[1])]


def main(*arguments: str) -> None:
    """Measure in this process, and print the figures as JSON."""
    try:
        _measure(*arguments)
    except EdgetlError as error:
        sys.exit(str(error))  # to stderr, without a traceback: `footprint` hands the line on


def _held_mb(field: str) -> float:
    held = status_mb(field)
    if held is None:
        raise EdgetlError(f"/proc/self/status has no {field}; memory is measured on Linux only")
    return held


def _measure(runtime: str, trust: str, *engines: str) -> None:
    get_runtime(runtime)  # its libraries belong to the process, not to the deployment
    device = _OnDevice.of(runtime)
    available = available_mb()
    forget_peak()  # of the imports
    before = _held_mb("VmRSS")
    loaded = [load_engine(Path(path), threads=1, trust=trust == "1") for path in engines]
    device.loaded()
    for engine in loaded:
        engine.infer(*(np.zeros(shape, dtype=np.float32) for shape in engine.shapes))
    left = available_mb()
    found = Memory(
        process_mb=round(_held_mb("VmHWM") - before, 2),
        system_mb=None if available is None or left is None else round(available - left, 2),
        **device.figures(loaded),
    )
    print(found.model_dump_json())


class _OnDevice:
    """What engines take of a GPU's memory; nothing for those that run on the processor."""

    def __init__(self, free: Callable[[], float] | None, shared: bool | None) -> None:
        self._free, self._shared = free, shared
        self._before = self._after_loading = 0.0 if free is None else free()

    @classmethod
    def of(cls, runtime: str) -> _OnDevice:
        return cls(None, None) if runtime == _PROCESSOR else cls(*device_memory())

    def loaded(self) -> None:
        self._after_loading = 0.0 if self._free is None else self._free()

    def figures(self, engines: Sequence[Engine]) -> dict[str, Any]:
        if self._free is None:
            return {"reason": "the engines run on the processor"}
        scratch = [engine.scratch_mb for engine in engines if isinstance(engine, _TellsScratch)]
        return {
            "device_loaded_mb": round(self._before - self._after_loading, 2),
            "device_mb": round(self._before - self._free(), 2),
            "device_scratch_mb": round(sum(scratch), 2) if scratch else None,
            "shared": self._shared,
        }


@runtime_checkable
class _TellsScratch(Protocol):
    @property
    def scratch_mb(self) -> float: ...
