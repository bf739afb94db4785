"""The stage `export`: one graph per engine, checked against PyTorch, then prepared in every precision."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from edgetl.arrays import Float32Array
from edgetl.artifacts.bundle import IMAGES, Bundle
from edgetl.artifacts.data_index import DataIndex, Sample
from edgetl.artifacts.deployment import GraphSpec, Shortlist
from edgetl.artifacts.files import read_json, write_json
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
_MAX_DIFFERENCE = 1e-3
"""Of a probability. Other kernels round differently by far less; a wrong operator differs by more."""


def inputs(context: Context) -> dict[str, Any]:
    int8 = int8_training(context)
    return {} if int8 is None else {"int8": int8.model_dump(mode="json")}


def work(context: Context) -> list[Path]:
    index, root = read_index(context)
    bundle = read_json(context.run.bundle / "bundle.json", Bundle)
    preparation = preparing(context, index, root, bundle)
    # Before calibration, which takes minutes: a graph that is wrong in float is not worth them.
    written = [_check_parity(context, index.val, root, bundle, preparation.graphs.whole)]
    precisions, records = preparation.prepare(index.train)
    for spec in preparation.graphs.specs:
        for precision in context.study.precisions:
            graphs = precisions.by_qdq_format(spec, precision)
            # Keyed by file: a float graph is the same for both runtimes, and is written once.
            files = {context.run.graphs / spec.file(precision, target): graph for target, graph in graphs.items()}
            for path, graph in files.items():
                save_model(graph, path)
            written += files
    written += records
    context.reporter.message(f"export: {len(written)} files in {context.run.graphs}")
    return written


def preparing(context: Context, index: DataIndex, root: Path, bundle: Bundle) -> StudyPreparation:
    """The study's graphs, and the evaluator that its accuracy control asks."""
    shortlist = read_json(context.run.shortlist, Shortlist)
    needed = {name for spec in shortlist.graphs for name in (*spec.heads, *spec.inputs)}
    heads = [head for head in bundle.heads if head.name in needed]
    trunk = load_model(context.run.bundle / "trunk.onnx")
    tensors = read_tensors(context.run.bundle / "heads.safetensors")
    whole = extract(compose(trunk, heads, tensors, bundle.preprocessing), [head.name for head in heads], [IMAGES])

    def part(spec: GraphSpec) -> SubgraphOf:
        return partial(extract, outputs=(*spec.heads, *spec.handed_on), inputs=spec.inputs)

    # Methods and layers are compared where heads are the end of the graph, as they are in engines. In the whole, a
    # first level's head is no end. Features that only second levels read stay in, or no layer of theirs would be seen.
    first = [head for head in heads if head.first_level is None]
    read = {head.features for head in first}
    others = dict.fromkeys(head.features for head in heads if head.features not in read)
    subgraph = partial(extract, outputs=[*(head.name for head in first), *others], inputs=[IMAGES])
    judged = judged_specs(shortlist, {head.name: head.features for head in bundle.heads})
    graphs, table = StudyGraphs(whole, shortlist.graphs, part, subgraph), trained_table(context, bundle)
    make_evaluator = partial(evaluator_of_study, context=context, samples=index.val, root=root, bundle=bundle)
    return StudyPreparation(context, root, bundle.preprocessing, graphs, judged, make_evaluator, table)


def _check_parity(
    context: Context, samples: tuple[Sample, ...], root: Path, bundle: Bundle, whole: onnx.ModelProto
) -> Path:
    """Compare every head with PyTorch on real images, and write the differences to the file that is returned.

    Raises:
        EdgetlError: a head differs by more than rounding explains.
    """
    batches = stream(samples[:_PARITY_IMAGES], root, renderer(bundle.preprocessing), to_input)
    images = np.concatenate([batch.result for batch in batches])
    outputs = parity.run(whole, images)
    expected = _torch_outputs(context, bundle, images, outputs)
    differences = {
        name: parity.max_difference({name: value}, {name: expected[name]}) for name, value in outputs.items()
    }
    for name, difference in differences.items():
        if difference > _MAX_DIFFERENCE:
            raise EdgetlError(
                f"the head {name} differs from PyTorch by {difference:.2g} in a probability, expected at most "
                f"{_MAX_DIFFERENCE:g}; report this with the backbone's name"
            )
    context.reporter.message(f"export: at most {max(differences.values()):.1e} from PyTorch on {len(images)} images")
    path = context.run.graphs / "parity.json"
    write_json(path, {"schema_version": 1, "images": len(images), "max_abs_difference": differences})
    return path


def _torch_outputs(
    context: Context, bundle: Bundle, images: Float32Array, names: Collection[str]
) -> dict[str, Float32Array]:
    """The named heads' probabilities, as PyTorch computes them from the backbone and the tuned layers.

    Raises:
        EdgetlError: the backbone's weights are not those that the heads were trained on.
    """
    backbone = load_backbone(context.study.backbone, context.base_dir, context.study.seed)
    if fingerprint(backbone.trunk) != bundle.backbone.fingerprint:
        raise EdgetlError(
            f"the heads in {context.run.bundle} were trained on another {bundle.backbone.name} than the study's "
            "weights give now; run edgetl finetune again"
        )
    states = read_branches(context.run.bundle / "branches.safetensors")
    heads = [head for head in bundle.heads if head.name in names]
    readers = {head.features: head for head in heads}
    features = {name: reference_features(backbone, head, states, images) for name, head in readers.items()}
    return head_outputs(heads, read_tensors(context.run.bundle / "heads.safetensors"), features)
