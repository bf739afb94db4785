"""The interface of a stage, and the context that it works in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from edgetl.artifacts.files import sha256_file
from edgetl.artifacts.run_directory import RunDirectory
from edgetl.config import Study
from edgetl.errors import EdgetlError
from edgetl.stages.scenario_request import ScenarioRequest


class ProgressReporter(Protocol):
    """Tells the user how a stage is getting on."""

    def message(self, text: str) -> None:
        """Show one line."""

    def progress(self, title: str, total: float) -> AbstractContextManager[Callable[[float], object]]:
        """A bar up to ``total``; the callable advances it by the amount it is given."""


def advance_to(advance: Callable[[float], object]) -> Callable[[float], None]:
    """A function that advances a bar up to the share of its total that it is given."""
    done = 0.0

    def watch(share: float) -> None:
        nonlocal done
        advance(share - done)
        done = share

    return watch


@dataclass(frozen=True)
class Options:
    """The settings of a command beside the study file. None of them changes what is trained.

    ``interval_width`` is the share to which a latency is to be known, where measuring may end before ``seconds``.
    ``energy`` and ``layers``: whether these are measured too.
    """

    compute_capability: str | None = None
    provider: str = "cpu"
    threads: int = 0
    seconds: float = 10.0
    interval_width: float = 0.01
    energy: bool = True
    layers: bool = False
    scenarios: ScenarioRequest = field(default_factory=ScenarioRequest)


@dataclass(frozen=True)
class Context:
    """One study, the directory it writes into, and the reporter of its progress."""

    study: Study
    base_dir: Path
    run: RunDirectory
    reporter: ProgressReporter
    options: Options = field(default_factory=Options)

    @property
    def runtime(self) -> str:
        """The runtime's name; where the study leaves it open, ONNX Runtime, which runs everywhere.

        Raises:
            EdgetlError: another runtime is to run on one of ONNX Runtime's providers.
        """
        return with_provider(
            "onnxruntime" if self.study.runtime == "auto" else self.study.runtime, self.options.provider
        )


def with_provider(runtime: str, provider: str) -> str:
    """The name of ONNX Runtime on one of its providers.

    Raises:
        EdgetlError: it is another runtime's name.
    """
    if provider == "cpu":
        return runtime
    if runtime != "onnxruntime":
        raise EdgetlError(f"--provider {provider} is one of ONNX Runtime's, and the runtime is {runtime}; leave it out")
    return f"{runtime}-{provider}"


StageSettings = Callable[[Study, Path], dict[str, Any]]


class Worker(Protocol):
    """The module of a stage."""

    def inputs(self, context: Context) -> dict[str, Any]:
        """What the result depends on beside the settings: data files, weights, the machine."""

    def work(self, context: Context) -> Sequence[Path]:
        """Do the stage's work; return the files that were written."""


@dataclass(frozen=True)
class Stage:
    """A step of a study.

    ``settings`` are the parts of the study (and of the files beside it) that the result depends on. ``module`` does the
    work; None for a stage that each task does in its own way.
    """

    name: str
    command: str
    parents: tuple[str, ...]
    settings: StageSettings
    module: str | None = None


def backbone_inputs(context: Context) -> dict[str, Any]:
    """The digests of the backbone's files; None for a file that is missing or not asked for."""
    backbone = context.study.backbone
    files = {"weights": None if backbone.weights == "default" else backbone.weights}
    if backbone.name.startswith("darknet/"):
        files |= {"cfg": backbone.name.partition("/")[2], "labels": backbone.labels}
    return {
        key: sha256_file(path) if name and (path := context.base_dir / name).is_file() else None
        for key, name in files.items()
    }
