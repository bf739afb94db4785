"""What commands on a study share: arguments, options, running its stages, and progress on the terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from edgetl.api.studies import StudyRun
    from edgetl.stages.stage import Options

_Command = TypeVar("_Command", bound=Callable[..., Any])

PATH = click.Path(path_type=Path)


def with_options(*options: Callable[[Any], Any]) -> Callable[[_Command], _Command]:
    """A decorator that adds arguments and options to a command, in the order of its help."""

    def add(command: _Command) -> _Command:
        for option in reversed(options):  # the one that is applied last stands first
            command = option(command)
        return command

    return add


study_arguments = with_options(
    click.argument("study", type=PATH),
    click.option("-o", "--output", required=True, type=PATH, help="The study's run directory."),
)
provider_option = click.option(
    "--provider",
    type=click.Choice(["cpu", "cuda", "tensorrt"]),
    default="cpu",
    show_default=True,
    help="Where ONNX Runtime runs.",
)
threads_option = click.option(
    "--threads", type=click.IntRange(0), default=0, show_default="one per core", help="Threads of an engine."
)
seconds_option = click.option(
    "--seconds", type=click.FloatRange(0.1), default=10.0, show_default=True, help="How long to measure latency."
)


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
