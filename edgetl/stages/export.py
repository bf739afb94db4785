"""Bundle to graphs: one per engine, checked against PyTorch, then prepared in every precision."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import onnx

from edgetl.artifacts.bundle import Bundle
from edgetl.artifacts.calibration import CalibrationImage, CalibrationTable
from edgetl.artifacts.deployment import GraphSpec, layout
from edgetl.artifacts.files import read_json, write_json
from edgetl.artifacts.index import DataIndex, Sample
from edgetl.config import load_recipe
from edgetl.data.calibration_images import draw
from edgetl.data.stream import stream, to_input
from edgetl.errors import EdgetlError
from edgetl.graph import parity
from edgetl.graph.calibrate import calibrate
from edgetl.graph.compose import compose
from edgetl.graph.half import to_fp16
from edgetl.graph.model import load_model, save_model
from edgetl.graph.placement import Target
from edgetl.graph.quantise import quantise
from edgetl.stages.index import read_index
from edgetl.stages.stage import Context
from edgetl.train.backbones import fingerprint, load_backbone
from edgetl.train.export import reference_outputs
from edgetl.train.heads import read_heads

Array = npt.NDArray[np.float32]

_PARITY_IMAGES = 16
_MOST_DIFFERENCE = 1e-3


def surroundings(context: Context) -> dict[str, Any]:
    del context
    return {}


def work(context: Context) -> list[Path]:
    index, root = read_index(context)
    bundle = read_json(context.run.bundle / "bundle.json", Bundle)
    trunk = load_model(context.run.bundle / "trunk.onnx")
    tensors = read_heads(context.run.bundle / "heads.safetensors")
    heads = {head.name: head for head in bundle.heads}
    specs = [spec for name in context.study.deployments for spec in layout(name, tuple(bundle.groups))]
    models = {
        spec.stem: compose(trunk, [heads[name] for name in spec.heads], tensors, bundle.preprocessing) for spec in specs
    }
    written = [_check_parity(context, index.val, root, bundle, models)]
    table = None
    if "int8" in context.study.precisions:
        table, path = _calibrate(context, index, root, bundle, models[specs[0].stem])
        written.append(path)
    for spec in specs:
        for precision in context.study.precisions:
            written += _prepare(context, spec, models[spec.stem], precision, table)
    context.watcher.say(f"export: {len(written)} files in {context.run.graphs}")
    return written


def _prepare(
    context: Context, spec: GraphSpec, model: onnx.ModelProto, precision: str, table: CalibrationTable | None
) -> list[Path]:
    if precision == "int8" and table is not None:
        prepared = {spec.file(precision, target): quantise(model, table, target) for target in get_args(Target)}
    else:
        prepared = {spec.file(precision, ""): to_fp16(model) if precision == "fp16" else model}
    for name, graph in prepared.items():
        save_model(graph, context.run.graphs / name)
    return [context.run.graphs / name for name in prepared]


def _check_parity(
    context: Context, samples: tuple[Sample, ...], root: Path, bundle: Bundle, models: dict[str, onnx.ModelProto]
) -> Path:
    """Every graph must say what PyTorch says of real images; how near it comes is recorded."""
    backbone = load_backbone(context.study.backbone, context.beside, context.study.seed)
    if fingerprint(backbone.trunk, context.study.backbone.cut) != bundle.backbone.fingerprint:
        raise EdgetlError(
            f"the heads in {context.run.bundle} were trained on another {bundle.backbone.name} than the study's "
            "weights give now; run edgetl finetune again"
        )
    batches = stream(samples[:_PARITY_IMAGES], root, bundle.preprocessing, to_input)
    images = np.concatenate([batch.result for batch in batches])
    expected = reference_outputs(backbone, bundle.heads, read_heads(context.run.bundle / "heads.safetensors"), images)
    differences = {}
    for stem, model in models.items():
        outputs = parity.run(model, images)
        differences[stem] = parity.max_difference(outputs, {name: expected[name] for name in outputs})
        if differences[stem] > _MOST_DIFFERENCE:
            raise EdgetlError(
                f"the graph {stem} differs from PyTorch by {differences[stem]:.2g} in a probability, expected at most "
                f"{_MOST_DIFFERENCE:g}; report this with the backbone's name"
            )
    context.watcher.say(f"export: at most {max(differences.values()):.1e} from PyTorch on {len(images)} images")
    path = context.run.graphs / "parity.json"
    write_json(path, {"schema_version": 1, "images": len(images), "max_abs_difference": differences})
    return path


def _calibrate(
    context: Context, index: DataIndex, root: Path, bundle: Bundle, model: onnx.ModelProto
) -> tuple[CalibrationTable, Path]:
    """Ranges of the trunk's tensors, from training images drawn by seed: all deployments stand on the same trunk."""
    recipe = load_recipe(context.study.calibration, context.beside)
    samples = draw(index.train, recipe)
    with context.watcher.progress("calibration", len(samples)) as advance:

        def batches() -> Iterator[Array]:
            for batch in stream(samples, root, bundle.preprocessing, to_input):
                advance(len(batch.rows))
                yield batch.result

        images = tuple(CalibrationImage(path=sample.path, sha256=sample.sha256) for sample in samples)
        table = calibrate(model, batches(), recipe, images)
    path = context.run.graphs / "calibration.json"
    write_json(path, table)
    return table, path
