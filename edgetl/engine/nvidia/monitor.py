"""What a builder says while it works: errors for the one line that the user sees, and how far it is."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


class Log:
    """Keeps the errors that TensorRT logs, and its chatter off the terminal."""

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
    """A phase of a build: its steps, those that are done, and the phases inside the step at work."""

    steps: int
    done: int = 0
    inside: dict[str, Phase] = field(default_factory=dict)

    def fraction(self) -> float:
        """How much of it is done. A phase inside is a part of the step at work."""
        at_work = max((phase.fraction() for phase in self.inside.values()), default=0.0)
        return min(1.0, (self.done + at_work) / max(self.steps, 1))


class Progress:
    """Turns phases and steps into one share of the work, which never goes back."""

    def __init__(self, watch: Callable[[float], object]) -> None:
        self._watch = watch
        self._phases: dict[str, Phase] = {}
        self._root: Phase | None = None
        self._told = 0.0

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
            self._tell()

    def finish(self, name: str) -> None:
        phase = self._phases.pop(name, None)
        if phase is not None:
            phase.done = phase.steps
            self._tell()

    def _tell(self) -> None:
        share = self._root.fraction() if self._root else 0.0
        if share > self._told:
            self._told = share
            self._watch(share)


def make_monitor(trt: Any, watch: Callable[[float], object]) -> Any:
    """An object for ``IBuilderConfig.progress_monitor``. It cancels the build when the user interrupts it.

    Builders call it from threads of their own, never two at once for one phase.
    """
    progress, lock = Progress(watch), threading.Lock()

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
