from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from edgetl.artifacts.engine_manifest import read_manifest
from edgetl.artifacts.files import sha256_file
from edgetl.config import InputContract
from edgetl.engine.runtime import BuildOptions, load_engine
from edgetl.errors import EdgetlError
from edgetl.graph.model import load_model
from edgetl.graph.parity import run
from edgetl.stages.build_file import EngineRequest, build_file
from edgetl.stages.input_contract import input_preprocessing
from edgetl.stages.prepare_file import PrepareRequest, prepare_file
from edgetl.stages.stage import ProgressReporter

SIZE = 16
PIXELS = np.random.default_rng(0).random((4, 3, SIZE, SIZE), dtype=np.float32)

preparation = partial(PrepareRequest, contract=InputContract())
"""Of files that take RGB in [0, 1] and do not say it."""


def plain_model(batch: int | str = "N", height: int | str = SIZE, channels: int = 3) -> onnx.ModelProto:
    """A convolution and a head, as another tool may have exported it: without metadata."""
    random = np.random.default_rng(0)
    weights = {
        "w1": random.normal(0.0, 0.3, (8, channels, 3, 3)),
        "w2": random.normal(0.0, 0.3, (8, 8, 3, 3)),
        "w3": random.normal(0.0, 1.0, (8, 3)),
    }
    nodes = [
        helper.make_node("Conv", ["pixels", "w1"], ["c1"], kernel_shape=[3, 3]),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], kernel_shape=[3, 3]),
        helper.make_node("Relu", ["c2"], ["r2"]),
        helper.make_node("GlobalAveragePool", ["r2"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["features"]),
        helper.make_node("MatMul", ["features", "w3"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["classes"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "plain",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, [batch, channels, height, SIZE])],
        [helper.make_tensor_value_info("classes", TensorProto.FLOAT, [batch, 3])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def saved(model: onnx.ModelProto, path: Path) -> Path:
    onnx.save(model, path)
    return path


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    return saved(plain_model(), tmp_path / "plain.onnx")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """JPEG and PNG files of other sizes than the graph's, and a file that is no image."""
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(1)
    for number in range(8):
        coarse = Image.fromarray(random.integers(0, 256, (4, 5, 3), dtype=np.uint8))
        picture = coarse.resize((40, 30), Image.Resampling.BICUBIC)
        picture.save(folder / f"{number}.{'png' if number % 2 else 'jpg'}")
    (folder / "LICENSE").write_text("not an image")
    return folder


def test_a_plain_graph_becomes_fp16_and_says_nearly_the_same(
    graph: Path, tmp_path: Path, listener: ProgressReporter
) -> None:
    prepare_file(graph, tmp_path / "half.onnx", preparation("fp16"), listener)
    half = load_model(tmp_path / "half.onnx")
    kinds = {tensor.data_type for tensor in half.graph.initializer}
    assert TensorProto.FLOAT16 in kinds
    np.testing.assert_allclose(run(half, PIXELS)["classes"], run(load_model(graph), PIXELS)["classes"], atol=5e-3)


@pytest.mark.parametrize("target", ["tensorrt", "onnxruntime"])
def test_a_plain_graph_becomes_int8_from_a_folder_of_images(
    graph: Path, photos: Path, tmp_path: Path, listener: ProgressReporter, target: str
) -> None:
    wanted = preparation("int8", target, photos, "mse")  # type: ignore[arg-type]
    prepare_file(graph, tmp_path / "int8.onnx", wanted, listener)
    quantised = load_model(tmp_path / "int8.onnx")
    assert "QuantizeLinear" in {node.op_type for node in quantised.graph.node}
    np.testing.assert_allclose(run(quantised, PIXELS)["classes"], run(load_model(graph), PIXELS)["classes"], atol=0.05)
    assert listener.lines[1:] == [f"calibrating on 8 images of {photos} by mse"]  # type: ignore[attr-defined]


def test_the_place_of_images_changes_no_graph(
    graph: Path, photos: Path, tmp_path: Path, listener: ProgressReporter
) -> None:
    elsewhere = tmp_path / "renamed"
    elsewhere.mkdir()
    for number, photo in enumerate(sorted(photos.glob("*.[jp][pn]g"), reverse=True)):
        (elsewhere / f"x{number}").write_bytes(photo.read_bytes())
    digests = set()
    for folder in (photos, elsewhere):
        prepare_file(graph, tmp_path / "int8.onnx", preparation("int8", "tensorrt", folder), listener)
        digests.add(sha256_file(tmp_path / "int8.onnx"))
    assert len(digests) == 1


def test_a_recipe_can_be_named(
    graph: Path, photos: Path, tmp_path: Path, listener: ProgressReporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "calibration").mkdir()
    (tmp_path / "calibration" / "few.yaml").write_text("method: max\nimages: 3\n")
    monkeypatch.chdir(tmp_path)
    prepare_file(graph, tmp_path / "int8.onnx", preparation("int8", "tensorrt", photos, "few"), listener)
    assert listener.lines[1:] == [f"calibrating on 3 images of {photos} by max"]  # type: ignore[attr-defined]
    with pytest.raises(EdgetlError, match="calibration recipe 'entropy' was not found"):
        prepare_file(graph, tmp_path / "int8.onnx", preparation("int8", "tensorrt", photos, "entropy"), listener)


def test_what_cannot_be_prepared_is_one_line(
    graph: Path, photos: Path, tmp_path: Path, listener: ProgressReporter
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    truncated = tmp_path / "truncated.onnx"
    truncated.write_bytes(graph.read_bytes()[:900])
    cases = [
        (graph, preparation("fp32"), "is FP32 as it is; choose --precision fp16 or int8"),
        (graph, preparation("int8"), "INT8 needs images to calibrate on; give --calibration-images"),
        (graph, preparation("int8", "tensorrt", tmp_path / "none"), "is not a folder"),
        (graph, preparation("int8", "tensorrt", empty), "holds no readable image"),
        (tmp_path / "none.onnx", preparation("fp16"), "does not exist"),
        (truncated, preparation("fp16"), "truncated"),
        (
            saved(plain_model(channels=4), tmp_path / "rgba.onnx"),
            preparation("int8", "tensorrt", photos),
            "x 4 x 16 x 16",
        ),
        (
            saved(plain_model(height="H"), tmp_path / "open.onnx"),
            preparation("int8", "tensorrt", photos),
            "x 3 x ? x 16",
        ),
        (
            saved(plain_model(height=20), tmp_path / "wide.onnx"),
            preparation("int8", "tensorrt", photos),
            "takes images of 16 x 20 pixels, and fit crop takes squares; give --fit",
        ),
        (
            saved(plain_model(batch=4), tmp_path / "four.onnx"),
            preparation("int8", "tensorrt", photos),
            "[1, 3, 16, 16]",
        ),
    ]
    for path, wanted, reason in cases:
        with pytest.raises(EdgetlError) as caught:
            prepare_file(path, tmp_path / "output.onnx", wanted, listener)
        assert reason in str(caught.value)
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "output.onnx").exists()


def test_preprocessing_in_the_metadata_counts_before_the_shape_of_the_input() -> None:
    model = plain_model(height="H")
    helper.set_model_props(
        model, {"edgetl.input": json.dumps({"width": SIZE, "height": SIZE, "interpolation": "bicubic"})}
    )
    assert input_preprocessing(model).interpolation == "bicubic"
    for damaged in (
        "",
        "{",
        '{"width": "large", "height": 3}',
        '{"size": 3}',
        '{"width": 0, "height": 0}',
        '{"width": 8, "height": 9}',
    ):
        helper.set_model_props(model, {"edgetl.input": damaged})
        with pytest.raises(EdgetlError, match=r"metadata entry edgetl\.input of the graph is damaged"):
            input_preprocessing(model)


def order(graph: Path, runtime: str = "onnxruntime", precision: str = "fp32", **more: object) -> EngineRequest:
    target = "onnxruntime" if runtime == "onnxruntime" else "tensorrt"
    images = more.pop("images", None)
    prepared = preparation(precision, target, images)  # type: ignore[arg-type]
    output = more.pop("output", None)
    return EngineRequest(graph, output, runtime, BuildOptions(**more), prepared)  # type: ignore[arg-type]


def test_an_engine_of_a_plain_graph_lies_beside_it_under_a_telling_name(
    graph: Path, listener: ProgressReporter
) -> None:
    engine = build_file(order(graph), listener)
    assert engine == graph.with_name("plain.fp32.onnxruntime.onnx")
    np.testing.assert_allclose(
        load_engine(engine).infer(PIXELS)["classes"], run(load_model(graph), PIXELS)["classes"], atol=1e-6
    )
    assert build_file(order(graph), listener) == engine
    first, second = listener.lines  # type: ignore[attr-defined]
    assert re.fullmatch(r"build-engine: built in \d+\.\d s, \d+ MB of memory: 0\.0 MB", first)
    assert second == "build-engine: up to date, the engine that is there is used again"


def test_an_int8_engine_is_built_in_one_go(
    graph: Path, photos: Path, tmp_path: Path, listener: ProgressReporter
) -> None:
    engine = build_file(order(graph, precision="int8", images=photos, output=tmp_path / "mine.onnx"), listener)
    assert engine == tmp_path / "mine.onnx"
    written = ["mine.onnx", "mine.onnx.json", "mine.onnx.prepared.json", "plain.onnx"]
    assert sorted(path.name for path in tmp_path.iterdir()) == written
    np.testing.assert_allclose(
        load_engine(engine).infer(PIXELS)["classes"], run(load_model(graph), PIXELS)["classes"], atol=0.05
    )


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_plain_graph_builds_for_tensorrt_rtx(
    graph: Path, photos: Path, listener: ProgressReporter, precision: str
) -> None:
    pytest.importorskip("tensorrt_rtx", reason="the extra rtx is not installed")
    wanted = order(graph, "tensorrt-rtx", precision, images=photos, compute_capability="SM120")
    engine = build_file(wanted, listener)
    assert engine.name == f"plain.{precision}.tensorrt-rtx.engine"
    assert read_manifest(engine).target["compute capability"] == "SM120"


def test_what_cannot_be_built_is_one_line(graph: Path, tmp_path: Path, listener: ProgressReporter) -> None:
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(b"no model")
    cases = [
        (order(graph, precision="fp16"), "onnxruntime cannot run fp16: ONNX Runtime's CPU has no FP16 kernels"),
        (order(graph, runtime="openvino"), "runtime openvino is not in this version; use onnxruntime or"),
        (order(graph, compute_capability="SM86"), "takes no compute capability"),
        (order(damaged), f"{damaged} is not a"),
        (order(tmp_path / "none.onnx"), "does not exist"),
        (order(graph, output=graph / "below"), "cannot write"),
    ]
    for wanted, reason in cases:
        with pytest.raises(EdgetlError) as caught:
            build_file(wanted, listener)
        assert reason in str(caught.value)
        assert "\n" not in str(caught.value)
