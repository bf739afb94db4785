"""The maps of a split's images, from the disk as far as its budget goes, else computed when they are wanted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any, TypeVar

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

T = TypeVar("T")

_BYTES = 4


@dataclass(frozen=True)
class _Rendered:
    """A view as the feature cache knows it. A mosaic shows other images too, so these decide the pixels with it."""

    view: BoxView
    root: Path

    @property
    def facts(self) -> list[Any]:
        view = self.view
        if view.number == 0:
            return [0]
        others = [image.sha256 for image in view.others] if view.augmentation.mosaic else []
        return [view.number, view.seed, view.augmentation.model_dump(exclude={"views"}), others]

    def renderer(self, preprocessing: Preprocessing) -> Callable[[bytes, BoxedImage], UInt8Array]:
        assert preprocessing == self.view.preprocessing
        return box_renderer(self.view, self.root)


@dataclass(frozen=True)
class FeatureMapCut:
    """Where maps are taken: the layer's name, the shapes of the maps for one image, and what makes them."""

    name: str
    shapes: tuple[tuple[int, ...], ...]
    extract: Extractor

    @property
    def values(self) -> int:
        """Of one image, in all maps."""
        return sum(map(prod, self.shapes))


@dataclass(frozen=True)
class CachedFeatureMaps:
    """The maps of the first images of a split in one view: a row each, and which image it is of."""

    matrix: Float32Array
    row_of: dict[int, int]


@dataclass(frozen=True)
class FeatureMaps:
    """The images of a split as maps; see `map_source`. ``usable`` are those that decode."""

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
        """On disk."""
        return sum(one.matrix.nbytes for one in self.kept)

    def epoch(self, rng: np.random.Generator) -> Iterator[FeatureMapBatch]:
        """All images in random order, each in a random one of its views."""
        order = rng.permutation(self.usable)
        yield from self._batches(order, rng.integers(len(self.views), size=len(order)))

    def plain(self) -> Iterator[FeatureMapBatch]:
        """All images in order as they are."""
        yield from self._batches(self.usable, np.zeros(len(self.usable), np.int64))

    def _batches(self, order: Int64Array, views: Int64Array) -> Iterator[FeatureMapBatch]:
        starts = range(0, len(order), self.batch_size)
        parts = [slice(start, start + self.batch_size) for start in starts]
        yield from _ahead(lambda part: self._batch(order[part], views[part]), parts)

    def _batch(self, rows: Int64Array, views: Int64Array) -> FeatureMapBatch:
        values = np.empty((len(rows), self.cut.values), np.float32)
        for number in np.unique(views):
            places = np.flatnonzero(views == number)
            self._fill(values, places, rows[places], int(number))
        maps, position = [], 0
        for shape in self.cut.shapes:
            part = values[:, position : position + prod(shape)]
            maps.append(torch.from_numpy(np.ascontiguousarray(part)).view(len(rows), *shape))
            position += prod(shape)
        drawn = [view_boxes(self.images[row], self.views[view]) for row, view in zip(rows, views, strict=True)]
        return FeatureMapBatch(tuple(maps), rows, drawn)

    def _fill(self, values: Float32Array, places: Int64Array, rows: Int64Array, view: int) -> None:
        """Write the maps of ``rows`` in a view to their places."""
        kept = self.kept[view]
        missing = [n for n, row in enumerate(rows) if int(row) not in kept.row_of]
        for place, row in zip(places, rows, strict=True):
            if int(row) in kept.row_of:
                values[place] = kept.matrix[kept.row_of[int(row)]]
        files = [self.images[rows[n]] for n in missing]
        render = box_renderer(self.views[view], self.root)
        for batch in stream(files, self.root, render, self.cut.extract) if files else ():
            values[places[[missing[n] for n in batch.rows]]] = batch.result.reshape(len(batch.rows), -1)


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
    """Maps of images, the first ones of them kept on disk: as many as ``budget`` bytes hold in all views.

    Args:
        watch: is told the number of images of every finished batch, the views one after another.

    Raises:
        EdgetlError: an image changed or vanished, or the disk is full.
    """
    most = budget // max(1, len(views) * cut.values * _BYTES)
    mosaics = any(view.augmentation.mosaic for view in views)
    # Where maps are not kept, and of a mosaic's partners, it has to be known before training which images decode.
    broken = _undecodable(network, images, root) if mosaics or most < len(images) else []
    bad = {file.path for file in broken}
    views = [replace(view, others=tuple(image for image in view.others if image.path not in bad)) for view in views]
    first = [number for number, image in enumerate(images) if image.path not in bad][:most]
    kept: list[CachedFeatureMaps] = []
    for view in views:
        if not first:
            kept.append(CachedFeatureMaps(np.empty((0, cut.values), np.float32), {}))
            continue
        rendered, rows = _Rendered(view, root), [images[number] for number in first]
        found = cached_features(
            network, cut.extract, rows, root, rendered, cache, watch, cut=cut.name, shape=(cut.values,)
        )
        kept.append(
            CachedFeatureMaps(found.matrix, {first[position]: row for row, position in enumerate(found.positions)})
        )
        broken += found.broken
    every = {file.path: file for file in broken}
    usable = np.array([number for number, image in enumerate(images) if image.path not in every], np.int64)
    return FeatureMaps(cut, images, root, views, kept, usable, batch_size, tuple(every.values()))


def _undecodable(network: FeatureNetwork, images: Sequence[BoxedImage], root: Path) -> list[BrokenFile]:
    batches = stream(images, root, renderer(network.preprocessing), len)
    return [file for batch in batches for file in batch.broken]


def _ahead(make: Callable[[slice], T], parts: Sequence[slice]) -> Iterator[T]:
    """Make each part while the one before it is used."""
    with ThreadPoolExecutor(1, thread_name_prefix="edgetl-maps") as pool:
        waiting = None
        for part in parts:
            following = pool.submit(make, part)
            if waiting is not None:
                yield waiting.result()
            waiting = following
        if waiting is not None:
            yield waiting.result()
