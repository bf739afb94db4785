"""A plain Darknet model as an ONNX file, without a study."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import onnx

from edgetl.artifacts.bundle import Preprocessing
from edgetl.artifacts.detections import Form
from edgetl.config import LARGEST_IMAGE, Suppression
from edgetl.config.fields import SMALLEST_IMAGE
from edgetl.data.geometry import Size
from edgetl.data.names import read_names
from edgetl.errors import EdgetlError
from edgetl.graph import parity
from edgetl.graph.detections import RawHead, with_detections
from edgetl.graph.metadata import describe
from edgetl.graph.model import save_model
from edgetl.graph.simplify import simplify
from edgetl.stages.stage import Watcher
from edgetl.train.darknet.cfg import Cfg, read_cfg
from edgetl.train.darknet.network import Darknet, build
from edgetl.train.darknet.weights import read_weights
from edgetl.train.export import export_network, network_outputs
from edgetl.train.weights import load_into

Fit = Literal["letterbox", "stretch", "crop"]

DETECTIONS, PROBABILITIES = "detections", "probabilities"
"""What the output of a detector and of a classifier is called."""

_MOST_DIFFERENCE = 1e-4


@dataclass(frozen=True)
class DarknetOrder:
    """What is to be exported, and how.

    ``size``: width and height of the network's input, else the .cfg file's. ``fit``: how images become that, else
    letterboxed for a detector and cropped for a classifier. ``form`` and ``suppression`` are for detectors.
    """

    cfg: Path
    weights: Path
    names: Path
    output: Path
    size: Size | None = None
    fit: Fit | None = None
    form: Form = "operator"
    suppression: Suppression = field(default_factory=Suppression)


def export_darknet(order: DarknetOrder, watcher: Watcher) -> None:
    """Write the graph, once it says of random images what PyTorch says.

    Raises:
        EdgetlError: a file is missing or damaged, weights or names belong to another .cfg, the size does not fit to the
            network, the graph differs from PyTorch's network, or it cannot be written.
    """
    cfg = read_cfg(order.cfg)
    names = read_names(order.names, repeated=not cfg.detections)
    preprocessing = _preprocessing(cfg, order)
    network = build(cfg)
    load_into(network, read_weights(order.weights, cfg), (), str(order.cfg), str(order.weights))
    raws = [f"{DETECTIONS}/{number}" for number in range(len(network.endings))]
    graph = simplify(export_network(network, preprocessing.shape, raws or [PROBABILITIES], str(order.cfg)))
    difference = _difference(network, graph, preprocessing)
    if not difference <= _MOST_DIFFERENCE:
        raise EdgetlError(
            f"the graph of {order.cfg} differs from PyTorch's network by {difference:.2g} of its largest output, "
            f"expected at most {_MOST_DIFFERENCE:g}; report this with the .cfg file"
        )
    watcher.say(f"export: at most {difference:.1e} of the largest output from PyTorch on random images")
    save_model(_finished(graph, network, names, raws, preprocessing, order), order.output)


def _preprocessing(cfg: Cfg, order: DarknetOrder) -> Preprocessing:
    width, height = order.size or (cfg.width, cfg.height)
    if not SMALLEST_IMAGE <= min(width, height) <= max(width, height) <= LARGEST_IMAGE:
        raise EdgetlError(
            f"the input of {order.cfg} would be {width} x {height}, expected sides from {SMALLEST_IMAGE} to "
            f"{LARGEST_IMAGE} pixels; give another --image-size"
        )
    stride = max((cfg.width // layer.shape.width for layer in cfg.detections), default=1)
    if order.size and (width % stride or height % stride):
        raise EdgetlError(
            f"{width} x {height} do not divide into the cells of {order.cfg}, {stride} x {stride} pixels each; give "
            f"multiples of {stride} as --image-size"
        )
    fit = order.fit or ("letterbox" if cfg.detections else "crop")
    if fit == "crop" and width != height:
        raise EdgetlError(f"--fit crop takes squares, not {width} x {height}; give --fit stretch or letterbox")
    return Preprocessing(width=width, height=height, fit=fit)


def _difference(network: Darknet, graph: onnx.ModelProto, preprocessing: Preprocessing) -> float:
    """Between PyTorch and ONNX Runtime on noise: the largest of an output over its largest value."""
    images = np.random.default_rng(0).random((2, *preprocessing.shape), dtype=np.float32)
    expected = network_outputs(network, images)
    found = parity.run(graph, images).values()
    each = (
        parity.max_difference({"": ours}, {"": theirs}) / float(np.abs(theirs).max(initial=1e-6))
        for ours, theirs in zip(found, expected, strict=True)
    )
    return max(each)


def _finished(
    graph: onnx.ModelProto,
    network: Darknet,
    names: tuple[str, ...],
    raws: list[str],
    preprocessing: Preprocessing,
    order: DarknetOrder,
) -> onnx.ModelProto:
    """With detections in place of raw outputs, and with metadata."""
    if not raws:
        (classes,) = [dim.dim_value for dim in graph.graph.output[0].type.tensor_type.shape.dim][1:]
        _refuse_other_count(order, names, classes)
        describe(graph, {PROBABILITIES: names}, {}, preprocessing)
        return graph
    for ending in network.endings:
        _refuse_other_count(order, names, ending.classes)
    head = RawHead(DETECTIONS, names, tuple(ending.scale for ending in network.endings), tuple(raws))
    return with_detections(graph, [head], preprocessing, order.suppression, order.form)


def _refuse_other_count(order: DarknetOrder, names: tuple[str, ...], classes: int) -> None:
    if len(names) != classes:
        raise EdgetlError(
            f"{order.names} has {len(names)} names, {order.cfg} has {classes} classes; give the names that belong to it"
        )
