"""How wrong estimates are: the roofline fitted to machines that were really measured, and tried on what it did not see.

Jetsons: latencies that others published (``published_jetson.json``, each with its source). Torchvision's networks are
built here; of YOLO11 and YOLO26, whose graphs Ultralytics exports (``YOLO("yolo11n.yaml").export(format="onnx",
imgsz=640)``), what `CostModel.kernels` tells of them is kept: operations and FP32 bytes of each kernel. This machine's
CPU: networks timed on ONNX Runtime, one thread, at several sizes.

For each architecture everything is fitted anew without each network, and where several modules were measured without
each of these, and the one left out is estimated. ``--write`` keeps the fit of the Jetsons where edgetl reads it.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import timm
import torch
import torchvision
from record import MATERIAL, save
from scipy.optimize import least_squares

from edgetl.artifacts.measurements import KernelCost
from edgetl.config import Precision
from edgetl.graph.cost import CostModel
from edgetl.measure.devices import Efficiency, catalogue, find_device_peaks
from edgetl.measure.roofline import latency_ms, prepared
from edgetl.train.darknet.cfg import read_cfg
from edgetl.train.darknet.network import build as darknet

HERE = Path(__file__).parent
FIT = HERE.parent / "edgetl" / "measure" / "efficiency.json"
COVERED = 0.9
CPU_NETWORKS = ("resnet18", "resnet50", "mobilenet_v2", "squeezenet1_0", "darknet53", "yolov3-tiny", "yolov4-tiny")
CPU_SIZES = (96, 160, 224)
ROUNDS, REPEATS = 20, 5


@dataclass(frozen=True)
class Measurement:
    """One published or timed latency, and what the model needs to estimate it."""

    device: str
    network: str
    precision: Precision
    ms: float
    kernels: Sequence[KernelCost]
    peaks: dict[Precision, float]
    bandwidth: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--material", type=Path, default=MATERIAL)
    parser.add_argument("--write", action="store_true", help="keep the fit in edgetl/measure/efficiency.json")
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    published = list(jetsons())
    fits = {name: calibrate(rows, most=1.0) for name, rows in published}
    cpu = list(this_cpu(options.material))
    figures = {"covered": COVERED, "jetsons": fits, "cpu": calibrate(cpu, most=math.inf)}
    if options.write:
        kept = {name: one["efficiency"] for name, one in fits.items()}
        FIT.write_text(json.dumps(rounded(kept), indent=1) + "\n", encoding="utf-8")
    save(options.output, "estimate", figures, threads=1)


def rounded(value: Any) -> Any:
    """Four significant digits: more is noise."""
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    return float(f"{value:.4g}")


def jetsons() -> Iterator[tuple[str, list[Measurement]]]:
    """What was published, by architecture."""
    groups = json.loads((HERE / "published_jetson.json").read_text(encoding="utf-8"))["groups"]
    architectures = {device.name: device.architecture for device in catalogue().devices}
    for name in catalogue().architectures:
        yield (
            name,
            [row for one in groups if architectures[one["device"].partition("@")[0]] == name for row in rows(one)],
        )


def rows(group: dict[str, Any]) -> Iterator[Measurement]:
    target = find_device_peaks(group["device"])
    for network, latencies in group["rows"].items():
        kernels = kernels_of(network, group["size"])
        for precision, ms in zip(group["precisions"], latencies, strict=True):
            yield Measurement(
                target.device, network, precision, ms, prepared(kernels, precision), target.peaks, target.bandwidth
            )


@cache
def kernels_of(network: str, size: int) -> tuple[KernelCost, ...]:
    """Those of a network in FP32."""
    known = json.loads((HERE / "yolo_kernels.json").read_text(encoding="utf-8"))
    if network in known:
        return tuple(KernelCost(flops, 32, moved) for flops, moved in known[network])
    return graph_kernels(exported(getattr(torchvision.models, network)(weights=None), size))


def graph_kernels(model: onnx.ModelProto) -> tuple[KernelCost, ...]:
    return CostModel(model).kernels()


def exported(network: torch.nn.Module, size: int) -> onnx.ModelProto:
    buffer = io.BytesIO()
    warnings.filterwarnings("ignore", category=DeprecationWarning)  # this exporter folds batch normalisation by itself
    images = torch.zeros(1, 3, size, size)
    torch.onnx.export(network.eval(), (images,), buffer, input_names=["images"], dynamo=False, opset_version=17)
    return onnx.load_from_string(buffer.getvalue())


def this_cpu(material: Path) -> Iterator[Measurement]:
    """Peaks of 1e9: what is fitted are then the rates themselves."""
    candidates = [(network, size) for network in CPU_NETWORKS for size in CPU_SIZES]
    models = [cpu_model(network, size, material) for network, size in candidates]
    for (network, _), model, ms in zip(candidates, models, timed(models), strict=True):
        yield Measurement("this CPU", network, "fp32", ms, graph_kernels(model), {"fp32": 1e9}, 1e9)


def cpu_model(network: str, size: int, material: Path) -> onnx.ModelProto:
    torch.manual_seed(0)
    if network.startswith("yolo"):
        cfg = read_cfg(material / "darknet" / "cfg-only" / f"{network}.cfg", size)
        return exported(darknet(cfg), size)
    if network == "darknet53":
        return exported(timm.create_model(network, pretrained=False), size)
    return exported(getattr(torchvision.models, network)(weights=None), size)


def timed(models: Sequence[onnx.ModelProto]) -> list[float]:
    """The least time of one image on one thread, in milliseconds: what else runs here meanwhile does not count."""
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = 1
    sessions = [ort.InferenceSession(one.SerializeToString(), settings, ["CPUExecutionProvider"]) for one in models]
    least = [math.inf] * len(sessions)
    for _ in range(ROUNDS):
        for position, session in enumerate(sessions):
            given = session.get_inputs()[0]
            images = {given.name: np.random.default_rng(0).random(given.shape, np.float32)}
            for _ in range(REPEATS):
                begin = time.perf_counter()
                session.run(None, images)
                least[position] = min(least[position], (time.perf_counter() - begin) * 1e3)
    return least


def calibrate(measured: Sequence[Measurement], most: float) -> dict[str, Any]:
    """The fit to all, and what it is worth on what it did not see. No share of a peak is above ``most``."""
    whole = fit(measured, most)
    left_out = {what: list(held_out(measured, key, most)) for what, key in KEYS.items()}
    told = {what: errors(found) | {"coverage": coverage(found, what)} for what, found in left_out.items() if found}
    spread = max(one["factor_of_nine_in_ten"] for one in told.values())
    return {
        "measurements": len(measured),
        "efficiency": {**whole.model_dump(), "spread": spread},
        "left_out": told,
        "rows": left_out["network"],
    }


def coverage(found: Sequence[dict[str, Any]], what: str) -> float:
    """The share that lay within the interval, whose width was told without that network or device too."""
    inside = []
    for name in {row[what] for row in found}:
        spread = errors([row for row in found if row[what] != name])["factor_of_nine_in_ten"]
        inside += [1 / spread <= row["ratio"] <= spread for row in found if row[what] == name]
    return round(float(np.mean(inside)), 3)


KEYS: dict[str, Callable[[Measurement], str]] = {"network": lambda one: one.network, "device": lambda one: one.device}


def held_out(
    measured: Sequence[Measurement], key: Callable[[Measurement], str], most: float
) -> Iterator[dict[str, Any]]:
    """What each measurement is of what was estimated without its kin."""
    names = sorted({key(one) for one in measured})
    for name in names if len(names) > 1 else []:
        known = [one for one in measured if key(one) != name]
        efficiency = fit(known, most)
        for one in measured:
            if key(one) == name and one.precision in efficiency.compute:
                ratio = one.ms / predicted(one, efficiency)
                yield {
                    "device": one.device,
                    "network": one.network,
                    "precision": one.precision,
                    "ms": one.ms,
                    "ratio": ratio,
                }


def errors(found: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Of measured by estimated: how far off in the middle, in nine of ten (counting one unseen more), and at worst."""
    off = np.sort(np.abs(np.log([row["ratio"] for row in found])))
    rank = min(math.ceil(COVERED * (len(off) + 1)), len(off)) - 1
    return {
        "factor_in_the_middle": round(float(np.exp(np.median(off))), 3),
        "factor_of_nine_in_ten": round(float(np.exp(off[rank])), 3),
        "worst_factor": round(float(np.exp(off[-1])), 3),
    }


def fit(measured: Sequence[Measurement], most: float) -> Efficiency:
    """Least squares of the logarithms, robust (soft L1) against a network that some old TensorRT was bad at."""
    precisions = sorted({one.precision for one in measured})

    def off(logs: Sequence[float]) -> list[float]:
        found = efficiency_of(logs, precisions)
        return [math.log(predicted(one, found) / one.ms) for one in measured]

    start = [*(math.log(min(0.4, most)) for _ in precisions), math.log(0.5), math.log(10.0)]
    low = [*(math.log(0.01) for _ in precisions), math.log(0.02), math.log(0.01)]
    high = [*(math.log(most) for _ in precisions), math.log(most), math.log(200.0)]
    solved = least_squares(off, start, bounds=(low, high), loss="soft_l1", f_scale=0.2)
    return efficiency_of(solved.x, precisions)


def efficiency_of(logs: Sequence[float], precisions: Sequence[Precision]) -> Efficiency:
    *compute, bandwidth, launch = (math.exp(one) for one in logs)
    return Efficiency(
        compute=dict(zip(precisions, compute, strict=True)), bandwidth=bandwidth, launch_us=launch, spread=1
    )


def predicted(one: Measurement, efficiency: Efficiency) -> float:
    return latency_ms(one.kernels, one.peaks, one.bandwidth, efficiency)


if __name__ == "__main__":
    main()
