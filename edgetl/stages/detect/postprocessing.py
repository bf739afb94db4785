"""The postprocessing of a bundle's detectors, appended to a graph that ends in their raw outputs."""

from __future__ import annotations

import onnx

from edgetl.artifacts.deployment import GraphSpec
from edgetl.artifacts.detector_bundle import DetectionBundle
from edgetl.artifacts.predictions import NmsImplementation
from edgetl.config import NmsSettings
from edgetl.graph.detection_postprocessing import RawHead, with_detections


def with_postprocessing(
    graph: onnx.ModelProto,
    spec: GraphSpec,
    bundle: DetectionBundle,
    suppression: NmsSettings,
    form: NmsImplementation = "operator",
) -> onnx.ModelProto:
    """The graph, in whatever precision, with detections of its heads in place of their raw outputs."""
    by_name = {head.name: head for head in bundle.heads}
    heads = [RawHead(one.name, one.classes, one.scales, one.raws) for one in (by_name[name] for name in spec.heads)]
    return with_detections(graph, heads, bundle.preprocessing, suppression, form, keep=spec.handed_on)
