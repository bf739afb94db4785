"""A plain file prepared: the record beside it, the guard on its accuracy, calibration caches."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from edgetl.artifacts.calibration_table import CalibrationImage, CalibrationTable
from edgetl.artifacts.files import read_json, sha256_file
from edgetl.artifacts.prepared import PreparedRecord, record_path
from edgetl.config import CalibrationRecipe, InputContract
from edgetl.errors import EdgetlError, NotMetError
from edgetl.graph.calibrate import ranked_tables, watched
from edgetl.graph.model import load_model
from edgetl.graph.observe import Observer, quantisable_tensors
from edgetl.graph.parity import run
from edgetl.graph.quantize import qdq_format, quantize
from edgetl.stages.accuracy_control import AccuracyControlSearch
from edgetl.stages.accuracy_evaluator import evaluator_of_folder
from edgetl.stages.input_contract import input_preprocessing
from edgetl.stages.prepare_file import PrepareRequest, prepare_file
from edgetl.stages.quantization_variants import PrecisionAssignment, QuantizationVariant

SIZE = 16
COLOURS = {"blue": (30, 40, 220), "green": (40, 200, 30), "red": (220, 30, 40)}

preparation = partial(PrepareRequest, contract=InputContract())
"""Of files that take RGB in [0, 1] and do not say it."""


class Silent:
    """A watcher that keeps what it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def message(self, text: str) -> None:
        self.said.append(text)

    @contextmanager
    def progress(self, title: str, total: float):
        yield bool


def colour_network(skewed: bool, layers: int = 4, named: bool = True, undone: int = 1) -> onnx.ModelProto:
    """Tells colours apart by their means. Skewed, a channel that hardly counts reaches 4000 times as far.

    Clip keeps channels from being equalised across layers. ``undone``: the layer whose weights make up for that.
    """
    random = np.random.default_rng(0)
    far = np.array([4000.0 if skewed else 1.0, 1.0, 1.0, 1.0], np.float32)
    mixing = np.zeros((4, 3, 1, 1), np.float32)
    mixing[0, :, 0, 0] = 1.0
    mixing[1:, :, 0, 0] = np.eye(3)
    same = np.eye(4, dtype=np.float32)[:, :, None, None]
    weights = {"w0": mixing * far[:, None, None, None], "zero": np.float32(0)}
    nodes = []
    for number in range(layers):
        if number:
            noise = random.normal(0.0, 0.01, same.shape) if number > undone else 0.0
            weights[f"w{number}"] = same / far[None, :, None, None] if number == undone else same + noise
        source = f"r{number - 1}" if number else "images"
        nodes.append(helper.make_node("Conv", [source, f"w{number}"], [f"c{number}"], kernel_shape=[1, 1]))
        nodes.append(helper.make_node("Clip", [f"c{number}", "zero"], [f"r{number}"]))
    weights["w"] = np.array([[0.0] * 3, [0.0, 0.0, 9.0], [0.0, 9.0, 0.0], [9.0, 0.0, 0.0]])  # rows: channels
    nodes += [
        helper.make_node("GlobalAveragePool", [f"r{layers - 1}"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["features"]),
        helper.make_node("MatMul", ["features", "w"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["colour"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "colours",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("colour", TensorProto.FLOAT, ["N", 3])],
        [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if named:
        helper.set_model_props(model, {"edgetl.labels": json.dumps({"colour": sorted(COLOURS)})})
    onnx.checker.check_model(model)
    return model


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ninety noisy images of three colours; some are hard to tell."""
    folder, random = tmp_path_factory.mktemp("photos"), np.random.default_rng(5)
    for label, colour in COLOURS.items():
        (folder / label).mkdir()
        for number in range(30):
            share = 0.02 + 0.4 * random.random()
            pixels = 128 + share * (np.array(colour) - 128) + random.normal(0.0, 20.0, (SIZE, SIZE, 3))
            Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(folder / label / f"{number}.png")
    return folder


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., Path]:
    def save(*arguments: object, **options: object) -> Path:
        onnx.save(colour_network(*arguments, **options), tmp_path / "m.onnx")
        return tmp_path / "m.onnx"

    return save


def test_the_record_tells_what_was_made_from_what_and_how_far_it_is(saved, photos, tmp_path):
    graph, output = saved(False), tmp_path / "p.onnx"
    prepare_file(graph, output, preparation("int8", calibration_images=photos, recipe="default"), Silent())
    note = read_json(record_path(output), PreparedRecord)
    assert (note.graph, note.precision, note.target) == ("m.onnx", "int8", "tensorrt")
    assert (note.graph_sha256, note.prepared_sha256) == (sha256_file(graph), sha256_file(output))
    assert note.parity_on == "calibration images"
    assert note.parity.outputs[0].top1_agreement >= 0.9
    assert isinstance(note.calibration, CalibrationTable)
    recorded = {image.path: image.sha256 for image in note.calibration.images}
    assert len(recorded) == 90
    assert all(sha256_file(photos / path) == digest for path, digest in recorded.items())


@pytest.mark.parametrize("target", ["tensorrt", "onnxruntime"])
def test_a_budget_that_int8_meets_changes_nothing_but_the_method(target, saved, photos, tmp_path):
    wanted = preparation("int8", target, photos, "mse", max_accuracy_drop=0.2, eval_images=photos)
    prepare_file(saved(False), tmp_path / "p.onnx", wanted, Silent())
    guard = read_json(record_path(tmp_path / "p.onnx"), PreparedRecord).accuracy_control
    assert guard.images == 90
    assert guard.layers == ()
    assert [attempt.excluded for attempt in guard.attempts] == [0]
    assert qdq_format(load_model(tmp_path / "p.onnx")) == target


def accuracy(graph: Path, photos: Path) -> float:
    files = sorted(photos.rglob("*.png"))
    pixels = np.stack([np.asarray(Image.open(file), np.float32) for file in files]).transpose(0, 3, 1, 2)
    chosen = run(graph, pixels / np.float32(255))["colour"].argmax(axis=1)
    return float(
        np.mean([sorted(COLOURS)[choice] == file.parent.name for choice, file in zip(chosen, files, strict=True)])
    )


@pytest.mark.slow
@pytest.mark.parametrize("target", ["tensorrt", "onnxruntime"])
def test_a_budget_is_met_by_returning_only_the_layer_that_breaks(target, saved, photos, tmp_path):
    graph, output, watcher = saved(True, layers=8), tmp_path / "p.onnx", Silent()
    plain = tmp_path / "plain.onnx"
    prepare_file(graph, plain, preparation("int8", target, photos, "mse"), Silent())
    assert accuracy(plain, photos) < accuracy(graph, photos) - 0.1
    prepare_file(graph, output, preparation("int8", target, photos, "mse", 0.04, photos), watcher)
    assert accuracy(output, photos) >= accuracy(graph, photos) - 0.04
    note = read_json(record_path(output), PreparedRecord)
    assert list(note.excluded) == ["c1"]
    returned = [layer for layer in note.accuracy_control.layers if layer.excluded]
    # ONNX Runtime takes along what makes the tensor that breaks: quantised for nobody, it would be slower in INT8.
    assert [layer.layers for layer in returned] == ([("c1",)] if target == "tensorrt" else [("c1",), ("c0",)])
    assert returned[0].snr_db == min(layer.snr_db for layer in note.accuracy_control.layers)
    assert all(layer.latency_cost is not None for layer in note.accuracy_control.layers)
    taken = note.accuracy_control.attempts[note.accuracy_control.chosen]
    assert taken.excluded == len(returned)
    assert taken.drop + taken.standard_error <= 0.04 < note.accuracy_control.attempts[0].drop
    kinds = {tensor.data_type for tensor in load_model(output).graph.initializer}
    assert (TensorProto.FLOAT16 in kinds) == (target == "tensorrt")


def test_a_budget_that_cannot_be_met_says_how_far_it_got_and_writes_nothing(saved, photos, tmp_path):
    graph = saved(True, layers=3, undone=2)  # two of its three layers read uneven channels, one may be returned
    wanted = preparation("int8", "tensorrt", photos, "mse", 0.04, photos)
    with pytest.raises(
        NotMetError, match=r"INT8 loses more than 4.00% .* the nearest of \d+ attempts .* loses .*; evaluate on more"
    ):
        prepare_file(graph, tmp_path / "p.onnx", wanted, Silent())
    assert not (tmp_path / "p.onnx").exists()
    assert not record_path(tmp_path / "p.onnx").exists()


def test_labels_that_are_no_classes_and_unlabelled_images_are_refused(saved, photos, tmp_path):
    graph, other = saved(False), tmp_path / "other"
    wanted = preparation("int8", "tensorrt", photos, "mse", 0.1, other)
    (other / "purple").mkdir(parents=True)
    Image.new("RGB", (SIZE, SIZE)).save(other / "purple" / "a.png")
    with pytest.raises(EdgetlError, match="the labels purple, which are no classes"):
        prepare_file(graph, tmp_path / "p.onnx", wanted, Silent())
    (other / "purple" / "a.png").rename(other / "a.png")
    with pytest.raises(EdgetlError, match="in no label's folder"):
        prepare_file(graph, tmp_path / "p.onnx", wanted, Silent())


def test_a_graph_without_class_names_takes_as_many_labels_in_alphabetical_order(saved, photos, tmp_path):
    graph = saved(False, named=False)
    prepare_file(graph, tmp_path / "p.onnx", preparation("int8", "tensorrt", photos, "mse", 0.2, photos), Silent())
    guard = read_json(record_path(tmp_path / "p.onnx"), PreparedRecord).accuracy_control
    assert guard.fp32["colour"].value == pytest.approx(accuracy(graph, photos))


def test_a_drop_without_images_to_measure_it_on_is_refused(photos):
    with pytest.raises(EdgetlError, match="--max-accuracy-drop and --eval-images go together"):
        preparation("int8", calibration_images=photos, max_accuracy_drop=0.01)


def test_a_list_of_images_calibrates_on_those_alone(saved, photos, tmp_path):
    listing = photos / "few.txt"
    listing.write_text("# three of them\nred/0.png\n\nblue/1.png\ngreen/2.png\n")
    prepare_file(saved(False), tmp_path / "p.onnx", preparation("int8", calibration_images=listing), Silent())
    images = read_json(record_path(tmp_path / "p.onnx"), PreparedRecord).calibration.images
    assert {image.path for image in images} == {"red/0.png", "blue/1.png", "green/2.png"}


@pytest.mark.parametrize(
    ("text", "message"),
    [("red/0.png\nred/0.png\n", "line 2: red/0.png is listed twice"), ("gone.png\n", "line 1: gone.png is no readable"),
     ("# none\n", "lists no image")],
)  # fmt: skip
def test_a_list_with_faults_is_refused_by_line(text, message, saved, photos, tmp_path):
    (photos / "bad.txt").write_text(text)
    with pytest.raises(EdgetlError, match=message):
        prepare_file(
            saved(False), tmp_path / "p.onnx", preparation("int8", calibration_images=photos / "bad.txt"), Silent()
        )


def test_a_cache_that_was_written_makes_the_same_graph_again(saved, photos, tmp_path):
    graph, cache = saved(False), tmp_path / "m.cache"
    wanted = preparation(
        "int8", calibration_images=photos, recipe="mse", calibration_cache=cache, tensorrt_version="8.6.2"
    )
    prepare_file(graph, tmp_path / "a.onnx", wanted, Silent())
    assert cache.read_text().startswith("TRT-8602-EntropyCalibration2\nimages: ")
    plain = load_model(tmp_path / "m.cache.onnx")
    assert not any("QuantizeLinear" in node.op_type for node in plain.graph.node)
    prepare_file(graph, tmp_path / "b.onnx", preparation("int8", scales=cache), Silent())
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    assert read_json(record_path(tmp_path / "b.onnx"), PreparedRecord).parity_on == "random images"


def test_fp16_tells_on_what_it_looked_and_what_it_kept(saved, photos, tmp_path):
    graph, watcher = saved(True), Silent()
    model = onnx.load(graph)
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "w0")
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(15.0), "w0"))
    onnx.save(model, graph)
    prepare_file(graph, tmp_path / "p.onnx", preparation("fp16", calibration_images=photos), watcher)
    note = read_json(record_path(tmp_path / "p.onnx"), PreparedRecord)
    assert note.parity_on == "calibration images"
    assert {"c0", "r0", "c1"} == set(note.excluded)
    assert any("stays in FP32" in text for text in watcher.said)
    assert note.parity.outputs[0].max_abs_difference < 0.02
    assert accuracy(tmp_path / "p.onnx", photos) == pytest.approx(accuracy(graph, photos), abs=0.03)


def test_the_guard_returns_a_last_layer_first(photos: Path) -> None:
    """A feature that hardly counts reaches 4000 times as far: the last layer, and it alone, cannot bear INT8."""
    model = colour_network(False)
    product = next(node for node in model.graph.node if node.op_type == "MatMul")
    product.input[0] = "far"
    far = np.array([4000.0, 1.0, 1.0, 1.0], np.float32)
    model.graph.initializer.append(numpy_helper.from_array(far, "reach"))
    model.graph.node.insert(len(model.graph.node) - 2, helper.make_node("Mul", ["features", "reach"], ["far"]))
    images, recipe = load_all(photos), CalibrationRecipe(method="auto")
    observer = Observer(model, watched(model, quantisable_tensors(model), recipe))
    seen = observer.observation(observer.add(images))
    record = tuple(CalibrationImage(path=str(one), sha256="0" * 64) for one in range(len(images)))
    first, *_ = ranked_tables(model, seen, recipe, record)
    assert [note.int8 for note in first.last] == [False]
    wrong = first.model_copy(update={"first": None, "last": (first.last[0].model_copy(update={"int8": True}),)})
    judge = evaluator_of_folder(model, photos, input_preprocessing(model, InputContract()))

    def written(mixed: PrecisionAssignment) -> list[onnx.ModelProto]:
        return [quantize(mixed.model, mixed.table, "tensorrt")]

    guarding = AccuracyControlSearch(judge, 0.2, "tensorrt", lambda form, seen: (), written, Silent())
    chosen, guard = guarding.search(seen, [QuantizationVariant.plain(model, wrong)])
    assert chosen is not None and not chosen.table.last_in_int8() and chosen.excluded == ()
    assert [attempt.variant for attempt in guard.attempts] == [wrong.method, f"{wrong.method}, last layers in float"]
    assert guard.attempts[0].drop > 0.2 > guard.attempts[1].drop


@pytest.mark.parametrize(("target", "kind"), [("tensorrt", TensorProto.FLOAT16), ("onnxruntime", TensorProto.FLOAT)])
def test_a_first_layer_that_int8_harms_stays_out_of_it_and_the_record_says_why(saved, photos, tmp_path, target, kind):
    graph = saved(False, undone=1)
    model = onnx.load(graph)
    far = np.array([1.0, 1.0, 4000.0], np.float32)[None, :, None, None]
    model.graph.initializer.append(numpy_helper.from_array(far, "reach"))
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "w0")
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) / far, "w0"))
    model.graph.node[0].input[0] = "far"
    model.graph.node.insert(0, helper.make_node("Mul", ["images", "reach"], ["far"]))
    onnx.save(model, graph)
    output = tmp_path / "p.onnx"
    recipe = tmp_path / "auto.yaml"
    recipe.write_text("method: auto\nimages: 64\n")
    prepare_file(graph, output, preparation("int8", target, photos, str(recipe)), Silent())
    note = read_json(record_path(output), PreparedRecord)
    assert note.calibration is not None and note.calibration.first is not None
    assert note.excluded == {
        "c0": f"in INT8 it leaves {note.calibration.first.snr_db_int8:g} of {note.calibration.first.snr_db:g} dB"
    }
    written = onnx.load(output)
    first = next(node for node in written.graph.node if node.op_type == "Conv")
    weights = {tensor.name: tensor.data_type for tensor in written.graph.initializer}
    assert weights[first.input[1]] == kind
    assert sum(node.op_type == "DequantizeLinear" for node in written.graph.node) > 3
    assert accuracy(output, photos) == pytest.approx(accuracy(graph, photos), abs=0.05)


def load_all(folder: Path) -> np.ndarray:
    pictures = [np.asarray(Image.open(path), np.float32) for path in sorted(folder.glob("*/*.png"))]
    return np.ascontiguousarray(np.stack(pictures).transpose(0, 3, 1, 2) / np.float32(255))
