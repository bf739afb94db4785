"""A metric from outside the package: named in a study, measured, decided by and told of in the report."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgetl.artifacts.files import read_json
from edgetl.artifacts.results import Results
from edgetl.artifacts.run_directory import RunDirectory
from edgetl.config import METRICS, Metric, MetricWords, Study
from edgetl.errors import EdgetlError
from edgetl.measure import bootstrap
from edgetl.measure.accuracy import Answers, Hits, top1_accuracy, top1_difference
from edgetl.measure.metrics import COMPUTATIONS, Computation, register_metric
from edgetl.stages.run_study import STAGES, run_stages
from edgetl.stages.stage import Context, Options, ProgressReporter

TOP_2 = Metric(
    name="top-2",
    task="classify",
    words=MetricWords(
        name="top-2 accuracy",
        title="Top-2 accuracy",
        caption="Top-2: % of the test images of which one of two labels is right.",
        measured="Top-2 accuracy is taken on {images} test images.",
    ),
)


def in_top_2(answers: Answers) -> Hits:
    two = answers.probabilities.argsort(axis=1)[:, -2:]
    return Hits((two == answers.truth[:, None]).any(axis=1), answers.truth)


COMPUTED = Computation(
    # Of the groups it gives top-1: what matters here is that a whole study is decided by it.
    accuracy=lambda answers, groups: top1_accuracy(answers, groups).replaced(
        overall=bootstrap.mean_of_hits(in_top_2(answers).right)
    ),
    samples=in_top_2,
    difference=top1_difference,
)


@pytest.fixture
def top_2() -> Iterator[None]:
    register_metric(TOP_2, COMPUTED)
    yield
    del METRICS["top-2"], COMPUTATIONS["top-2"]


def study(**changes: object) -> Study:
    content = {
        "name": "digits",
        "data": {"format": "digits", "per_label": 20, "val": 0.2, "test": 0.4},
        "groups": {"round": ("0", "6"), "straight": ("1", "7"), "curved": ("2", "3")},
        "backbone": {"name": "edgetl/nano", "image_size": 32},
        "deployments": ("combined", "shared"),
        "precisions": ("fp32",),
    }
    return Study.model_validate(content | changes)


@pytest.mark.slow
@pytest.mark.usefixtures("top_2")
def test_a_registered_metric_decides_and_is_told_of(tmp_path: Path, listener: ProgressReporter) -> None:
    pytest.importorskip("torch", reason="the extra train is not installed")
    pytest.importorskip("jinja2", reason="the extra report is not installed")
    run = RunDirectory(tmp_path / "run")
    options = Options(threads=1, seconds=0.2, energy=False)
    run_stages(Context(study(metric="top-2"), tmp_path, run, listener, options), list(STAGES))
    results = read_json(run.results, Results)
    assert results.metric == "top-2"
    with np.load(run.measurements / "predictions.npz") as file:
        two = file["combined fp32"].argsort(axis=1)[:, -2:]
        expected = float((two == file["truth"][:, None]).any(axis=1).mean())
    combined = next(one for one in results.deployments if one.name == "combined")
    assert combined.accuracy is not None
    assert combined.accuracy.overall.value == pytest.approx(expected)
    assert "top-2 accuracy" in " ".join(results.verdict.reasons)
    page = run.report.read_text(encoding="utf-8")
    assert f"Top-2 accuracy is taken on {combined.accuracy.overall.n} test images." in page
    assert "<h2>Top-2 accuracy against latency</h2>" in page


@pytest.mark.usefixtures("top_2")
def test_a_name_that_is_taken_is_refused() -> None:
    with pytest.raises(EdgetlError, match="there is a metric top-2 already"):
        register_metric(TOP_2, COMPUTED)


def test_a_study_names_a_metric_of_its_task_or_gets_the_first() -> None:
    assert study().decided_by.name == "top-1"
    assert study(metric="balanced-accuracy").decided_by.words.name == "balanced accuracy"
    with pytest.raises(ValueError, match=r"'balanced-accuracy' or 'mAP@0\.5' \(did you mean balanced"):
        study(metric="balanced")
    with pytest.raises(ValueError, match=r"has metric mAP@0\.5, which task classify has not; it has top-1 or balanced"):
        study(metric="mAP@0.5")
