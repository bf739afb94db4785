"""Retraining a detector's ending: what it gains over an ending that was not trained and over a random trunk, and what
the feature cache saves over the usual loop that runs the frozen trunk in every epoch.

Data: BCCD (three labels that the pretrained ending does not know) and the road scenes of coco128 (labels that it
knows), on MobileNetV2-YOLOv3 with its COCO weights. Equal time: as many epochs on both trunks, which cost the same.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from record import MATERIAL, Quiet, save, spread
from torch.utils.data import DataLoader

from edgetl.artifacts.box_index import BoxedImage
from edgetl.artifacts.deployment import COMBINED
from edgetl.artifacts.run_directory import RunDirectory
from edgetl.config import Study, load_study
from edgetl.data.box_views import box_renderer, view_boxes
from edgetl.data.index_boxes import build_box_index
from edgetl.data.index_images import data_root
from edgetl.data.stream import to_input
from edgetl.measure.average_precision import compare_map50, mean_average_precision
from edgetl.measure.matching import Matches, match
from edgetl.stages.detect.detector_trainer import DetectorTrainer
from edgetl.stages.detect.study_feature_maps import StudyFeatureMaps, TrainValFeatureMaps
from edgetl.stages.detect.validation import ValidationImages
from edgetl.stages.stage import Context
from edgetl.train.detect.detector import load_detector
from edgetl.train.detect.training_loop import FeatureMapBatch, FittedHead, HeadInTraining, HeadStart, find, fit_heads
from edgetl.train.detect.yolo_heads import pretrained_head

PARTS = ("bccd", "road", "cache")

BCCD = """
name: blood
task: detect
data: {{format: voc, root: {data}/bccd, train: ImageSets/Main/train.txt, val: ImageSets/Main/val.txt,
  test: ImageSets/Main/test.txt}}
groups: {{cells: [RBC, WBC], fragments: [Platelets]}}
backbone: {{name: darknet/{cfg}, weights: {weights}, labels: {names}}}
detection: {{epochs: {epochs}, patience: {epochs}}}
"""

ROAD = """
name: road
task: detect
data: {{format: yolo, root: {data}/coco128, train: images/train2017, val: 0.25, test: images/val2017, names: {names},
  overlap: drop}}
groups:
  vehicles: [car, truck, bus, motorbike, bicycle]
  signs: [traffic light, stop sign]
  people: [person]
backbone: {{name: darknet/{cfg}, weights: {weights}, labels: {names}}}
detection: {{epochs: {epochs}, patience: {epochs}}}
"""


class Bench:
    """A study's images on a trunk, pretrained or random, and its combined ending."""

    def __init__(self, study: Study, beside: Path, run: Path, pretrained: bool) -> None:
        backbone = study.backbone if pretrained else study.backbone.model_copy(update={"weights": None, "labels": None})
        self.study = study.model_copy(update={"backbone": backbone})
        context = Context(self.study, beside, RunDirectory(run), Quiet())
        self.index = build_box_index(self.study, beside, run)
        self.root = data_root(self.study, self.index.generated, beside, run)
        self.detector = load_detector(backbone, beside, study.seed)
        self.images = StudyFeatureMaps(context, self.index, self.root, self.detector)
        self.trainer = DetectorTrainer(self.images)
        trunk = self.detector.trunk()
        self.cut = self.trainer.cut("top", trunk, self.detector.shapes)
        self.settings = self.trainer.settings

    def split(self) -> TrainValFeatureMaps:
        return self.images.at(self.cut, self.settings.batch_size)

    def start(self) -> HeadStart:
        return self.trainer.start(self.study.labels)

    def fresh(self) -> HeadStart:
        """An ending of the same shape with random weights, as other tools begin."""
        torch.manual_seed(self.study.seed)
        convolutions = [
            torch.nn.Conv2d(one.in_channels, one.out_channels, 1) for one in self.detector.pretrained.convolutions
        ]
        scales = self.detector.pretrained.scales
        head = pretrained_head(convolutions, (), scales, scales, self.study.labels)
        return replace(self.start(), head=head)

    def train(self, start: HeadStart, split: TrainValFeatureMaps) -> tuple[FittedHead, float]:
        validation = ValidationImages([split.val.images[row] for row in split.val.usable], self.detector.preprocessing)
        begin = time.perf_counter()
        fitted = fit_heads(
            {COMBINED: start}, split.train, split.val, self.settings, self.detector.frame, validation.map50, 0
        )
        return fitted[COMBINED], time.perf_counter() - begin

    def matches(self, start: HeadStart, head: Any) -> Matches:
        """Of what a head finds on the test images."""
        source = self.images.source("test", self.cut, self.index.test, self.images.views()[:1], 10**10, 16)
        images = [self.index.test[row] for row in source.usable]
        found = find(start, replace(NOTHING, head=head), source, self.settings.nms, self.detector.frame)
        on_images = ValidationImages(images, self.detector.preprocessing).on_images(found)
        return match(images, on_images, self.study.labels)


NOTHING = FittedHead(torch.nn.Identity(), 0, 0.0, 0.0)


def gains(study: Study, beside: Path, scratch: Path) -> dict[str, Any]:
    pretrained, random = (
        Bench(study, beside, scratch / name, name == "pretrained") for name in ("pretrained", "random")
    )
    split, start = pretrained.split(), pretrained.start()
    trained, seconds = pretrained.train(start, split)
    scratch_start = random.start()
    scratch_trained, scratch_seconds = random.train(scratch_start, random.split())
    fresh = pretrained.fresh()
    found = {
        "trained": pretrained.matches(start, trained.head),
        "untrained, known labels kept": pretrained.matches(start, start.head.eval()),
        "untrained": pretrained.matches(fresh, fresh.head.eval()),
        "random trunk, trained": random.matches(scratch_start, scratch_trained.head),
    }
    groups = study.groups
    scored = {name: mean_average_precision(one, groups) for name, one in found.items()}
    return {
        "images": {"train": len(split.train), "val": len(split.val), "test": len(pretrained.index.test)},
        "labels": list(study.labels),
        "epochs": pretrained.settings.epochs,
        "best_epoch": {"trained": trained.epochs, "random trunk, trained": scratch_trained.epochs},
        "seconds": {"trained": round(seconds, 1), "random trunk, trained": round(scratch_seconds, 1)},
        "map50": {name: one.overall.ap50.model_dump() for name, one in scored.items()},
        "map50_95": {name: one.overall.ap.model_dump() for name, one in scored.items()},
        "trained_minus": {
            pair.b: {"difference": pair.difference, "low": pair.low, "high": pair.high}
            for pair in compare_map50(found)
            if pair.a == "trained"
        },
    }


def cache_against_loop(study: Study, beside: Path, scratch: Path, epochs: int, repeats: int) -> dict[str, Any]:
    """Seconds for ``epochs`` epochs, decoding and trunk included: maps computed once, and in every epoch by PyTorch."""
    ratios, cached_s, loop_s, ort_s = [], [], [], []
    for number in range(repeats):
        bench = Bench(study, beside, scratch / f"cache{number}", True)
        begin = time.perf_counter()
        split = bench.split()
        _epochs(bench, split.train.epoch, epochs)
        cached_s.append(time.perf_counter() - begin)
        loop = _loop(bench)
        begin = time.perf_counter()
        _epochs(bench, loop, epochs)
        loop_s.append(time.perf_counter() - begin)
        uncached = replace(split.train, kept=[replace(one, row_of={}) for one in split.train.kept])
        begin = time.perf_counter()
        _epochs(bench, uncached.epoch, epochs)
        ort_s.append(time.perf_counter() - begin)
        ratios.append(loop_s[-1] / cached_s[-1])
    return {
        "epochs": epochs,
        "images": len(split.train),
        "seconds_cached": spread(cached_s),
        "seconds_usual_loop": spread(loop_s),
        "seconds_without_cache_but_our_trunk": spread(ort_s),
        "usual_loop_over_cached": spread(ratios),
        "cache_megabytes": round(split.kept_bytes / 1e6, 1),
    }


def _epochs(bench: Bench, epoch: Any, epochs: int) -> None:
    trainee = HeadInTraining(bench.start(), bench.settings, bench.detector.frame, 10**6)
    rng = np.random.default_rng(0)
    for _ in range(epochs):
        for batch in epoch(rng):
            trainee.step(batch)


def _loop(bench: Bench) -> Any:
    """What training code usually does: each epoch a DataLoader decodes and the frozen trunk runs without gradients."""
    view, trunk = bench.images.views()[0], bench.detector.trunk()
    render, images = box_renderer(view, bench.root), bench.index.train

    class Pictures(torch.utils.data.Dataset[Any]):
        def __len__(self) -> int:
            return len(images)

        def __getitem__(self, row: int) -> tuple[int, Any]:
            image: BoxedImage = images[row]
            return row, to_input(render((bench.root / image.path).read_bytes(), image)[None])[0]

    loader = DataLoader(Pictures(), bench.settings.batch_size, shuffle=True, num_workers=2, persistent_workers=True)

    def epoch(rng: np.random.Generator) -> Any:
        del rng
        for rows, pixels in loader:
            with torch.no_grad():
                maps = trunk(pixels)
            yield FeatureMapBatch(maps, rows.numpy(), [view_boxes(images[row], view) for row in rows.tolist()])

    return epoch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=MATERIAL / "datasets")
    parser.add_argument("--darknet", type=Path, default=MATERIAL / "darknet" / "mobilenetv2-yolov3-nano-coco")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--loop-epochs", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="others stay as the file has them")
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(2)
    before = options.output / "detection.json"
    figures: dict[str, Any] = json.loads(before.read_text()) if before.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        studies = {name: _study(text, scratch / name, options) for name, text in (("bccd", BCCD), ("road", ROAD))}
        for name in options.parts:
            if name == "cache":
                figures[name] = cache_against_loop(
                    *studies["bccd"], scratch / "cache", options.loop_epochs, options.repeats
                )
            else:
                study, beside = studies[name]
                figures[name] = gains(study, beside, beside / "run")
    save(options.output, "detection", {name: figures[name] for name in PARTS if name in figures}, threads=2)


def _study(text: str, beside: Path, options: argparse.Namespace) -> tuple[Study, Path]:
    beside.mkdir()
    cfg, weights = (next(options.darknet.glob(f"*.{suffix}")) for suffix in ("cfg", "weights"))
    for file in (cfg, weights, options.darknet / "coco.names"):
        (beside / file.name).symlink_to(file.resolve())
    (beside / "data").symlink_to(options.data.resolve())
    names = "coco.names"
    filled = text.format(data="data", cfg=cfg.name, weights=weights.name, names=names, epochs=options.epochs)
    # The names that yolo's reader wants stand beside the images.
    (beside / "study.yaml").write_text(filled.replace("names: coco.names,", f"names: {beside / names},"))
    return load_study(beside / "study.yaml"), beside


if __name__ == "__main__":
    main()
