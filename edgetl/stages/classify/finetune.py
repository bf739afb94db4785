"""Index to bundle: features once through the frozen trunk, then all heads at once; then what is tuned above cuts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from edgetl.artifacts.bundle import IMAGES, Bundle
from edgetl.artifacts.deployment import CASCADE
from edgetl.artifacts.files import write_bytes, write_json
from edgetl.graph.fusion.fused_graph import fuse
from edgetl.graph.model import save_model
from edgetl.stages.classify.classifier_trainer import ClassifierTrainer, TrainedClassifiers
from edgetl.stages.classify.index import read_index
from edgetl.stages.classify.int8_trunk import int8_training
from edgetl.stages.classify.study_features import StudyFeatures
from edgetl.stages.stage import Context, backbone_inputs
from edgetl.train.backbones import Backbone, fingerprint, load_backbone
from edgetl.train.cuts import CutPoint, choose_cuts, cut_points


def inputs(context: Context) -> dict[str, Any]:
    int8 = int8_training(context)
    return backbone_inputs(context) | ({} if int8 is None else {"int8": int8.model_dump(mode="json")})


def work(context: Context) -> list[Path]:
    study = context.study
    index, root = read_index(context)
    backbone = load_backbone(study.backbone, context.base_dir, study.seed)
    points = _cuts(context, backbone)
    trainer = ClassifierTrainer(StudyFeatures(context, index, root, backbone))
    seen = trainer.train_at_the_top()
    for file in seen.broken:
        context.reporter.message(f"finetune: left out {file.path}: {file.reason}")
    for point in points:
        trainer.train_above(point)
    if CASCADE in study.deployments:
        trainer.train_second_level(seen)
    assert fingerprint(backbone.trunk) == backbone.reference.fingerprint, "the trunk must stay frozen"
    bundle = Bundle(
        backbone=backbone.reference,
        preprocessing=backbone.preprocessing,
        groups=study.groups,
        heads=tuple(trainer.trained.heads),
        data_digest=index.digest("train", "val"),
        broken=seen.broken,
        int8=int8_training(context),
    )
    written = _write(context.run.bundle, bundle, trainer.trained, seen.val.labels)
    if trainer.int8 is not None:
        written.append(context.run.bundle / "calibration.json")
        write_json(written[-1], trainer.int8.table)
    return written


def _cuts(context: Context, backbone: Backbone) -> tuple[CutPoint, ...]:
    """The cuts below the top that the study asks for."""
    wanted = context.study.backbone.cut
    if wanted is None:
        return ()
    points = cut_points(backbone)
    known = {point.name: point for point in points} | {IMAGES: CutPoint(IMAGES, backbone.preprocessing.shape, 0.0)}
    chosen = tuple(known[name] for name in choose_cuts(points, wanted)[:-1])
    depths = ", ".join(f"{point.name} ({point.depth:.0%})" for point in chosen)
    context.reporter.message(f"finetune: cuts, with the share of FLOPs below them: {depths or 'the top alone'}")
    return chosen


def _write(folder: Path, bundle: Bundle, trained: TrainedClassifiers, val_labels: Sequence[str]) -> list[Path]:
    said = {f"head/{name}": values for name, values in trained.outputs().items()}
    truth = np.array([bundle.labels.index(label) for label in val_labels], np.int64)
    states = {f"{head}/{name}": value for head, state in trained.states.items() for name, value in state.items()}
    save_model(fuse(trained.networks).model, folder / "trunk.onnx")
    write_bytes(folder / "heads.safetensors", save(trained.tensors))
    write_bytes(folder / "branches.safetensors", save(states))
    write_bytes(folder / "validation.safetensors", save({"truth": truth, **said}))
    write_json(folder / "bundle.json", bundle)
    names = ("trunk.onnx", "heads.safetensors", "branches.safetensors", "validation.safetensors", "bundle.json")
    return [folder / name for name in names]
