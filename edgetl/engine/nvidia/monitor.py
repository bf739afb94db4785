"""A builder's log and progress: its errors for the message that the user sees, and how far it is."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


class Log:
    """A logger for TensorRT that keeps the errors and prints nothing."""

    def __init__(self, trt: Any) -> None:
        errors: list[str] = []
        lock = threading.Lock()

        class Logger(trt.ILogger):  # type: ignore[misc]  # the bindings have no types
            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: Any, message: str) -> None:
                if severity <= trt.ILogger.ERROR:
                    with lock:
                        errors.append(" ".join(message.split()))

        self.errors = errors
        self.logger = Logger()


@dataclass
class Phase:
    """A phase of a build: its steps, those that are done, and the phases inside the current step."""

    steps: int
    done: int = 0
    inside: dict[str, Phase] = field(default_factory=dict)

    def fraction(self) -> float:
        """How much of the phase is done; the phases inside are a part of the current step."""
        current = max((phase.fraction() for phase in self.inside.values()), default=0.0)
        return min(1.0, (self.done + current) / max(self.steps, 1))


class Progress:
    """Turns phases and steps into one fraction of the work, which never decreases."""

    def __init__(self, report: Callable[[float], object]) -> None:
        self._report = report
        self._phases: dict[str, Phase] = {}
        self._root: Phase | None = None
        self._reported = 0.0

    def start(self, name: str, parent: str | None, steps: int) -> None:
        phase = self._phases[name] = Phase(steps)
        if parent in self._phases:
            self._phases[parent].inside[name] = phase
        elif self._root is None:
            self._root = phase

    def step(self, name: str, step: int) -> None:
        phase = self._phases.get(name)
        if phase is not None:
            phase.done = max(phase.done, step + 1)
            phase.inside.clear()
            self._update()

    def finish(self, name: str) -> None:
        phase = self._phases.pop(name, None)
        if phase is not None:
            phase.done = phase.steps
            self._update()

    def _update(self) -> None:
        fraction = self._root.fraction() if self._root else 0.0
        # A phase that begins inside a step that seemed further would turn the bar back.
        if fraction > self._reported:
            self._reported = fraction
            self._report(fraction)


def make_monitor(trt: Any, report: Callable[[float], object]) -> Any:
    """An object for ``IBuilderConfig.progress_monitor``. It cancels the build when the user interrupts it."""
    # Builders call it from threads of their own, though never twice at once for one phase.
    progress, lock = Progress(report), threading.Lock()

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.interrupted = False

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            with lock:
                progress.start(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            try:
                with lock:
                    progress.step(phase_name, step)
            except KeyboardInterrupt:  # an exception must not pass through the builder
                self.interrupted = True
            return not self.interrupted

        def phase_finish(self, phase_name: str) -> None:
            with lock:
                progress.finish(phase_name)

    return Monitor()
