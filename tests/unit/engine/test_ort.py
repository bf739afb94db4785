from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from edgetl.artifacts.engine_manifest import manifest_path, read_manifest
from edgetl.artifacts.files import sha256_file
from edgetl.engine.processor import processor
from edgetl.engine.runtime import BuildOptions, build_engine, get_runtime, load_engine
from edgetl.errors import EdgetlError

Array = NDArray[np.float32]
ORT = get_runtime("onnxruntime")


def reference(graph: Path, images: Array) -> Array:
    """What the graph says before any optimisation."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    result: Array = session.run(["combined"], {"images": images})[0]
    return result


def build(graph: Path, engine: Path) -> bool:
    return build_engine(ORT, graph, engine, BuildOptions())


def edit_manifest(engine: Path, **changes: object) -> None:
    path = manifest_path(engine)
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture
def engine(graph: Path, tmp_path: Path) -> Path:
    path = tmp_path / "engines" / "combined.fp32.onnx"
    assert build(graph, path)
    return path


def test_an_engine_says_what_the_graph_says(graph: Path, engine: Path, images: Array) -> None:
    outputs = load_engine(engine, threads=1).infer(images)
    assert list(outputs) == ["combined"]
    np.testing.assert_allclose(outputs["combined"], reference(graph, images), atol=1e-6)
    assert "Relu" not in {node.op_type for node in onnx.load(engine).graph.node}, "the optimiser fuses it"


def test_the_batch_may_be_of_any_size(engine: Path, images: Array) -> None:
    loaded = load_engine(engine)
    together = loaded.infer(images)["combined"]
    apart = np.concatenate([loaded.infer(images[n : n + 1])["combined"] for n in range(len(images))])
    np.testing.assert_allclose(apart, together, atol=1e-6)


def test_the_manifest_tells_what_the_engine_is_tied_to(graph: Path, engine: Path) -> None:
    manifest = read_manifest(engine)
    assert manifest.target == {"onnxruntime": onnxruntime.__version__, "processor": processor()}
    assert (manifest.runtime, manifest.graph) == ("onnxruntime", "combined.fp32.onnx")
    assert manifest.graph_sha256 == sha256_file(graph)
    assert manifest.bytes == engine.stat().st_size


def test_an_engine_that_is_there_is_not_built_again(graph: Path, engine: Path) -> None:
    before = engine.stat().st_mtime_ns
    assert not build(graph, engine)
    assert engine.stat().st_mtime_ns == before


def test_another_graph_or_a_damaged_engine_is_built_again(
    graph: Path, engine: Path, variants: dict[str, onnx.ModelProto], images: Array
) -> None:
    onnx.save(variants["other weights"], graph)
    assert build(graph, engine)
    np.testing.assert_allclose(load_engine(engine).infer(images)["combined"], reference(graph, images), atol=1e-6)
    engine.write_bytes(b"damaged")
    assert build(graph, engine)
    manifest_path(engine).write_bytes(b"{")
    assert build(graph, engine)
    edit_manifest(engine, target={"onnxruntime": "0.1", "processor": processor()})
    assert build(graph, engine)
    assert not build(graph, engine)


@pytest.mark.parametrize("keep", [0, 1, 100, 1500])
def test_a_truncated_graph_is_one_line_and_leaves_no_engine(graph: Path, tmp_path: Path, keep: int) -> None:
    graph.write_bytes(graph.read_bytes()[:keep])
    engine = tmp_path / "engines" / "e.onnx"
    with pytest.raises(EdgetlError, match=f"ONNX Runtime {onnxruntime.__version__} cannot load") as caught:
        build(graph, engine)
    assert "\n" not in str(caught.value)
    assert list(engine.parent.iterdir()) == []


def test_a_failed_build_leaves_no_engine_that_looks_up_to_date(graph: Path, engine: Path) -> None:
    graph.write_bytes(b"no graph any more")
    with pytest.raises(EdgetlError, match="cannot load"):
        build(graph, engine)
    with pytest.raises(EdgetlError, match="does not exist"):
        load_engine(engine)


def test_an_engine_cannot_be_written_below_a_file(graph: Path) -> None:
    with pytest.raises(EdgetlError, match="cannot write"):
        build(graph, graph / "engine.onnx")


def test_fp16_is_refused_with_the_reason() -> None:
    assert ORT.unsupported("fp32") is None
    assert ORT.unsupported("int8") is None
    assert "no FP16 kernels" in str(ORT.unsupported("fp16"))


def test_a_compute_capability_is_refused(graph: Path, tmp_path: Path) -> None:
    with pytest.raises(EdgetlError, match=r"takes no compute capability \(SM86 was given\)"):
        build_engine(ORT, graph, tmp_path / "e.onnx", BuildOptions(compute_capability="SM86"))


def test_a_tampered_engine_is_not_loaded(engine: Path) -> None:
    content = bytearray(engine.read_bytes())
    content[len(content) // 2] ^= 1
    engine.write_bytes(content)
    with pytest.raises(EdgetlError, match="is damaged"):
        load_engine(engine)


def test_an_engine_of_another_onnxruntime_is_refused_naming_both(engine: Path) -> None:
    edit_manifest(engine, target={"onnxruntime": "1.2.3", "processor": processor()})
    with pytest.raises(EdgetlError) as caught:
        load_engine(engine)
    assert f"was built for onnxruntime 1.2.3, this machine has onnxruntime {onnxruntime.__version__}" in str(
        caught.value
    )
    assert "run edgetl build-engine here" in str(caught.value)


def test_an_engine_of_another_processor_is_refused(engine: Path) -> None:
    edit_manifest(engine, target={"onnxruntime": onnxruntime.__version__, "processor": "aarch64 Some [00000000]"})
    with pytest.raises(EdgetlError, match="was built for processor aarch64 Some"):
        load_engine(engine)


def test_a_manifest_with_options_or_a_runtime_of_another_version_is_refused(engine: Path) -> None:
    edit_manifest(engine, options={"workspace": 3})
    with pytest.raises(EdgetlError, match="options that this version of edgetl does not know"):
        load_engine(engine)
    edit_manifest(engine, options={}, runtime="openvino")
    with pytest.raises(EdgetlError, match="runtime openvino is not in this version; use onnxruntime or"):
        load_engine(engine)


def test_images_that_do_not_fit_the_engine_are_one_line(engine: Path) -> None:
    with pytest.raises(EdgetlError, match=r"cannot run on inputs of \[1, 3, 8, 9\]: "):
        load_engine(engine).infer(np.zeros((1, 3, 8, 9), dtype=np.float32))


@pytest.fixture
def second_level(tmp_path: Path) -> Path:
    """An engine that starts from two tensors: maps of another graph, and its probabilities."""
    graph = helper.make_graph(
        [
            helper.make_node("GlobalAveragePool", ["maps"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["features"]),
            helper.make_node("Concat", ["features", "combined"], ["beside"], axis=1),
            helper.make_node("Softmax", ["beside"], ["signs"], axis=1),
        ],
        "second",
        [
            helper.make_tensor_value_info("maps", TensorProto.FLOAT, ["N", 2, 4, 4]),
            helper.make_tensor_value_info("combined", TensorProto.FLOAT, ["N", 3]),
        ],
        [helper.make_tensor_value_info("signs", TensorProto.FLOAT, ["N", 5])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "second.onnx")
    build(tmp_path / "second.onnx", tmp_path / "second.engine")
    return tmp_path / "second.engine"


def test_an_engine_takes_its_inputs_in_the_order_of_the_graph(second_level: Path) -> None:
    random = np.random.default_rng(0)
    maps, combined = random.random((3, 2, 4, 4), dtype=np.float32), random.random((3, 3), dtype=np.float32)
    powers = np.exp(np.concatenate([maps.mean(axis=(2, 3)), combined], axis=1))
    outputs = load_engine(second_level).infer(maps, combined)
    np.testing.assert_allclose(outputs["signs"], powers / powers.sum(axis=1, keepdims=True), atol=1e-6)


def test_an_engine_tells_the_shapes_of_its_inputs_for_one_image(engine: Path, second_level: Path) -> None:
    assert load_engine(engine).shapes == ((1, 3, 16, 16),)
    assert load_engine(second_level).shapes == ((1, 2, 4, 4), (1, 3))


def test_an_engine_given_too_few_inputs_says_so_in_one_line(second_level: Path) -> None:
    with pytest.raises(EdgetlError, match=r"cannot run on inputs of \[1, 2, 4, 4\]: ") as caught:
        load_engine(second_level).infer(np.zeros((1, 2, 4, 4), dtype=np.float32))
    assert "\n" not in str(caught.value)
