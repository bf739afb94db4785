from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from edgetl.artifacts.bundle import TOP, ClassificationHead
from edgetl.artifacts.deployment import (
    Deployment,
    Gate,
    GateFiring,
    GraphSpec,
    Shortlist,
    apply_second_level,
    fired_rows,
    layout,
    merge_probabilities,
    tree_name,
)
from edgetl.artifacts.files import read_json, write_json
from edgetl.config import DEPLOYMENTS

Array = NDArray[np.float32]


def head(name: str, *classes: str) -> ClassificationHead:
    return ClassificationHead(
        name=name,
        classes=classes,
        activation="softmax",
        l2=0.01,
        temperature=1.0,
        val_loss=0.1,
        val_accuracy=0.9,
    )


SPECIALISTS = {"ab": head("ab", "a", "b", "other"), "cde": head("cde", "c", "d", "e", "other")}
LABELS = ("a", "b", "c", "d", "e")


def at(role: str, cut: str, *, truncated: bool = False) -> ClassificationHead:
    """The head of a role whose frozen layers end at a cut."""
    one = SPECIALISTS.get(role, head(role, *LABELS)).model_copy(update={"cut": cut, "truncated": truncated})
    return one if one.place == TOP else one.model_copy(update={"name": f"{role}@{one.place}"})


def test_every_deployment_has_heads_for_all_labels_together_or_for_a_group_each() -> None:
    groups = ("ab", "cde")
    assert DEPLOYMENTS["combined"].roles(groups) == ("combined",)
    assert DEPLOYMENTS["one-vs-rest"].roles(groups) == ("one-vs-rest",)
    assert (
        DEPLOYMENTS["specialised"].roles(groups)
        == DEPLOYMENTS["shared"].roles(groups)
        == DEPLOYMENTS["branched"].roles(groups)
        == groups
    )
    assert DEPLOYMENTS["cascade"].roles(groups) == ("combined", "ab", "cde")


def test_a_tree_is_called_after_its_cuts_in_the_order_of_the_groups() -> None:
    deep, truncated = at("ab", "layer3.2"), at("cde", "layer1", truncated=True)
    assert tree_name("branched", [deep, at("cde", "layer3.2")]) == "branched@layer3.2", "one cut for all is named once"
    assert tree_name("branched", [deep, at("cde", TOP)]) == "branched@layer3.2,top"
    assert tree_name("branched", [truncated, deep]) == "branched@truncated-layer1,layer3.2"
    assert tree_name("combined", [at("combined", "images")]) == "combined@images"


def test_a_tree_cut_at_the_top_bears_its_deployments_name_alone() -> None:
    assert tree_name("shared", [at("ab", TOP), at("cde", TOP)]) == "shared"
    assert tree_name("combined", [at("combined", TOP)]) == "combined"


@pytest.mark.parametrize("kind", ["combined", "one-vs-rest"])
def test_combined_and_one_vs_rest_are_one_engine_with_one_head(kind: str) -> None:
    assert layout(kind, [at(kind, TOP)]) == (GraphSpec(stem=kind, heads=(kind,)),)


def test_specialised_is_an_engine_per_group_shared_by_trees_with_its_head() -> None:
    first, tuned = GraphSpec(stem="specialised.ab", heads=("ab",)), at("cde", "layer1")
    assert layout("specialised", [at("ab", TOP), at("cde", TOP)]) == (
        first,
        GraphSpec(stem="specialised.cde", heads=("cde",)),
    )
    assert layout("specialised", [at("ab", TOP), tuned]) == (
        first,
        GraphSpec(stem="specialised.cde@layer1", heads=("cde@layer1",)),
    )


def test_shared_and_branched_are_one_engine_with_a_head_per_group() -> None:
    assert layout("shared", [at("ab", TOP), at("cde", TOP)]) == (GraphSpec(stem="shared", heads=("ab", "cde")),)
    assert layout("branched", [at("ab", "layer1"), at("cde", TOP)]) == (
        GraphSpec(stem="branched@layer1,top", heads=("ab@layer1", "cde")),
    )


def test_engines_go_from_images_to_heads_unless_they_say_otherwise() -> None:
    (spec,) = layout("shared", [at("ab", TOP), at("cde", TOP)])
    assert (spec.inputs, spec.handed_on) == (("images",), ())


def test_no_two_graphs_of_a_study_share_a_file_name() -> None:
    groups = ("ab", "cde", "shared", "specialised", "fp32", "ab.int8")
    places = [(TOP, False), ("layer1", False), ("layer1", True), ("images", False)]
    trees = [
        (kind, [at(role, cut, truncated=truncated) for role, (cut, truncated) in zip(parts, chosen, strict=True)])
        for kind in ("combined", "specialised", "shared", "branched", "one-vs-rest")
        for parts in [DEPLOYMENTS[kind].roles(groups)[:3]]
        for chosen in product(places, repeat=len(parts))
    ]
    specs = {spec for kind, heads in trees for spec in layout(kind, heads)}
    specs |= {GraphSpec(stem=f"cascade.{role}", heads=(role,)) for role in DEPLOYMENTS["cascade"].roles(groups)}
    names = [
        spec.file(precision, target)
        for spec in specs
        for precision, target in (("fp32", ""), ("fp16", ""), ("int8", "tensorrt"), ("int8", "onnxruntime"))
    ]
    assert len(set(names)) == len(names)
    assert {
        "combined.fp32.onnx",
        "combined.int8.tensorrt.onnx",
        "specialised.ab.fp16.onnx",
        "specialised.ab@layer1.int8.onnxruntime.onnx",
        "branched@layer1,top,truncated-layer1.fp32.onnx",
    } <= set(names)


def test_a_shortlist_reads_as_it_was_written(tmp_path: Path) -> None:
    first = GraphSpec(stem="cascade.combined", heads=("combined",), handed_on=("trunk/relu",))
    second = GraphSpec(stem="cascade.ab", heads=("ab@cascade",), inputs=("trunk/relu", "combined"))
    cascade = Deployment(name="cascade", kind="cascade", graphs=(first, second), cuts={"combined": "top"}, flops=7)
    gate = Gate(
        threshold=0.3, firings=(GateFiring(groups=("ab",), fraction=0.75), GateFiring(groups=(), fraction=0.25))
    )
    shortlist = Shortlist(deployments=(cascade,), trees=(), gate=gate)
    write_json(tmp_path / "shortlist.json", shortlist)
    assert read_json(tmp_path / "shortlist.json", Shortlist) == shortlist


def test_merging_by_hand() -> None:
    outputs = {
        "ab": np.array([[0.6, 0.1, 0.3]], dtype=np.float32),
        "cde": np.array([[0.2, 0.05, 0.05, 0.7]], dtype=np.float32),
    }
    # other is dropped: 0.6, 0.1, 0.2, 0.05, 0.05 sum to 1.0
    np.testing.assert_allclose(
        merge_probabilities(outputs, SPECIALISTS, LABELS), [[0.6, 0.1, 0.2, 0.05, 0.05]], rtol=1e-6
    )
    outputs["cde"] = np.array([[0.5, 0.3, 0.0, 0.2]], dtype=np.float32)
    # 0.6, 0.1, 0.5, 0.3, 0.0 sum to 1.5: both claim the image, and the surer one gets it
    expected = np.array([[0.6, 0.1, 0.5, 0.3, 0.0]]) / 1.5
    np.testing.assert_allclose(merge_probabilities(outputs, SPECIALISTS, LABELS), expected, rtol=1e-6)


def test_columns_follow_the_labels_whatever_the_order_of_heads_and_classes() -> None:
    heads = {"cde": head("cde", "e", "other", "c", "d"), "ab": head("ab", "other", "b", "a")}
    outputs = {
        "cde": np.array([[0.05, 0.7, 0.2, 0.05]], dtype=np.float32),
        "ab": np.array([[0.3, 0.1, 0.6]], dtype=np.float32),
    }
    np.testing.assert_allclose(merge_probabilities(outputs, heads, LABELS), [[0.6, 0.1, 0.2, 0.05, 0.05]], rtol=1e-6)


def _posteriors(raw: NDArray[np.float64]) -> NDArray[np.float64]:
    return raw / raw.sum(axis=1, keepdims=True)


_RAW = arrays(np.float64, st.tuples(st.integers(1, 6), st.just(5)), elements=st.floats(1e-6, 1.0))


@given(_RAW)
def test_calibrated_specialists_together_say_the_combined_posterior(raw: NDArray[np.float64]) -> None:
    posterior = _posteriors(raw)
    ab, cde = posterior[:, :2], posterior[:, 2:]
    outputs = {
        "ab": np.hstack([ab, cde.sum(axis=1, keepdims=True)]).astype(np.float32),
        "cde": np.hstack([cde, ab.sum(axis=1, keepdims=True)]).astype(np.float32),
    }
    np.testing.assert_allclose(merge_probabilities(outputs, SPECIALISTS, LABELS), posterior, atol=1e-6)


@given(_RAW)
def test_a_combined_softmax_is_left_as_it_is(raw: NDArray[np.float64]) -> None:
    probabilities = _posteriors(raw).astype(np.float32)
    merged = merge_probabilities({"combined": probabilities}, {"combined": head("combined", *LABELS)}, LABELS)
    np.testing.assert_allclose(merged, probabilities, atol=1e-6)


_UNIT = st.floats(0.0, 1.0, width=32)


@given(arrays(np.float32, (3, 3), elements=_UNIT), arrays(np.float32, (3, 4), elements=_UNIT))
def test_rows_sum_to_one_whatever_the_heads_say(ab: Array, cde: Array) -> None:
    merged = merge_probabilities({"ab": ab, "cde": cde}, SPECIALISTS, LABELS)
    assert merged.dtype == np.float32
    assert (merged >= 0.0).all()
    np.testing.assert_allclose(merged.sum(axis=1), 1.0, rtol=1e-5)


@pytest.mark.filterwarnings("error")
def test_if_every_specialist_is_sure_of_other_all_labels_are_alike() -> None:
    outputs = {
        "ab": np.array([[0, 0, 1]], dtype=np.float32),
        "cde": np.array([[0, 0, 0, 1]], dtype=np.float32),
    }
    np.testing.assert_allclose(merge_probabilities(outputs, SPECIALISTS, LABELS), np.full((1, 5), 0.2), rtol=1e-6)


def test_a_group_fires_where_its_labels_together_reach_the_threshold() -> None:
    combined = np.array([[0.2, 0.3, 0.5, 0, 0], [0.2, 0.2, 0.6, 0, 0], [0, 0.5, 0.1, 0.2, 0.2]], dtype=np.float32)
    assert fired_rows(combined, LABELS, ("a", "b"), 0.5).tolist() == [True, False, True]
    assert fired_rows(combined, LABELS, ("c", "d", "e"), 0.5).tolist() == [True, True, True]


def test_refining_by_hand() -> None:
    combined = np.array([[0.5, 0.3, 0.1, 0.05, 0.05], [0.1, 0.1, 0.4, 0.2, 0.2]], dtype=np.float32)
    ab, cde = SPECIALISTS["ab"], SPECIALISTS["cde"]
    second = [
        (ab, np.array([True, False]), np.array([[0.2, 0.7, 0.1]], dtype=np.float32)),
        (cde, np.array([False, True]), np.array([[0.1, 0.1, 0.6, 0.2]], dtype=np.float32)),
    ]
    # Of the first image a and b are replaced, other is dropped: 0.2, 0.7, 0.1, 0.05, 0.05 sum to 1.1.
    # Of the second c, d and e: 0.1, 0.1, 0.1, 0.1, 0.6 sum to 1.0.
    expected = np.array([[0.2, 0.7, 0.1, 0.05, 0.05], [0.1, 0.1, 0.1, 0.1, 0.6]]) / [[1.1], [1.0]]
    np.testing.assert_allclose(apply_second_level(combined, LABELS, second), expected, rtol=1e-6)
    np.testing.assert_array_equal(combined[0, :2], np.array([0.5, 0.3], dtype=np.float32), "the input is left alone")


_ROWS = 4
_SAID = tuple(arrays(np.float32, (_ROWS, width), elements=_UNIT) for width in (5, 3, 4))
_FIRED = arrays(np.bool_, (2, _ROWS))


@given(*_SAID, _FIRED)
def test_a_cascade_that_fires_nothing_is_combined(
    combined: Array, ab: Array, cde: Array, fired: NDArray[np.bool_]
) -> None:
    alone = merge_probabilities({"combined": combined}, {"combined": head("combined", *LABELS)}, LABELS)
    np.testing.assert_array_equal(apply_second_level(combined, LABELS, []), alone)
    refined = apply_second_level(combined, LABELS, second_level((ab, cde), fired))
    quiet = ~fired.any(axis=0)
    np.testing.assert_array_equal(refined[quiet], alone[quiet])


@given(*_SAID, _FIRED)
def test_a_cascade_that_fires_all_is_shared(combined: Array, ab: Array, cde: Array, fired: NDArray[np.bool_]) -> None:
    together = merge_probabilities({"ab": ab, "cde": cde}, SPECIALISTS, LABELS)
    everywhere = second_level((ab, cde), np.ones((2, _ROWS), dtype=bool))
    np.testing.assert_array_equal(apply_second_level(combined, LABELS, everywhere), together)
    refined = apply_second_level(combined, LABELS, second_level((ab, cde), fired))
    np.testing.assert_array_equal(refined[fired.all(axis=0)], together[fired.all(axis=0)])


@given(*_SAID, _FIRED)
def test_rows_of_a_cascade_sum_to_one_whatever_fired(
    combined: Array, ab: Array, cde: Array, fired: NDArray[np.bool_]
) -> None:
    refined = apply_second_level(combined, LABELS, second_level((ab, cde), fired))
    assert refined.dtype == np.float32
    np.testing.assert_allclose(refined.sum(axis=1), 1.0, rtol=1e-5)


def second_level(
    said: tuple[Array, Array], fired: NDArray[np.bool_]
) -> list[tuple[ClassificationHead, NDArray[np.bool_], Array]]:
    """The specialists, where each of them fired, and what it says there."""
    specialists = SPECIALISTS.values()
    return [(one, rows, values[rows]) for one, rows, values in zip(specialists, fired, said, strict=True)]


def test_a_name_too_long_for_a_file_is_cut_and_still_tells_trees_apart() -> None:
    groups = [f"grüppe {number}" for number in range(9)]
    trees = [[at(group, f"features.{cut}", truncated=True) for group in groups] for cut in (1, 2)]
    trees.append([*trees[0][:-1], at(groups[-1], TOP)])
    stems = [layout("branched", tree)[0].stem for tree in trees]
    assert len(set(stems)) == 3
    assert max(len(GraphSpec(stem=stem, heads=()).file("int8", "onnxruntime").encode()) for stem in stems) < 220
