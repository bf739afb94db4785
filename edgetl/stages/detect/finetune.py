"""The stage `finetune`: all heads trained on cached maps of the frozen trunk, and one graph of all networks."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from safetensors.numpy import save

from edgetl.arrays import Float32Array
from edgetl.artifacts.detector_bundle import DetectionBundle
from edgetl.artifacts.files import write_bytes, write_json
from edgetl.data.images import Pixels
from edgetl.data.stream import stream, to_input
from edgetl.data.views import renderer
from edgetl.errors import EdgetlError
from edgetl.graph import parity
from edgetl.graph.fusion.fused_graph import fuse
from edgetl.graph.model import save_model
from edgetl.stages.detect.detector_trainer import DetectorTrainer
from edgetl.stages.detect.index import read_index
from edgetl.stages.detect.study_feature_maps import StudyFeatureMaps
from edgetl.stages.detect.validation import ValidationDetections
from edgetl.stages.stage import Context, ProgressReporter, backbone_inputs
from edgetl.train.detect.detector import load_detector
from edgetl.train.detect.joint import raw_outputs, tensors

_SAMPLES = 16
"""Validation images that stay in the bundle: graphs are compared with PyTorch and latency is measured on them."""

_MAX_DIFFERENCE = 1e-3
"""Of a head's largest raw output. Other kernels round differently by far less; a wrong operator differs by more."""


def inputs(context: Context) -> dict[str, Any]:
    return backbone_inputs(context)


def work(context: Context) -> list[Path]:
    study = context.study
    index, root = read_index(context)
    detector = load_detector(study.backbone, context.base_dir, study.seed)
    trainer = DetectorTrainer(StudyFeatureMaps(context, index, root, detector))
    split = trainer.train_on_the_frozen_trunk()
    for file in split.broken:
        context.reporter.message(f"finetune: left out {file.path}: {file.reason}")
    if study.detection.unfreeze is not None:
        trainer.train_jointly(study.detection.unfreeze, split.kept_bytes)
    bundle = DetectionBundle(
        backbone=detector.reference,
        preprocessing=detector.preprocessing,
        groups=study.groups,
        heads=tuple(trainer.trained.heads),
        data_digest=index.digest("train", "val"),
        broken=split.broken,
    )
    # Spread over the validation set: neighbours may be frames of one video, with the same objects.
    images = index.val[:: max(1, len(index.val) // _SAMPLES)][:_SAMPLES]
    batches = stream(images, root, renderer(bundle.preprocessing), np.copy)
    samples = np.concatenate([batch.result for batch in batches])
    detections = ValidationDetections(split.val.usable, trainer.trained.val_detections)
    return _write(context.run.bundle, bundle, trainer, detections, samples, context.reporter)


def _write(
    folder: Path,
    bundle: DetectionBundle,
    trainer: DetectorTrainer,
    detections: ValidationDetections,
    samples: Pixels,
    reporter: ProgressReporter,
) -> list[Path]:
    networks = fuse(trainer.networks()).model
    differences = _parity(networks, trainer, to_input(samples))
    reporter.message(f"finetune: at most {max(differences.values()):.1e} from PyTorch on {len(samples)} images")
    npy = io.BytesIO()
    np.save(npy, samples, allow_pickle=False)
    save_model(networks, folder / "network.onnx")
    write_bytes(folder / "heads.safetensors", save(tensors(trainer.trained.modules)))
    write_bytes(folder / "samples.npy", npy.getvalue())
    write_bytes(folder / "val_detections.npz", detections.to_bytes())
    write_json(folder / "parity.json", {"schema_version": 1, "images": len(samples), "max_difference": differences})
    write_json(folder / "bundle.json", bundle)
    names = ("network.onnx", "heads.safetensors", "samples.npy", "val_detections.npz", "parity.json", "bundle.json")
    return [folder / name for name in names]


def _parity(networks: onnx.ModelProto, trainer: DetectorTrainer, images: Float32Array) -> dict[str, float]:
    """The greatest difference of every head's raw outputs from PyTorch's, as a part of their largest value.

    Raises:
        EdgetlError: a head differs by more than rounding explains.
    """
    outputs = parity.run(networks, images)
    differences = {}
    for name, whole in trainer.trained.wholes.items():
        expected = {f"{name}/raw{number}": raw for number, raw in enumerate(raw_outputs(whole, images))}
        # Raw outputs are logits without a bound; where all are small, a part of them would be nothing but rounding.
        largest = max(1.0, *(float(np.abs(raw).max()) for raw in expected.values()))
        difference = parity.max_difference({key: outputs[key] for key in expected}, expected) / largest
        if difference > _MAX_DIFFERENCE:
            raise EdgetlError(
                f"the graph of head {name} differs from PyTorch by {difference:.2g} of its largest output, expected at "
                f"most {_MAX_DIFFERENCE:g}; report this with the backbone's name"
            )
        differences[name] = difference
    return differences
