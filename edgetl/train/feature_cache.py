"""The cache of features at a cut: images are streamed through the trunk once, into a memory-mapped file."""

from __future__ import annotations

import copy
import io
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnx
import onnxruntime
import torch
from torch import nn

from edgetl.arrays import Float32Array, Int64Array, UInt8Array
from edgetl.artifacts.bundle import IMAGES, TOP, BackboneReference, Preprocessing
from edgetl.artifacts.data_index import BrokenFile
from edgetl.artifacts.files import Artifact, cannot_write, read_json, sha256_json, whole_file, write_json
from edgetl.data.stream import BatchResult, ImageFile, stream, to_input
from edgetl.data.views import renderer
from edgetl.errors import EdgetlError

Extractor = Callable[[UInt8Array], Float32Array]


class Rendering(Protocol):
    """A rendering of images for the trunk; ``facts`` (JSON values) are all that decides it beside the image and the
    preprocessing."""

    @property
    def facts(self) -> list[Any]: ...

    def renderer(self, preprocessing: Preprocessing) -> Callable[[bytes, Any], UInt8Array]:
        """A function from a file's content and its record in the index to H x W x 3."""


@dataclass(frozen=True)
class View:
    """A rendering of images by number: 0 is the plain one, others are augmented."""

    number: int = 0
    seed: int = 0
    flip: bool = False

    @property
    def facts(self) -> list[Any]:
        return [self.number, self.seed, self.flip] if self.number else [0]

    def renderer(self, preprocessing: Preprocessing) -> Callable[[bytes, ImageFile], UInt8Array]:
        return renderer(preprocessing, view=self.number, seed=self.seed, flip=self.flip)


class FeatureNetwork(Protocol):
    """The facts of a network that decide an image's features, beside the cut."""

    @property
    def reference(self) -> BackboneReference: ...

    @property
    def preprocessing(self) -> Preprocessing: ...


class _FeatureRecord(Artifact):
    # Written after the matrix: where the record exists, the matrix is whole.
    rows: int
    unusable: tuple[int, ...]
    broken: tuple[BrokenFile, ...]


@dataclass(frozen=True)
class FeatureMatrix:
    """Features in a memory-mapped ``matrix`` (usable images x D, or x the shape of a map) and the broken files.

    ``positions`` are those of the matrix's rows among the samples.
    """

    matrix: Float32Array
    positions: Int64Array
    broken: tuple[BrokenFile, ...]
    was_cached: bool


def make_extractor(network: nn.Module, graph: onnx.ModelProto) -> Extractor:
    """The fastest function on this machine from uint8 images (n x H x W x 3) to features (n x D), or maps at a cut.

    ``graph`` was exported from ``network``. The values of several maps stand side by side, n x D.
    """
    if torch.cuda.is_available():
        # A copy: the backbone stays where the exporter looks for it.
        on_device = copy.deepcopy(network).to("cuda")

        def on_gpu(images: UInt8Array) -> Float32Array:
            with torch.inference_mode():
                pixels = torch.from_numpy(images).to("cuda", non_blocking=True).permute(0, 3, 1, 2).float().div_(255.0)
                outputs = on_device(pixels)
                several = outputs if isinstance(outputs, tuple) else (outputs,)
                return _joined([output.float().cpu().numpy() for output in several])

        return on_gpu
    # ONNX Runtime on the exported trunk is 4 to 7 times as fast as eager torch on a CPU. One thread for each of the
    # stream's workers scales better than several threads inside one batch.
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def on_cpu(images: UInt8Array) -> Float32Array:
        return _joined(session.run(None, {IMAGES: to_input(images)}))

    return on_cpu


def _joined(outputs: Sequence[Float32Array]) -> Float32Array:
    """The only output, or the values of several side by side for each image, n x (values of all)."""
    if len(outputs) == 1:
        return outputs[0]
    return np.concatenate([output.reshape(len(output), -1) for output in outputs], axis=1)


def cached_features(
    backbone: FeatureNetwork,
    extract: Extractor,
    samples: Sequence[ImageFile],
    root: Path,
    view: Rendering,
    cache: Path,
    watch: Callable[[int], object] = bool,
    *,
    cut: str = TOP,
    shape: tuple[int, ...] | None = None,
) -> FeatureMatrix:
    """The features of samples, from the cache if they are in it, else computed and put there.

    Memory stays that of a few batches, whatever the number of images.

    Args:
        watch: is called with the number of images of every finished batch.
        cut: the layer that ``extract`` ends with.
        shape: the shape of one image's result; left out, the trunk's D features.

    Raises:
        EdgetlError: an image changed or vanished, or the disk is full (nothing half-written stays).
    """
    shape = shape or (backbone.reference.feature_dim,)
    # Everything that decides the values. Networks that differ in padding or normalisation alone can have the same
    # tensors, so their fingerprint alone would not do.
    network = backbone.reference.model_dump(mode="json", exclude={"weights"})
    contents = [sample.sha256 for sample in samples]
    key = sha256_json([network, cut, backbone.preprocessing.model_dump(), view.facts, contents])[:32]
    path, record_path = cache / f"{key}.npy", cache / f"{key}.json"
    was_cached = _is_whole(path, record_path, shape)
    if not was_cached:
        _require_space(cache, len(samples) * prod(shape) * 4, cut)
        batches = stream(samples, root, view.renderer(backbone.preprocessing), extract)
        write_json(record_path, _write(path, batches, len(samples), shape, watch))
    record = read_json(record_path, _FeatureRecord)
    # Copy on write: torch wants writable memory, and nothing may write to the cache.
    matrix: Float32Array = np.load(path, mmap_mode="c", allow_pickle=False)
    positions = np.delete(np.arange(len(samples)), record.unusable)
    return FeatureMatrix(matrix, positions, record.broken, was_cached)


def _is_whole(path: Path, record_path: Path, shape: tuple[int, ...]) -> bool:
    """Whether the cache holds an array as large as its record says: a faulty disk can cut it short."""
    if not (path.is_file() and record_path.is_file()):
        return False
    try:
        rows = read_json(record_path, _FeatureRecord).rows
    except EdgetlError:
        return False
    return path.stat().st_size == len(_header(rows, shape)) + rows * prod(shape) * 4


def _require_space(cache: Path, needed: int, cut: str) -> None:
    try:
        cache.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(cache).free
    except OSError as error:
        raise cannot_write(cache, error) from error
    if free < needed:
        where, smaller = (
            ("", "") if cut == TOP else (f" at {cut}", ", or cut nearer to the top, where maps are smaller")
        )
        raise EdgetlError(
            f"the feature cache{where} needs {needed / 1e6:.0f} MB in {cache}, {free / 1e6:.0f} MB are free; "
            f"free space or choose another directory with -o{smaller}"
        )


def _write(
    path: Path,
    batches: Iterable[BatchResult[Float32Array]],
    samples: int,
    shape: tuple[int, ...],
    watch: Callable[[int], object],
) -> _FeatureRecord:
    # Written, not mapped: dirty mapped pages would count as this process's memory.
    usable = np.zeros(samples, dtype=bool)
    broken: list[BrokenFile] = []
    with whole_file(path) as partial, partial.open("wb") as file:
        file.write(_header(samples, shape))
        for batch in batches:
            broken.extend(batch.broken)
            file.write(np.ascontiguousarray(batch.result, dtype=np.float32).data)
            usable[batch.rows] = True
            watch(len(batch.rows) + len(batch.broken))
        file.seek(0)  # only now the number of rows is known
        file.write(_header(int(usable.sum()), shape))
        file.flush()
        os.fsync(file.fileno())
    return _FeatureRecord(
        rows=int(usable.sum()), unusable=tuple(np.flatnonzero(~usable).tolist()), broken=tuple(broken)
    )


def _header(rows: int, shape: tuple[int, ...]) -> bytes:
    """An npy header (format 1.0) of a length that does not depend on the number of rows."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f4", "fortran_order": False, "shape": (rows, *shape)})
    return buffer.getvalue()
