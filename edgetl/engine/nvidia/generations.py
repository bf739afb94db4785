"""What one TensorRT can do and another cannot: looked up in its bindings, never derived from its version.

JetPack 6.0 has TensorRT 8.6, JetPack 6.1 to 7.2 have 10.x, servers 11; TensorRT-RTX is for PCs. The tests compare this
table with the bindings of each.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from edgetl.errors import EdgetlError, MissingExtraError

#                                                                                        8.6    10    11   RTX
DIFFERENCES = {
    "strong typing": "NetworkDefinitionCreationFlag.STRONGLY_TYPED",                   #  -     x     x     x
    "explicit batch flag": "NetworkDefinitionCreationFlag.EXPLICIT_BATCH",             #  x     x     -     -
    "weak typing": "BuilderFlag.FP16",                                                 #  x     x     -     -
    "calibration": "IBuilderConfig.int8_calibrator",                                   #  x     x     -     -
    "progress": "IBuilderConfig.progress_monitor",                                     #  -     x     x     x
    "build for another device": "IBuilderConfig.set_compute_capability",               #  -     -     -     x
    "node in parser errors": "ParserError.node_name",                                  #  -     x     x     x
    "same compute capability": "HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY",   #  -  10.13    x     x
    "memory by strategy": "ExecutionContextAllocationStrategy.USER_MANAGED",           #  -     x     x     x
    "sized device memory": "IExecutionContext.set_device_memory",                      #  -     x     x     x
    "device memory in 64 bits": "ICudaEngine.device_memory_size_v2",                   #  -     x     x     x
    "graph strategy": "IRuntimeConfig.cuda_graph_strategy",                            #  -     -     -     x
    "runtime cache": "IRuntimeConfig.create_runtime_cache",                            #  -     -     -     x
}  # fmt: skip


@dataclass(frozen=True)
class TensorRTPackage:
    """A TensorRT that may be installed: its names, its Python module, and the extra that installs it."""

    title: str
    runtime: str
    module_name: str
    extra: str
    ahead_of_time: bool
    times_kernels: bool

    def load(self) -> ModuleType:
        """Import its Python module.

        Raises:
            EdgetlError: it is not installed, or it does not load.
        """
        try:
            return importlib.import_module(self.module_name)
        except ModuleNotFoundError as error:
            if self.ahead_of_time:
                raise MissingExtraError(f"runtime {self.runtime}", self.extra, error) from error
            # No extra here: on a Jetson pip would install a TensorRT that does not fit JetPack's CUDA.
            raise EdgetlError(
                f"runtime {self.runtime} needs the module tensorrt, which is not installed; on a Jetson install "
                "JetPack's (sudo apt install python3-libnvinfer) and make the virtual environment with "
                "--system-site-packages"
            ) from error
        except (ImportError, OSError) as error:  # bindings without their libraries
            reason = " ".join(str(error).split())
            raise EdgetlError(f"{self.title} is installed but does not load: {reason}; see edgetl doctor") from error


TENSORRT = TensorRTPackage("TensorRT", "tensorrt", "tensorrt", "tensorrt", ahead_of_time=False, times_kernels=True)
TENSORRT_RTX = TensorRTPackage(
    "TensorRT-RTX", "tensorrt-rtx", "tensorrt_rtx", "rtx", ahead_of_time=True, times_kernels=False
)


def has(trt: Any, what: str) -> bool:
    """Whether bindings have an entry of `DIFFERENCES`."""
    found = trt
    for name in DIFFERENCES[what].split("."):
        if not hasattr(found, name):
            return False
        found = getattr(found, name)
    return True


def network_flags(trt: Any, weak: bool) -> int:
    """The flags that create a strongly typed network, where this TensorRT has it and ``weak`` is false."""
    flags = trt.NetworkDefinitionCreationFlag
    if has(trt, "strong typing") and not weak:
        return 1 << int(flags.STRONGLY_TYPED)
    return 1 << int(flags.EXPLICIT_BATCH) if has(trt, "explicit batch flag") else 0
