"""Reading and writing ONNX files, hostile ones included."""

from __future__ import annotations

import re

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from edgetl.errors import EdgetlError
from edgetl.graph.model import (
    FreshNames,
    Wiring,
    image_input,
    load_model,
    model_bytes,
    save_model,
    stored_bytes,
    whole_model,
)
from edgetl.graph.parity import Session, max_difference, run


def one_line(caught: pytest.ExceptionInfo[EdgetlError]) -> str:
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_saved_model_is_loaded_as_it_was(network, tmp_path):
    save_model(network, tmp_path / "m.onnx")
    assert load_model(tmp_path / "m.onnx") == network


def test_the_same_model_gives_the_same_bytes(network, tmp_path):
    copy = onnx.ModelProto()
    copy.CopyFrom(network)
    assert model_bytes(copy) == model_bytes(network)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(EdgetlError, match=r"none\.onnx does not exist"):
        load_model(tmp_path / "none.onnx")


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(EdgetlError) as caught:
        load_model(tmp_path)
    assert "cannot read" in one_line(caught)


@pytest.mark.parametrize("content", [b"", b"\x00", b"not a model", b"\xff" * 64, b"\x08\x08"])
def test_a_file_that_is_no_model_is_refused_in_one_line(content, tmp_path):
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(EdgetlError) as caught:
        load_model(tmp_path / "m.onnx")
    assert "m.onnx" in one_line(caught)


@settings(max_examples=60)
@given(keep=st.floats(0.0, 0.99))  # what comes last is metadata, without which a model is whole
def test_a_truncated_model_is_refused_in_one_line(keep, network, tmp_path):
    content = model_bytes(network)
    (tmp_path / "m.onnx").write_bytes(content[: int(keep * len(content))])
    with pytest.raises(EdgetlError) as caught:
        load_model(tmp_path / "m.onnx")
    one_line(caught)


@settings(max_examples=60)
@given(position=st.floats(0.0, 0.999), byte=st.integers(0, 255))
def test_a_damaged_byte_is_harmless_or_refused(position, byte, network, tmp_path):
    content = bytearray(model_bytes(network))
    content[int(position * len(content))] = byte
    (tmp_path / "m.onnx").write_bytes(content)
    try:
        load_model(tmp_path / "m.onnx")
    except EdgetlError as error:
        assert "\n" not in str(error)


def test_a_weight_with_too_few_bytes_is_refused(network, tmp_path):
    broken = onnx.ModelProto()
    broken.CopyFrom(network)
    broken.graph.initializer[2].raw_data = broken.graph.initializer[2].raw_data[:-4]
    (tmp_path / "m.onnx").write_bytes(broken.SerializeToString())
    with pytest.raises(EdgetlError, match="not a valid ONNX model"):
        load_model(tmp_path / "m.onnx")


@pytest.mark.parametrize("location", ["gone.bin", "../outside.bin", "/etc/hostname"])
def test_external_data_that_is_missing_or_outside_is_refused(location, network, tmp_path):
    (tmp_path / "outside.bin").write_bytes(bytes(1 << 16))
    folder = tmp_path / "folder"
    folder.mkdir()
    moved = onnx.ModelProto()
    moved.CopyFrom(network)
    tensor = moved.graph.initializer[2]
    onnx.external_data_helper.set_external_data(tensor, location)
    tensor.ClearField("raw_data")
    (folder / "m.onnx").write_bytes(moved.SerializeToString())
    with pytest.raises(EdgetlError) as caught:
        load_model(folder / "m.onnx")
    assert "external data" in one_line(caught)


def test_external_data_beside_the_model_is_read(network, tmp_path):
    copy = onnx.ModelProto()
    copy.CopyFrom(network)
    onnx.save_model(copy, tmp_path / "m.onnx", save_as_external_data=True, location="m.bin", size_threshold=0)
    loaded = load_model(tmp_path / "m.onnx")
    np.testing.assert_array_equal(
        onnx.numpy_helper.to_array(loaded.graph.initializer[2]), Wiring(network.graph).array("constant_2")
    )


def test_a_model_over_the_limit_is_two_files_that_are_loaded_as_one(network, tmp_path):
    save_model(network, tmp_path / "m.onnx", limit=1000)
    files = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    (data,) = files.keys() - {"m.onnx"}
    assert re.fullmatch(r"m\.onnx\.[0-9a-f]{8}\.data", data)
    assert stored_bytes(tmp_path / "m.onnx") == sum(files.values())
    onnx.checker.check_model(str(tmp_path / "m.onnx"), full_check=True)
    loaded = load_model(tmp_path / "m.onnx")
    assert model_bytes(loaded) == model_bytes(network)


def test_a_model_over_the_limit_computes_the_same_from_its_files(network, images, tmp_path):
    save_model(network, tmp_path / "m.onnx", limit=1000)
    outputs = Session(tmp_path / "m.onnx").run({"images": images(2)})
    assert max_difference(outputs, run(network, images(2))) == 0.0


def test_a_model_over_the_limit_is_the_same_files_every_time(network, tmp_path):
    def content(folder):
        save_model(network, tmp_path / folder / "m.onnx", limit=1000)
        return {path.name: path.read_bytes() for path in (tmp_path / folder).iterdir()}

    assert content("first") == content("second")


def test_a_model_under_the_limit_is_one_file(network, tmp_path):
    save_model(network, tmp_path / "m.onnx", limit=network.ByteSize())
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]


def test_a_replaced_models_external_data_is_removed_and_no_other_file(network, tmp_path):
    strangers = {"m.onnx.training.data", "m.onnx.0123456.data", "n.onnx.01234567.data", "m2onnx.01234567.data"}
    strangers |= {"m.onnx.01234567.data"}  # named like the model's own, which does not refer to it
    for name in strangers:
        (tmp_path / name).touch()
    save_model(network, tmp_path / "m.onnx", limit=1000)
    other = onnx.ModelProto()
    other.CopyFrom(network)
    tensor = max(other.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    tensor.raw_data = bytes(len(tensor.raw_data))
    save_model(other, tmp_path / "m.onnx", limit=1000)
    assert len(list(tmp_path.iterdir())) == 2 + len(strangers)
    assert load_model(tmp_path / "m.onnx") == other
    save_model(other, tmp_path / "m.onnx")
    assert {path.name for path in tmp_path.iterdir()} == {"m.onnx", *strangers}


def test_a_file_that_is_no_model_is_replaced_and_nothing_beside_it_is_removed(network, tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"no model")
    (tmp_path / "m.onnx.01234567.data").write_bytes(b"mine")
    save_model(network, tmp_path / "m.onnx")
    assert load_model(tmp_path / "m.onnx") == network
    assert (tmp_path / "m.onnx.01234567.data").read_bytes() == b"mine"


@pytest.mark.parametrize("limit", [1000, 10**9])
def test_a_model_that_is_refused_while_it_is_temporary_leaves_what_was_there(limit, network, tmp_path):
    save_model(network, tmp_path / "m.onnx", limit)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    other = onnx.ModelProto()
    other.CopyFrom(network)
    tensor = max(other.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    tensor.raw_data = bytes(len(tensor.raw_data))
    for refused in (other, network):
        with pytest.raises(EdgetlError, match="no good"), whole_model(refused, tmp_path / "m.onnx", limit) as partial:
            Session(partial)
            raise EdgetlError("no good")
        assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_heads_are_the_last_linear_layers_and_what_follows_them(network):
    wiring = Wiring(network.graph)
    kinds = sorted(wiring.nodes[position].op_type for position in wiring.heads)
    assert kinds == ["Gemm", "Gemm", "Sigmoid", "Softmax"]


def test_a_linear_layer_inside_the_trunk_is_no_head(sketch):
    plan = sketch()
    hidden = plan.node("Relu", [plan.gemm(plan.features(plan.conv(plan.start, 3, 4)), 4, 8)])
    plan.head("vehicles", hidden, 8)
    wiring = Wiring(plan.model().graph)
    assert [wiring.nodes[position].op_type for position in sorted(wiring.heads)] == ["Gemm", "Softmax"]


def test_a_temperature_between_linear_layer_and_softmax_belongs_to_the_head(sketch):
    plan = sketch()
    logits = plan.gemm(plan.features(plan.conv(plan.start, 3, 4)), 4, 3)
    cooled = plan.node("Div", [logits, plan.constant(np.array(1.5))])
    plan.node("Softmax", [cooled], output="vehicles")
    plan.outputs.append(helper.make_tensor_value_info("vehicles", onnx.TensorProto.FLOAT, ["N", 3]))
    wiring = Wiring(plan.model().graph)
    assert [wiring.nodes[position].op_type for position in sorted(wiring.heads)] == ["Gemm", "Div", "Softmax"]


def test_a_graph_needs_one_float_image_input(network):
    assert image_input(network) == "images"
    two = onnx.ModelProto()
    two.CopyFrom(network)
    two.graph.input.append(helper.make_tensor_value_info("more", onnx.TensorProto.FLOAT, [1]))
    with pytest.raises(EdgetlError, match="2 inputs"):
        image_input(two)
    two.graph.input.pop()
    two.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    with pytest.raises(EdgetlError, match="FLOAT16 of rank 4"):
        image_input(two)


def test_fresh_names_never_meet_those_of_the_graph(network):
    names = FreshNames(network.graph)
    assert names.fresh("features") == "features_"
    assert names.fresh("features") == "features__"
    assert names.fresh("new") == "new"
