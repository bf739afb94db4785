"""A study file: YAML in, a frozen and validated `Study` out, every fault reported at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

from pydantic import field_validator, model_validator

from edgetl.config.deployments import COMBINED, DEPLOYMENTS, ONE_VS_REST, DeploymentKind
from edgetl.config.fields import OTHER, DeploymentName, Label, MetricName, Name, Precision, RuntimeName, Seed
from edgetl.config.metrics import METRICS, Metric, TaskName, metric_of_task
from edgetl.config.sections import (
    FORMATS,
    AccuracyControl,
    BackboneSettings,
    BudgetSettings,
    DataSettings,
    DetectionSettings,
    EngineSettings,
    SearchSettings,
    TrainingSettings,
)
from edgetl.errors import EdgetlError
from edgetl.yaml_file import Settings, load_yaml

# Heads for all labels, the input of every graph, and a key of results.json on the level of the groups.
_TAKEN = frozenset({COMBINED, ONE_VS_REST, "images", "overall"})


class Study(Settings):
    """A study: a data set, its groups of labels, a backbone, what to compare, and limits."""

    FORMER_KEYS: ClassVar[Mapping[str, str]] = {"guard": "accuracy_control"}

    name: Name
    task: TaskName = "classify"
    metric: MetricName | None = None
    data: DataSettings
    groups: dict[Name, tuple[Label, ...]]
    backbone: BackboneSettings
    deployments: tuple[DeploymentName, ...] = ("combined", "specialised", "shared")
    precisions: tuple[Precision, ...] = ("fp32", "int8")
    runtime: RuntimeName = "auto"
    engine: EngineSettings = EngineSettings()
    calibration: str = "default"
    accuracy_control: AccuracyControl | None = None
    budget: BudgetSettings = BudgetSettings()
    training: TrainingSettings = TrainingSettings()
    detection: DetectionSettings = DetectionSettings()
    search: SearchSettings = SearchSettings()
    seed: Seed = 0

    @property
    def kinds(self) -> tuple[DeploymentKind, ...]:
        """The kinds of deployments that are compared, in the order of the study file."""
        return tuple(DEPLOYMENTS[name] for name in self.deployments)

    @property
    def labels(self) -> tuple[str, ...]:
        """All labels of all groups, in the order of the study file."""
        return tuple(label for group in self.groups.values() for label in group)

    @property
    def decided_by(self) -> Metric:
        """The metric of the test images that the verdict weighs."""
        return metric_of_task(self.task) if self.metric is None else METRICS[self.metric]

    @field_validator("groups")
    @classmethod
    def _groups_are_disjoint(cls, groups: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        faults = [] if groups else ["no group is named"]
        seen: dict[str, str] = {}
        for group, labels in groups.items():
            if not labels:
                faults.append(f"group {group!r} has no labels")
            if group in _TAKEN:
                faults.append(f"group name {group!r} is taken: it means something else in graphs or results")
            if "@" in group:
                faults.append(f"group name {group!r} holds an @, which stands between a head and its cut")
            for label in labels:
                if label == OTHER:
                    faults.append(f"label {OTHER!r} in group {group!r} is reserved for images of the other groups")
                elif label in seen:
                    faults.append(f"label {label!r} is in group {seen[label]!r} and again in group {group!r}")
                seen.setdefault(label, group)
        if faults:
            raise ValueError("; ".join(faults))
        return groups

    @field_validator("deployments", "precisions")
    @classmethod
    def _named_once(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if not names:
            raise ValueError("is empty; name at least one")
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"names {', '.join(twice)} twice")
        return names

    @model_validator(mode="after")
    def _sections_belong_to_the_task(self) -> Study:
        faults = list(self._faults_of_detection() if self.task == "detect" else self._faults_of_classification())
        odd = [kind.name for kind in self.kinds if self.task not in kind.tasks]
        if odd:
            known = ", ".join(kind.name for kind in DEPLOYMENTS.values() if self.task in kind.tasks)
            faults.append(f"has deployment {' and '.join(odd)}, which task {self.task} has not; it has {known}")
        if self.decided_by.task != self.task:
            known = " or ".join(metric.name for metric in METRICS.values() if metric.task == self.task)
            faults.append(f"has metric {self.metric}, which task {self.task} has not; it has {known}")
        if self.data.format not in FORMATS[self.task]:
            known = f"expected one of {', '.join(sorted(FORMATS[self.task]))}"
            faults.insert(0, f"has data.format {self.data.format}, which task {self.task} does not read; {known}")
        if faults:
            raise ValueError("; ".join(faults))
        return self

    def _faults_of_detection(self) -> Iterator[str]:
        for section in ("training", "search"):
            if section in self.model_fields_set:
                yield f"has {section}, which is for task classify; the section detection says how a detector is trained"
        if self.backbone.cut is not None or self.backbone.truncate:
            yield "has backbone.cut or truncate, which are for task classify; detection.unfreeze tunes a trunk's end"

    def _faults_of_classification(self) -> Iterator[str]:
        if "detection" in self.model_fields_set:
            yield "has detection, which is for task detect; leave it out, or say task: detect"
        if isinstance(self.backbone.image_size, tuple):
            yield "has a pair for backbone.image_size; a classification network takes squares: give one number"
        if self.backbone.fit is not None or self.backbone.labels is not None:
            yield "has backbone.fit or labels, which are for task detect; leave them out"

    @model_validator(mode="after")
    def _quantization_aware_needs_int8(self) -> Study:
        faults = list(self._not_quantization_aware()) if self.training.quantization_aware else []
        if faults:
            raise ValueError(f"has training.quantization_aware, which {'; and '.join(faults)}")
        return self

    def _not_quantization_aware(self) -> Iterator[str]:
        """Why the study cannot train for INT8."""
        if self.task != "classify":
            yield "is for task classify: a detector's convolutions are quantised themselves, and are not trained for it"
        if "int8" not in self.precisions:
            yield "is for int8; add int8 to precisions"

    def quantization_aware(self) -> Study:
        """A copy of the study with ``training.quantization_aware``.

        Raises:
            EdgetlError: the study cannot train for INT8.
        """
        faults = list(self._not_quantization_aware())
        if faults:
            raise EdgetlError(f"quantization-aware training {'; and '.join(faults)}")
        return self.replaced(training=self.training.replaced(quantization_aware=True))

    @model_validator(mode="after")
    def _accuracy_control_needs_int8(self) -> Study:
        if self.accuracy_control is not None and "int8" not in self.precisions:
            raise ValueError(
                "has accuracy_control, which keeps the accuracy of int8; add int8 to precisions, or leave it out"
            )
        return self

    @model_validator(mode="after")
    def _specialists_need_negatives(self) -> Study:
        several = [kind.name for kind in self.kinds if kind.per_group]
        if len(self.groups) < 2 and several:
            raise ValueError(
                f"{' and '.join(several)} need{'s' if len(several) == 1 else ''} at least two groups: the other "
                "groups' images are the negatives of a specialist; name a second group, or leave deployments: "
                "[combined]"
            )
        return self

    @model_validator(mode="after")
    def _branches_need_a_cut(self) -> Study:
        for kind in self.kinds:
            if kind.needs_cut and self.backbone.cut is None:
                raise ValueError(
                    f"{kind.name} needs backbone.cut: the layer where its branches begin, or sweep to find the best"
                )
        if self.backbone.cut is not None and not any(kind.tunable for kind in self.kinds):
            raise ValueError(
                f"backbone.cut has no use for {' and '.join(self.deployments)}, whose trunks stay frozen; "
                "add branched, or leave cut out"
            )
        return self

    @model_validator(mode="after")
    def _int8_on_a_dla_core_has_a_cache(self) -> Study:
        if self.engine.dla_core is not None and "int8" in self.precisions:
            raise ValueError(
                "engine.dla_core and precision int8 do not go together in a study: a DLA core takes INT8 from a "
                "calibration cache; leave int8 out, or build that engine with edgetl build-engine MODEL.onnx --dla-core"
            )
        return self


def load_study(path: Path) -> Study:
    """Read and validate a study file.

    Raises:
        StudyError: with every fault of the file, each naming its line and key.
        EdgetlError: the file cannot be read or is no YAML.
    """
    return load_yaml(path, Study)
