"""Outputs held against what the metadata say of them."""

from __future__ import annotations

import onnx
import pytest
from onnx import TensorProto, helper

from edgetl.artifacts.bundle import Preprocessing
from edgetl.artifacts.predictions import DetectionOutput
from edgetl.config import NmsSettings
from edgetl.errors import EdgetlError
from edgetl.graph.metadata import describe
from edgetl.graph.outputs import nms_settings_of, refuse_other_shapes


def graph(detecting: DetectionOutput, most: int = 100) -> onnx.ModelProto:
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", 3, 8, 8])
    boxes = helper.make_tensor_value_info("boxes", TensorProto.FLOAT, ["N", most, 6])
    model = helper.make_model(helper.make_graph([], "boxes", [images], [boxes]))
    describe(model, {"boxes": ("car",)}, {"boxes": detecting}, Preprocessing.square(8))
    return model


def test_outputs_tell_what_they_did_about_overlapping_boxes() -> None:
    done = NmsSettings(max_detections=20)
    assert nms_settings_of(graph(DetectionOutput(implementation="loop", nms=done), 20), "m.onnx") == {"boxes": done}


def test_an_output_that_leaves_suppression_to_others_is_refused() -> None:
    with pytest.raises(EdgetlError, match=r"m\.onnx gives every box and leaves suppression to others"):
        nms_settings_of(graph(DetectionOutput(implementation="none")), "m.onnx")


def test_a_changed_shape_and_a_missing_output_are_refused() -> None:
    changed = graph(DetectionOutput(implementation="operator", nms=NmsSettings(max_detections=20)))
    with pytest.raises(EdgetlError, match=r"output 'boxes' of m\.onnx is N x 100 x 6, expected N x 20 x 6"):
        nms_settings_of(changed, "m.onnx")
    with pytest.raises(EdgetlError, match=r"output 'gone' of m\.onnx is missing, expected N x 3"):
        refuse_other_shapes(changed, "m.onnx", {"gone": (3,)})
