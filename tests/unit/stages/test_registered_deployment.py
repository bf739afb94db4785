"""A kind of deployment from outside the package: named in a study, trained, exported, measured and decided about."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edgetl.artifacts.files import read_json
from edgetl.artifacts.results import Results
from edgetl.artifacts.run_directory import RunDirectory
from edgetl.config import DEPLOYMENTS, DeploymentKind, Study, register_deployment
from edgetl.errors import EdgetlError
from edgetl.stages.run_study import STAGES, run_stages
from edgetl.stages.stage import Context, Options, ProgressReporter

pytest.importorskip("torch", reason="the extra train is not installed")
pytest.importorskip("jinja2", reason="the extra report is not installed")

PAIRED = DeploymentKind(
    name="paired",
    tasks=("classify",),
    answer="Neither, but two engines: the first group alone, the others together",
    per_group=True,
    graphs=lambda roles: (roles[:1], roles[1:]),
)


@pytest.fixture
def paired() -> Iterator[None]:
    register_deployment(PAIRED)
    yield
    del DEPLOYMENTS["paired"]


@pytest.mark.slow
@pytest.mark.usefixtures("paired")
def test_a_registered_deployment_goes_all_the_way(tmp_path: Path, listener: ProgressReporter) -> None:
    study = Study(
        name="digits",
        data={"format": "digits", "per_label": 20, "val": 0.2, "test": 0.4},
        groups={"round": ("0", "6"), "straight": ("1", "7"), "curved": ("2", "3")},
        backbone={"name": "edgetl/nano", "image_size": 32},
        deployments=("combined", "paired"),
        precisions=("fp32",),
    )
    run = RunDirectory(tmp_path / "run")
    run_stages(Context(study, tmp_path, run, listener, Options(threads=1, seconds=0.2, energy=False)), list(STAGES))
    results = read_json(run.results, Results)
    paired = next(one for one in results.deployments if one.name == "paired")
    assert [Path(engine.file).name for engine in paired.engines] == [
        "paired.round.fp32.onnx",
        "paired.straight,curved.fp32.onnx",
    ]
    assert paired.accuracy is not None
    assert paired.latency_ms is not None
    assert any("two engines" in reason or "paired" in reason for reason in results.verdict.reasons)


@pytest.mark.usefixtures("paired")
def test_a_registered_deployment_is_validated_like_any_other() -> None:
    content = {
        "name": "boxes",
        "task": "detect",
        "data": {"format": "synthetic"},
        "groups": {"cars": ("car",), "signs": ("stop",)},
        "backbone": {"name": "edgetl/nano"},
        "deployments": ("paired",),
    }
    with pytest.raises(ValueError, match="has deployment paired, which task detect has not"):
        Study.model_validate(content)


@pytest.mark.parametrize(
    ("kind", "fault"),
    [
        (DeploymentKind("combined", ("classify",), "One"), "there is a deployment combined already"),
        (DeploymentKind("empty", ("classify",), "None"), "deployment empty has no head"),
        (DeploymentKind("late", ("classify",), "Both", per_group=True, gated=True), "is gated, which needs the head"),
    ],
)
def test_a_kind_that_cannot_work_is_refused(kind: DeploymentKind, fault: str) -> None:
    with pytest.raises(EdgetlError, match=fault):
        register_deployment(kind)
