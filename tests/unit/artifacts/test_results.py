from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from edgetl.artifacts.measurements import AccuracyEstimate
from edgetl.artifacts.results import (
    Accuracy,
    AveragePrecision,
    DeploymentResult,
    Evaluation,
    LabelPrecision,
    MeanAveragePrecision,
)


def estimate(value: float) -> AccuracyEstimate:
    return AccuracyEstimate(value=value, low=value - 0.01, high=value + 0.01, n=100)


def through_json(accuracy: Accuracy) -> Accuracy:
    return Accuracy.model_validate_json(accuracy.model_dump_json())


def test_accuracy_is_flat_with_the_masked_inside_its_group() -> None:
    accuracy = Accuracy(overall=estimate(0.9), groups={"cars": estimate(0.8)}, masked={"cars": estimate(0.85)})
    content = json.loads(accuracy.model_dump_json())
    assert content.keys() == {"overall", "cars"}
    assert content["cars"]["value"] == 0.8
    assert content["cars"]["masked"]["value"] == 0.85
    assert through_json(accuracy) == accuracy


def test_accuracy_of_detection_has_no_masked() -> None:
    accuracy = Accuracy(overall=estimate(0.5), groups={"cars": estimate(0.4), "people": estimate(0.6)})
    content = json.loads(accuracy.model_dump_json())
    assert content["cars"].keys() == {"value", "low", "high", "n"}
    assert through_json(accuracy) == accuracy


@pytest.mark.parametrize("names", [("groups",), ("masked",), ("groups", "masked"), ("value", "groups"), ()])
def test_a_group_may_have_any_name(names: tuple[str, ...]) -> None:
    groups = {name: estimate(0.4) for name in names}
    for masked in ({}, groups):
        accuracy = Accuracy(overall=estimate(0.5), groups=groups, masked=masked)
        assert accuracy.groups == groups
        assert through_json(accuracy) == accuracy


@pytest.mark.parametrize("group", [0.9, {"value": 0.9}, None, []])
def test_a_group_that_is_no_estimate_is_refused(group: object) -> None:
    content = {"overall": estimate(0.9).model_dump(), "cars": group}
    with pytest.raises(ValidationError):
        Accuracy.model_validate_json(json.dumps(content))


def test_an_evaluation_of_detectors_reads_back_as_it_was_written() -> None:
    both = MeanAveragePrecision(ap50=estimate(0.6), ap=estimate(0.4))
    precision = AveragePrecision(
        overall=both,
        groups={"cars": both},
        labels={
            "car": LabelPrecision(objects=7, ap50=estimate(0.6), ap=estimate(0.4)),
            "van": LabelPrecision(objects=0),
        },
    )
    accuracy = Accuracy(overall=both.ap50, groups={"cars": both.ap50})
    measured = DeploymentResult(
        name="combined", precision="fp32", runtime="onnxruntime", accuracy=accuracy, average_precision=precision
    )
    evaluation = Evaluation(metric="mAP@0.5", images=100, deployments=(measured,), comparisons=(), broken=())
    assert Evaluation.model_validate_json(evaluation.model_dump_json()) == evaluation


def test_an_evaluation_is_of_top_1_where_nothing_is_said() -> None:
    evaluation = Evaluation(images=1, deployments=(), comparisons=(), broken=())
    assert evaluation.metric == "top-1"
