"""Bundle to graphs: one per engine, prepared in every precision, and then made to end in boxes."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import onnx

from edgetl.artifacts.bundle import IMAGES
from edgetl.artifacts.deployment import GraphSpec, Shortlist
from edgetl.artifacts.detections import Form
from edgetl.artifacts.detector import DetectionBundle, DetectionHead
from edgetl.artifacts.files import read_json
from edgetl.graph.detections import RawHead, with_detections
from edgetl.graph.extract import extract
from edgetl.graph.model import load_model, save_model
from edgetl.graph.placement import Target
from edgetl.stages.detect.index import read_index
from edgetl.stages.detect.judging import MeanPrecision
from edgetl.stages.detect.serving import service
from edgetl.stages.precisions import Part, Preparing
from edgetl.stages.stage import Context

_FORMS: Mapping[Target, Form] = {"onnxruntime": "operator", "tensorrt": "loop"}
"""TensorRT-RTX lacks NonMaxSuppression, and full TensorRT 10 is slow at it (its issue 4248)."""


def surroundings(context: Context) -> dict[str, Any]:
    del context
    return {}


def work(context: Context) -> list[Path]:
    index, root = read_index(context)
    bundle = read_json(context.run.bundle / "bundle.json", DetectionBundle)
    network = load_model(context.run.bundle / "network.onnx")
    heads = {head.name: head for head in bundle.heads}
    shortlist = read_json(context.run.shortlist, Shortlist)
    specs = dict.fromkeys(spec for deployment in shortlist.deployments for spec in deployment.graphs)
    whole = extract(network, list(dict.fromkeys(raw for spec in specs for raw in _raws(spec, heads))), [IMAGES])
    parts: dict[GraphSpec, Part] = {
        spec: partial(extract, outputs=_raw_outputs(spec, heads), inputs=spec.inputs) for spec in specs
    }

    def judge() -> MeanPrecision:
        return MeanPrecision(
            whole, index.val, root, bundle, shortlist.deployments, service(context), context.study.detection.suppression
        )

    preparing = Preparing(context, root, bundle.preprocessing, whole, tuple(parts.values()), judge)
    precisions, written = preparing.prepare(index.train)
    for spec, part in parts.items():
        for precision in context.study.precisions:
            written += _write(context, bundle, spec, precision, precisions.spelled(part, precision))
    context.watcher.say(f"export: {len(written)} files in {context.run.graphs}")
    return written


def _raws(spec: GraphSpec, heads: Mapping[str, DetectionHead]) -> tuple[str, ...]:
    return tuple(raw for name in spec.heads for raw in heads[name].raws)


def _raw_outputs(spec: GraphSpec, heads: Mapping[str, DetectionHead]) -> tuple[str, ...]:
    """Of a graph that does not end in boxes yet; a first level hands on some of its own raw outputs too."""
    return tuple(dict.fromkeys((*_raws(spec, heads), *spec.handed_on)))


def _write(
    context: Context,
    bundle: DetectionBundle,
    spec: GraphSpec,
    precision: str,
    spellings: Mapping[Target, onnx.ModelProto],
) -> list[Path]:
    by_name = {head.name: head for head in bundle.heads}
    wanted = [RawHead(one.name, one.classes, one.scales, one.raws) for one in (by_name[name] for name in spec.heads)]
    paths = []
    for target, prepared in spellings.items():
        whole = with_detections(
            prepared,
            wanted,
            bundle.preprocessing,
            context.study.detection.suppression,
            _FORMS[target],
            keep=spec.handed_on,
        )
        path = context.run.graphs / spec.file(precision, target)
        save_model(whole, path)
        paths.append(path)
    return paths
