"""Bundle to graphs: one per engine, checked against PyTorch, then prepared in every precision."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from edgetl.arrays import Float32Array
from edgetl.artifacts.bundle import IMAGES, Bundle, ClassificationHead
from edgetl.artifacts.data_index import DataIndex, Sample
from edgetl.artifacts.deployment import GraphSpec, Shortlist
from edgetl.artifacts.files import read_json, write_json
from edgetl.config import QdqFormat
from edgetl.data.stream import stream, to_input
from edgetl.data.views import renderer
from edgetl.errors import EdgetlError
from edgetl.graph import parity
from edgetl.graph.compose import compose
from edgetl.graph.extract import extract
from edgetl.graph.model import load_model, save_model
from edgetl.stages.classify.evaluator import evaluator_of_study
from edgetl.stages.classify.index import read_index
from edgetl.stages.classify.int8_trunk import int8_training, trained_table
from edgetl.stages.precisions import StudyGraphs, StudyPreparation, judged_specs
from edgetl.stages.quantization_variants import SubgraphOf
from edgetl.stages.stage import Context
from edgetl.train.backbones import fingerprint, load_backbone
from edgetl.train.linear_heads import read_tensors
from edgetl.train.reference import head_outputs, read_branches, reference_features

_PARITY_IMAGES = 16
_MOST_DIFFERENCE = 1e-3


def inputs(context: Context) -> dict[str, Any]:
    int8 = int8_training(context)
    return {} if int8 is None else {"int8": int8.model_dump(mode="json")}


def work(context: Context) -> list[Path]:
    index, root = read_index(context)
    bundle = read_json(context.run.bundle / "bundle.json", Bundle)
    order = preparing(context, index, root, bundle)
    written = [_check_parity(context, index.val, root, bundle, order.graphs.whole)]
    precisions, notes = order.prepare(index.train)
    for spec in order.graphs.specs:
        for precision in context.study.precisions:
            written += _save(context, spec, precision, precisions.by_qdq_format(spec, precision))
    written += notes
    context.reporter.message(f"export: {len(written)} files in {context.run.graphs}")
    return written


def preparing(context: Context, index: DataIndex, root: Path, bundle: Bundle) -> StudyPreparation:
    """The study's graphs, and what its guard judges them by."""
    shortlist = read_json(context.run.shortlist, Shortlist)
    judged = judged_specs(shortlist, {head.name: head.features for head in bundle.heads})
    table = trained_table(context, bundle)
    judge = partial(evaluator_of_study, samples=index.val, root=root, bundle=bundle, shortlist=shortlist)
    return StudyPreparation(
        context, root, bundle.preprocessing, _graphs(context, bundle, shortlist), judged, judge, table
    )


def _graphs(context: Context, bundle: Bundle, shortlist: Shortlist) -> StudyGraphs:
    needed = {name for spec in shortlist.graphs for name in (*spec.heads, *spec.inputs)}
    heads = [head for head in bundle.heads if head.name in needed]
    trunk = load_model(context.run.bundle / "trunk.onnx")
    tensors = read_tensors(context.run.bundle / "heads.safetensors")
    whole = extract(compose(trunk, heads, tensors, bundle.preprocessing), [head.name for head in heads], [IMAGES])
    return StudyGraphs(whole, shortlist.graphs, _part, partial(extract, outputs=_first_level(heads), inputs=[IMAGES]))


def _part(spec: GraphSpec) -> SubgraphOf:
    return partial(extract, outputs=(*spec.heads, *spec.handed_on), inputs=spec.inputs)


def _first_level(heads: Sequence[ClassificationHead]) -> list[str]:
    """Heads that read nothing but features, and the features that only others read."""
    first = [head for head in heads if head.first_level is None]
    read = {head.features for head in first}
    alone = dict.fromkeys(head.features for head in heads if head.features not in read)
    return [*(head.name for head in first), *alone]


def _save(
    context: Context, spec: GraphSpec, precision: str, formats: Mapping[QdqFormat, onnx.ModelProto]
) -> list[Path]:
    graphs = {spec.file(precision, target): graph for target, graph in formats.items()}
    for name, graph in graphs.items():
        save_model(graph, context.run.graphs / name)
    return [context.run.graphs / name for name in graphs]


def _check_parity(
    context: Context, samples: tuple[Sample, ...], root: Path, bundle: Bundle, whole: onnx.ModelProto
) -> Path:
    """Every head must say what PyTorch says of real images; how near it comes is recorded."""
    batches = stream(samples[:_PARITY_IMAGES], root, renderer(bundle.preprocessing), to_input)
    images = np.concatenate([batch.result for batch in batches])
    outputs = parity.run(whole, images)
    expected = _by_torch(context, bundle, images, outputs)
    differences = {
        name: parity.max_difference({name: value}, {name: expected[name]}) for name, value in outputs.items()
    }
    for name, difference in differences.items():
        if difference > _MOST_DIFFERENCE:
            raise EdgetlError(
                f"the head {name} differs from PyTorch by {difference:.2g} in a probability, expected at most "
                f"{_MOST_DIFFERENCE:g}; report this with the backbone's name"
            )
    context.reporter.message(f"export: at most {max(differences.values()):.1e} from PyTorch on {len(images)} images")
    path = context.run.graphs / "parity.json"
    write_json(path, {"schema_version": 1, "images": len(images), "max_abs_difference": differences})
    return path


def _by_torch(
    context: Context, bundle: Bundle, images: Float32Array, wanted: Collection[str]
) -> dict[str, Float32Array]:
    """Every wanted head's probabilities as PyTorch computes them from the backbone and the tuned layers."""
    backbone = load_backbone(context.study.backbone, context.base_dir, context.study.seed)
    if fingerprint(backbone.trunk) != bundle.backbone.fingerprint:
        raise EdgetlError(
            f"the heads in {context.run.bundle} were trained on another {bundle.backbone.name} than the study's "
            "weights give now; run edgetl finetune again"
        )
    states = read_branches(context.run.bundle / "branches.safetensors")
    heads = [head for head in bundle.heads if head.name in wanted]
    readers = {head.features: head for head in heads}
    features = {name: reference_features(backbone, head, states, images) for name, head in readers.items()}
    return head_outputs(heads, read_tensors(context.run.bundle / "heads.safetensors"), features)
