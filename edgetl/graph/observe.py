"""The one pass over calibration images: what every tensor holds, the same bits every time."""

from __future__ import annotations

import hashlib
import heapq
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from edgetl.arrays import Float32Array
from edgetl.errors import EdgetlError
from edgetl.graph.histogram import Histogram
from edgetl.graph.model import Wiring, with_outputs
from edgetl.graph.parity import Reference
from edgetl.graph.qdq_placement import place_qdq

PROBES = 128
"""Images of a calibration set that are kept for a closer look, if they are small."""
_PROBE_BYTES = 2**27
"""What they have at most; of 416 x 416 pixels that is 64."""


def quantisable_tensors(model: onnx.ModelProto) -> tuple[str, ...]:
    """The activations of the trunk that either spelling may need a range for, in the order of the graph.

    These are the inputs of Conv, Gemm and MatMul (so the normalised image is one), outputs of Conv, and what
    joins and pools between them. A tensor behind MaxPool, Flatten and their kin takes the range of what went in,
    a Conv followed by Relu that of the Relu. The raw image, the features that only heads read, and the outputs
    are none: they stay in float.
    """
    wiring = Wiring(model.graph)
    needed = {name for target in ("tensorrt", "onnxruntime") for name in place_qdq(wiring, target).sources.values()}
    ordered = (*(value.name for value in model.graph.input), *wiring.producers)
    return tuple(name for name in ordered if name in needed)


@dataclass(frozen=True)
class Observation:
    """What one pass saw: a histogram of every tensor, how many images, and some of them, n x 3 x H x W."""

    histograms: dict[str, Histogram]
    count: int
    probes: Float32Array

    @property
    def fitting_images(self) -> Float32Array:
        """Half of the probes: for what is fitted to images."""
        return self.probes[::2]

    @property
    def probe_images(self) -> Float32Array:
        """The other half: for what says how good that is. One probe alone is both."""
        return self.probes[1::2] if len(self.probes) > 1 else self.probes


class Observer:
    """Watches tensors of a graph while images go through it, from any number of threads.

    Every image runs alone and on one thread, because kernels sum in another order for another batch size or number
    of threads; and adding up histograms has no order. So nothing but the set of images decides the result.
    Memory is bounded: `BINS` counts for each tensor, the tensors of one image for each thread, and some whole images.
    These are the ones with the least digests, whatever order they come in.

    Raises:
        EdgetlError: the graph has nothing to watch.
    """

    def __init__(self, model: onnx.ModelProto, tensors: Sequence[str] | None = None) -> None:
        names = tuple(tensors) if tensors is not None else quantisable_tensors(model)
        if not names:
            raise EdgetlError(
                "the graph has no Conv, Gemm or MatMul with constant weights to calibrate; keep it in FP32"
            )
        self._reference = Reference(with_outputs(model, names), optimised=False, threads=1)
        self._histograms = {name: Histogram() for name in names}
        self._probes: list[tuple[int, int, Float32Array]] = []
        self._count = 0
        self._lock = threading.Lock()

    def add(self, images: Float32Array) -> int:
        """Let images, float32 [n,3,H,W] in [0,1], go through the graph; their number is returned.

        Raises:
            EdgetlError: they do not fit the graph, or a tensor holds NaN or infinity.
        """
        if images.ndim != 4 or images.dtype != np.float32:
            raise EdgetlError(f"a calibration batch is {images.dtype} {list(images.shape)}, expected float32 [n,3,H,W]")
        for position in range(len(images)):
            self._add_one(np.ascontiguousarray(images[position : position + 1]))
        return len(images)

    def _add_one(self, image: Float32Array) -> None:
        found = {}
        for name, values in self._reference.run(image).items():
            if not np.isfinite(values).all():
                raise EdgetlError(f"tensor {name!r} holds NaN or infinity on a calibration image; check the weights")
            found[name] = Histogram()
            found[name].add(values)
        digest = int.from_bytes(hashlib.sha256(image.tobytes()).digest(), "big")
        with self._lock:
            for name, histogram in found.items():
                self._histograms[name].merge(histogram)
            self._count += 1
            self._keep(digest, image)

    def _keep(self, digest: int, image: Float32Array) -> None:
        most = max(2, min(PROBES, _PROBE_BYTES // image.nbytes))
        kept = heapq.heappush if len(self._probes) < most else heapq.heappushpop
        kept(self._probes, (-digest, self._count, image))  # the count settles ties between equal images

    def observation(self, recorded: int) -> Observation:
        """What the pass saw of all images; as many must be on record.

        Raises:
            EdgetlError: there were none, or not as many as recorded.
        """
        if not self._count:
            raise EdgetlError("there are no calibration images; give at least one")
        if self._count != recorded:
            raise EdgetlError(
                f"{self._count} images were calibrated on but {recorded} recorded; record each image once"
            )
        ordered = sorted(self._probes, key=lambda probe: -probe[0])
        return Observation(self._histograms, self._count, np.concatenate([image for _, _, image in ordered]))
