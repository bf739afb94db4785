"""Features of a study's images at any cut, computed once and cached."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgetl.artifacts.bundle import IMAGES, TOP
from edgetl.artifacts.data_index import BrokenFile, DataIndex, Sample, SplitName
from edgetl.data.index_images import check_broken_fraction
from edgetl.stages.stage import Context
from edgetl.train.backbones import Backbone
from edgetl.train.cuts import CutPoint, choose_cuts, cut_points
from edgetl.train.feature_cache import Extractor, FeatureMatrix, View, cached_features
from edgetl.train.linear_heads import LabelledFeatures


@dataclass(frozen=True)
class TrainValFeatures:
    """Features of every view of train, and of the plain view of val."""

    train: LabelledFeatures
    val: LabelledFeatures
    broken: tuple[BrokenFile, ...]


@dataclass(frozen=True)
class StudyFeatures:
    """The images of a study and the backbone that they go through."""

    context: Context
    index: DataIndex
    root: Path
    backbone: Backbone

    def cuts(self) -> tuple[CutPoint, ...]:
        """The cuts below the top that the study asks for, the deepest last.

        Raises:
            EdgetlError: the study names a cut that the backbone does not have.
        """
        if self.context.study.backbone.cut is None:
            return ()
        points = cut_points(self.backbone)
        images = CutPoint(IMAGES, self.backbone.preprocessing.shape, 0.0)
        known = {point.name: point for point in (*points, images)}
        chosen = tuple(known[name] for name in choose_cuts(points, self.context.study.backbone.cut)[:-1])  # last: top
        depths = ", ".join(f"{point.name} ({point.depth:.0%})" for point in chosen)
        self.context.reporter.message(
            f"finetune: cuts, with the share of FLOPs below them: {depths or 'the top alone'}"
        )
        return chosen

    def digest(self) -> list[object]:
        """Everything that decides the features at a cut, as JSON can hold it."""
        # The weights' path says nothing: the fingerprint in the reference covers their values.
        network = self.backbone.reference.model_dump(mode="json", exclude={"weights"})
        return [network, self.backbone.preprocessing.model_dump(), self.index.digest("train", "val")]

    def at(self, cut: str, shape: tuple[int, ...], extract: Extractor) -> TrainValFeatures:
        """Features of all images at a cut; ``extract`` makes a row of ``shape`` of each image.

        Raises:
            EdgetlError: too many images cannot be read, or the disk is full.
        """
        study = self.context.study
        views = [View(number, study.seed, study.training.flip) for number in range(study.training.views)]
        train = [self._features("train", view, cut, shape, extract) for view in views]
        val = self._features("val", View(), cut, shape, extract)
        broken = (*train[0].broken, *val.broken)  # a file that does not decode is broken in every view
        total = len(self.index.train) + len(self.index.val) + len(self.index.broken)
        check_broken_fraction([*self.index.broken, *broken], total, study.data.max_broken_fraction)
        return TrainValFeatures(_labelled(train, self.index.train), _labelled([val], self.index.val), broken)

    def _features(
        self, split: SplitName, view: View, cut: str, shape: tuple[int, ...], extract: Extractor
    ) -> FeatureMatrix:
        reporter, samples = self.context.reporter, self.index.split(split)
        cache, title = self.context.run.cache / "features", f"{split} (view {view.number})" if view.number else split
        with reporter.progress(f"features of {title}", len(samples)) as advance:
            features = cached_features(
                self.backbone, extract, samples, self.root, view, cache, advance, cut=cut, shape=shape
            )
        size = " x ".join(map(str, features.matrix.shape))
        origin = "from the cache" if features.was_cached else "computed"
        at = "" if cut == TOP else f" at {cut}"
        reporter.message(f"finetune: {size} features of {title}{at} {origin}")
        return features


def _labelled(views: Sequence[FeatureMatrix], samples: Sequence[Sample]) -> LabelledFeatures:
    labels = tuple(samples[position].label for position in views[0].positions)
    return LabelledFeatures(tuple(view.matrix for view in views), labels)
