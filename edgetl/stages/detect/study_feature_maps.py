"""Maps of a detection study's images at any cut of its trunk, cached as far as the disk budget goes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgetl.artifacts.box_index import BoxedImage, BoxIndex
from edgetl.artifacts.data_index import BrokenFile
from edgetl.data.box_views import BoxView
from edgetl.data.index_images import check_broken_fraction
from edgetl.stages.stage import Context
from edgetl.train.detect.detector import Detector
from edgetl.train.detect.feature_maps import FeatureMapCut, FeatureMaps, map_source

_GB = 10**9


@dataclass(frozen=True)
class TrainValFeatureMaps:
    """Maps of training images in all of their views, and of validation images in the plain one."""

    train: FeatureMaps
    val: FeatureMaps

    @property
    def broken(self) -> tuple[BrokenFile, ...]:
        return (*self.train.broken, *self.val.broken)

    @property
    def kept_bytes(self) -> int:
        return self.train.kept_bytes + self.val.kept_bytes


@dataclass(frozen=True)
class StudyFeatureMaps:
    """The images of a study and the detector that they go through."""

    context: Context
    index: BoxIndex
    root: Path
    detector: Detector

    def views(self) -> tuple[BoxView, ...]:
        """The plain view, and the augmented ones that the study asks for."""
        study = self.context.study
        augmentation = study.detection.augmentation
        others = self.index.train if augmentation.mosaic else ()
        return tuple(
            BoxView(self.detector.preprocessing, number, study.seed, augmentation, others)
            for number in range(augmentation.views + 1)
        )

    def at(self, cut: FeatureMapCut, batch_size: int, used_bytes: int = 0) -> TrainValFeatureMaps:
        """Maps at a cut; ``used_bytes`` of the study's disk budget are in use already.

        Raises:
            EdgetlError: too many images cannot be read, or the disk is full.
        """
        budget = max(0, int(self.context.study.detection.cache_gb * _GB) - used_bytes)
        views = self.views()
        # Validation first: it is read in every epoch, and an augmented view of training only in some.
        val = self.source("val", cut, self.index.val, views[:1], budget, batch_size)
        train = self.source("train", cut, self.index.train, views, budget - val.kept_bytes, batch_size)
        total = len(self.index.train) + len(self.index.val) + len(self.index.broken)
        broken = [*self.index.broken, *train.broken, *val.broken]
        check_broken_fraction(broken, total, self.context.study.data.max_broken_fraction)
        return TrainValFeatureMaps(train, val)

    def source(
        self,
        name: str,
        cut: FeatureMapCut,
        images: Sequence[BoxedImage],
        views: Sequence[BoxView],
        budget: int,
        batch_size: int,
    ) -> FeatureMaps:
        reporter, cache = self.context.reporter, self.context.run.cache / "features"
        with reporter.progress(f"maps of {name}", len(images) * len(views)) as advance:
            source = map_source(self.detector, cut, images, self.root, views, cache, budget, batch_size, advance)
        limit = f"detection.cache_gb {self.context.study.detection.cache_gb:g}"
        whole = sum(len(one.row_of) for one in source.kept) == len(source) * len(views)
        reporter.message(
            f"finetune: maps of {len(source)} {name} images in {len(views)} views at {cut.name}: "
            f"{source.kept_bytes / 1e6:.0f} MB on disk"
            + ("" if whole else f"; {limit} holds no more, the rest is computed in every epoch")
        )
        return source
