"""The time of each step from an image's file to its answer, measured image by image."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from edgetl.artifacts.measurements import StepTime, Waterfall

_FileT = TypeVar("_FileT")
_ImageT = TypeVar("_ImageT")
_InputT = TypeVar("_InputT")

STEPS = ("decode", "preprocess", "inference", "post-process")
_NS_PER_MS = 1e6


class Stopwatch:
    """Adds up the time that is spent inside the calls that it watches."""

    def __init__(self) -> None:
        self.ns = 0

    def watch(self, call: Callable[..., _ImageT]) -> Callable[..., _ImageT]:
        def watched(*arguments: object) -> _ImageT:
            begin = time.perf_counter_ns()
            try:
                return call(*arguments)
            finally:
                self.ns += time.perf_counter_ns() - begin

        return watched


@dataclass(frozen=True)
class InferencePipeline(Generic[_FileT, _ImageT, _InputT]):
    """The steps from a file to its answer. Engines run inside ``answer``, under ``inference``."""

    decode: Callable[[_FileT], _ImageT]
    preprocess: Callable[[_ImageT], _InputT]
    answer: Callable[[_InputT], object]
    inference: Stopwatch


def measure_waterfall(
    way: InferencePipeline[_FileT, _ImageT, _InputT], files: Sequence[_FileT], seconds: float, seed: int = 0
) -> Waterfall:
    """Return the time of each step, over passes through all images for so many seconds."""
    for file in files:  # once without counting, to warm up
        _pass(way, file)
    rng = np.random.default_rng(seed)
    passes: list[tuple[float, ...]] = []
    begin = time.perf_counter()
    # In an order drawn anew each time: what slows the machine down for a while does not fall on the same images.
    while not passes or time.perf_counter() - begin < seconds:
        passes.extend(_pass(way, files[number]) for number in rng.permutation(len(files)))
    times = np.array(passes)
    # Fractions of sums, not of medians: a few large images may take most of the time.
    totals = times.sum(axis=0)
    fractions = (totals / totals.sum()).tolist()
    steps = tuple(
        StepTime(name=name, ms=float(np.median(own)), fraction=fraction)
        for name, own, fraction in zip(STEPS, times.T, fractions, strict=True)
    )
    total_ms = float(np.median(times.sum(axis=1)))
    return Waterfall(images=len(files), samples=len(times), total_ms=total_ms, steps=steps)


def _pass(way: InferencePipeline[_FileT, _ImageT, _InputT], file: _FileT) -> tuple[float, ...]:
    """Return the milliseconds of each of `STEPS`."""
    before = way.inference.ns
    begin = time.perf_counter_ns()
    image = way.decode(file)
    decoded = time.perf_counter_ns()
    tensor = way.preprocess(image)
    ready = time.perf_counter_ns()
    way.answer(tensor)
    answered = time.perf_counter_ns()
    # What ``answer`` does beside running engines is post-processing.
    inside = way.inference.ns - before
    steps = (decoded - begin, ready - decoded, inside, answered - ready - inside)
    return tuple(step / _NS_PER_MS for step in steps)
