"""The stage `export`: one graph per engine, prepared in every precision, and then made to end in boxes."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from edgetl.artifacts.bundle import IMAGES
from edgetl.artifacts.deployment import GraphSpec, Shortlist
from edgetl.artifacts.detector_bundle import DetectionBundle
from edgetl.artifacts.files import read_json
from edgetl.artifacts.predictions import NmsImplementation
from edgetl.config import QdqFormat
from edgetl.graph.extract import extract
from edgetl.graph.model import load_model, save_model
from edgetl.stages.detect.evaluator import DetectorDeploymentEvaluator
from edgetl.stages.detect.index import read_index
from edgetl.stages.detect.postprocessing import with_postprocessing
from edgetl.stages.precisions import StudyGraphs, StudyPreparation, judged_specs
from edgetl.stages.quantization_variants import SubgraphOf
from edgetl.stages.stage import Context

_NMS: Mapping[QdqFormat, NmsImplementation] = {"onnxruntime": "operator", "tensorrt": "loop"}
"""TensorRT-RTX lacks NonMaxSuppression, and full TensorRT 10 is slow at it (its issue 4248)."""


def inputs(context: Context) -> dict[str, Any]:
    del context
    return {}


def work(context: Context) -> list[Path]:
    index, root = read_index(context)
    bundle = read_json(context.run.bundle / "bundle.json", DetectionBundle)
    shortlist = read_json(context.run.shortlist, Shortlist)
    graphs = _graphs(context, bundle, shortlist)
    judged = judged_specs(shortlist, {head.name: head.place for head in bundle.heads})
    make_evaluator = partial(
        DetectorDeploymentEvaluator, context=context, specs=judged, samples=index.val, root=root, bundle=bundle
    )
    preparation = StudyPreparation(context, root, bundle.preprocessing, graphs, judged, make_evaluator)
    precisions, written = preparation.prepare(index.train)
    for spec in graphs.specs:
        for precision in context.study.precisions:
            for target, prepared in precisions.by_qdq_format(spec, precision).items():
                # Boxes are appended last, so that they are decoded in float32 whatever the network's precision.
                graph = with_postprocessing(prepared, spec, bundle, context.study.detection.nms, _NMS[target])
                written.append(context.run.graphs / spec.file(precision, target))
                save_model(graph, written[-1])
    context.reporter.message(f"export: {len(written)} files in {context.run.graphs}")
    return written


def _graphs(context: Context, bundle: DetectionBundle, shortlist: Shortlist) -> StudyGraphs:
    network = load_model(context.run.bundle / "network.onnx")
    by_name = {head.name: head for head in bundle.heads}
    heads = [by_name[name] for name in dict.fromkeys(name for spec in shortlist.graphs for name in spec.heads)]

    def part(spec: GraphSpec) -> SubgraphOf:
        raws = [raw for name in spec.heads for raw in by_name[name].raws]
        # Each once: a cascade's first level hands on some of its own raw outputs too.
        return partial(extract, outputs=list(dict.fromkeys((*raws, *spec.handed_on))), inputs=spec.inputs)

    # Methods and layers are compared without second levels, in whose graph a first level's raw outputs are no end.
    first = [raw for head in heads if head.first_level is None for raw in head.raws]
    whole = extract(network, [raw for head in heads for raw in head.raws], [IMAGES])
    return StudyGraphs(whole, shortlist.graphs, part, partial(extract, outputs=first, inputs=[IMAGES]))
