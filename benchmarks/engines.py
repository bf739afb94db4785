"""TensorRT-RTX engines, built without a GPU: size, time and memory of each network, alone and fused, in each precision.

A single engine is one specialist: the trunk and a head of random weights. A fused one is three of them merged by the
code of `edgetl fuse`. INT8 is calibrated on the photographs beside the weights: how large an engine is, and how long it
takes to build, does not depend on which. A detector has its suppression in the graph.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from fuse import BACKBONES, write_graphs
from onnx import numpy_helper
from record import MATERIAL, Quiet, save, spread

from edgetl.artifacts.bundle import Preprocessing
from edgetl.artifacts.engine_manifest import read_manifest
from edgetl.artifacts.predictions import NmsImplementation
from edgetl.config import BackboneSettings, InputContract, NmsSettings
from edgetl.errors import EdgetlError
from edgetl.graph.detection_postprocessing import RawHead, with_detections
from edgetl.graph.fusion.fused_graph import fuse
from edgetl.graph.metadata import recorded_preprocessing
from edgetl.graph.model import load_model, save_model
from edgetl.graph.simplify import simplify
from edgetl.stages.prepare_file import PrepareRequest, prepare_file
from edgetl.train.darknet.cfg import read_cfg
from edgetl.train.darknet.network import Darknet
from edgetl.train.darknet.network import build as darknet
from edgetl.train.darknet.weights import read_weights
from edgetl.train.onnx_export import export_network

NETWORKS = {
    **BACKBONES,
    "SqueezeNet": ("torchvision/squeezenet1_0", "backbones/squeezenet1_0/squeezenet1_0.safetensors"),
}
DETECTOR = "darknet/mobilenetv2-yolov3-nano-coco"
"""A folder of the material with one .cfg, one .weights and one .names file."""

FORMS: tuple[NmsImplementation, ...] = ("operator", "loop")
"""Of suppression: TensorRT-RTX has no kernel for the operator, and says so; the loop computes the same."""

CAPABILITY = "SM86"
BUILDS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--material", type=Path, default=MATERIAL)
    parser.add_argument("--detectors", action="store_true", help="these alone, into a file of their own")
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    figures: dict[str, Any] = {"compute_capability": CAPABILITY, "builds": BUILDS}
    figures["detector"] = list(detectors(options.material))
    if not options.detectors:
        figures["engines"] = list(networks(options.material))
    save(options.output, "engines_detectors" if options.detectors else "engines", figures, threads=0)


def networks(material: Path) -> Iterator[dict[str, Any]]:
    for title, (name, weights) in NETWORKS.items():
        with tempfile.TemporaryDirectory() as folder:
            scratch = Path(folder)
            study = BackboneSettings(name=name, weights=str(material / weights) if weights else None)
            specialists, _ = write_graphs(study, scratch)
            fused = scratch / "fused.onnx"
            save_model(fuse({path.stem: load_model(path) for path in specialists}).model, fused)
            for form, graph in (("single", specialists[0]), ("fused", fused)):
                yield from precisions({"network": title, "form": form}, graph, material / "backbones" / "images")


def detectors(material: Path) -> Iterator[dict[str, Any]]:
    """A YOLO detector with its suppression in the graph, in both forms; what is refused is recorded word for word."""
    images = material / "darknet" / "images"
    network, classes = read_detector(material / DETECTOR)
    raws = [f"scale{number}" for number in range(len(network.detection_layers))]
    head = RawHead("combined", classes, tuple(ending.scale for ending in network.detection_layers), tuple(raws))
    size = Preprocessing(width=network.width, height=network.height, fit="letterbox")
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "raw.onnx"
        save_model(simplify(export_network(network, size.shape, raws, "the detector")), raw)
        for form in FORMS:
            title = {"network": network.cfg.path.stem, "form": f"suppression as {form}"}
            detect = partial(with_detections, heads=[head], preprocessing=size, suppression=NmsSettings(), form=form)
            yield from precisions(title, raw, images, detect)
        fused = Path(folder) / "fused.onnx"
        two = retrained(raw, raws, Path(folder) / "retrained.onnx")
        save_model(fuse({"first": load_model(raw), "second": load_model(two)}).model, fused)
        heads = [replace(head, name=name, raws=tuple(f"{name}/{raw}" for raw in raws)) for name in ("first", "second")]
        detect = partial(with_detections, heads=heads, preprocessing=size, suppression=NmsSettings(), form="loop")
        yield from precisions({"network": network.cfg.path.stem, "form": "two fused"}, fused, images, detect)


def retrained(graph: Path, raws: list[str], path: Path) -> Path:
    """The same detector with other weights in the convolutions that it ends with."""
    model = load_model(graph)
    endings = {node.input[1] for node in model.graph.node if node.output[0] in raws}
    for tensor in model.graph.initializer:
        if tensor.name in endings:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(1.01), tensor.name))
    save_model(model, path)
    return path


def read_detector(folder: Path) -> tuple[Darknet, tuple[str, ...]]:
    cfg, weights, names = (next(folder.glob(f"*{suffix}")) for suffix in (".cfg", ".weights", ".names"))
    network = darknet(read_cfg(cfg))
    network.load_state_dict(read_weights(weights, network.cfg))
    return network, tuple(names.read_text().split("\n")[: network.detection_layers[0].classes])


def precisions(
    title: dict[str, str], graph: Path, images: Path, ending: Callable[[Any], Any] = lambda model: model
) -> Iterator[dict[str, Any]]:
    """``ending`` is put on the graph once it is in its precision."""
    for precision in ("fp32", "fp16", "int8"):
        prepared = graph.with_name(f"{graph.stem}.{precision}.prepared.onnx")
        row = {**title, "precision": precision}
        try:
            if precision == "fp32":
                save_model(ending(load_model(graph)), prepared)
            else:
                contract = InputContract() if recorded_preprocessing(load_model(graph)) is None else None
                calibration = images if precision == "int8" else None
                wanted = PrepareRequest(precision, "tensorrt", calibration, contract=contract)
                prepare_file(graph, prepared, wanted, Quiet())
                save_model(ending(load_model(prepared)), prepared)
            row = {**row, **build(prepared)}
        except EdgetlError as error:
            row = {**row, "refused": str(error).replace(str(graph.parent), "")}
        print(row, file=sys.stderr)
        yield row


def build(graph: Path) -> dict[str, Any]:
    """Build an engine several times, each time in a process of its own: memory that was freed is not seen again."""
    engine, seconds, memory = graph.with_suffix(".engine"), [], []
    command = [sys.executable, "-m", "edgetl", "build-engine", graph, "-o", engine, "--runtime", "tensorrt-rtx",
               "--compute-capability", CAPABILITY]  # fmt: skip
    for _ in range(BUILDS):
        engine.unlink(missing_ok=True)
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
        if done.returncode:
            raise EdgetlError(done.stderr.strip().splitlines()[-1].removeprefix("error: "))
        manifest = read_manifest(engine)
        seconds.append(manifest.build_seconds)
        memory.append(manifest.build_peak_mb or 0.0)
    return {
        "graph_bytes": graph.stat().st_size,
        "engine_bytes": manifest.bytes,
        "build_seconds": spread(seconds),
        "build_peak_mb": spread(memory),
    }


if __name__ == "__main__":
    main()
