"""Engines run side by side: from one thread where they can queue work, else each in a thread of its own.

An engine that can queue an inference is asked so, all of them from one thread: on an AGX Orin one thread with many
streams beat many threads. Every other one gets a thread of its own: ONNX Runtime lets other threads run while it works.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np

from edgetl.arrays import Float64Array

Stamps = dict[str, list[float]]


class PendingResult(Protocol):
    """An inference that is under way."""

    @property
    def ready(self) -> bool:
        """Whether it is done."""

    def result(self) -> object:
        """Wait for it, and return its result."""


@dataclass(frozen=True)
class ConcurrentWorkload:
    """A workload that is asked for one inference after another: an engine, or several that follow on one another.

    Attributes:
        call: runs one inference.
        start: queues one and returns at once, where the engine can do that.
    """

    call: Callable[[], object]
    start: Callable[[], PendingResult] | None = None


def side_by_side(parts: Mapping[str, ConcurrentWorkload], seconds: float, least: int = 3) -> dict[str, Float64Array]:
    """Run all parts at once, each without a pause, and return the times of their inferences in milliseconds.

    Ends when ``seconds`` are over and each part has done ``least`` inferences: all times are of parts in full company.
    """
    queued = {name: part.start for name, part in parts.items() if part.start is not None}
    loops = [partial(_repeat, name, part.call) for name, part in parts.items() if part.start is None]
    if queued:
        loops.append(partial(_circulate, queued))
    end = _End(parts, least, seconds)
    ready = threading.Barrier(len(loops))

    def run(loop: Callable[[_End], Stamps]) -> Stamps:
        try:
            ready.wait()
            return loop(end)
        except BaseException:
            end.now()  # or the others would wait for ever for a part that failed
            raise

    with ThreadPoolExecutor(len(loops)) as pool:
        running = [pool.submit(run, loop) for loop in loops]
    stamps = {name: own for one in running for name, own in one.result().items()}
    return {name: np.diff(stamps[name]) * 1e3 for name in parts}


class _End:
    """The end of a run: comes when the time is over and every part has done enough."""

    def __init__(self, parts: Iterable[str], least: int, seconds: float) -> None:
        self._missing, self._least = set(parts), least
        self._over = time.perf_counter() + seconds
        self._lock, self._event = threading.Lock(), threading.Event()

    @property
    def come(self) -> bool:
        return self._event.is_set()

    def tell(self, part: str, done: int) -> None:
        """Note that so many inferences of a part are done."""
        if done < self._least or time.perf_counter() < self._over:
            return
        with self._lock:
            self._missing.discard(part)
            if not self._missing:
                self._event.set()

    def now(self) -> None:
        self._event.set()


def _repeat(name: str, call: Callable[[], object], end: _End) -> Stamps:
    """Run one part in a thread of its own."""
    stamps = [time.perf_counter()]
    while True:
        call()
        if end.come:  # the others may have stopped before this inference was done
            return {name: stamps}
        stamps.append(time.perf_counter())
        end.tell(name, len(stamps) - 1)


def _circulate(parts: Mapping[str, Callable[[], PendingResult]], end: _End) -> Stamps:
    """Run several parts from one thread: what is ready is started again."""
    stamps: Stamps = {name: [time.perf_counter()] for name in parts}
    pending = {name: start() for name, start in parts.items()}
    while not end.come:
        time.sleep(0.0)  # lets go of Python's lock: whoever asks again and again would keep it from parts with threads
        for name in [name for name, one in pending.items() if one.ready]:
            pending[name].result()
            stamps[name].append(time.perf_counter())
            pending[name] = parts[name]()
            end.tell(name, len(stamps[name]) - 1)
    for one in pending.values():
        one.result()
    return stamps
