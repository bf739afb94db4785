"""TensorRT-RTX engines, built without a GPU: size, time and memory of each network, alone and fused, in each precision.

A single engine is one specialist: the trunk and a head of random weights. A fused one is three of them merged by the
code of `edgetl fuse`. INT8 is calibrated on the photographs beside the weights: how large an engine is, and how long it
takes to build, does not depend on which. A detector's graph is exported by `edgetl export` with its suppression inside.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fuse import BACKBONES, write_graphs
from record import MATERIAL, save, spread

from edgetl.artifacts.engine import read_manifest
from edgetl.config import Backbone
from edgetl.errors import EdgetlError
from edgetl.graph.fusion.fuse import fuse
from edgetl.graph.model import load_model, save_model
from edgetl.stages.prepare import Preparation, prepare_file

NETWORKS = {
    **BACKBONES,
    "SqueezeNet": ("torchvision/squeezenet1_0", "backbones/squeezenet1_0/squeezenet1_0.safetensors"),
}
DETECTOR = ("darknet/mobilenetv2-yolov3-nano-coco", ("operator", "loop"))
"""A folder of the material with one .cfg and one .weights, and the forms of suppression to try."""

CAPABILITY = "SM86"
BUILDS = 3


@dataclass(frozen=True)
class Quiet:
    """Nobody watches."""

    def say(self, text: str) -> None:
        del text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--material", type=Path, default=MATERIAL)
    parser.add_argument("--detector", action="store_true", help="the detector too: needs edgetl export of a CFG")
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    rows = list(networks(options.material))
    detector = list(detectors(options.material)) if options.detector else "not built: run with --detector"
    figures = {"compute_capability": CAPABILITY, "builds": BUILDS, "engines": rows, "detector": detector}
    save(options.output, "engines", figures, threads=0)


def networks(material: Path) -> Iterator[dict[str, Any]]:
    for title, (name, weights) in NETWORKS.items():
        with tempfile.TemporaryDirectory() as folder:
            scratch = Path(folder)
            study = Backbone(name=name, weights=str(material / weights) if weights else None)
            specialists, _ = write_graphs(study, scratch)
            fused = scratch / "fused.onnx"
            save_model(fuse({path.stem: load_model(path) for path in specialists}).model, fused)
            for form, graph in (("single", specialists[0]), ("fused", fused)):
                yield from precisions({"network": title, "form": form}, graph, material / "backbones" / "images")


def detectors(material: Path) -> Iterator[dict[str, Any]]:
    """A YOLO detector with its suppression in the graph, in both forms; what is refused is recorded word for word."""
    folder, forms = DETECTOR
    cfg, weights = (next((material / folder).glob(f"*{suffix}")) for suffix in (".cfg", ".weights"))
    for form in forms:
        with tempfile.TemporaryDirectory() as scratch:
            graph = Path(scratch) / "detector.onnx"
            command = [sys.executable, "-m", "edgetl", "export", cfg, "--weights", weights, "--nms", form, "-o", graph]
            subprocess.run(list(map(str, command)), check=True)
            title = {"network": cfg.stem, "form": f"suppression as {form}"}
            yield from precisions(title, graph, material / "darknet" / "images")


def precisions(title: dict[str, str], graph: Path, images: Path) -> Iterator[dict[str, Any]]:
    for precision in ("fp32", "fp16", "int8"):
        prepared = graph.with_name(f"{graph.stem}.{precision}.prepared.onnx")
        row = {**title, "precision": precision}
        try:
            if precision == "fp32":
                prepared = graph
            else:
                wanted = Preparation(precision, "tensorrt", images if precision == "int8" else None)
                prepare_file(graph, prepared, wanted, Quiet())  # type: ignore[arg-type]
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
