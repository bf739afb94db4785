"""Estimates latency and memory on devices that are not at hand, from graphs alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgetl.artifacts.deployment import Shortlist
from edgetl.artifacts.files import read_json
from edgetl.artifacts.measurements import DeviceEstimate, KernelCost
from edgetl.artifacts.run_directory import RunDirectory
from edgetl.config import Precision, Study
from edgetl.errors import EdgetlError
from edgetl.graph.cost import CostModel
from edgetl.graph.model import load_model
from edgetl.graph.static_part import certain_part
from edgetl.measure.devices import DevicePeaks, find_device_peaks
from edgetl.measure.roofline import estimate, main_precision, prepared

_QDQ_FORMATS = ("tensorrt", "onnxruntime")
_MB = 1e6


@dataclass(frozen=True)
class _Need:
    """The work and memory that one graph needs on a device."""

    kernels: tuple[KernelCost, ...]
    weight_bytes: int
    activation_bytes: int
    left_out: tuple[str, ...]


def estimate_files(
    graphs: Sequence[Path], devices: Sequence[str], precision: Precision | None = None
) -> tuple[DeviceEstimate, ...]:
    """The estimates of each graph on each device, as the file is, or as if it were prepared in a precision.

    Raises:
        EdgetlError: a file is no graph of one image size, a device is unknown, or cannot run a graph's precision.
    """
    targets = [find_device_peaks(device) for device in devices]
    needs = {str(graph): _need(graph, precision) for graph in graphs}
    return tuple(_estimated(name, [need], target) for name, need in needs.items() for target in targets)


def estimate_study(study: Study, run: RunDirectory, devices: Sequence[str]) -> tuple[DeviceEstimate, ...]:
    """The estimates of every deployment in every precision on each device; several engines run one after another.

    All second levels of a cascade are counted: images for which they do not run take less.

    Raises:
        EdgetlError: as `estimate_files`; or the graphs are not there yet.
    """
    targets = [find_device_peaks(device) for device in devices]
    rows = []
    for deployment in read_json(run.shortlist, Shortlist).deployments:
        for precision in study.precisions:
            needs = []
            for spec in deployment.graphs:
                # In whichever QDQ format it is there: what is to be computed is the same in both.
                files = [run.graphs / spec.file(precision, target) for target in _QDQ_FORMATS]
                file = next((file for file in files if file.is_file()), None)
                if file is None:
                    raise EdgetlError(f"{files[0]} does not exist; run edgetl export on the study first")
                needs.append(_need(file, None))
            rows += [_estimated(deployment.name, needs, target) for target in targets]
    return tuple(rows)


def _need(graph: Path, precision: Precision | None) -> _Need:
    certain, left_out = certain_part(load_model(graph))
    model = CostModel(certain)
    kernels: Sequence[KernelCost] = model.kernels()
    weights, activations = model.cost().weight_bytes, model.peak_activation_bytes()
    if precision is None:
        return _Need(tuple(kernels), weights, activations, left_out)
    moved = sum(kernel.bytes for kernel in kernels)
    kernels = prepared(kernels, precision)
    # Weights and activations shrink as all traffic does: which tensor gets which type is not known before preparation.
    narrower = sum(kernel.bytes for kernel in kernels) / moved if moved else 1.0
    return _Need(tuple(kernels), round(weights * narrower), round(activations * narrower), left_out)


def _estimated(name: str, needs: Sequence[_Need], target: DevicePeaks) -> DeviceEstimate:
    try:
        bounds = [estimate(need.kernels, target) for need in needs]
    except EdgetlError as error:
        raise EdgetlError(f"{name}: {error}") from None
    kernels = [kernel for need in needs for kernel in need.kernels]
    # Engines run one after another: their activations need not be there at once, their weights do.
    memory = sum(need.weight_bytes for need in needs) + max(need.activation_bytes for need in needs)
    return DeviceEstimate(
        name=name,
        precision=main_precision(kernels),
        device=target.device,
        mode=target.mode,
        low=sum(one.low for one in bounds),
        middle=sum(one.middle for one in bounds),
        high=sum(one.high for one in bounds),
        memory_mb=memory / _MB,
        device_memory_mb=target.memory_mb,
        unverified=target.unverified,
        left_out=tuple(dict.fromkeys(name for need in needs for name in need.left_out)),
    )
