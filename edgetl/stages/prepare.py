"""One plain ONNX file in FP16 or INT8, without a study."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx
from pydantic import ValidationError

from edgetl.artifacts.bundle import Preprocessing
from edgetl.artifacts.calibration import CalibrationTable
from edgetl.config import LARGEST_IMAGE, load_recipe
from edgetl.data.calibration_images import draw, image_samples
from edgetl.errors import EdgetlError
from edgetl.graph.calibrate import ranked_tables
from edgetl.graph.half import to_fp16
from edgetl.graph.metadata import INPUT
from edgetl.graph.model import image_input, load_model, save_model
from edgetl.graph.placement import Target
from edgetl.graph.quantise import quantise
from edgetl.stages.observing import observe
from edgetl.stages.stage import Watcher


@dataclass(frozen=True)
class Preparation:
    """What a plain FP32 graph is to become. INT8 needs images: a folder, or a list of paths in a text file."""

    precision: str
    target: Target = "tensorrt"
    calibration_images: Path | None = None
    recipe: str = "default"


def prepare_file(graph: Path, output: Path, wanted: Preparation, watcher: Watcher) -> None:
    """Write a plain FP32 graph in another precision.

    Raises:
        EdgetlError: the graph cannot be read or prepared, or INT8 is asked for without images.
    """
    model = load_model(graph)
    if wanted.precision == "fp16":
        save_model(to_fp16(model), output)
    elif wanted.precision == "int8":
        save_model(quantise(model, _calibrate(model, wanted, watcher), wanted.target), output)
    else:
        raise EdgetlError(f"{graph} is FP32 as it is; choose --precision fp16 or int8")


def _calibrate(model: onnx.ModelProto, wanted: Preparation, watcher: Watcher) -> CalibrationTable:
    if wanted.calibration_images is None:
        raise EdgetlError(
            "INT8 needs images to calibrate on; give --calibration-images DIR with some hundred real ones"
        )
    recipe = load_recipe(wanted.recipe, Path())
    samples, root = image_samples(wanted.calibration_images)
    samples = draw(samples, recipe)
    watcher.say(f"calibrating on {len(samples)} images of {wanted.calibration_images} by {recipe.method}")
    seen, images = observe(model, samples, root, input_preprocessing(model), watcher)
    return ranked_tables(model, seen, recipe, images, wanted.target)[0]


def input_preprocessing(model: onnx.ModelProto) -> Preprocessing:
    """How images become the graph's input: what its metadata says, else its fixed size.

    Raises:
        EdgetlError: the graph tells neither.
    """
    name = image_input(model)
    recorded = next((entry.value for entry in model.metadata_props if entry.key == INPUT), None)
    if recorded is not None:
        try:
            return Preprocessing.model_validate_json(recorded)
        except ValidationError:
            raise EdgetlError("the graph's metadata entry edgetl.input is damaged; export the graph again") from None
    value = next(value for value in model.graph.input if value.name == name)
    _, channels, height, width = (dim.dim_value for dim in value.type.tensor_type.shape.dim)
    if channels != 3 or height != width or not 0 < height <= LARGEST_IMAGE:
        raise EdgetlError(
            f"input {name} is N x {channels or '?'} x {height or '?'} x {width or '?'}, expected N x 3 x S x S with a "
            f"fixed S of at most {LARGEST_IMAGE}; export the graph with a fixed image size"
        )
    return Preprocessing(image_size=height)
