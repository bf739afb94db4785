"""TensorRT and TensorRT-RTX as runtimes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgetl.arrays import Float32Array
from edgetl.artifacts.engine_manifest import OR_NEWER
from edgetl.config import QdqFormat
from edgetl.engine.layer_times import LayerTimes
from edgetl.engine.nvidia import builder
from edgetl.engine.nvidia.device import CudaDevice, find_device
from edgetl.engine.nvidia.generations import TENSORRT, TENSORRT_RTX, TensorRTPackage
from edgetl.engine.options import BATCHES, BuildOptions, BuildResources, RunOptions, refuse_options
from edgetl.engine.runtime import BuildInfo, Engine
from edgetl.errors import EdgetlError

_DEFAULT_CAPABILITY = "SM86"  # the RTX 30 series, where there is no GPU to build for
_ANYWHERE = BATCHES | {"workspace_mb", "optimization_level", "sparse"}
_ON_THE_DEVICE = _ANYWHERE | {
    "dla_core", "gpu_fallback", "calibration_sha256", "version_compatible", "hardware_compatible"
}  # fmt: skip
_FIRST_AMPERE = 80


@dataclass(frozen=True)
class NvidiaRuntime:
    """A `Runtime` that uses TensorRT or TensorRT-RTX."""

    product: TensorRTPackage
    SUFFIX: str = ".engine"
    QDQ_FORMAT: QdqFormat = "tensorrt"

    @property
    def NAME(self) -> str:  # noqa: N802  # as the modules of other runtimes have it
        return self.product.runtime

    def target(self, options: BuildOptions) -> dict[str, str]:
        trt = self.product.load()
        if self.product.ahead_of_time:
            refuse_options(self.NAME, options, _ANYWHERE | {"compute_capability"}, "it is for TensorRT on a device")
            return {self.NAME: trt.__version__, "compute capability": self._capability(trt, options)}
        refuse_options(self.NAME, options, _ON_THE_DEVICE, "it builds for the device that it runs on")
        device = self._device("build an engine")
        version = trt.__version__ + (OR_NEWER if options.version_compatible else "")
        return {self.NAME: version, **_tied_to(device, options)}

    def here(self, options: BuildOptions) -> dict[str, str]:
        del options
        device = self._device("run an engine")
        version = self.product.load().__version__
        return {self.NAME: version, "compute capability": device.capability, "device": device.title}

    def unsupported(self, precision: str) -> str | None:
        del precision
        return None

    def build(self, graph: Path, engine: Path, options: BuildOptions, resources: BuildResources) -> BuildInfo:
        trt, device = self.product.load(), _device_or_none()
        if self.product.ahead_of_time:
            options = replace(options, compute_capability=self._capability(trt, options))
        engine.write_bytes(builder.build(builder.BuildJob(self.product, trt, graph, options, resources, device)))
        built_on = {} if device is None else {"device": device.title, "CUDA driver": device.driver}
        # An engine can be asked for its layers only where it can be loaded.
        elsewhere = self.product.ahead_of_time and device and options.compute_capability != device.capability
        if device is None or elsewhere:
            return BuildInfo(built_on, None)
        from edgetl.engine.nvidia.deserialize import deserialise, layers

        return BuildInfo(built_on, layers(deserialise(self.product, engine, options)))

    def load(self, engine: Path, options: BuildOptions, run: RunOptions) -> Engine:
        from edgetl.engine.nvidia.runner import load  # needs PyCUDA, which building does not

        return load(self.product, engine, options, run)

    def layer_times(
        self, engine: Path, options: BuildOptions, run: RunOptions, inputs: Sequence[Float32Array], runs: int
    ) -> LayerTimes:
        from edgetl.engine.nvidia.runner import load

        if run.cuda_graph:
            raise EdgetlError(f"{self.product.title} tells no times of layers in a CUDA graph; leave cuda-graph out")
        with load(self.product, engine, options, run) as loaded:
            return loaded.time_layers(inputs, runs)

    def _device(self, purpose: str) -> CudaDevice:
        try:
            return find_device()
        except EdgetlError as error:
            raise EdgetlError(f"{self.product.title} needs an NVIDIA GPU to {purpose}: {error}") from None

    def _capability(self, trt: Any, options: BuildOptions) -> str:
        """The compute capability to build for: the one in ``options``, else this machine's GPU's, else a common one.

        Raises:
            EdgetlError: this TensorRT-RTX cannot build for it.
        """
        device = _device_or_none()
        wanted = options.compute_capability or (device.capability if device else _DEFAULT_CAPABILITY)
        known = sorted(
            (name for name in vars(trt.ComputeCapability) if name.startswith("SM")), key=lambda name: int(name[2:])
        )
        if wanted not in known:
            raise EdgetlError(
                f"{self.product.title} {trt.__version__} cannot build for compute capability {wanted}; it knows "
                f"{', '.join(known)}"
            )
        return wanted


def _tied_to(device: CudaDevice, options: BuildOptions) -> dict[str, str]:
    """The devices that an engine runs on: this one, unless ``hardware_compatible`` allows more."""
    if options.hardware_compatible == "ampere-plus":
        if int(device.capability[2:]) < _FIRST_AMPERE:
            raise EdgetlError(
                f"hardware compatibility begins with SM{_FIRST_AMPERE} and {device.name} is {device.capability}; leave "
                "it out"
            )
        return {"compute capability": f"SM{_FIRST_AMPERE}{OR_NEWER}"}
    if options.hardware_compatible == "same-compute-capability":
        return {"compute capability": device.capability}
    return {"compute capability": device.capability, "device": device.title}


def _device_or_none() -> CudaDevice | None:
    try:
        return find_device()
    except EdgetlError:
        return None


TENSORRT_RUNTIME = NvidiaRuntime(TENSORRT)
TENSORRT_RTX_RUNTIME = NvidiaRuntime(TENSORRT_RTX)
