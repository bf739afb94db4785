"""The trainer of a detection study: heads on the frozen trunk, a second level, the trunk's last layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import onnx

from edgetl.arrays import Float32Array, Float64Array
from edgetl.artifacts.bundle import TOP
from edgetl.artifacts.deployment import SECOND_LEVEL
from edgetl.artifacts.detector_bundle import DetectionHead, YoloScale
from edgetl.config import COMBINED, DEPLOYMENTS, DetectionSettings
from edgetl.data.box_views import view_boxes
from edgetl.errors import EdgetlError
from edgetl.graph.simplify import simplify
from edgetl.stages.detect.study_feature_maps import StudyFeatureMaps, TrainValFeatureMaps
from edgetl.stages.detect.validation import ValidationImages
from edgetl.train.detect.anchors import fit_anchors
from edgetl.train.detect.detector import GraphModule
from edgetl.train.detect.feature_maps import FeatureMapCut
from edgetl.train.detect.joint import DetectorNetwork, Joint, split_trunk
from edgetl.train.detect.training_loop import FittedHead, HeadStart, OutOfFold, find, fit_heads
from edgetl.train.detect.yolo_heads import YoloHead, pretrained_head, pyramid_head, second_level_head
from edgetl.train.feature_cache import make_extractor
from edgetl.train.onnx_export import export_network

_NEW_LABELS_LEARNING_RATE, _KNOWN_LABELS_LEARNING_RATE, _PYRAMID_LEARNING_RATE = 1e-2, 1e-3, 3e-3
"""Of a pretrained head with labels that are new to it, of one that knows all of them (larger steps make it forget what
it learned from more images than a study has), and of a pyramid."""

_FOLDS = 3
"""Of the training images, so that a cascade's second level learns from first levels that have not seen the image."""


@dataclass(frozen=True)
class TrainedDetectors:
    """The heads that are trained so far: their records, as modules on the maps at their cut, and from images on.

    ``val_detections`` holds the detections of a cascade's heads on the validation images, in pixels of the image.
    """

    heads: list[DetectionHead] = field(default_factory=list)
    modules: dict[str, YoloHead | Joint] = field(default_factory=dict)
    wholes: dict[str, DetectorNetwork] = field(default_factory=dict)
    val_detections: dict[str, list[Float32Array]] = field(default_factory=dict)


class DetectorTrainer:
    """Trains a study's heads step by step. Every step may build on those before it."""

    def __init__(self, images: StudyFeatureMaps) -> None:
        self._images, self._detector = images, images.detector
        self._study = images.context.study
        self.settings = self._study.detection
        self._message = images.context.reporter.message
        self.scales = self._scales()
        self.trained = TrainedDetectors()

    def train_on_the_frozen_trunk(self) -> TrainValFeatureMaps:
        """Train all heads on the frozen trunk, a cascade's second level last, and return the maps they learned from."""
        trunk, gated = self._detector.trunk(), any(kind.gated for kind in self._study.kinds)
        names = dict.fromkeys(role for kind in self._study.kinds for role in kind.roles(self._study.groups))
        split = self._images.at(self.cut(TOP, trunk, self._detector.shapes), self.settings.batch_size)
        starts = {role: self.start(self._classes(role)) for role in names}
        fold = np.random.default_rng(self._study.seed).permutation(len(self._images.index.train)) % _FOLDS
        if gated:
            # Along with all other heads: each batch of maps is read, or computed anew, once for all of them.
            starts |= {f"{COMBINED}#{n}": replace(starts[COMBINED], leaves_out=fold == n) for n in range(_FOLDS)}
        fitted = self._fit("training heads", starts, split, self.settings)
        for role in names:
            self._add(role, starts[role], fitted[role], trunk, TOP)
        if gated:
            self._keep_val_detections(COMBINED, starts[COMBINED], fitted[COMBINED], split)
            folds = [fitted[f"{COMBINED}#{n}"].head for n in range(_FOLDS)]
            self._train_second_level(split, trunk, OutOfFold(fitted[COMBINED].head, folds, fold))
        return split

    def train_jointly(self, fraction: float, used_bytes: int) -> None:
        """Tune the last layers of the trunk with each head that has a network of its own.

        Args:
            fraction: of the trunk's layers, the last ones, that are tuned.
            used_bytes: of the study's disk budget, for maps at other cuts.
        """
        parted = split_trunk(self._detector, fraction)
        settings = self.settings.replaced(**self.settings.finetune.model_dump())
        split = self._images.at(self.cut(parted.cut, parted.below, parted.shapes), settings.batch_size, used_bytes)
        # In the table's order, so that the study's does not decide which head draws which random numbers.
        kinds = [kind for kind in DEPLOYMENTS.values() if kind.own_networks and kind in self._study.kinds]
        starts = {}
        for role in (role for kind in kinds for role in kind.roles(self._study.groups)):
            # From the trained head: a random one would bend the layers under it before it has learned anything.
            head = self.trained.modules[role]
            assert isinstance(head, YoloHead)
            joint, rate = Joint(parted.above, head), self.settings.finetune.learning_rate
            starts[role] = replace(self.start(self._classes(role)), head=joint, learning_rate=rate)
        fitted = self._fit(f"tuning above {parted.cut}", starts, split, settings)
        frozen = {head.name: head for head in self.trained.heads}
        for role, one in fitted.items():
            # Before its first epoch, a tuned head is the frozen one; only that one's record has the score untrained.
            before = {"frozen_ap50": frozen[role].val_ap50, "untrained_ap50": frozen[role].untrained_ap50}
            self._add(f"{role}@{parted.cut}", starts[role], one, parted.below, parted.cut, **before)

    def networks(self) -> dict[str, onnx.ModelProto]:
        """A graph for every head, from images to its raw outputs ``raw0``, ``raw1``, …"""
        shape, name = self._detector.preprocessing.shape, self._detector.reference.name
        outputs = [f"raw{number}" for number in range(len(self.scales))]
        return {head: simplify(export_network(one, shape, outputs, name)) for head, one in self.trained.wholes.items()}

    def _train_second_level(self, split: TrainValFeatureMaps, trunk: GraphModule, first: OutOfFold) -> None:
        # It reads the first level's raw outputs next to the maps: A * (5 + C) channels at each scale.
        channels = [len(scale.anchors) * (5 + len(self._study.labels)) for scale in self.scales]
        starts = {}
        for group in self._study.groups:
            head = self.trained.modules[group]
            assert isinstance(head, YoloHead)
            start = self.start(self._study.groups[group])
            starts[f"{group}@{SECOND_LEVEL}"] = replace(start, head=second_level_head(head, channels), first=first)
        fitted = self._fit("training the second level", starts, split, self.settings)
        for name, one in fitted.items():
            self._add(name, starts[name], one, trunk, TOP, first_level=COMBINED)
            self._keep_val_detections(name, starts[name], one, split)

    def _keep_val_detections(self, name: str, start: HeadStart, fitted: FittedHead, split: TrainValFeatureMaps) -> None:
        detections = find(start, fitted, split.val, self.settings.nms, self._detector.frame)
        self.trained.val_detections[name] = self._validation(split).on_images(detections)

    def _fit(
        self, title: str, starts: Mapping[str, HeadStart], split: TrainValFeatureMaps, settings: DetectionSettings
    ) -> dict[str, FittedHead]:
        map50, frame, seed = self._validation(split).map50, self._detector.frame, self._study.seed
        with self._images.context.reporter.progress(title, settings.epochs) as advance:
            return fit_heads(starts, split.train, split.val, settings, frame, map50, seed, advance)

    def _add(
        self, name: str, start: HeadStart, fitted: FittedHead, below: GraphModule, cut: str, **more: float | str
    ) -> None:
        pretrained = self._detector.pretrained
        known = () if pretrained is None else pretrained.labels
        head = DetectionHead(
            name=name,
            classes=start.classes,
            scales=start.scales,
            cut=cut,
            epochs=fitted.epochs,
            val_ap50=fitted.ap50,
            known=tuple(label for label in start.classes if label in known),
            **{"untrained_ap50": fitted.untrained_ap50, **more},
        )
        first = None if head.first_level is None else self.trained.modules[head.first_level]
        self.trained.heads.append(head)
        assert isinstance(fitted.head, YoloHead | Joint)
        self.trained.modules[name] = fitted.head
        self.trained.wholes[name] = DetectorNetwork(below, fitted.head, first)
        before = (
            f"{head.untrained_ap50:.1%} untrained" if head.frozen_ap50 is None else f"{head.frozen_ap50:.1%} frozen"
        )
        self._message(
            f"finetune: head {name}: mAP@0.5 {head.val_ap50:.1%} on validation, {before}, epoch {head.epochs}"
        )

    def cut(self, name: str, below: GraphModule, shapes: tuple[tuple[int, ...], ...]) -> FeatureMapCut:
        outputs = [f"map{number}" for number in range(len(shapes))]
        graph = export_network(below, self._detector.preprocessing.shape, outputs, self._detector.reference.name)
        return FeatureMapCut(name, shapes, make_extractor(below, simplify(graph)))

    def start(self, classes: tuple[str, ...]) -> HeadStart:
        """An untrained head for classes: the network's own one, or a pyramid with random weights."""
        pretrained, own_rate = self._detector.pretrained, self.settings.learning_rate
        if pretrained is not None:
            head = pretrained_head(pretrained.convolutions, pretrained.labels, pretrained.scales, self.scales, classes)
            rate = _KNOWN_LABELS_LEARNING_RATE if set(classes) <= set(pretrained.labels) else _NEW_LABELS_LEARNING_RATE
            return HeadStart(classes, self.scales, head, learning_rate=own_rate or rate)
        channels = [shape[0] for shape in self._detector.shapes]
        head = pyramid_head(channels, self.settings.pyramid_channels, self.scales, len(classes), self._study.seed)
        return HeadStart(classes, self.scales, head, learning_rate=own_rate or _PYRAMID_LEARNING_RATE)

    def _scales(self) -> tuple[YoloScale, ...]:
        """The scales of the heads, with the network's own anchors or fitted ones.

        Raises:
            EdgetlError: the network has no anchors to keep, or there are too few boxes to fit any.
        """
        pretrained, setting = self._detector.pretrained, self.settings.anchors
        if pretrained is not None and setting != "fit":
            return pretrained.scales
        if pretrained is None and setting == "keep":
            raise EdgetlError(
                f"{self._detector.reference.name} has no anchors of its own to keep; say detection.anchors: fit"
            )
        # Ignored boxes teach no anchor. Sides are those in the plain view: in pixels of the input, as heads see them.
        view = self._images.views()[0]
        drawn = [view_boxes(image, view) for image in self._images.index.train]
        boxes = np.concatenate([one.boxes[~one.ignored] for one in drawn])
        sides: Float64Array = (boxes[:, 2:] - boxes[:, :2]).astype(np.float64)
        # Darknet lists its scales in any order, anchors are fitted for the finest map first.
        finest_first = sorted(range(len(self._detector.maps)), key=lambda number: -self._detector.shapes[number][1])
        counts = self._detector.anchors
        fitted = fit_anchors(sides, [counts[number] for number in finest_first], self._study.seed)
        of_map = dict(zip(finest_first, fitted, strict=True))
        before = pretrained.scales if pretrained is not None else tuple(YoloScale(anchors=()) for _ in of_map)
        self._message(f"finetune: anchors fitted: {', '.join(f'{w:.0f}x{h:.0f}' for own in fitted for w, h in own)}")
        return tuple(scale.replaced(anchors=of_map[number]) for number, scale in enumerate(before))

    def _validation(self, split: TrainValFeatureMaps) -> ValidationImages:
        return ValidationImages([split.val.images[row] for row in split.val.usable], self._detector.preprocessing)

    def _classes(self, role: str) -> tuple[str, ...]:
        return self._study.labels if role == COMBINED else self._study.groups[role]
