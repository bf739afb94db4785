"""How pictures become the input of a file: said by the file or by the user, and never guessed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image
from torchvision import transforms

from edgetl.artifacts.bundle import Preprocessing
from edgetl.artifacts.files import read_json
from edgetl.artifacts.prepared import PreparedRecord, record_path
from edgetl.config import CONTRACTS, InputContract, load_contract
from edgetl.data.stream import to_input
from edgetl.errors import EdgetlError, StudyError
from edgetl.graph.metadata import merged_metadata, record_preprocessing, recorded_preprocessing
from edgetl.graph.model import load_model, save_model
from edgetl.graph.parity import Session
from edgetl.stages.compare_files import CompareRequest, compare_files
from edgetl.stages.input_contract import input_preprocessing
from edgetl.stages.prepare_file import PrepareRequest, prepare_file

SIZE = 16
PIXELS = np.random.default_rng(0).integers(0, 256, (5, 9, 7, 3), np.uint8)


class Lines:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def message(self, text: str) -> None:
        self.lines.append(text)

    def progress(self, title, total):
        from contextlib import nullcontext

        return nullcontext(bool)


def network(height: int = SIZE) -> onnx.ModelProto:
    """A convolution and a mean over all pixels, of a file that says nothing about its input."""
    random = np.random.default_rng(1)
    weight = helper.make_tensor("w", TensorProto.FLOAT, [8, 3, 3, 3], random.normal(0, 0.3, 8 * 27).astype(np.float32))
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("ReduceMean", ["r"], ["y"], axes=[2, 3], keepdims=0),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, height, SIZE])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 8])
    graph = helper.make_graph(nodes, "g", [x], [y], [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    random = np.random.default_rng(2)
    for number in range(12):
        Image.fromarray(random.integers(0, 256, (20, 24, 3), np.uint8)).save(folder / f"{number}.png")
    return folder


@pytest.mark.parametrize("name", ["imagenet", "symmetric", "unit"])
def test_values_equal_torchvisions_bit_for_bit(name):
    values = CONTRACTS[name]
    steps = transforms.Compose([transforms.ToTensor(), transforms.Normalize(values.mean, values.std)])
    expected = np.stack([steps(Image.fromarray(image)).numpy() for image in PIXELS])
    np.testing.assert_array_equal(to_input(PIXELS, values), expected)


def test_caffe_is_blue_first_minus_a_mean_of_bytes():
    # Keras, imagenet_utils.preprocess_input(mode="caffe"): RGB to BGR, then minus [103.939, 116.779, 123.68].
    expected = PIXELS[..., ::-1].astype(np.float32) - np.array([103.939, 116.779, 123.68], np.float32)
    np.testing.assert_allclose(to_input(PIXELS, CONTRACTS["caffe"]), expected.transpose(0, 3, 1, 2), rtol=1e-6)


def test_symmetric_is_keras_mode_tf():
    np.testing.assert_allclose(
        to_input(PIXELS, CONTRACTS["symmetric"]), PIXELS.transpose(0, 3, 1, 2) / 127.5 - 1, atol=1e-6
    )


def test_a_file_that_says_nothing_is_refused_with_the_ways_to_say_it():
    with pytest.raises(EdgetlError, match=r"m\.onnx does not say how images become its input; say it with --prep"):
        input_preprocessing(network(), name="m.onnx")


def test_what_a_file_says_is_not_overruled():
    model = network()
    record_preprocessing(model, Preprocessing.square(SIZE))
    assert input_preprocessing(model, CONTRACTS["unit"]) == Preprocessing.square(SIZE)
    with pytest.raises(EdgetlError, match=r"says itself that it takes RGB in .0, 1., crop"):
        input_preprocessing(model, CONTRACTS["imagenet"])


def test_a_rectangle_takes_a_letterbox_and_no_crop():
    model = network(height=24)
    with pytest.raises(EdgetlError, match="16 x 24 pixels, and fit crop takes squares"):
        input_preprocessing(model, InputContract())
    assert input_preprocessing(model, InputContract(fit="letterbox")).shape == (3, 24, 16)


@pytest.mark.parametrize(("precision", "target"), [("fp16", "tensorrt"), ("int8", "tensorrt"), ("int8", "onnxruntime")])
def test_a_prepared_file_and_its_record_say_it_from_then_on(tmp_path, photos, precision, target):
    save_model(network(), tmp_path / "m.onnx")
    listener, wanted = Lines(), PrepareRequest(precision, target, photos, "max", contract=CONTRACTS["caffe"])
    if precision == "fp16":
        wanted = PrepareRequest(precision, calibration_images=photos, contract=CONTRACTS["caffe"])
    output = tmp_path / "p.onnx"
    if precision == "int8":
        recipe = tmp_path / "max.yaml"
        recipe.write_text("method: max\nimages: 12\n")
        wanted = PrepareRequest(precision, target, photos, str(recipe), contract=CONTRACTS["caffe"])
    prepare_file(tmp_path / "m.onnx", output, wanted, listener)
    assert "BGR in 0..255, minus mean 103.939, 116.779, 123.68, crop to 16 x 16" in listener.lines[0]
    expected = Preprocessing(width=SIZE, height=SIZE, **CONTRACTS["caffe"].model_dump())
    assert recorded_preprocessing(load_model(output)) == expected
    assert read_json(record_path(output), PreparedRecord).preprocessing == expected
    told = Lines()
    found = compare_files(CompareRequest(tmp_path / "m.onnx", output, photos), told)
    assert told.lines == [f"images become the input of both as {expected}"]
    assert found.outputs[0].snr_db > 20


def test_int8_holds_on_what_the_model_is_really_fed(tmp_path, photos):
    """Ranges found on pixels of 0 to 255 are those of a model that is fed such pixels."""
    recipe = tmp_path / "max.yaml"
    recipe.write_text("method: max\nimages: 12\n")
    save_model(network(), tmp_path / "m.onnx")
    images = to_input(PIXELS[:, :1].repeat(SIZE, 1)[:, :, :1].repeat(SIZE, 2), CONTRACTS["raw255"])
    exact = Session(network()).run({"x": images})["y"]
    noise = {}
    for name in ("raw255", "unit"):
        wanted = PrepareRequest("int8", "tensorrt", photos, str(recipe), contract=CONTRACTS[name])
        prepare_file(tmp_path / "m.onnx", tmp_path / f"{name}.onnx", wanted, Lines())
        found = Session(load_model(tmp_path / f"{name}.onnx")).run({"x": images})["y"]
        noise[name] = float(np.square(found - exact).mean() / np.square(exact).mean())
    assert noise["raw255"] < 0.01 < 0.5 < noise["unit"]


def test_a_graph_fused_from_one_that_says_it_and_one_that_does_not_says_nothing():
    told, silent = network(), network()
    record_preprocessing(told, Preprocessing.square(SIZE))
    assert "edgetl.input" not in merged_metadata({"a": told, "b": silent})
    assert "edgetl.input" in merged_metadata({"a": told, "b": told})


def test_a_contract_is_read_from_a_file(tmp_path):
    file = tmp_path / "in.yaml"
    file.write_text("color: bgr\nscale: 1\nmean: [1, 2, 3]\nfit: stretch\n")
    expected = InputContract(color="bgr", scale=1.0, mean=(1.0, 2.0, 3.0), fit="stretch")
    assert load_contract(str(file)) == expected
    file.write_text("colour: bgr\nstd: [0, 1, 1]\n")
    with pytest.raises(StudyError) as caught:
        load_contract(str(file))
    assert len(caught.value.faults) == 2
    with pytest.raises(EdgetlError, match=r"'imagnet' is not known .did you mean imagenet"):
        load_contract("imagnet")


def test_what_edgetl_writes_of_its_own_graphs_is_as_before():
    """Graphs that take RGB in [0, 1] keep their bytes."""
    assert Preprocessing.square(8).model_dump_json() == '{"width":8,"height":8,"fit":"crop","interpolation":"bilinear"}'
    other = Preprocessing(width=8, height=9, fit="stretch", scale=1.0, std=(1.0, 2.0, 3.0))
    assert Preprocessing.model_validate_json(other.model_dump_json()) == other
