"""What is said to be shared, counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from edgetl.graph.cost import CostModel
from edgetl.graph.fusion.fused_graph import fuse
from edgetl.graph.fusion.sharing import sharing


@pytest.fixture
def models(sketch):
    def model(seed, classes):
        plan = sketch()
        tensor = plan.node("Relu", [plan.conv(plan.start, 3, 4)])
        plan.random = np.random.default_rng(seed)
        plan.head("vehicles", plan.features(tensor), 4, classes)
        return plan.model()

    return {"a": model(1, 3), "b": model(2, 5)}


def test_layers_parameters_and_flops_are_those_of_the_trunk(models):
    found = sharing(fuse(models))
    trunk_parameters = 3 + 3 + 4 * 3 * 9 + 4  # normalisation, weight, bias
    trunk_flops = 2 * 16 * 16 * 4 * 3 * 9
    for name, classes in (("a", 3), ("b", 5)):
        assert found.own[name].layers == 8
        assert found.shared[name].layers == 6  # Sub, Div, Conv, Relu, GlobalAveragePool, Flatten
        assert found.own[name].parameters - found.shared[name].parameters == 4 * classes + classes
        assert found.shared[name].flops == trunk_flops
        assert found.own[name].flops == trunk_flops + 2 * 4 * classes
    assert found.fused.layers == 10
    assert found.fused.parameters == found.shared["a"].parameters + 4 * 8 + 8
    assert found.shared["a"].parameters <= trunk_parameters


def test_the_gain_is_the_cost_of_the_models_over_that_of_all_in_one(models):
    fused = fuse(models)
    separate = sum(CostModel(model).cost().relative_latency for model in models.values())
    assert sharing(fused).gain == pytest.approx(separate / CostModel(fused.model).cost().relative_latency)


def test_what_is_shared_by_some_counts_for_them_alone(models, sketch):
    plan = sketch()
    tensor = plan.node("Sigmoid", [plan.conv(plan.start, 3, 4)])
    plan.head("vehicles", plan.features(tensor), 4)
    found = sharing(fuse(models | {"c": plan.model()}))
    assert [found.shared[name].layers for name in "abc"] == [6, 6, 3]


def test_a_graph_whose_costs_are_not_told_is_counted_in_layers(models):
    for model in models.values():
        for axis in (2, 3):
            model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = f"D{axis}"
    found = sharing(fuse(models))
    assert (found.gain, found.own["a"].parameters, found.shared["a"].flops) == (None, None, None)
    assert found.shared["a"].layers == 6
    assert found.why_unknown is not None


def test_copies_of_outputs_are_no_layers(models):
    found = sharing(fuse({"a": models["a"], "b": models["a"]}))
    assert found.fused.layers == found.own["a"].layers == found.shared["b"].layers == 8
    assert found.gain == pytest.approx(2.0)
