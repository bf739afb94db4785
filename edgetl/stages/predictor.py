"""A loaded model file that predicts labels and boxes of images."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgetl.arrays import Float32Array
from edgetl.artifacts.bundle import Preprocessing
from edgetl.artifacts.engine_manifest import manifest_path, read_manifest
from edgetl.artifacts.predictions import Classification, Detection, Prediction, merge_detections
from edgetl.artifacts.prepared import is_prepared
from edgetl.config import NmsSettings
from edgetl.data.geometry import Size, image_placement
from edgetl.data.images import Pixels
from edgetl.data.paths import utf8
from edgetl.data.stream import to_input
from edgetl.engine.runtime import BuildOptions, Engine, build_engine, get_runtime, load_engine
from edgetl.errors import EdgetlError
from edgetl.graph.metadata import LABELS, detecting_outputs, labels_of
from edgetl.graph.model import load_model
from edgetl.graph.outputs import nms_settings_of, refuse_other_shapes
from edgetl.stages.input_contract import input_preprocessing

DEFAULT_SCORE_THRESHOLD = 0.25

_RUNTIME = "onnxruntime"


@dataclass(frozen=True)
class Predictor:
    """A loaded model. ``classifiers`` and ``detectors`` are its outputs, with the labels of each.

    ``nms`` holds the settings of each detector's suppression. Boxes of one label that several detectors found are
    suppressed with the strictest of them.
    """

    engine: Engine
    preprocessing: Preprocessing
    classifiers: dict[str, tuple[str, ...]]
    detectors: dict[str, tuple[str, ...]]
    nms: dict[str, NmsSettings]

    def run(self, pixels: Pixels) -> dict[str, Float32Array]:
        """Every output for one image as the network sees it, height x width x 3.

        Raises:
            EdgetlError: an output holds what is no number.
        """
        return self.checked(self.engine.infer(self.to_input(pixels)))

    def to_input(self, pixels: Pixels) -> Float32Array:
        """The image as the engine's input, repeated as often as its batch is large."""
        ((batch, *_),) = self.engine.shapes
        return to_input(np.repeat(pixels[None], batch, axis=0), self.preprocessing)

    def checked(self, outputs: dict[str, Float32Array]) -> dict[str, Float32Array]:
        """The outputs for the first image.

        Raises:
            EdgetlError: an output holds what is no number.
        """
        broken = next((name for name, value in outputs.items() if not np.isfinite(value).all()), None)
        if broken is not None:
            raise EdgetlError(f"output {broken!r} of the model holds NaN or infinity; check its weights")
        return {name: value[0] for name, value in outputs.items()}

    def prediction(
        self, file: Path, outputs: dict[str, Float32Array], size: Size, score_threshold: float, top: int
    ) -> Prediction:
        """The prediction for an image of ``size``: see `detections` and `labels`."""
        return Prediction(
            path=utf8(file),
            width=size[0],
            height=size[1],
            detections=self.detections(outputs, size, score_threshold),
            labels=self.labels(outputs, top),
        )

    def detections(
        self, outputs: dict[str, Float32Array], size: Size, score_threshold: float
    ) -> tuple[Detection, ...] | None:
        """The detections of all detectors in an image of ``size``, best first; None where there is no detector."""
        if not self.detectors:
            return None
        names = list(dict.fromkeys(label for labels in self.detectors.values() for label in labels))
        parts: list[Float32Array] = []
        for output, labels in self.detectors.items():
            rows = outputs[output][outputs[output][:, 4] > 0].copy()  # an output is filled up with rows of score 0
            positions = rows[:, 5].astype(np.intp)
            if not ((positions >= 0) & (positions < len(labels))).all():
                raise EdgetlError(f"the model finds label number {positions.max()} of {len(labels)}; export it again")
            # Each head numbers its own labels; merged, they need one numbering.
            rows[:, 5] = np.array([names.index(label) for label in labels], np.float32)[positions]
            parts.append(rows)
        found = parts[0]
        if len(parts) > 1:
            iou_threshold = min(one.iou_threshold for one in self.nms.values())
            found = merge_detections(parts, iou_threshold, max(one.max_detections for one in self.nms.values()))
        # In float32, as scores are: as a double, 0.9 is more than a score of 0.9.
        found = found[found[:, 4] >= np.float32(score_threshold)]
        boxes = image_placement(size, self.preprocessing).to_image(found[:, :4]).round(2).tolist()
        return tuple(
            Detection(label=names[int(label)], score=round(float(score), 4), xyxy=(left, top, right, bottom))
            for (left, top, right, bottom), score, label in zip(boxes, found[:, 4], found[:, 5], strict=True)
            if left < right and top < bottom  # the bars beside a letterboxed image are no place for an object
        )

    def labels(self, outputs: dict[str, Float32Array], top: int) -> tuple[Classification, ...] | None:
        """The ``top`` labels of every classifier; None where there is no classifier."""
        if not self.classifiers:
            return None
        return tuple(
            Classification(head=output, label=labels[position], probability=round(float(outputs[output][position]), 4))
            for output, labels in self.classifiers.items()
            for position in np.argsort(-outputs[output], kind="stable")[:top]
        )


def load_predictor(model: Path, score_threshold: float | None, threads: int = 0) -> tuple[Predictor, float]:
    """The predictor of an ONNX file that edgetl wrote, or of an engine of ONNX Runtime, and its score threshold.

    Raises:
        EdgetlError: it is no such file, says nothing of its outputs, does not suppress overlapping boxes itself, or has
            dropped already what scores ``score_threshold``.
    """
    built = manifest_path(model).is_file() and not is_prepared(model)
    if built and (runtime := read_manifest(model).runtime) != _RUNTIME:
        raise EdgetlError(f"{model} is an engine of {runtime}; give the ONNX file that it was built from")
    graph = load_model(model)
    labels, detecting = labels_of(graph), detecting_outputs(graph)
    if not labels:
        raise EdgetlError(f"{model} has no labels in its metadata ({LABELS}); give an ONNX file that edgetl wrote")
    suppressions = nms_settings_of(graph, str(model))
    lowest = max((one.score_threshold for one in suppressions.values()), default=0.0)
    if score_threshold is not None and score_threshold < lowest:
        raise EdgetlError(
            f"{model} drops boxes that score less than {lowest:g}, and {score_threshold:g} is asked for; "
            "make it again with a lower score_threshold"
        )
    classifiers = {name: known for name, known in labels.items() if name not in detecting}
    shapes = {name: (len(known),) for name, known in classifiers.items()}
    refuse_other_shapes(graph, str(model), shapes)
    predictor = Predictor(
        engine=load_engine(model, threads) if built else _build(model, threads),
        preprocessing=input_preprocessing(graph, name=str(model)),
        classifiers=classifiers,
        detectors={name: labels.get(name, ()) for name in detecting},
        nms=suppressions,
    )
    return predictor, max(DEFAULT_SCORE_THRESHOLD, lowest) if score_threshold is None else score_threshold


def _build(model: Path, threads: int) -> Engine:
    with tempfile.TemporaryDirectory() as scratch:
        engine = Path(scratch) / "model.onnx"
        build_engine(get_runtime(_RUNTIME), model, engine, BuildOptions())
        return load_engine(engine, threads)
