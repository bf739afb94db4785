from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from edgetl.artifacts.results import Results
from edgetl.report.cut_plots import freeze_depth, search
from edgetl.report.plots import accuracy_against_latency, group_accuracy


def drawn(figure: dict[str, Any] | None) -> dict[str, Any]:
    assert figure is not None
    return figure


def points(figure: dict[str, Any], symbol: str) -> int:
    return sum(len(one["x"]) for one in figure["data"] if one.get("marker", {}).get("symbol") == symbol)


def test_every_tree_is_drawn_once_and_the_measured_ones_are_filled(swept: Results) -> None:
    figure = drawn(search(swept))
    assert points(figure, "circle") == sum(tree.measured for tree in swept.trees)
    assert points(figure, "circle") + points(figure, "circle-open") == len(swept.trees) + 1  # and the ring


def test_the_front_of_the_trees_holds_nobody_who_is_beaten_in_both(swept: Results) -> None:
    front = drawn(search(swept))["data"][0]
    assert front["line"]["shape"] == "hv"
    assert front["x"] == sorted(set(front["x"]))
    for cost, share in zip(front["x"], front["y"], strict=True):
        assert not [t for t in swept.trees if t.flops < cost * 1e9 * 0.999 and t.val_accuracy * 100 >= share]


def test_the_chosen_tree_is_ringed(swept: Results) -> None:
    (chosen,) = [tree for tree in swept.trees if tree.name == swept.verdict.deployment]
    ring = drawn(search(swept))["data"][-1]
    assert (ring["x"], ring["y"]) == ([chosen.flops / 1e9], [chosen.val_accuracy * 100])


def test_small_networks_are_drawn_in_mflops(swept: Results) -> None:
    trees = tuple(tree.model_copy(update={"flops": tree.flops // 100}) for tree in swept.trees)
    small = drawn(search(swept.model_copy(update={"trees": trees})))
    assert small["layout"]["xaxis"]["title"]["text"] == "MFLOPs for one image"


def test_the_one_knob_runs_from_the_images_to_the_top(swept: Results) -> None:
    figure = drawn(freeze_depth(swept))
    assert figure["layout"]["xaxis"]["ticktext"] == [
        "images",
        "features.3",
        "features.7",
        "features.11",
        "features.14",
        "top",
    ]


def test_branched_ends_at_the_top_in_shared_and_gets_faster_towards_it(swept: Results) -> None:
    data = drawn(freeze_depth(swept))["data"]
    (accuracy, latency) = [
        one for one in data if one["line"]["color"] == "--branched" and "circle" in str(one["marker"]["symbol"])
    ]
    assert (len(accuracy["x"]), latency["yaxis"]) == (6, "y2")
    assert "shared fp32" in latency["hovertext"][-1]
    assert latency["y"] == sorted(latency["y"], reverse=True)


def test_cuts_that_were_not_measured_show_their_validation(swept: Results) -> None:
    (cheapest, *_) = [tree for tree in swept.trees if tree.name == "combined@features.3"]
    unseen = cheapest.model_copy(update={"name": "combined@features.5", "cuts": {"combined": "features.5"}})
    figure = drawn(freeze_depth(swept.model_copy(update={"trees": (*swept.trees, unseen)})))
    assert "features.5" in figure["layout"]["xaxis"]["ticktext"]
    dotted = [one for one in figure["data"] if one["line"]["dash"] == "dot" and one["line"]["color"] == "--combined"]
    accuracy, cost = dotted
    assert unseen.val_accuracy * 100 in accuracy["y"]
    assert (cost["yaxis"], unseen.flops / 1e6 in cost["y"]) == ("y3", True)


def test_a_truncated_network_is_marked_at_its_layer(swept: Results) -> None:
    crossed = [one for one in drawn(freeze_depth(swept))["data"] if "x-open" in str(one["marker"]["symbol"])]
    assert {text for one in crossed for text in one["hovertext"]} == {
        text for one in crossed for text in one["hovertext"] if "truncated-features.11" in text
    }
    assert all(round(one["x"][0]) == 3 for one in crossed)


def test_an_unstable_latency_is_hollow_in_the_one_knob(swept: Results, make: SimpleNamespace) -> None:
    rows = tuple(make.unstable(row) for row in swept.deployments)
    data = drawn(freeze_depth(swept.model_copy(update={"deployments": rows})))["data"]
    assert all(mark.endswith("-open") for one in data if one.get("yaxis") == "y2" for mark in one["marker"]["symbol"])


def test_a_study_without_cuts_has_neither_picture(results: Results) -> None:
    assert search(results) is None
    assert freeze_depth(results) is None


def test_the_front_is_numbered_and_the_rest_is_faint_but_the_chosen_one_is_not(swept: Results) -> None:
    data = drawn(accuracy_against_latency(swept))["data"]
    numbers = data[-1]
    assert len(numbers["text"]) == len(data[0]["x"])
    faint = [one for one in data if one.get("opacity")]
    assert faint and swept.verdict.deployment is not None
    assert not [one for one in faint if f"{swept.verdict.deployment} {swept.verdict.precision}" in one["hovertext"][0]]


def test_a_group_shows_what_matters_of_many_trees(swept: Results) -> None:
    labels = group_accuracy(swept, "vehicles")["layout"]["yaxis"]["ticktext"]
    assert {"combined fp32", "shared int8", "combined@features.7 int8"} <= set(labels)
    assert len(labels) < len(swept.deployments)


@pytest.mark.parametrize("draw", [search, freeze_depth, accuracy_against_latency])
def test_no_name_is_read_as_markup(swept: Results, draw: Any) -> None:
    hostile = swept.model_dump_json().replace("features.7", "<b>x</b>")
    assert "<b>x</b>" not in str(draw(Results.model_validate_json(hostile)))
