"""The one pass over calibration images: a histogram of every tensor, with the same bits every time."""

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
# The memory they take at most: 64 images of 416 x 416 pixels.
_PROBE_BYTES = 2**27


def quantisable_tensors(model: onnx.ModelProto) -> tuple[str, ...]:
    """The activations of the trunk whose ranges either QDQ format may need, in the order of the graph.

    These are the inputs of Conv, Gemm and MatMul (the normalised image among them), the outputs of Conv, and the joins
    and poolings between them. A tensor behind MaxPool, Flatten and the like takes the range of their input, a Conv
    followed by Relu that of the Relu. The raw image, features that only heads read, and outputs stay in float.
    """
    wiring = Wiring(model.graph)
    needed = {name for target in ("tensorrt", "onnxruntime") for name in place_qdq(wiring, target).sources.values()}
    ordered = (*(value.name for value in model.graph.input), *wiring.producers)
    return tuple(name for name in ordered if name in needed)


@dataclass(frozen=True)
class Observation:
    """The result of one pass: a histogram of every tensor, the number of images, and some of them, n x 3 x H x W."""

    histograms: dict[str, Histogram]
    count: int
    probes: Float32Array

    @property
    def fitting_images(self) -> Float32Array:
        """The half of the probes that weights are fitted to."""
        return self.probes[::2]

    @property
    def probe_images(self) -> Float32Array:
        """The other half of the probes, on which signal-to-noise is measured. A single probe is in both halves."""
        return self.probes[1::2] if len(self.probes) > 1 else self.probes


class Observer:
    """Observes tensors of a graph while images run through it, from any number of threads.

    The result depends on the set of images alone. Every image runs by itself and on one thread, because kernels sum in
    another order for another batch size or number of threads; histograms add up to the same counts in any order; the
    probes are the images with the least digests. Memory is bounded: `BINS` counts for each tensor, the tensors of one
    image for each thread, and the probes.

    Raises:
        EdgetlError: the graph has no tensor to observe.
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
        """Run images, float32 [n,3,H,W] in [0,1], through the graph and return their number.

        Raises:
            EdgetlError: they do not fit the graph, or a tensor holds NaN or infinity.
        """
        if images.ndim != 4 or images.dtype != np.float32:
            raise EdgetlError(f"a calibration batch is {images.dtype} {list(images.shape)}, expected float32 [n,3,H,W]")
        for position in range(len(images)):
            image, found = np.ascontiguousarray(images[position : position + 1]), {}
            for name, values in self._reference.run(image).items():
                if not np.isfinite(values).all():
                    raise EdgetlError(
                        f"tensor {name!r} holds NaN or infinity on a calibration image; check the weights"
                    )
                found[name] = Histogram()
                found[name].add(values)
            digest = int.from_bytes(hashlib.sha256(image.tobytes()).digest(), "big")
            with self._lock:  # held for the sums alone, so that threads run their images at the same time
                for name, histogram in found.items():
                    self._histograms[name].merge(histogram)
                self._count += 1
                most = max(2, min(PROBES, _PROBE_BYTES // image.nbytes))  # a probe to fit to and one to measure on
                keep = heapq.heappush if len(self._probes) < most else heapq.heappushpop
                keep(self._probes, (-digest, self._count, image))  # the count settles ties between equal images
        return len(images)

    def observation(self, recorded: int) -> Observation:
        """The result of the pass, whose number of images must be the one on record.

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
