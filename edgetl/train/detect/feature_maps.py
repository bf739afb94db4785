"""The maps of a split's images: read from disk as far as a budget of bytes goes, else computed when they are needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgetl.arrays import Float32Array, Int64Array, UInt8Array
from edgetl.artifacts.box_index import BoxedImage
from edgetl.artifacts.bundle import Preprocessing
from edgetl.artifacts.data_index import BrokenFile
from edgetl.data.box_views import BoxView, box_renderer, view_boxes
from edgetl.data.stream import stream
from edgetl.data.views import renderer
from edgetl.train.detect.training_loop import FeatureMapBatch
from edgetl.train.feature_cache import Extractor, FeatureNetwork, cached_features

_BYTES = 4


@dataclass(frozen=True)
class _Rendered:
    """A view as the feature cache takes it: see `edgetl.train.feature_cache.Rendering`."""

    view: BoxView
    root: Path

    @property
    def facts(self) -> list[Any]:
        view = self.view
        if view.number == 0:
            return [0]
        # A mosaic shows other images too, which decide its pixels with it.
        others = [image.sha256 for image in view.others] if view.augmentation.mosaic else []
        return [view.number, view.seed, view.augmentation.model_dump(exclude={"views"}), others]

    def renderer(self, preprocessing: Preprocessing) -> Callable[[bytes, BoxedImage], UInt8Array]:
        assert preprocessing == self.view.preprocessing
        return box_renderer(self.view, self.root)


@dataclass(frozen=True)
class FeatureMapCut:
    """The cut where maps are taken: the layer, the maps' shapes for one image, and a function that makes them."""

    name: str
    shapes: tuple[tuple[int, ...], ...]
    extract: Extractor

    @property
    def values(self) -> int:
        """The number of values of one image in all maps."""
        return sum(map(prod, self.shapes))


@dataclass(frozen=True)
class CachedFeatureMaps:
    """The maps of the first images of a split in one view; ``row_of`` gives an image's row in the matrix."""

    matrix: Float32Array
    row_of: dict[int, int]


@dataclass(frozen=True)
class FeatureMaps:
    """The images of a split as maps; see `map_source`. ``usable`` are the positions of those that decode."""

    cut: FeatureMapCut
    images: Sequence[BoxedImage]
    root: Path
    views: Sequence[BoxView]
    kept: Sequence[CachedFeatureMaps]
    usable: Int64Array
    batch_size: int
    broken: tuple[BrokenFile, ...]

    def __len__(self) -> int:
        return len(self.usable)

    @property
    def kept_bytes(self) -> int:
        """The bytes of the maps on disk."""
        return sum(one.matrix.nbytes for one in self.kept)

    def epoch(self, rng: np.random.Generator) -> Iterator[FeatureMapBatch]:
        """All images in random order, each in a random one of its views."""
        order = rng.permutation(self.usable)
        yield from self._batches(order, rng.integers(len(self.views), size=len(order)))

    def plain(self) -> Iterator[FeatureMapBatch]:
        """All images in order as they are."""
        yield from self._batches(self.usable, np.zeros(len(self.usable), np.int64))

    def _batches(self, order: Int64Array, views: Int64Array) -> Iterator[FeatureMapBatch]:
        # One thread: the next batch is read while the one before it is trained on, and no more of them are in memory.
        with ThreadPoolExecutor(1, thread_name_prefix="edgetl-maps") as pool:
            waiting = None
            for start in range(0, len(order), self.batch_size):
                part = slice(start, start + self.batch_size)
                following = pool.submit(self._batch, order[part], views[part])
                if waiting is not None:
                    yield waiting.result()
                waiting = following
            if waiting is not None:
                yield waiting.result()

    def _batch(self, rows: Int64Array, views: Int64Array) -> FeatureMapBatch:
        values = np.empty((len(rows), self.cut.values), np.float32)
        for number in np.unique(views):
            self._fill(values, rows, np.flatnonzero(views == number), int(number))
        maps, position = [], 0
        for shape in self.cut.shapes:
            part = values[:, position : position + prod(shape)]
            maps.append(torch.from_numpy(np.ascontiguousarray(part)).view(len(rows), *shape))
            position += prod(shape)
        drawn = [view_boxes(self.images[row], self.views[view]) for row, view in zip(rows, views, strict=True)]
        return FeatureMapBatch(tuple(maps), rows, drawn)

    def _fill(self, values: Float32Array, rows: Int64Array, places: Int64Array, view: int) -> None:
        """Write to some places of a batch the maps that their images have in a view."""
        kept, missing = self.kept[view], []
        for place in places:
            row = kept.row_of.get(int(rows[place]))
            if row is None:
                missing.append(place)
            else:
                values[place] = kept.matrix[row]
        files = [self.images[rows[place]] for place in missing]
        render = box_renderer(self.views[view], self.root)
        for batch in stream(files, self.root, render, self.cut.extract) if files else ():
            values[[missing[n] for n in batch.rows]] = batch.result.reshape(len(batch.rows), -1)


def map_source(
    network: FeatureNetwork,
    cut: FeatureMapCut,
    images: Sequence[BoxedImage],
    root: Path,
    views: Sequence[BoxView],
    cache: Path,
    budget: int,
    batch_size: int,
    watch: Callable[[int], object] = bool,
) -> FeatureMaps:
    """The maps of images; on disk are those of the first images, as many as ``budget`` bytes hold in all views.

    Args:
        watch: is called with the number of images of every finished batch, the views one after another.

    Raises:
        EdgetlError: an image changed or vanished, or the disk is full.
    """
    most = budget // max(1, len(views) * cut.values * _BYTES)
    broken: list[BrokenFile] = []
    # Where maps are not kept, and of a mosaic's partners, it has to be known before training which images decode.
    if most < len(images) or any(view.augmentation.mosaic for view in views):
        for batch in stream(images, root, renderer(network.preprocessing), len):
            broken += batch.broken
    bad = {file.path for file in broken}
    views = [replace(view, others=tuple(image for image in view.others if image.path not in bad)) for view in views]
    first = [number for number, image in enumerate(images) if image.path not in bad][:most]
    kept: list[CachedFeatureMaps] = []
    for view in views:
        if not first:
            kept.append(CachedFeatureMaps(np.empty((0, cut.values), np.float32), {}))
            continue
        rendered, rows = _Rendered(view, root), [images[number] for number in first]
        cached = cached_features(
            network, cut.extract, rows, root, rendered, cache, watch, cut=cut.name, shape=(cut.values,)
        )
        row_of = {first[position]: row for row, position in enumerate(cached.positions)}
        kept.append(CachedFeatureMaps(cached.matrix, row_of))
        broken += cached.broken
    every = {file.path: file for file in broken}
    usable = np.array([number for number, image in enumerate(images) if image.path not in every], np.int64)
    return FeatureMaps(cut, images, root, views, kept, usable, batch_size, tuple(every.values()))
