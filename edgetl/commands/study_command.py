"""What commands on a study share: its run directory, running its stages, and progress on the terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from edgetl.api.studies import StudyRun
    from edgetl.stages.stage import Options


def study_and_run(sources: Sequence[Path], output: Path | None, models: str = "models") -> tuple[Path, Path]:
    """The one study among a command's sources, and its run directory; ``models`` are what else the command takes.

    Raises:
        UsageError: there is more than one source, an engine, or no ``output``.
    """
    if len(sources) != 1 or sources[0].suffix == ".engine" or output is None:
        raise click.UsageError(f"give {models}, or one STUDY.yaml; a study needs -o DIR, its run directory")
    return sources[0], output


def run_study(
    study: Path,
    output: Path,
    stages: Sequence[str],
    options: Options | None = None,
    quantization_aware: bool = False,
) -> StudyRun:
    """Run stages of a study, with progress on the terminal.

    Raises:
        EdgetlError: the study file has faults, or a stage failed.
    """
    from edgetl.api.studies import Study

    loaded = Study.from_yaml(study)
    loaded = loaded.quantization_aware() if quantization_aware else loaded
    return loaded.run(output, stages=stages, options=options, progress=TerminalReporter())


class TerminalReporter:
    """Prints messages to stderr, and progress bars where stderr is a terminal."""

    def message(self, text: str) -> None:
        click.echo(text, err=True)

    @contextmanager
    def progress(self, title: str, total: float) -> Iterator[Callable[[float], object]]:
        if not sys.stderr.isatty():  # a log would hold hundreds of bars
            yield bool  # takes a number and does nothing
            return
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
            task = bars.add_task(title, total=total)
            yield lambda step: bars.advance(task, step)
