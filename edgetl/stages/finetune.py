"""Index to bundle: features once through the frozen trunk, then all heads at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
from safetensors.numpy import save

from edgetl.artifacts.bundle import Bundle
from edgetl.artifacts.files import sha256_file, write_bytes, write_json
from edgetl.artifacts.index import BrokenFile, DataIndex, Sample
from edgetl.data.index import check_broken_share
from edgetl.graph.model import save_model
from edgetl.graph.simplify import simplify
from edgetl.stages.index import read_index
from edgetl.stages.stage import Context
from edgetl.train.backbones import Backbone, fingerprint, load_backbone
from edgetl.train.export import export_trunk
from edgetl.train.features import Features, View, cached_features, make_extractor
from edgetl.train.heads import LabelledFeatures, plan_heads, train_heads


def surroundings(context: Context) -> dict[str, Any]:
    weights = context.study.backbone.weights
    path = context.beside / (weights or "")
    return {"weights": sha256_file(path) if weights not in {None, "default"} and path.is_file() else None}


def work(context: Context) -> list[Path]:
    study = context.study
    index, root = read_index(context)
    backbone = load_backbone(study.backbone, context.beside, study.seed)
    trunk = simplify(export_trunk(backbone))
    train, val, broken = _features(context, index, root, backbone, trunk)
    plans = plan_heads(study.deployments, study.groups)
    heads, tensors = train_heads(plans, train, val, study.training.regularisation)
    for head in heads:
        context.watcher.say(f"finetune: head {head.name}: {head.val_accuracy:.1%} on validation")
    assert fingerprint(backbone.trunk, study.backbone.cut) == backbone.reference.fingerprint, (
        "the trunk must stay frozen"
    )
    bundle = Bundle(
        backbone=backbone.reference,
        preprocessing=backbone.preprocessing,
        groups=study.groups,
        heads=heads,
        data_digest=index.digest("train", "val"),
        broken=broken,
    )
    folder = context.run.bundle
    save_model(trunk, folder / "trunk.onnx")
    write_bytes(folder / "heads.safetensors", save(tensors))
    write_json(folder / "bundle.json", bundle)
    return [folder / "trunk.onnx", folder / "heads.safetensors", folder / "bundle.json"]


def _features(
    context: Context, index: DataIndex, root: Path, backbone: Backbone, trunk: onnx.ModelProto
) -> tuple[LabelledFeatures, LabelledFeatures, tuple[BrokenFile, ...]]:
    """Features of every view of train, and of the plain view of val."""
    extract = make_extractor(backbone, trunk)
    training = context.study.training
    views = [View(number, context.study.seed, training.flip) for number in range(training.views)]

    def features(title: str, samples: Sequence[Sample], view: View) -> Features:
        with context.watcher.progress(f"features of {title}", len(samples)) as advance:
            found = cached_features(backbone, extract, samples, root, view, context.run.cache / "features", advance)
        origin = "from the cache" if found.was_cached else "computed"
        context.watcher.say(f"finetune: {len(found.matrix)} x {found.matrix.shape[1]} features of {title} {origin}")
        return found

    train = [features(f"train{f' (view {v.number})' if v.number else ''}", index.train, v) for v in views]
    val = features("val", index.val, View())
    broken = (*train[0].broken, *val.broken)
    for file in broken:
        context.watcher.say(f"finetune: left out {file.path}: {file.reason}")
    total = len(index.train) + len(index.val) + len(index.broken)
    check_broken_share([*index.broken, *broken], total, context.study.data.max_broken_share)
    return _labelled(train, index.train), _labelled([val], index.val), broken


def _labelled(views: Sequence[Features], samples: Sequence[Sample]) -> LabelledFeatures:
    labels = tuple(samples[position].label for position in views[0].positions)
    return LabelledFeatures(tuple(view.matrix for view in views), labels)
