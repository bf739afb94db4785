"""Memory that a deployment's engines take, seen from a process of its own.

Memory that one engine gives back is what the next one takes: measured one after another in one process, all but the
first would look free.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgetl.engine.resident import forget_peak, status_mb
from edgetl.engine.runtime import get_runtime, load_engine
from edgetl.errors import EdgetlError


def peak_mb(engines: Sequence[Path], runtime: str) -> float:
    """Growth of resident memory, at its peak, from loading all engines and running each once.

    Raises:
        EdgetlError: the process that loads them failed.
    """
    command = [sys.executable, "-m", __name__, runtime, *map(str, engines)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit code {done.returncode}"
        raise EdgetlError(f"the process that measures memory failed: {reason}")
    return float(done.stdout)


def _held_mb(field: str) -> float:
    held = status_mb(field)
    if held is None:
        raise EdgetlError(f"/proc/self/status has no {field}; memory is measured on Linux only")
    return held


def _main(runtime: str, *engines: str) -> None:
    get_runtime(runtime)  # its libraries belong to the process, not to the deployment
    forget_peak()  # of the imports
    before = _held_mb("VmRSS")
    loaded = [load_engine(Path(path), threads=1) for path in engines]
    for engine in loaded:
        engine.infer(*(np.zeros(shape, dtype=np.float32) for shape in engine.shapes))
    print(round(_held_mb("VmHWM") - before, 2))


if __name__ == "__main__":
    try:
        _main(*sys.argv[1:])
    except EdgetlError as error:
        sys.exit(str(error))  # to stderr, without a traceback: `peak_mb` hands the line on
