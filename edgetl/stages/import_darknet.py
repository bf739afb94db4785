"""Makes an ONNX file of a plain Darknet model, without a study."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx

from edgetl.artifacts.bundle import Preprocessing
from edgetl.artifacts.predictions import NmsImplementation
from edgetl.config import LARGEST_IMAGE, Fit, NmsSettings
from edgetl.config.fields import SMALLEST_IMAGE
from edgetl.data.class_names import read_names
from edgetl.data.geometry import Size
from edgetl.errors import EdgetlError
from edgetl.graph import parity
from edgetl.graph.detection_postprocessing import RawHead, with_detections
from edgetl.graph.metadata import describe
from edgetl.graph.model import save_model
from edgetl.graph.simplify import simplify
from edgetl.stages.stage import ProgressReporter
from edgetl.train.darknet.cfg import Cfg, read_cfg
from edgetl.train.darknet.network import Darknet, build
from edgetl.train.darknet.weights import read_weights
from edgetl.train.load_weights import load_into
from edgetl.train.onnx_export import export_network, network_outputs

DETECTIONS, PROBABILITIES = "detections", "probabilities"
"""The names of a detector's output and of a classifier's."""

_MOST_DIFFERENCE = 1e-4


@dataclass(frozen=True)
class DarknetImportRequest:
    """A Darknet model to import, and how.

    ``labels``: a file with a name on each line. ``image_size``: width and height of the network's input, else the .cfg
    file's. ``fit``: how images become that, else letterboxed for a detector and cropped for a classifier. ``nms`` and
    ``nms_settings`` are for detectors.
    """

    cfg: Path
    weights: Path
    labels: Path
    output: Path
    image_size: Size | None = None
    fit: Fit | None = None
    nms: NmsImplementation = "operator"
    nms_settings: NmsSettings = field(default_factory=NmsSettings)


def import_darknet(request: DarknetImportRequest, reporter: ProgressReporter) -> None:
    """Write the ONNX graph, after checking that it computes what PyTorch's network does on random images.

    Raises:
        EdgetlError: a file is missing or damaged, weights or names belong to another .cfg, the size does not fit to the
            network, the graph differs from PyTorch's network, or it cannot be written.
    """
    cfg = read_cfg(request.cfg)
    names = read_names(request.labels, repeated=not cfg.detections)
    preprocessing = _preprocessing(cfg, request)
    network = build(cfg)
    load_into(network, read_weights(request.weights, cfg), (), str(request.cfg), str(request.weights))
    raws = [f"{DETECTIONS}/{number}" for number in range(len(network.detection_layers))]
    graph = simplify(export_network(network, preprocessing.shape, raws or [PROBABILITIES], str(request.cfg)))
    difference = _difference(graph, network, preprocessing)
    if not difference <= _MOST_DIFFERENCE:
        raise EdgetlError(
            f"the graph of {request.cfg} differs from PyTorch's network by {difference:.2g} of its largest output, "
            f"expected at most {_MOST_DIFFERENCE:g}; report this with the .cfg file"
        )
    reporter.message(f"import-darknet: at most {difference:.1e} of the largest output from PyTorch on random images")
    _refuse_other_names(names, network, graph, request)
    if raws:
        head = RawHead(DETECTIONS, names, tuple(one.scale for one in network.detection_layers), tuple(raws))
        graph = with_detections(graph, [head], preprocessing, request.nms_settings, request.nms)
    else:
        describe(graph, {PROBABILITIES: names}, {}, preprocessing)
    save_model(graph, request.output)


def _refuse_other_names(
    names: Sequence[str], network: Darknet, graph: onnx.ModelProto, request: DarknetImportRequest
) -> None:
    counts = [head.classes for head in network.detection_layers]
    if not counts:
        counts = [dim.dim_value for dim in graph.graph.output[0].type.tensor_type.shape.dim][1:]
    if wrong := [classes for classes in counts if classes != len(names)]:
        raise EdgetlError(
            f"{request.labels} has {len(names)} names, {request.cfg} has {wrong[0]} classes; "
            "give the names that belong to it"
        )


def _difference(graph: onnx.ModelProto, network: Darknet, preprocessing: Preprocessing) -> float:
    """The largest difference between the graph and PyTorch's network on random images, as a share of each output's
    largest value.
    """
    images = np.random.default_rng(0).random((2, *preprocessing.shape), dtype=np.float32)
    difference = 0.0
    for ours, theirs in zip(parity.run(graph, images).values(), network_outputs(network, images), strict=True):
        largest = float(np.abs(theirs).max(initial=1e-6))  # raw boxes are in pixels, probabilities below 1
        # Not max(), which may lose a NaN.
        difference = np.maximum(difference, parity.max_difference({"": ours}, {"": theirs}) / largest)
    return difference


def _preprocessing(cfg: Cfg, request: DarknetImportRequest) -> Preprocessing:
    width, height = request.image_size or (cfg.width, cfg.height)
    if not SMALLEST_IMAGE <= min(width, height) <= max(width, height) <= LARGEST_IMAGE:
        raise EdgetlError(
            f"the input of {request.cfg} would be {width} x {height}, expected sides from {SMALLEST_IMAGE} to "
            f"{LARGEST_IMAGE} pixels; give another --image-size"
        )
    # Maps of a detector have whole cells only where the coarsest stride divides the input.
    stride = max((cfg.width // layer.shape.width for layer in cfg.detections), default=1)
    if request.image_size and (width % stride or height % stride):
        raise EdgetlError(
            f"{width} x {height} do not divide into the cells of {request.cfg}, {stride} x {stride} pixels each; give "
            f"multiples of {stride} as --image-size"
        )
    fit = request.fit or ("letterbox" if cfg.detections else "crop")
    if fit == "crop" and width != height:
        raise EdgetlError(f"--fit crop takes squares, not {width} x {height}; give --fit stretch or letterbox")
    return Preprocessing(width=width, height=height, fit=fit)
