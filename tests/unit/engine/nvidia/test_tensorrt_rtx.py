from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgetl.artifacts.calibration_table import CalibrationImage
from edgetl.artifacts.engine_manifest import read_manifest
from edgetl.config import CalibrationRecipe
from edgetl.engine.runtime import BuildOptions, BuildResources, build_engine, get_runtime, load_engine
from edgetl.errors import EdgetlError
from edgetl.graph.fp16 import to_fp16
from edgetl.graph.quantize import quantize
from tests.calibrating import calibrate

tensorrt_rtx = pytest.importorskip("tensorrt_rtx", reason="the extra rtx is not installed")

RTX = get_runtime("tensorrt-rtx")


def refusal(graph: Path, options: BuildOptions | None = None) -> str:
    engine = graph.parent / "engines" / "refused.engine"
    with pytest.raises(EdgetlError) as caught:
        build_engine(RTX, graph, engine, options or BuildOptions())
    assert "\n" not in str(caught.value)
    assert not engine.parent.exists() or not list(engine.parent.iterdir())
    return str(caught.value)


def prepared(network: onnx.ModelProto, precision: str, images: NDArray[np.float32]) -> onnx.ModelProto:
    if precision == "fp16":
        return to_fp16(network)
    if precision == "int8":
        record = tuple(CalibrationImage(path=str(n), sha256="") for n in range(len(images)))
        return quantize(network, calibrate(network, [images], CalibrationRecipe(), record), "tensorrt")
    return network


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("capability", ["SM86", "SM120"])
def test_every_precision_builds_for_a_gpu_that_is_not_here(
    network: onnx.ModelProto, images: NDArray[np.float32], tmp_path: Path, precision: str, capability: str
) -> None:
    graph, engine = tmp_path / f"combined.{precision}.onnx", tmp_path / f"combined.{precision}.engine"
    onnx.save(prepared(network, precision, images), graph)
    options = BuildOptions(compute_capability=capability)
    assert build_engine(RTX, graph, engine, options)
    manifest = read_manifest(engine)
    assert manifest.target == {"tensorrt-rtx": tensorrt_rtx.__version__, "compute capability": capability}
    assert manifest.bytes == engine.stat().st_size > 0
    assert not build_engine(RTX, graph, engine, options)


def test_engines_for_two_gpus_are_not_taken_for_one_another(graph: Path, tmp_path: Path) -> None:
    engine = tmp_path / "combined.engine"
    assert build_engine(RTX, graph, engine, BuildOptions(compute_capability="SM86"))
    assert build_engine(RTX, graph, engine, BuildOptions(compute_capability="SM89"))


def test_without_a_choice_the_engine_is_for_sm86(graph: Path, tmp_path: Path) -> None:
    assert build_engine(RTX, graph, tmp_path / "combined.engine", BuildOptions())
    assert read_manifest(tmp_path / "combined.engine").target["compute capability"] == "SM86"


@pytest.mark.parametrize("capability", ["SM87", "sm86", "86", "CURRENT", "__members__"])
def test_an_unknown_compute_capability_lists_the_known_ones(graph: Path, capability: str) -> None:
    message = refusal(graph, BuildOptions(compute_capability=capability))
    assert f"cannot build for compute capability {capability}; it knows SM75, SM80, SM86" in message


@pytest.mark.parametrize("batch", [1, 4])
def test_a_graph_with_a_fixed_batch_builds(variants: dict[str, onnx.ModelProto], tmp_path: Path, batch: int) -> None:
    onnx.save(variants[f"fixed batch of {batch}"], tmp_path / "fixed.onnx")
    assert build_engine(RTX, tmp_path / "fixed.onnx", tmp_path / "fixed.engine", BuildOptions())


def test_a_graph_with_an_open_image_size_is_refused(variants: dict[str, onnx.ModelProto], graph: Path) -> None:
    onnx.save(variants["open size"], graph)
    assert "input images is N x 3 x ? x ?, expected a fixed size" in refusal(graph)


def test_an_unknown_operator_is_one_line_with_the_node(variants: dict[str, onnx.ModelProto], graph: Path) -> None:
    model = variants["operator that needs a square matrix"]
    onnx.save(model, graph)
    assert refusal(graph).startswith(
        f"TensorRT-RTX {tensorrt_rtx.__version__} cannot read {graph}: node between (Det): unsupported node"
    )
    model.graph.node[1].name = ""
    onnx.save(model, graph)
    assert "node 1 (Det): unsupported node" in refusal(graph)


@pytest.mark.parametrize("keep", [0, 100, 1500])
def test_a_truncated_graph_is_one_line_and_leaves_no_engine(graph: Path, keep: int) -> None:
    graph.write_bytes(graph.read_bytes()[:keep])
    assert str(graph) in refusal(graph)


def test_an_engine_says_plainly_that_it_needs_a_gpu_to_run(graph: Path, tmp_path: Path) -> None:
    build_engine(RTX, graph, tmp_path / "combined.engine", BuildOptions(compute_capability="SM120"))
    with pytest.raises(EdgetlError, match="needs an NVIDIA GPU to run"):
        load_engine(tmp_path / "combined.engine")


def test_no_precision_is_refused_beforehand() -> None:
    assert [RTX.unsupported(precision) for precision in ("fp32", "fp16", "int8")] == [None, None, None]


def test_progress_is_told_and_never_goes_back(graph: Path, tmp_path: Path) -> None:
    told: list[float] = []
    build_engine(RTX, graph, tmp_path / "combined.engine", BuildOptions(), BuildResources(on_progress=told.append))
    assert len(told) > 10 and told == sorted(told) and told[-1] == 1.0


def test_an_interrupted_build_ends_as_interrupted(graph: Path, tmp_path: Path) -> None:
    def interrupt(share: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_engine(RTX, graph, tmp_path / "combined.engine", BuildOptions(), BuildResources(on_progress=interrupt))
    assert list(tmp_path.glob("combined.engine*")) == []


def test_the_options_that_make_another_engine_make_another_engine(graph: Path, tmp_path: Path) -> None:
    engine = tmp_path / "combined.engine"
    for options in (BuildOptions(), BuildOptions(optimization_level=1), BuildOptions(workspace_mb=64),
                    BuildOptions(sparse=True), BuildOptions(min_batch=2, opt_batch=4, max_batch=4)):  # fmt: skip
        assert build_engine(RTX, graph, engine, options)
        assert not build_engine(RTX, graph, engine, options)


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"dla_core": 0}, "dla core (0 was given)"),
        ({"gpu_fallback": True}, "gpu fallback"),
        ({"calibration_sha256": "ab"}, "calibration"),
        ({"version_compatible": True}, "version compatible"),
        ({"hardware_compatible": "ampere-plus"}, "hardware compatible (ampere-plus was given)"),
    ],
)
def test_what_it_cannot_do_is_refused(graph: Path, options: dict[str, object], what: str) -> None:
    assert f"tensorrt-rtx takes no {what}; it is for TensorRT on a device" in refusal(
        graph,
        BuildOptions(**options),  # type: ignore[arg-type]
    )


def suppression(scores: str = "scores") -> onnx.ModelProto:
    """NonMaxSuppression of a hundred boxes, as detectors end with."""
    inputs = [
        helper.make_tensor_value_info("boxes", TensorProto.FLOAT, [1, 100, 4]),
        helper.make_tensor_value_info(scores, TensorProto.FLOAT, [1, 2, 100]),
    ]
    constants = [
        numpy_helper.from_array(np.array([10], np.int64), "most"),
        numpy_helper.from_array(np.array([0.5], np.float32), "overlap"),
    ]
    node = helper.make_node("NonMaxSuppression", ["boxes", scores, "most", "overlap"], ["kept"], name="/head/nms")
    output = helper.make_tensor_value_info("kept", TensorProto.INT64, ["K", 3])
    graph = helper.make_graph([node], "detector", inputs, [output], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_suppression_that_it_cannot_build_points_to_the_loop_that_it_can(graph: Path) -> None:
    onnx.save(suppression(), graph)
    said = refusal(graph)
    assert f"cannot build {graph}: node /head/nms (NonMaxSuppression): " in said
    assert "has no runners that implement it" in said
    assert said.endswith("export the detector with --nms loop, which computes the same from operators that it has")


def test_the_manifest_tells_each_layers_precision(
    network: onnx.ModelProto, images: NDArray[np.float32], tmp_path: Path
) -> None:
    onnx.save(prepared(network, "int8", images), tmp_path / "g.onnx")
    build_engine(RTX, tmp_path / "g.onnx", tmp_path / "g.engine", BuildOptions())
    manifest = read_manifest(tmp_path / "g.engine")
    assert manifest.layers_of == "graph", "without a device the engine cannot be asked"
    precisions = {layer.name: layer.precision for layer in manifest.layers}
    assert (precisions["first"], precisions["softmax"]) == ("int8", "fp32")
