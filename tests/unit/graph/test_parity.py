"""What a graph computes, and how far two results are apart."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from edgetl.errors import EdgetlError
from edgetl.graph.model import save_model
from edgetl.graph.parity import max_difference, run


def test_every_output_is_returned_by_name(network, images):
    outputs = run(network, images(5))
    assert {name: value.shape for name, value in outputs.items()} == {"vehicles": (5, 3), "signs": (5, 4)}
    np.testing.assert_allclose(outputs["vehicles"].sum(axis=1), 1.0, rtol=1e-6)


def test_a_file_computes_what_the_model_in_memory_does(network, images, tmp_path):
    save_model(network, tmp_path / "m.onnx")
    assert max_difference(run(tmp_path / "m.onnx", images(2)), run(network, images(2))) == 0.0


def test_the_result_agrees_with_onnx_own_reference(network, images):
    expected = ReferenceEvaluator(network).run(None, {"images": images(2)})
    names = [output.name for output in network.graph.output]
    assert max_difference(run(network, images(2)), dict(zip(names, expected, strict=True))) < 1e-5


@pytest.mark.parametrize("wrong", [np.zeros((1, 1, 16, 16), np.float32), np.zeros((1, 3, 16, 16), np.float64)])
def test_images_that_do_not_fit_are_refused_in_one_line(wrong, network):
    with pytest.raises(EdgetlError, match="cannot run on images of") as caught:
        run(network, wrong)
    assert "\n" not in str(caught.value)


def test_a_graph_that_onnx_runtime_does_not_know_is_refused(network, images):
    strange = onnx.ModelProto()
    strange.CopyFrom(network)
    strange.graph.node[0].domain = "nowhere"
    strange.opset_import.append(onnx.helper.make_opsetid("nowhere", 1))
    with pytest.raises(EdgetlError, match="ONNX Runtime does not take the graph"):
        run(strange, images(1))


def test_the_difference_is_the_largest_over_all_outputs():
    a = {"x": np.array([1.0, 2.0]), "y": np.array([[0.0]])}
    assert max_difference(a, {"x": np.array([1.0, 2.5]), "y": np.array([[-0.25]])}) == 0.5
    assert max_difference(a, a) == 0.0


def test_nan_on_either_side_is_an_infinite_difference():
    good, bad = {"x": np.array([1.0, 2.0])}, {"x": np.array([1.0, np.nan])}
    assert max_difference(good, bad) == max_difference(bad, good) == max_difference(bad, bad) == np.inf


def test_equal_infinities_are_no_difference():
    assert max_difference({"x": np.array([np.inf])}, {"x": np.array([np.inf])}) == 0.0
    assert max_difference({"x": np.array([np.inf])}, {"x": np.array([-np.inf])}) == np.inf


def test_other_outputs_or_shapes_are_refused():
    with pytest.raises(EdgetlError, match="outputs differ: x against y"):
        max_difference({"x": np.zeros(1)}, {"y": np.zeros(1)})
    with pytest.raises(EdgetlError, match=r"shape \[1\] against \[2\]"):
        max_difference({"x": np.zeros(1)}, {"x": np.zeros(2)})
