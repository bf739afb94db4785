"""End to end, image by image: the steps of the real way, each with a stamp before and after it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from edgetl.arrays import Float64Array
from edgetl.artifacts.measurements import StepTime, Waterfall

_FileT = TypeVar("_FileT")
_ImageT = TypeVar("_ImageT")
_InputT = TypeVar("_InputT")

STEPS = ("decode", "preprocess", "inference", "post-process")
_NS_PER_MS = 1e6


class Stopwatch:
    """Adds up the time that is spent inside of what it watches."""

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
    """From a file to its answer. Engines run inside of ``answer``, under ``inference``; its rest is post-processing."""

    decode: Callable[[_FileT], _ImageT]
    preprocess: Callable[[_ImageT], _InputT]
    answer: Callable[[_InputT], object]
    inference: Stopwatch


def measure_waterfall(
    way: InferencePipeline[_FileT, _ImageT, _InputT], files: Sequence[_FileT], seconds: float, seed: int = 0
) -> Waterfall:
    """Every image once to warm up, then all again and again, in an order drawn anew each time, for so many seconds.

    The order is random so that what slows the machine down for a while does not fall on the same images.
    """
    for file in files:
        _pass(way, file)
    rng = np.random.default_rng(seed)
    passes: list[tuple[float, ...]] = []
    begin = time.perf_counter()
    while not passes or time.perf_counter() - begin < seconds:
        passes.extend(_pass(way, files[number]) for number in rng.permutation(len(files)))
    return _summary(np.array(passes), len(files))


def _pass(way: InferencePipeline[_FileT, _ImageT, _InputT], file: _FileT) -> tuple[float, ...]:
    """Milliseconds of each of `STEPS`."""
    before = way.inference.ns
    begin = time.perf_counter_ns()
    image = way.decode(file)
    decoded = time.perf_counter_ns()
    tensor = way.preprocess(image)
    ready = time.perf_counter_ns()
    way.answer(tensor)
    answered = time.perf_counter_ns()
    inside = way.inference.ns - before
    steps = (decoded - begin, ready - decoded, inside, answered - ready - inside)
    return tuple(step / _NS_PER_MS for step in steps)


def _summary(passes: Float64Array, images: int) -> Waterfall:
    """Shares of sums: a few large images may take most of the time."""
    totals = passes.sum(axis=0)
    whole = float(totals.sum())
    steps = (
        StepTime(name=name, ms=float(np.median(passes[:, number])), fraction=float(totals[number]) / whole)
        for number, name in enumerate(STEPS)
    )
    return Waterfall(
        images=images, samples=len(passes), total_ms=float(np.median(passes.sum(axis=1))), steps=tuple(steps)
    )
