"""The stage `finetune`: all heads at once on cached features of the frozen trunk, then the layers above each cut."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgetl.artifacts.bundle import Bundle
from edgetl.artifacts.files import write_json
from edgetl.stages.classify.classifier_trainer import ClassifierTrainer
from edgetl.stages.classify.index import read_index
from edgetl.stages.classify.int8_trunk import int8_training
from edgetl.stages.classify.study_features import StudyFeatures
from edgetl.stages.stage import Context, backbone_inputs
from edgetl.train.backbones import fingerprint, load_backbone


def inputs(context: Context) -> dict[str, Any]:
    int8 = int8_training(context)
    return backbone_inputs(context) | ({} if int8 is None else {"int8": int8.model_dump(mode="json")})


def work(context: Context) -> list[Path]:
    study = context.study
    index, root = read_index(context)
    backbone = load_backbone(study.backbone, context.base_dir, study.seed)
    source = StudyFeatures(context, index, root, backbone)
    points = source.cuts()  # before any training: a cut that does not exist is refused at once
    trainer = ClassifierTrainer(source)
    features = trainer.train_at_the_top()
    for file in features.broken:
        context.reporter.message(f"finetune: left out {file.path}: {file.reason}")
    for point in points:
        trainer.train_above(point)
    if any(kind.gated for kind in study.kinds):
        trainer.train_second_level(features)  # last: it reads the best branch of each group
    # One trunk serves all heads; tuning works on copies, and a head that moved it would have broken the others.
    assert fingerprint(backbone.trunk) == backbone.reference.fingerprint, "the trunk must stay frozen"
    bundle = Bundle(
        backbone=backbone.reference,
        preprocessing=backbone.preprocessing,
        groups=study.groups,
        heads=tuple(trainer.trained.heads),
        data_digest=index.digest("train", "val"),
        broken=features.broken,
        int8=int8_training(context),
    )
    written = trainer.trained.write(context.run.bundle, bundle, features.val.labels)
    if trainer.int8 is not None:
        written.append(context.run.bundle / "calibration.json")
        write_json(written[-1], trainer.int8.table)
    return written
