from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from edgetl.artifacts.bundle import Head
from edgetl.artifacts.deployment import layout, merge
from edgetl.config import DeploymentName

Array = NDArray[np.float32]


def head(name: str, *classes: str) -> Head:
    return Head(
        name=name,
        classes=classes,
        activation="softmax",
        regularisation=0.01,
        temperature=1.0,
        val_loss=0.1,
        val_accuracy=0.9,
    )


SPECIALISTS = {"ab": head("ab", "a", "b", "other"), "cde": head("cde", "c", "d", "e", "other")}
LABELS = ("a", "b", "c", "d", "e")


def test_combined_and_one_vs_rest_are_one_engine_with_one_head() -> None:
    for name in ("combined", "one-vs-rest"):
        (spec,) = layout(name, ("ab", "cde"))
        assert (spec.stem, spec.heads) == (name, (name,))


def test_specialised_is_an_engine_per_group() -> None:
    assert [(spec.stem, spec.heads) for spec in layout("specialised", ("ab", "cde"))] == [
        ("specialised.ab", ("ab",)),
        ("specialised.cde", ("cde",)),
    ]


def test_shared_is_one_engine_with_a_head_per_group() -> None:
    (spec,) = layout("shared", ("ab", "cde"))
    assert (spec.stem, spec.heads) == ("shared", ("ab", "cde"))


def test_no_two_graphs_of_a_study_share_a_file_name() -> None:
    groups = ("ab", "cde", "shared", "specialised")
    names = [
        spec.file(precision, target)
        for deployment in get_args(DeploymentName)
        for spec in layout(deployment, groups)
        for precision, target in (("fp32", ""), ("fp16", ""), ("int8", "tensorrt"), ("int8", "onnxruntime"))
    ]
    assert len(set(names)) == len(names)
    assert {"combined.fp32.onnx", "combined.int8.tensorrt.onnx", "specialised.ab.fp16.onnx"} <= set(names)


def test_merging_by_hand() -> None:
    outputs = {
        "ab": np.array([[0.6, 0.1, 0.3]], dtype=np.float32),
        "cde": np.array([[0.2, 0.05, 0.05, 0.7]], dtype=np.float32),
    }
    # other is dropped: 0.6, 0.1, 0.2, 0.05, 0.05 sum to 1.0
    np.testing.assert_allclose(merge(outputs, SPECIALISTS, LABELS), [[0.6, 0.1, 0.2, 0.05, 0.05]], rtol=1e-6)
    outputs["cde"] = np.array([[0.5, 0.3, 0.0, 0.2]], dtype=np.float32)
    # 0.6, 0.1, 0.5, 0.3, 0.0 sum to 1.5: both claim the image, and the surer one gets it
    expected = np.array([[0.6, 0.1, 0.5, 0.3, 0.0]]) / 1.5
    np.testing.assert_allclose(merge(outputs, SPECIALISTS, LABELS), expected, rtol=1e-6)


def test_columns_follow_the_labels_whatever_the_order_of_heads_and_classes() -> None:
    heads = {"cde": head("cde", "e", "other", "c", "d"), "ab": head("ab", "other", "b", "a")}
    outputs = {
        "cde": np.array([[0.05, 0.7, 0.2, 0.05]], dtype=np.float32),
        "ab": np.array([[0.3, 0.1, 0.6]], dtype=np.float32),
    }
    np.testing.assert_allclose(merge(outputs, heads, LABELS), [[0.6, 0.1, 0.2, 0.05, 0.05]], rtol=1e-6)


def _posteriors(raw: NDArray[np.float64]) -> NDArray[np.float64]:
    return raw / raw.sum(axis=1, keepdims=True)


_RAW = arrays(np.float64, st.tuples(st.integers(1, 6), st.just(5)), elements=st.floats(1e-6, 1.0))


@given(_RAW)
def test_perfectly_calibrated_specialists_say_together_what_the_combined_posterior_says(
    raw: NDArray[np.float64],
) -> None:
    posterior = _posteriors(raw)
    ab, cde = posterior[:, :2], posterior[:, 2:]
    outputs = {
        "ab": np.hstack([ab, cde.sum(axis=1, keepdims=True)]).astype(np.float32),
        "cde": np.hstack([cde, ab.sum(axis=1, keepdims=True)]).astype(np.float32),
    }
    np.testing.assert_allclose(merge(outputs, SPECIALISTS, LABELS), posterior, atol=1e-6)


@given(_RAW)
def test_a_combined_softmax_is_left_as_it_is(raw: NDArray[np.float64]) -> None:
    probabilities = _posteriors(raw).astype(np.float32)
    merged = merge({"combined": probabilities}, {"combined": head("combined", *LABELS)}, LABELS)
    np.testing.assert_allclose(merged, probabilities, atol=1e-6)


_UNIT = st.floats(0.0, 1.0, width=32)


@given(arrays(np.float32, (3, 3), elements=_UNIT), arrays(np.float32, (3, 4), elements=_UNIT))
def test_rows_sum_to_one_whatever_the_heads_say(ab: Array, cde: Array) -> None:
    merged = merge({"ab": ab, "cde": cde}, SPECIALISTS, LABELS)
    assert merged.dtype == np.float32
    assert (merged >= 0.0).all()
    np.testing.assert_allclose(merged.sum(axis=1), 1.0, rtol=1e-5)


@pytest.mark.filterwarnings("error")
def test_where_every_specialist_is_certain_of_other_all_labels_are_equally_likely() -> None:
    outputs = {
        "ab": np.array([[0, 0, 1]], dtype=np.float32),
        "cde": np.array([[0, 0, 0, 1]], dtype=np.float32),
    }
    np.testing.assert_allclose(merge(outputs, SPECIALISTS, LABELS), np.full((1, 5), 0.2), rtol=1e-6)
