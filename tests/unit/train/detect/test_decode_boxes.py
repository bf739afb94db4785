"""What training sees of raw outputs is what the device will see of them."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper

from edgetl.artifacts.bundle import Preprocessing
from edgetl.artifacts.detector_bundle import YoloScale
from edgetl.artifacts.predictions import NmsImplementation
from edgetl.config import NmsSettings
from edgetl.graph.detection_postprocessing import RawHead, with_detections
from edgetl.graph.parity import Session
from edgetl.train.detect.decode_boxes import InputSize, corners, detections, scores, values

Array = NDArray[np.float32]

FRAME = InputSize(48, 32)
LABELS = ("car", "bus", "stop")
ANCHORS = (((6.0, 5.0), (10.0, 14.0)), ((20.0, 18.0), (40.0, 30.0), (9.0, 31.0)))
CELLS = ((4, 6), (2, 3))
"""Rows and columns of each scale."""

KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "scale_xy": {"scale_xy": 1.2},
    "activated": {"activated": True, "scale_xy": 2.0},
    "softmax": {"softmax": True},
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def scales(kind: str) -> tuple[YoloScale, ...]:
    return tuple(YoloScale(anchors=anchors, **KINDS[kind]) for anchors in ANCHORS)


def raws_of(kind: str, seed: int, spread: float = 2.0, batch: int = 2) -> list[Array]:
    random = np.random.default_rng(seed)
    shapes = [(batch, len(a) * (5 + len(LABELS)), *cells) for a, cells in zip(ANCHORS, CELLS, strict=True)]
    raws = [random.normal(0.0, spread, shape).astype(np.float32) for shape in shapes]
    return [1 / (1 + np.exp(-raw)) for raw in raws] if kind == "activated" else raws


@cache
def session(kind: str, form: NmsImplementation, suppression: NmsSettings) -> Session:
    """The raw outputs themselves as inputs of a graph that ends in boxes."""
    names = ("raw0", "raw1")
    shapes = [["N", len(a) * (5 + len(LABELS)), *cells] for a, cells in zip(ANCHORS, CELLS, strict=True)]
    graph = helper.make_graph(
        [helper.make_node("Identity", [f"in/{name}"], [name]) for name in names],
        "raw",
        [helper.make_tensor_value_info(f"in/{n}", TensorProto.FLOAT, s) for n, s in zip(names, shapes, strict=True)],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in zip(names, shapes, strict=True)],
    )
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    preprocessing = Preprocessing(width=FRAME.width, height=FRAME.height, fit="letterbox")
    head = RawHead("head", LABELS, scales(kind), names)
    return Session(with_detections(model, [head], preprocessing, suppression, form))


def on_device(raws: list[Array], kind: str, form: NmsImplementation, suppression: NmsSettings) -> dict[str, Array]:
    return session(kind, form, suppression).run({f"in/raw{n}": raw for n, raw in enumerate(raws)})


def found(raws: list[Array], kind: str, suppression: NmsSettings) -> list[Array]:
    return detections([torch.from_numpy(raw) for raw in raws], scales(kind), FRAME, suppression)


@every_kind
@settings(max_examples=20)
@given(seed=st.integers(0, 2**32 - 1), spread=st.sampled_from([0.1, 2.0, 8.0]))
def test_every_box_and_score_is_what_the_graph_computes(kind: str, seed: int, spread: float) -> None:
    raws = raws_of(kind, seed, spread)
    there = on_device(raws, kind, "none", NmsSettings())
    taken = [(values(torch.from_numpy(raw), scale), scale) for raw, scale in zip(raws, scales(kind), strict=True)]
    boxes = torch.cat([corners(one, scale, FRAME).flatten(1, 3) for one, scale in taken], dim=1).numpy()
    every = torch.cat([scores(one, scale).flatten(1, 3) for one, scale in taken], dim=1).numpy()
    np.testing.assert_allclose(boxes, there["head/boxes"], rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(every, there["head/scores"], rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@every_kind
@pytest.mark.parametrize(
    "suppression",
    [
        NmsSettings(),
        NmsSettings(score_threshold=0.3, iou_threshold=0.2),
        NmsSettings(iou_threshold=1.0, max_detections=7),
        NmsSettings(score_threshold=0.0),
    ],
    ids=lambda one: f"{one.score_threshold}-{one.iou_threshold}-{one.max_detections}",
)
def test_suppression_keeps_what_the_graph_keeps(kind: str, suppression: NmsSettings) -> None:
    for seed in range(6):
        raws = raws_of(kind, seed, batch=3)
        there = on_device(raws, kind, "operator", suppression)["head"]
        for ours, theirs in zip(found(raws, kind, suppression), there, strict=True):
            theirs = theirs[theirs[:, 4] > 0]
            np.testing.assert_array_equal(ours[:, 5], theirs[:, 5])
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-3)


def raws_with(*objects: tuple[int, int, int, int, float, float, float]) -> list[Array]:
    """Raw outputs that say nothing but these: scale, anchor, row, column, score of a label, and its width and height.

    The score is a label's position plus a probability, of which the head is sure that it is that label's.
    """
    raws = [np.full((1, len(a), 8, *cells), -90.0, np.float32) for a, cells in zip(ANCHORS, CELLS, strict=True)]
    for scale, anchor, row, column, score, width, height in objects:
        label, probability = int(score), score % 1.0
        sides = np.log(np.divide((width, height), ANCHORS[scale][anchor]))
        cell = raws[scale][0, anchor, :, row, column]
        cell[:5] = (0.0, 0.0, *sides, np.log(probability / (1 - probability)))
        cell[5 + label] = 90.0
        raws[scale][0, anchor, :, row, column] = cell
    return [raw.reshape(1, -1, *raw.shape[3:]) for raw in raws]


def test_a_box_that_begins_outside_the_image_does_not_suppress_another_label() -> None:
    raws = raws_with((1, 0, 1, 2, 0.9, 200.0, 200.0), (1, 1, 0, 0, 1.8, 200.0, 200.0))
    (ours,) = found(raws, "plain", NmsSettings(iou_threshold=0.05))
    assert ours[:, 5].tolist() == [0, 1]
    assert (ours[:, :2] < 0).all()


def test_an_enormous_box_does_not_blur_the_others() -> None:
    pairs = [(0, a, *cell, 2.9 - 0.1 * a, 0.3, 0.3 + 0.1 * a) for cell in np.ndindex(4, 6) for a in range(2)]
    (ours,) = found(raws_with((1, 1, 0, 0, 0.95, 1e9, 1e9), *pairs), "plain", NmsSettings(iou_threshold=0.7))
    assert (ours[:, 5] == 2).sum() == len(pairs) // 2, "the two of every pair overlap by three quarters"


def test_a_score_that_just_reaches_the_least_one_is_kept_here_as_there() -> None:
    raws, exact = raws_with((0, 0, 1, 1, 0.5, 8.0, 8.0)), NmsSettings(score_threshold=0.5)
    (ours,) = found(raws, "plain", exact)
    assert len(ours) == int((on_device(raws, "plain", "operator", exact)["head"][0, :, 4] > 0).sum()) == 1


def test_of_equal_scores_the_order_is_that_of_the_graph() -> None:
    raws = raws_with(
        *((0, 0, row, column, (row + column) % 3 + 0.5, 4.0, 4.0) for row in range(4) for column in range(6))
    )
    few = NmsSettings(max_detections=5)
    (ours,) = found(raws, "plain", few)
    np.testing.assert_allclose(ours, on_device(raws, "plain", "operator", few)["head"][0], atol=1e-4)


def test_nothing_found_is_an_empty_list() -> None:
    (ours,) = found(raws_with(), "plain", NmsSettings())
    assert ours.shape == (0, 6)
    assert ours.dtype == np.float32
