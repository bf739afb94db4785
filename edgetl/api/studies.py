"""Studies from Python: what `edgetl run` does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetl import config
from edgetl.api.progress import Progress, reporter_of
from edgetl.artifacts.files import read_json
from edgetl.artifacts.results import DeploymentResult, Results, Verdict
from edgetl.artifacts.run_directory import RunDirectory
from edgetl.errors import EdgetlError, MissingExtraError, did_you_mean
from edgetl.stages.run_study import STAGES, run_stages
from edgetl.stages.stage import Context, Options
from edgetl.yaml_file import validated

if TYPE_CHECKING:
    from pandas import DataFrame


class Study:
    """A study: data, groups of labels, a backbone, and the deployments to compare.

    ``Study(name="animals", data={...}, groups={...}, backbone={"name": ...})`` takes what a study file has, section by
    section. ``base_dir`` is where paths in it begin: by default the current folder, of a file the file's folder.

    Raises:
        StudyError: sections have faults; it lists all.
    """

    def __init__(self, *, base_dir: str | Path = ".", **sections: Any) -> None:
        self.settings = validated(sections, config.Study, "the study")
        self.base_dir = Path(base_dir)

    @classmethod
    def from_yaml(cls, path: str | Path) -> Study:
        """The study in a file.

        Raises:
            StudyError: the file has faults; it lists all, each with its line and key.
            EdgetlError: the file cannot be read or is no YAML.
        """
        return cls._of(config.load_study(Path(path)), Path(path).parent)

    @classmethod
    def _of(cls, settings: config.Study, base_dir: Path) -> Study:
        study = cls.__new__(cls)
        study.settings, study.base_dir = settings, base_dir
        return study

    def quantization_aware(self) -> Study:
        """The study with heads (and tuned layers) trained for INT8.

        Raises:
            EdgetlError: the study cannot train for INT8.
        """
        return self._of(self.settings.quantization_aware(), self.base_dir)

    def run(
        self,
        directory: str | Path,
        until: str = "report",
        *,
        stages: Sequence[str] | None = None,
        options: Options | None = None,
        progress: Progress | None = None,
    ) -> StudyRun:
        """Run stages of the study in a directory; those that are up to date are not run again.

        Args:
            directory: where everything is written; it is made where it is missing.
            until: the last stage: index, finetune, search, export, build-engine, evaluate, profile or report.
            stages: the stages to run, in place of all up to ``until``; those before them must be there.
            options: where and how long engines run.
            progress: a function for messages, such as ``print``; nothing is printed without it.

        Raises:
            EdgetlError: a stage failed; what was finished before stays and is not done again.
        """
        names = list(STAGES)
        if until not in names:
            raise EdgetlError(f"there is no stage {until!r}{did_you_mean(until, names)}; expected {', '.join(names)}")
        run = RunDirectory(Path(directory))
        context = Context(self.settings, self.base_dir, run, reporter_of(progress), options or Options())
        run_stages(context, names[: names.index(until) + 1] if stages is None else stages)
        return StudyRun(run)


class StudyRun:
    """What a study wrote into its directory."""

    def __init__(self, directory: RunDirectory) -> None:
        self.directory = directory

    @property
    def results(self) -> Results:
        """All results, as in ``results.json``.

        Raises:
            EdgetlError: the study was not run until ``report``.
        """
        return read_json(self.directory.results, Results)

    @property
    def verdict(self) -> Verdict:
        """The candidate to ship, with reasons."""
        return self.results.verdict

    @property
    def deployments(self) -> Mapping[str, DeploymentResult]:
        """The results of each candidate, by its title, such as ``shared int8``."""
        return {one.title: one for one in self.results.deployments}

    def to_frame(self) -> DataFrame:
        """A pandas data frame with a row for each candidate: accuracy, latency, memory, and their intervals.

        Raises:
            MissingExtraError: pandas is not installed.
        """
        return frame(self.results.deployments)


def frame(deployments: Sequence[DeploymentResult]) -> DataFrame:
    """A pandas data frame with a row for each of some results; what was not measured is NaN or None.

    Raises:
        MissingExtraError: pandas is not installed.
    """
    try:
        from pandas import DataFrame
    except ModuleNotFoundError as error:
        raise MissingExtraError("to_frame", "frame", error) from error
    return DataFrame([_row(one) for one in deployments]).set_index("candidate")


def _row(result: DeploymentResult) -> dict[str, Any]:
    accuracy = None if result.accuracy is None else result.accuracy.overall
    latency = result.latency_ms
    return {
        "candidate": result.title,
        "deployment": result.name,
        "precision": result.precision,
        "runtime": result.runtime,
        "accuracy": accuracy and accuracy.value,
        "accuracy_low": accuracy and accuracy.low,
        "accuracy_high": accuracy and accuracy.high,
        "latency_ms": latency and latency.p50,
        "latency_low": latency and latency.low,
        "latency_high": latency and latency.high,
        "stable": latency and latency.stable,
        "throughput_ips": result.throughput_ips,
        "memory_mb": result.memory_mb,
        "energy_mj": result.energy_mj,
        "flops": result.flops,
        "megabytes": sum(engine.bytes for engine in result.engines) / 1e6 if result.engines else None,
        "unsupported": result.unsupported,
    }
