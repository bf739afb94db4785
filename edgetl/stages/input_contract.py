"""The images of a plain ONNX file: how they become its input is in its metadata or given by the user, never guessed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx

from edgetl.arrays import Float32Array
from edgetl.artifacts.bundle import Preprocessing
from edgetl.config import LARGEST_IMAGE, CalibrationRecipe, InputContract
from edgetl.data.calibration_images import draw, image_samples
from edgetl.data.stream import input_of, stream
from edgetl.data.views import renderer
from edgetl.errors import EdgetlError
from edgetl.graph.metadata import recorded_preprocessing
from edgetl.graph.model import image_input

_WAYS = (
    "say it with --preprocessing imagenet (RGB, ImageNet's mean and std), unit (RGB in [0, 1]), raw255 (RGB in "
    "0..255), symmetric, caffe or FILE.yaml, or with --mean, --std, --scale, --bgr and --fit"
)


def input_preprocessing(
    model: onnx.ModelProto, contract: InputContract | None = None, name: str = "the graph"
) -> Preprocessing:
    """The preprocessing of a graph's images: from its metadata, else from the user's input contract.

    Args:
        model: the graph.
        contract: given by the user, or None. The size is the graph's.
        name: the file's name for messages.

    Raises:
        EdgetlError: neither is there, they disagree, or the input is not of one size with three channels.
    """
    recorded = recorded_preprocessing(model)
    if contract is None:
        if recorded is None:
            image_shape(model)  # where no image fits at all, the message should say that
            raise EdgetlError(f"{name} does not say how images become its input; {_WAYS}")
        return recorded
    height, width = image_shape(model)
    if contract.fit == "crop" and height != width:
        raise EdgetlError(
            f"{name} takes images of {width} x {height} pixels, and fit crop takes squares; give --fit letterbox or "
            "stretch"
        )
    given = Preprocessing(width=width, height=height, **contract.model_dump())
    if recorded is not None and recorded != given:
        raise EdgetlError(f"{name} says itself that it takes {recorded}, not {given}; leave --preprocessing out")
    return given


def image_shape(model: onnx.ModelProto) -> tuple[int, int]:
    """Height and width of a graph's images.

    Raises:
        EdgetlError: they are not fixed, or there are not three channels.
    """
    name = image_input(model)
    value = next(value for value in model.graph.input if value.name == name)
    _, channels, height, width = (dim.dim_value for dim in value.type.tensor_type.shape.dim)
    if channels != 3 or not (0 < height <= LARGEST_IMAGE and 0 < width <= LARGEST_IMAGE):
        raise EdgetlError(
            f"input {name} is N x {channels or '?'} x {height or '?'} x {width or '?'}, expected N x 3 x H x W with "
            f"fixed sides of at most {LARGEST_IMAGE}; export the graph with a fixed image size"
        )
    return int(height), int(width)


def agreed_preprocessing(models: dict[Path, onnx.ModelProto], contract: InputContract | None) -> Preprocessing:
    """The preprocessing that several graphs of one network share; at least one records it, or the user gives it.

    Raises:
        EdgetlError: none records it, or they disagree.
    """
    recorded = {path: recorded_preprocessing(model) for path, model in models.items()}
    known = [(path, one) for path, one in recorded.items() if one is not None]
    if contract is not None or not known:
        known = [(path, input_preprocessing(model, contract, str(path))) for path, model in models.items()]
    first, preprocessing = known[0]
    for path, other in known[1:]:
        if other != preprocessing:
            raise EdgetlError(
                f"{first} and {path} take their images in different ways ({preprocessing}; {other}); compare graphs of "
                "one network"
            )
    return preprocessing


def drawn_inputs(
    source: Path, preprocessing: Preprocessing, limit: int, batch_size: int = 8
) -> Iterator[tuple[tuple[str, ...], Float32Array]]:
    """Yield at most ``limit`` images of a folder or a list of paths, batch by batch: their paths, and the graph's input
    of them (float32 N x 3 x H x W). Broken images are left out.
    """
    samples, root = image_samples(source)
    drawn = draw(samples, CalibrationRecipe(images=limit))
    for batch in stream(drawn, root, renderer(preprocessing), input_of(preprocessing), batch_size=batch_size):
        yield tuple(drawn[row].path for row in batch.rows), batch.result
