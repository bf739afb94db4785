"""One plain ONNX file in FP16 or INT8, without a study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx

from edgetl.artifacts.calibration import CalibrationTable
from edgetl.artifacts.files import read_bytes, sha256_file, write_bytes, write_json
from edgetl.artifacts.guard import Guard
from edgetl.artifacts.index import Sample
from edgetl.artifacts.prepared import Prepared, record_path
from edgetl.config import InputContract, Recipe, load_recipe
from edgetl.data.calibration_images import draw, image_samples
from edgetl.data.labelled_boxes import is_annotated
from edgetl.data.stream import input_of, stream, to_input
from edgetl.data.views import renderer
from edgetl.errors import EdgetlError, NotMetError
from edgetl.graph.calibration_cache import cache_tensors, cache_text, read_cache, table_from_cache
from edgetl.graph.compare import compare
from edgetl.graph.half import to_fp16
from edgetl.graph.metadata import detecting_outputs, record_preprocessing, recorded_preprocessing
from edgetl.graph.model import load_model, save_model
from edgetl.graph.observe import Observation, quantisable_tensors
from edgetl.graph.overflow import overflowing
from edgetl.graph.placement import Target
from edgetl.graph.quantise import quantise
from edgetl.graph.sensitivity import mix
from edgetl.stages.detect.judging import judge_by_boxes
from edgetl.stages.forms import Form, Mix
from edgetl.stages.guard import Guarding
from edgetl.stages.input_contract import input_preprocessing
from edgetl.stages.judging import Judge, class_counts, judge_by_folder
from edgetl.stages.observing import Calibration
from edgetl.stages.stage import Watcher

Images = npt.NDArray[np.float32]

_RANDOM_IMAGES = 8
_WHAT_TO_DO = "judge by more images, allow more with --max-accuracy-drop, calibrate on more images, or take fp16"


@dataclass(frozen=True)
class Preparation:
    """What a plain FP32 graph is to become.

    ``calibration_images``: a folder, or a text file that lists paths; INT8 needs them or ``scales``, a calibration
    cache to take scales from. With ``max_accuracy_drop``, INT8 is mended until it loses no more on ``eval_images``: of
    top-1 accuracy on an image folder with labels, or of a detector's mAP@0.5 on images with boxes. ``cache``: where a
    calibration cache for ``tensorrt_version`` goes. ``contract`` says how images become the graph's input, where its
    metadata do not.
    """

    precision: str
    target: Target = "tensorrt"
    calibration_images: Path | None = None
    recipe: str = "default"
    max_accuracy_drop: float | None = None
    eval_images: Path | None = None
    scales: Path | None = None
    cache: Path | None = None
    tensorrt_version: str = "10.3.0"
    contract: InputContract | None = None


@dataclass(frozen=True)
class _Result:
    """A prepared graph and how it came about; ``plain`` is the float graph that ``table`` belongs to."""

    model: onnx.ModelProto
    kept: Mapping[str, str]
    images: Images | None
    plain: onnx.ModelProto
    table: CalibrationTable | None = None
    guard: Guard | None = None


def prepare_file(graph: Path, output: Path, wanted: Preparation, watcher: Watcher, record: Path | None = None) -> None:
    """Write a plain FP32 graph in another precision, and beside it (at ``record``) how it was made.

    Raises:
        EdgetlError: the graph cannot be read or prepared, or INT8 is asked for without images.
        NotMetError: INT8 cannot be made to lose no more than ``max_accuracy_drop``.
    """
    model = load_model(graph)
    if wanted.precision not in {"fp16", "int8"}:
        raise EdgetlError(f"{graph} is FP32 as it is; choose --precision fp16 or int8")
    preprocessing = input_preprocessing(model, wanted.contract, str(graph))
    if recorded_preprocessing(model) is None:
        watcher.say(f"images become the input of {graph} as {preprocessing}")
        record_preprocessing(model, preprocessing)
    done = _fp16(model, wanted, watcher) if wanted.precision == "fp16" else _int8(model, wanted, watcher)
    images = _random_images(model) if done.images is None else done.images
    named = [(f"image {number}", images[number : number + 1]) for number in range(len(images))]
    parity = compare(model, done.model, named, (graph.name, output.name))
    save_model(done.model, output)
    if wanted.cache is not None and done.table is not None:
        write_bytes(wanted.cache, cache_text(done.plain, done.table, wanted.tensorrt_version).encode())
        save_model(done.plain, wanted.cache.with_name(wanted.cache.name + ".onnx"))
    note = Prepared(
        graph=graph.name,
        graph_sha256=sha256_file(graph),
        prepared_sha256=sha256_file(output),
        precision="fp16" if wanted.precision == "fp16" else "int8",
        target=None if wanted.precision == "fp16" else wanted.target,
        preprocessing=preprocessing,
        kept=dict(done.kept),
        parity_on="random images" if done.images is None else "calibration images",
        parity=parity.model_copy(update={"worst_images": ()}),
        guard=done.guard,
        calibration=done.table,
    )
    write_json(record or record_path(output), note)


def _fp16(model: onnx.ModelProto, wanted: Preparation, watcher: Watcher) -> _Result:
    images = None
    if wanted.calibration_images is not None:
        samples, root = image_samples(wanted.calibration_images)
        preprocessing = input_preprocessing(model)
        batches = stream(draw(samples, Recipe(images=16)), root, renderer(preprocessing), input_of(preprocessing))
        images = np.concatenate([batch.result for batch in batches])
    kept = overflowing(model, _random_images(model) if images is None else images)
    for name, reason in kept.items():
        watcher.say(f"{name} stays in FP32: {reason}, beyond what FP16 holds")
    return _Result(to_fp16(model, kept), kept, images, model)


def _random_images(model: onnx.ModelProto) -> Images:
    """Images of noise, where no real one was given."""
    preprocessing = input_preprocessing(model)
    shape = (_RANDOM_IMAGES, preprocessing.height, preprocessing.width, 3)
    return to_input(np.random.default_rng(0).integers(0, 256, shape, np.uint8), preprocessing)


def _int8(model: onnx.ModelProto, wanted: Preparation, watcher: Watcher) -> _Result:
    if wanted.scales is not None:
        scales = read_cache(read_bytes(wanted.scales), str(wanted.scales))
        table = table_from_cache(model, scales, wanted.target, str(wanted.scales))
        return _Result(quantise(model, table, wanted.target), {}, None, model, table)
    if wanted.calibration_images is None:
        raise EdgetlError(
            "INT8 needs images to calibrate on; give --calibration-images DIR with some hundred real ones"
        )
    judge = _judge(model, wanted, watcher)  # first: what is wrong with its images is told before the work begins
    calibration = _calibration(model, wanted, watcher)
    shown = calibration.shown(model)
    forms = calibration.forms(model, shown, wanted.target)
    if judge is None:
        return _unguarded(model, wanted.target, shown.seen, forms[0])
    return _guarded(model, wanted, judge, calibration, shown.seen, forms)


def _unguarded(model: onnx.ModelProto, target: Target, seen: Observation, form: Form) -> _Result:
    mixed, kept = form.mix(target), _first_kept(form.table)
    float32 = overflowing(model, seen.judging) if kept else {}
    written = mix(mixed.model, mixed.table, target, mixed.returned, float32)
    return _Result(written, kept, seen.judging, mixed.model, mixed.table)


def _first_kept(table: CalibrationTable) -> dict[str, str]:
    """The first layers that are not INT8, and why."""
    first = table.first
    reason = "" if first is None else f"in INT8 it leaves {first.snr_db_int8:g} of {first.snr_db:g} dB"
    return dict.fromkeys(table.first_in_float(), reason)


def _guarded(
    model: onnx.ModelProto,
    wanted: Preparation,
    judge: Judge,
    calibration: Calibration[Sample],
    seen: Observation,
    forms: Sequence[Form],
) -> _Result:
    assert wanted.max_accuracy_drop is not None
    float32 = list(overflowing(model, seen.judging))

    def written(mixed: Mix) -> onnx.ModelProto:
        return mix(mixed.model, mixed.table, wanted.target, mixed.returned, float32)

    budget, watcher = wanted.max_accuracy_drop, calibration.watcher
    guarding = Guarding(judge, budget, wanted.target, calibration.mended, lambda mixed: [written(mixed)], watcher)
    chosen, guard = guarding.search(seen, forms)
    if chosen is None:
        raise NotMetError(f"{guard.missed}; {_WHAT_TO_DO}")
    noise = {name: note.snr_db for note in guard.layers for name in note.layers}
    kept = {name: f"alone in INT8 it leaves {noise[name]:g} dB" for name in chosen.returned if name in noise}
    return _Result(written(chosen), _first_kept(chosen.table) | kept, seen.judging, chosen.model, chosen.table, guard)


def _judge(model: onnx.ModelProto, wanted: Preparation, watcher: Watcher) -> Judge | None:
    """Who measures what INT8 loses, where that matters.

    A graph that both classifies and detects, as fused ones do, is judged by what its images are labelled with.
    """
    if wanted.max_accuracy_drop is None:
        return None
    assert wanted.eval_images is not None, "the command asks for both"
    images, preprocessing = wanted.eval_images, input_preprocessing(model)
    judge: Judge
    if detecting_outputs(model) and (is_annotated(images) or not class_counts(model)):
        judge = judge_by_boxes(model, images, preprocessing, watcher)
    else:
        judge = judge_by_folder(model, images, preprocessing)
    worth = ", ".join(f"{name} {one.value:.1%}" for name, one in judge.exact.items())
    watcher.say(f"judging by {judge.what} on {judge.images} images of {images}; FP32 has: {worth}")
    return judge


def _calibration(model: onnx.ModelProto, wanted: Preparation, watcher: Watcher) -> Calibration[Sample]:
    """The calibration images of an order."""
    assert wanted.calibration_images is not None
    recipe = load_recipe(wanted.recipe, Path())
    every, root = image_samples(wanted.calibration_images)
    samples = draw(every, recipe)
    watcher.say(f"calibrating on {len(samples)} images of {wanted.calibration_images} by {recipe.method}")

    def tensors(form: onnx.ModelProto) -> tuple[str, ...]:
        names = quantisable_tensors(form)
        return tuple(dict.fromkeys((*names, *cache_tensors(form)))) if names and wanted.cache is not None else names

    return Calibration(samples, root, input_preprocessing(model), recipe, watcher, tensors)
