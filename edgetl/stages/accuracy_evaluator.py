"""What graphs are worth on labelled images, beside the float graph that they were made from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import onnx

from edgetl.arrays import BoolArray, Float32Array, Int64Array
from edgetl.artifacts.bundle import Preprocessing
from edgetl.artifacts.measurements import AccuracyEstimate
from edgetl.data.images import Pixels
from edgetl.data.labelled_images import class_numbers, labelled_samples
from edgetl.data.stream import ImageFile, stream, to_input
from edgetl.data.views import renderer
from edgetl.errors import EdgetlError
from edgetl.graph.metadata import labels_of
from edgetl.graph.model import image_input
from edgetl.graph.parity import Outputs, Session
from edgetl.measure import bootstrap

ProbabilitiesOf = Callable[[Outputs], Mapping[str, Float32Array]]
"""From the outputs of all graphs to N x classes for everything that is judged."""


@dataclass(frozen=True)
class AccuracyDrop:
    """What is left in another precision, and by how much that is less than in float on the same images.

    ``error`` is the drop's standard error, ``low`` and ``high`` bound it (95 %).
    """

    accuracy: AccuracyEstimate
    drop: float
    error: float
    low: float
    high: float


class AccuracyEvaluator(Protocol):
    """Labelled images, and what float graphs made of them.

    What is judged has a name each: an output of a graph, or what outputs of several graphs come to together. Graphs run
    one after another: the first takes images, the others what those before them make, too.
    """

    @property
    def metric(self) -> str:
        """What it measures, within a sentence."""

    @property
    def images(self) -> int:
        """How many were looked at."""

    @property
    def fp32(self) -> Mapping[str, AccuracyEstimate]:
        """What the float graphs are worth."""

    def drops(self, graphs: Sequence[onnx.ModelProto]) -> Mapping[str, AccuracyDrop]:
        """What the same graphs in another precision lose."""


class ClassifierEvaluator:
    """A judge of classifiers, by top-1 accuracy."""

    metric = "accuracy"

    def __init__(
        self,
        graphs: Sequence[onnx.ModelProto],
        samples: Sequence[ImageFile],
        root: Path,
        preprocessing: Preprocessing,
        truth: Mapping[str, Int64Array],
        answers: ProbabilitiesOf = dict,
    ) -> None:
        """``truth``: for everything that is judged the right class of each sample."""
        self._source = samples, root, preprocessing
        self._truth, self._answers = truth, answers
        self._exact = self._hits(graphs)

    @property
    def images(self) -> int:
        return len(next(iter(self._exact.values())))

    @property
    def fp32(self) -> dict[str, AccuracyEstimate]:
        return {name: bootstrap.mean_of_hits(hits) for name, hits in self._exact.items()}

    def drops(self, graphs: Sequence[onnx.ModelProto]) -> dict[str, AccuracyDrop]:
        return {name: self._loss(self._exact[name], hits) for name, hits in self._hits(graphs).items()}

    @staticmethod
    def _loss(exact: BoolArray, hits: BoolArray) -> AccuracyDrop:
        drop, low, high = bootstrap.paired_difference(exact, hits)
        return AccuracyDrop(bootstrap.mean_of_hits(hits), drop, bootstrap.paired_error(exact, hits), low, high)

    def _hits(self, graphs: Sequence[onnx.ModelProto]) -> dict[str, BoolArray]:
        """Which images are right; files that do not decode are left out of all graphs alike."""
        rows, found = [], []
        for numbers, outputs in run_alone(graphs, *self._source):
            said = self._answers(outputs)
            rows.append(numbers)
            found.append({name: said[name].argmax(axis=1) for name in self._truth})
        seen = np.concatenate(rows)
        chosen = {name: np.concatenate([one[name] for one in found]) for name in self._truth}
        return {name: chosen[name] == right[seen] for name, right in self._truth.items()}


def run_alone(
    graphs: Sequence[onnx.ModelProto], samples: Sequence[ImageFile], root: Path, preprocessing: Preprocessing
) -> Iterator[tuple[Int64Array, Outputs]]:
    """Every output for every image that decodes, with the positions of these; each image goes through alone.

    Of outputs of one name the last graph's counts.
    """
    image = image_input(graphs[0])
    sessions = [Session(graph, threads=1) for graph in graphs]  # the stream's threads are as many as there are cores

    def one(pixels: Float32Array) -> Outputs:
        tensors: Outputs = {image: pixels}
        for session in sessions:
            tensors |= session.run({name: tensors[name] for name in session.inputs})
        return tensors

    def outputs(images: Pixels) -> Outputs:
        pixels = to_input(images, preprocessing)
        each = [one(pixels[number : number + 1]) for number in range(len(pixels))]
        return {name: np.concatenate([tensors[name] for tensors in each]) for name in each[0] if name != image}

    for batch in stream(samples, root, renderer(preprocessing), outputs):
        yield batch.rows, batch.result


def evaluator_of_folder(model: onnx.ModelProto, folder: Path, preprocessing: Preprocessing) -> ClassifierEvaluator:
    """A judge for the outputs that classify the labels of an image folder.

    Raises:
        EdgetlError: the folder has no labelled images, or no output of the graph classifies them.
    """
    samples = labelled_samples(folder)
    classes, counts = labels_of(model), class_counts(model)
    if not counts:
        raise EdgetlError(
            "no output of the graph is N x CLASSES, so its accuracy cannot be judged by labelled images; leave out "
            "--max-accuracy-drop (a detector is judged by boxes where edgetl exported it, with its labels in the file)"
        )
    labels = {sample.label for sample in samples}
    able = {name: count for name, count in counts.items() if labels <= set(classes.get(name, labels))}
    truth = {name: class_numbers(samples, classes.get(name), count) for name, count in (able or counts).items()}
    return ClassifierEvaluator([model], samples, folder, preprocessing, truth)


def class_counts(model: onnx.ModelProto) -> dict[str, int]:
    shapes = {value.name: value.type.tensor_type.shape.dim for value in model.graph.output}
    return {name: dims[1].dim_value for name, dims in shapes.items() if len(dims) == 2 and dims[1].dim_value > 1}
