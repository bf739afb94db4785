"""The accuracy of graphs on labelled images, and its drop from that of the float graph they were made from."""

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
"""Makes N x classes for every classifier that is evaluated, by its name, of the outputs of all graphs."""


@dataclass(frozen=True)
class AccuracyDrop:
    """The accuracy in another precision, and its drop from that in float on the same images.

    ``error`` is the drop's standard error, ``low`` and ``high`` bound it (95 %).
    """

    accuracy: AccuracyEstimate
    drop: float
    error: float
    low: float
    high: float


class AccuracyEvaluator(Protocol):
    """Evaluates graphs on labelled images against the float graphs.

    Everything that is evaluated has a name: an output of a graph, or outputs of several graphs combined. Graphs run one
    after another: the first takes images, the others may take the outputs of those before them too.
    """

    @property
    def metric(self) -> str:
        """The metric's name, within a sentence."""

    @property
    def images(self) -> int:
        """The number of images."""

    @property
    def fp32(self) -> Mapping[str, AccuracyEstimate]:
        """The accuracies of the float graphs, by name."""

    def drops(self, graphs: Sequence[onnx.ModelProto]) -> Mapping[str, AccuracyDrop]:
        """The drops of the same graphs in another precision, by name."""


class ClassifierEvaluator:
    """Evaluates classifiers by top-1 accuracy."""

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
        """``truth``: the right class of each sample, for every classifier that is evaluated."""
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
        """Whether each image is classified right, by name; files that do not decode are left out of all graphs
        alike.
        """
        rows, found = [], []
        for numbers, outputs in run_alone(graphs, *self._source):
            probabilities = self._answers(outputs)
            rows.append(numbers)
            found.append({name: probabilities[name].argmax(axis=1) for name in self._truth})
        seen = np.concatenate(rows)
        chosen = {name: np.concatenate([one[name] for one in found]) for name in self._truth}
        return {name: chosen[name] == right[seen] for name, right in self._truth.items()}


def run_alone(
    graphs: Sequence[onnx.ModelProto], samples: Sequence[ImageFile], root: Path, preprocessing: Preprocessing
) -> Iterator[tuple[Int64Array, Outputs]]:
    """Every output for every image that decodes, with the positions of these; each image is a batch of its own.

    Of outputs of one name the last graph's counts.
    """
    image = image_input(graphs[0])
    # One thread each: the stream already has as many threads as there are cores.
    sessions = [Session(graph, threads=1) for graph in graphs]

    def one(pixels: Float32Array) -> Outputs:
        tensors: Outputs = {image: pixels}
        for session in sessions:
            tensors |= session.run({name: tensors[name] for name in session.inputs})
        return tensors

    def outputs(images: Pixels) -> Outputs:
        pixels = to_input(images, preprocessing)
        # One by one, as on the device: graphs may have a fixed batch of 1.
        each = [one(pixels[number : number + 1]) for number in range(len(pixels))]
        return {name: np.concatenate([tensors[name] for tensors in each]) for name in each[0] if name != image}

    for batch in stream(samples, root, renderer(preprocessing), outputs):
        yield batch.rows, batch.result


def evaluator_of_folder(model: onnx.ModelProto, folder: Path, preprocessing: Preprocessing) -> ClassifierEvaluator:
    """An evaluator of the outputs that classify the labels of an image folder.

    Raises:
        EdgetlError: the folder has no labelled images, or no output of the graph classifies them.
    """
    samples = labelled_samples(folder)
    classes, counts = labels_of(model), class_counts(model)
    if not counts:
        raise EdgetlError(
            "no output of the graph is N x CLASSES, so its accuracy cannot be measured on labelled images; leave out "
            "--max-accuracy-drop (a detector that edgetl exported, with its labels in the file, is evaluated on boxes)"
        )
    # A fused graph has classifiers of other labels too; where none has all of them, the message names what is unknown.
    labels = {sample.label for sample in samples}
    able = {name: count for name, count in counts.items() if labels <= set(classes.get(name, labels))}
    truth = {name: class_numbers(samples, classes.get(name), count) for name, count in (able or counts).items()}
    return ClassifierEvaluator([model], samples, folder, preprocessing, truth)


def class_counts(model: onnx.ModelProto) -> dict[str, int]:
    shapes = {value.name: value.type.tensor_type.shape.dim for value in model.graph.output}
    return {name: dims[1].dim_value for name, dims in shapes.items() if len(dims) == 2 and dims[1].dim_value > 1}
