from __future__ import annotations

from typing import Any

import pytest

from edgetl.artifacts.results import Results
from edgetl.errors import EdgetlError
from edgetl.report.detectors import PercentInterval, TrainedHead, precision_table, trained_heads, training_facts


def without(facts: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in facts.items() if name != key}


def test_precision_is_told_overall_by_group_and_by_label_with_objects(detected: Results) -> None:
    table = precision_table(detected)
    assert table is not None
    assert [(row.name, row.kind, row.objects) for row in table.rows] == [
        ("all labels", "overall", "1,227"),
        ("vehicles", "group", "1,204"),
        ("car", "label", "1,204"),
        ("tram", "label", "0"),
        ("people", "group", "23"),
        ("pedestrian", "label", "23"),
    ]
    assert table.titles == tuple(row.title for row in detected.deployments)
    assert table.chosen is not None
    overall = table.rows[0]
    assert overall.ap50[table.chosen] == PercentInterval("54.1", "50.1-58.1")
    assert overall.ap[table.chosen] == PercentInterval("27.1", "25.1-29.1")


def test_a_label_or_group_without_test_objects_has_no_figure(detected: Results) -> None:
    one = detected.deployments[0]
    assert one.average_precision is not None
    bare = one.average_precision.model_copy(
        update={"groups": {"people": one.average_precision.groups["people"]}},
    )
    table = precision_table(
        detected.model_copy(update={"deployments": (one.model_copy(update={"average_precision": bare}),)})
    )
    assert table is not None
    figures = {row.name: row.ap50[0] for row in table.rows}
    assert figures["tram"] == figures["vehicles"] == PercentInterval("-", "")
    assert figures["people"] != PercentInterval("-", "")


def test_where_nothing_is_chosen_no_column_is(detected: Results) -> None:
    verdict = detected.verdict.model_copy(update={"deployment": None, "precision": None})
    table = precision_table(detected.model_copy(update={"verdict": verdict}))
    assert table is not None
    assert table.chosen is None


def test_a_study_of_classifiers_has_neither_table(results: Results) -> None:
    assert precision_table(results) is None
    assert trained_heads(results) == ()
    assert training_facts(results.training) == results.training


def test_a_head_says_what_training_and_unfreezing_gained(detected: Results) -> None:
    heads = {head.name: head for head in trained_heads(detected)}
    assert heads["vehicles"] == TrainedHead(
        name="vehicles", labels="2", known="car", untrained="40.2", frozen="61.1", tuned="-", gain="-", epoch="38"
    )
    tuned = heads["combined@layers.52"]
    assert (tuned.untrained, tuned.frozen, tuned.tuned, tuned.gain, tuned.epoch) == (
        "21.4",
        "51.9",
        "54.8",
        "+2.9",
        "4",
    )


def test_anchors_are_told_once_for_all_heads(detected: Results) -> None:
    facts = training_facts(detected.training)
    assert facts["anchors"] == ["116 x 90, 156 x 198, 373 x 326", "10 x 13, 16 x 30, 33 x 23"]
    assert without(facts, "anchors") == without(detected.training, "detectors")


@pytest.mark.parametrize(
    ("update", "message"),
    [
        ({"data": {}}, r"data.groups has 1 faults, expected the labels of each group; run `edgetl report` again"),
        ({"data": {"groups": {"people": 3}}}, "data.groups has 1 faults"),
        ({"training": {"detectors": [{"name": "combined"}]}}, r"training.detectors has \d+ faults"),
    ],
)
def test_facts_of_another_shape_are_one_line(detected: Results, update: dict[str, Any], message: str) -> None:
    odd = detected.model_copy(update=update)
    with pytest.raises(EdgetlError, match=message):
        precision_table(odd)
        trained_heads(odd)
