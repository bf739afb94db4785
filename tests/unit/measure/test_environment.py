from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np

import edgetl
from edgetl.measure.environment import describe


def test_machine_software_and_settings_are_recorded() -> None:
    found = describe("Some CPU", threads=3)
    assert (found["edgetl"], found["python"]) == (edgetl.__version__, platform.python_version())
    assert (found["processor"], found["threads"]) == ("Some CPU", 3)
    assert found["cores"] == len(os.sched_getaffinity(0))
    assert found["packages"]["numpy"] == np.__version__
    json.dumps(found, allow_nan=False)


def test_memory_is_that_of_the_kernel() -> None:
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    total = next(int(line.split()[1]) for line in lines if line.startswith("MemTotal"))
    assert abs(describe("", 0)["memory_mb"] - total / 1024) <= 1


def test_packages_are_looked_up_without_importing_them() -> None:
    script = (
        "import sys; from edgetl.measure.environment import describe; describe('', 0); "
        "print(sorted({'torch', 'timm', 'onnxruntime', 'tensorrt_rtx'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
