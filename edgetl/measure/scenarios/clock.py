"""The real device: this process, which does one job at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

# How early to wake up (s): sleeping alone ends up to a millisecond late, and more on a busy machine.
_SPIN = 2e-3


class RealTimeRunner:
    """Runs each job as a call of this process. Its schedule begins when the runner is made."""

    def __init__(self, jobs: Sequence[Callable[[], object]]) -> None:
        self._jobs = jobs
        self._begin = time.perf_counter()

    def now(self) -> float:
        return time.perf_counter() - self._begin

    def wait_until(self, when: float) -> None:
        """Sleep, and spin through the last part."""
        while (left := when - self.now()) > 0.0:
            if left > _SPIN:
                time.sleep(left - _SPIN)

    def serve(self, job: int) -> None:
        self._jobs[job]()
