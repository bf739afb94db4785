"""The accuracy of plain graphs on labelled images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx

from edgetl.artifacts.bundle import Preprocessing
from edgetl.artifacts.index import Sample
from edgetl.data.images import Pixels
from edgetl.data.labelled_images import class_numbers, labelled_samples
from edgetl.data.stream import stream, to_input
from edgetl.data.views import renderer
from edgetl.errors import EdgetlError
from edgetl.graph.metadata import labels_of
from edgetl.graph.parity import Outputs, Reference

Hits = dict[str, npt.NDArray[np.bool_]]


@dataclass(frozen=True)
class Judge:
    """Labelled images, and the right answer of each output to each of them."""

    samples: tuple[Sample, ...]
    root: Path
    preprocessing: Preprocessing
    truth: Mapping[str, npt.NDArray[np.int64]]

    def hits(self, model: onnx.ModelProto) -> Hits:
        """Which images each output got right; files that do not decode are left out of all graphs alike."""
        reference = Reference(model, threads=1)  # the stream's threads are as many as there are cores

        def answers(images: Pixels) -> Outputs:
            pixels = to_input(images)
            each = [reference.run(pixels[number : number + 1]) for number in range(len(pixels))]
            return {name: np.concatenate([one[name] for one in each]).argmax(axis=1) for name in self.truth}

        rows, found = [], []
        for batch in stream(self.samples, self.root, renderer(self.preprocessing), answers):
            rows.append(batch.rows)
            found.append(batch.result)
        seen = np.concatenate(rows)
        return {name: np.concatenate([one[name] for one in found]) == truth[seen] for name, truth in self.truth.items()}


def judge_by_folder(model: onnx.ModelProto, folder: Path, preprocessing: Preprocessing) -> Judge:
    """A judge for the outputs that classify the labels of an image folder.

    Raises:
        EdgetlError: the folder has no labelled images, or no output of the graph classifies them.
    """
    samples = labelled_samples(folder)
    classes, counts = labels_of(model), _class_counts(model)
    if not counts:
        raise EdgetlError(
            "no output of the graph is N x CLASSES, so its accuracy cannot be judged by labelled images; leave out "
            "--max-accuracy-drop"
        )
    labels = {sample.label for sample in samples}
    able = {name: count for name, count in counts.items() if labels <= set(classes.get(name, labels))}
    truth = {name: class_numbers(samples, classes.get(name), count) for name, count in (able or counts).items()}
    return Judge(samples, folder, preprocessing, truth)


def _class_counts(model: onnx.ModelProto) -> dict[str, int]:
    shapes = {value.name: value.type.tensor_type.shape.dim for value in model.graph.output}
    return {name: dims[1].dim_value for name, dims in shapes.items() if len(dims) == 2 and dims[1].dim_value > 1}
