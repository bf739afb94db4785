"""The features of a study's images at any cut, computed once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgetl.artifacts.bundle import TOP
from edgetl.artifacts.data_index import BrokenFile, DataIndex, Sample, SplitName
from edgetl.data.index_images import check_broken_fraction
from edgetl.stages.stage import Context
from edgetl.train.backbones import Backbone
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
    """A study's images and the network they go through."""

    context: Context
    index: DataIndex
    root: Path
    backbone: Backbone

    def digest(self) -> list[object]:
        """What decides the features at a cut, as JSON can hold it."""
        network = self.backbone.reference.model_dump(mode="json", exclude={"weights"})
        return [network, self.backbone.preprocessing.model_dump(), self.index.digest("train", "val")]

    def at(self, cut: str, shape: tuple[int, ...], extract: Extractor) -> TrainValFeatures:
        """What ``extract`` makes of every image at a cut, of ``shape`` for each.

        Raises:
            EdgetlError: too many images cannot be read, or the disk is full.
        """
        study = self.context.study
        views = [View(number, study.seed, study.training.flip) for number in range(study.training.views)]
        train = [
            self._features(
                f"train{f' (view {view.number})' if view.number else ''}", "train", view, cut, shape, extract
            )
            for view in views
        ]
        val = self._features("val", "val", View(), cut, shape, extract)
        broken = (*train[0].broken, *val.broken)
        total = len(self.index.train) + len(self.index.val) + len(self.index.broken)
        check_broken_fraction([*self.index.broken, *broken], total, study.data.max_broken_fraction)
        return TrainValFeatures(_labelled(train, self.index.train), _labelled([val], self.index.val), broken)

    def _features(
        self, title: str, split: SplitName, view: View, cut: str, shape: tuple[int, ...], extract: Extractor
    ) -> FeatureMatrix:
        watcher, samples = self.context.reporter, self.index.split(split)
        cache = self.context.run.cache / "features"
        with watcher.progress(f"features of {title}", len(samples)) as advance:
            found = cached_features(
                self.backbone, extract, samples, self.root, view, cache, advance, cut=cut, shape=shape
            )
        size = " x ".join(map(str, found.matrix.shape))
        origin = "from the cache" if found.was_cached else "computed"
        at = "" if cut == TOP else f" at {cut}"
        watcher.message(f"finetune: {size} features of {title}{at} {origin}")
        return found


def _labelled(views: Sequence[FeatureMatrix], samples: Sequence[Sample]) -> LabelledFeatures:
    labels = tuple(samples[position].label for position in views[0].positions)
    return LabelledFeatures(tuple(view.matrix for view in views), labels)
