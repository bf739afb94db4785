"""The driver is asked through its C interface: here a library that answers as a driver does."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

DRIVER = """
#include <string.h>
#include <stddef.h>
static int number(int attribute) { return attribute == 16 ? 16 : attribute == 18 ? 1 : attribute == 75 ? 8 : 7; }
int cuInit(unsigned flags) { return INIT; }
int cuDeviceGetCount(int *count) { *count = COUNT; return 0; }
int cuDeviceGet(int *device, int ordinal) { *device = 5; return ordinal == 0 ? 0 : 101; }
int cuDriverGetVersion(int *version) { *version = 12060; return 0; }
int cuDeviceGetName(char *name, int length, int device) { strncpy(name, "Orin", length); return device == 5 ? 0 : 101; }
int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = (size_t)7620 << 20; return device == 5 ? 0 : 101; }
int cuDeviceGetAttribute(int *v, int attribute, int device) { *v = number(attribute); return device == 5 ? 0 : 101; }
static int depth;
int cuDevicePrimaryCtxRetain(void **context, int device) { *context = &depth; return device; }
int cuCtxPushCurrent_v2(void *context) { depth++; return context == &depth ? 0 : 201; }
int cuCtxPopCurrent_v2(void **context) { *context = &depth; return depth-- == 1 ? 0 : 201; }
int cuMemGetInfo_v2(size_t *free, size_t *total) {
  static size_t left = 5000;
  *free = left-- << 20; *total = (size_t)7620 << 20; return depth == 1 ? 0 : 201;
}
int cuGetErrorString(int error, const char **text) { *text = "no CUDA-capable device is detected"; return 0; }
"""
ASK_MEMORY = """
from edgetl.engine.nvidia.device import device_memory
free, shared = device_memory()
print(free(), free(), shared)
"""
ASK = """
from edgetl.engine.nvidia.device import find_device
from edgetl.errors import EdgetlError
try:
    device = find_device()
    print(device.title, device.capability, device.memory_mb, device.integrated, device.driver)
except EdgetlError as error:
    print(error)
"""

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")


def ask(folder: Path, question: str = ASK, **macros: int) -> str:
    (folder / "driver.c").write_text(DRIVER)
    defines = [f"-D{name}={value}" for name, value in macros.items()]
    library = folder / "libcuda.so.1"
    subprocess.run(["cc", "-shared", "-fPIC", *defines, folder / "driver.c", "-o", library], check=True)
    environment = {"LD_LIBRARY_PATH": str(folder), "PYTHONPATH": ":".join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", question], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_a_driver_tells_what_it_has(tmp_path: Path) -> None:
    assert ask(tmp_path, INIT=0, COUNT=1) == "Orin (16 SMs) SM87 7620 True 12.6"


def test_a_driver_without_a_gpu_and_one_that_fails_are_one_line(tmp_path: Path) -> None:
    assert ask(tmp_path, INIT=0, COUNT=0) == "the NVIDIA driver shows no GPU; is CUDA_VISIBLE_DEVICES empty?"
    assert ask(tmp_path, INIT=100, COUNT=1) == (
        "the NVIDIA driver cannot be used: cuInit says no CUDA-capable device is detected (error 100)"
    )


def test_free_memory_is_asked_in_the_primary_context_which_is_left_again(tmp_path: Path) -> None:
    assert ask(tmp_path, ASK_MEMORY, INIT=0, COUNT=1) == "5000.0 4999.0 True"
