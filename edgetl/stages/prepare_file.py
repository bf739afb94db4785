"""Prepares one plain ONNX file in FP16 or INT8, without a study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from edgetl.arrays import Float32Array
from edgetl.artifacts.accuracy_control_record import AccuracyControlResult
from edgetl.artifacts.calibration_table import CalibrationTable
from edgetl.artifacts.data_index import Sample
from edgetl.artifacts.files import read_bytes, sha256_file, write_bytes, write_json
from edgetl.artifacts.prepared import GraphComparison, PreparedRecord, record_path
from edgetl.config import InputContract, QdqFormat, load_recipe
from edgetl.data.calibration_images import draw, image_samples
from edgetl.data.labelled_boxes import is_annotated
from edgetl.data.stream import to_input
from edgetl.errors import EdgetlError, NotMetError
from edgetl.graph.calibration_cache import cache_tensors, cache_text, read_cache, table_from_cache
from edgetl.graph.fp16 import to_fp16
from edgetl.graph.layer_comparison import compare_layers
from edgetl.graph.metadata import detecting_outputs, record_preprocessing, recorded_preprocessing
from edgetl.graph.model import load_model, save_model
from edgetl.graph.observe import Observation, quantisable_tensors
from edgetl.graph.overflow import overflowing
from edgetl.graph.quantize import quantize
from edgetl.graph.sensitivity import mixed_precision_graph
from edgetl.stages.accuracy_control import AccuracyControlSearch
from edgetl.stages.accuracy_evaluator import AccuracyEvaluator, class_counts, evaluator_of_folder
from edgetl.stages.calibrator import Calibrator
from edgetl.stages.detect.evaluator import evaluator_of_boxes
from edgetl.stages.input_contract import drawn_inputs, input_preprocessing
from edgetl.stages.quantization_variants import PrecisionAssignment, QuantizationVariant
from edgetl.stages.stage import ProgressReporter

_RANDOM_IMAGES, _FP16_IMAGES = 8, 16
_WHAT_TO_DO = "evaluate on more images, allow more with --max-accuracy-drop, calibrate on more images, or take fp16"


@dataclass(frozen=True)
class PrepareRequest:
    """The precision to prepare a plain FP32 graph in, and how.

    ``calibration_images``: a folder, or a text file that lists paths; INT8 needs them or ``scales``, a calibration
    cache to take scales from. With ``max_accuracy_drop``, layers leave INT8 until it loses no more on ``eval_images``:
    of top-1 accuracy on an image folder with labels, or of a detector's mAP@0.5 on images with boxes. A cache for
    ``tensorrt_version`` is written to ``calibration_cache``. ``contract`` says how images become the graph's input,
    where its metadata does not.
    """

    precision: str
    target: QdqFormat = "tensorrt"
    calibration_images: Path | None = None
    recipe: str = "default"
    max_accuracy_drop: float | None = None
    eval_images: Path | None = None
    scales: Path | None = None
    calibration_cache: Path | None = None
    tensorrt_version: str = "10.3.0"
    contract: InputContract | None = None

    def __post_init__(self) -> None:
        if (self.max_accuracy_drop is None) != (self.eval_images is None):
            raise EdgetlError("--max-accuracy-drop and --eval-images go together; give both or none")


@dataclass(frozen=True)
class _PreparedGraph:
    """A prepared graph and how it was made; ``plain`` is the float graph that ``table`` belongs to."""

    model: onnx.ModelProto
    excluded: Mapping[str, str]
    images: Float32Array | None
    plain: onnx.ModelProto
    table: CalibrationTable | None = None
    accuracy_control: AccuracyControlResult | None = None


def prepare_file(
    graph: Path, output: Path, request: PrepareRequest, reporter: ProgressReporter, record: Path | None = None
) -> None:
    """Write a plain FP32 graph in another precision, and beside it (or at ``record``) how it was made.

    Raises:
        EdgetlError: the graph cannot be read or prepared, or INT8 is asked for without images.
        NotMetError: INT8 cannot be made to lose no more than ``max_accuracy_drop``.
    """
    model = load_model(graph)
    if request.precision not in {"fp16", "int8"}:
        raise EdgetlError(f"{graph} is FP32 as it is; choose --precision fp16 or int8")
    preprocessing = input_preprocessing(model, request.contract, str(graph))
    if recorded_preprocessing(model) is None:
        reporter.message(f"images become the input of {graph} as {preprocessing}")
        record_preprocessing(model, preprocessing)
    done = _fp16(model, request, reporter) if request.precision == "fp16" else _int8(model, request, reporter)
    parity = _parity(model, done, (graph.name, output.name))
    save_model(done.model, output)
    cache = request.calibration_cache
    if cache is not None and done.table is not None:
        write_bytes(cache, cache_text(done.plain, done.table, request.tensorrt_version).encode())
        save_model(done.plain, cache.with_name(cache.name + ".onnx"))
    write_json(record or record_path(output), _record(graph, output, request, done, parity))


def _record(
    graph: Path, output: Path, request: PrepareRequest, done: _PreparedGraph, parity: GraphComparison
) -> PreparedRecord:
    """How ``output`` was made of ``graph``."""
    half = request.precision == "fp16"
    return PreparedRecord(
        graph=graph.name,
        graph_sha256=sha256_file(graph),
        prepared_sha256=sha256_file(output),
        precision="fp16" if half else "int8",
        target=None if half else request.target,
        preprocessing=input_preprocessing(done.model),
        excluded=dict(done.excluded),
        parity_on="random images" if done.images is None else "calibration images",
        parity=parity,
        accuracy_control=done.accuracy_control,
        calibration=done.table,
    )


def _parity(model: onnx.ModelProto, done: _PreparedGraph, names: tuple[str, str]) -> GraphComparison:
    # Only calibration images show how INT8 differs where it is used; noise is better than nothing.
    images = _random_images(model) if done.images is None else done.images
    named = ((f"image {number}", images[number : number + 1]) for number in range(len(images)))
    return compare_layers(model, done.model, named, names).replaced(worst_images=())


def _fp16(model: onnx.ModelProto, request: PrepareRequest, reporter: ProgressReporter) -> _PreparedGraph:
    images = None
    if request.calibration_images is not None:
        drawn = drawn_inputs(request.calibration_images, input_preprocessing(model), _FP16_IMAGES)
        images = np.concatenate([batch for _, batch in drawn])
    kept = overflowing(model, _random_images(model) if images is None else images)
    for name, reason in kept.items():
        reporter.message(f"{name} stays in FP32: {reason}, beyond what FP16 holds")
    return _PreparedGraph(to_fp16(model, kept), kept, images, model)


def _random_images(model: onnx.ModelProto) -> Float32Array:
    """Random pixels as the graph's input, for when no real images were given."""
    preprocessing = input_preprocessing(model)
    shape = (_RANDOM_IMAGES, preprocessing.height, preprocessing.width, 3)
    return to_input(np.random.default_rng(0).integers(0, 256, shape, np.uint8), preprocessing)


def _int8(model: onnx.ModelProto, request: PrepareRequest, reporter: ProgressReporter) -> _PreparedGraph:
    if request.scales is not None:
        scales = read_cache(read_bytes(request.scales), str(request.scales))
        table = table_from_cache(model, scales, request.target, str(request.scales))
        return _PreparedGraph(quantize(model, table, request.target), {}, None, model, table)
    if request.calibration_images is None:
        raise EdgetlError(
            "INT8 needs images to calibrate on; give --calibration-images DIR with some hundred real ones"
        )
    evaluator = _evaluator(model, request, reporter)  # first: bad images are refused before the work begins
    calibration = _calibration(model, request, reporter)
    shown = calibration.observe(model)
    variants = calibration.variants(model, shown, request.target)
    if evaluator is not None:
        return _with_accuracy_control(model, request, evaluator, calibration, shown.observation, variants)
    images = shown.observation.probe_images
    assignment, kept = variants[0].assign_precision(request.target), _first_kept(variants[0].table)
    # FP16 only appears where first layers leave INT8.
    float32 = overflowing(model, images) if kept else {}
    table, excluded = assignment.table, assignment.excluded
    written = mixed_precision_graph(assignment.model, table, request.target, excluded, float32)
    return _PreparedGraph(written, kept, images, assignment.model, table)


def _first_kept(table: CalibrationTable) -> dict[str, str]:
    """The first layers that are not INT8, with the reason."""
    first = table.first
    reason = "" if first is None else f"in INT8 it leaves {first.snr_db_int8:g} of {first.snr_db:g} dB"
    return dict.fromkeys(table.first_in_float(), reason)


def _with_accuracy_control(
    model: onnx.ModelProto,
    request: PrepareRequest,
    evaluator: AccuracyEvaluator,
    calibration: Calibrator[Sample],
    seen: Observation,
    variants: Sequence[QuantizationVariant],
) -> _PreparedGraph:
    assert request.max_accuracy_drop is not None
    float32 = list(overflowing(model, seen.probe_images))

    def written(assignment: PrecisionAssignment) -> onnx.ModelProto:
        return mixed_precision_graph(assignment.model, assignment.table, request.target, assignment.excluded, float32)

    budget, reporter = request.max_accuracy_drop, calibration.reporter
    search = AccuracyControlSearch(
        evaluator, budget, request.target, calibration.refined, lambda assignment: [written(assignment)], reporter
    )
    chosen, result = search.search(seen, variants)
    if chosen is None:
        raise NotMetError(f"{result.why_not_met}; {_WHAT_TO_DO}")
    noise = {name: note.snr_db for note in result.layers for name in note.layers}
    kept = {name: f"alone in INT8 it leaves {noise[name]:g} dB" for name in chosen.excluded if name in noise}
    return _PreparedGraph(
        written(chosen), _first_kept(chosen.table) | kept, seen.probe_images, chosen.model, chosen.table, result
    )


def _evaluator(model: onnx.ModelProto, request: PrepareRequest, reporter: ProgressReporter) -> AccuracyEvaluator | None:
    """The evaluator for accuracy control; None without ``max_accuracy_drop``.

    A graph that both classifies and detects, as fused ones do, is evaluated by the annotations that its images have.
    """
    if request.eval_images is None:
        return None
    images, preprocessing = request.eval_images, input_preprocessing(model)
    evaluator: AccuracyEvaluator
    if detecting_outputs(model) and (is_annotated(images) or not class_counts(model)):
        evaluator = evaluator_of_boxes(model, images, preprocessing, reporter)
    else:
        evaluator = evaluator_of_folder(model, images, preprocessing)
    scores = ", ".join(f"{name} {one.value:.1%}" for name, one in evaluator.fp32.items())
    reporter.message(f"measuring {evaluator.metric} on {evaluator.images} images of {images}; FP32 has: {scores}")
    return evaluator


def _calibration(model: onnx.ModelProto, request: PrepareRequest, reporter: ProgressReporter) -> Calibrator[Sample]:
    """The calibrator with the images of a request."""
    assert request.calibration_images is not None
    recipe = load_recipe(request.recipe, Path())
    every, root = image_samples(request.calibration_images)
    samples = draw(every, recipe)
    reporter.message(f"calibrating on {len(samples)} images of {request.calibration_images} by {recipe.method}")

    def tensors(variant: onnx.ModelProto) -> tuple[str, ...]:
        names = quantisable_tensors(variant)
        # TensorRT's cache wants scales of tensors too that Q/DQ nodes do not need.
        return (
            tuple(dict.fromkeys((*names, *cache_tensors(variant))))
            if names and request.calibration_cache is not None
            else names
        )

    return Calibrator(samples, root, input_preprocessing(model), recipe, reporter, tensors)
