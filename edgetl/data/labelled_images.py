"""Labelled images to evaluate a plain graph on: the images of a folder, and the class number of each label."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgetl.arrays import Int64Array
from edgetl.artifacts.data_index import Sample
from edgetl.data.calibration_images import folder_samples
from edgetl.data.listing import listed
from edgetl.errors import EdgetlError


def labelled_samples(folder: Path) -> tuple[Sample, ...]:
    """All images of a folder with one sub-folder for each label.

    Raises:
        EdgetlError: there is no such folder, no image in it, or an image that is in no sub-folder.
    """
    samples = []
    for sample in folder_samples(folder):
        label, separator, _ = sample.path.partition("/")
        if not separator:
            raise EdgetlError(f"{folder / sample.path} is in no label's folder; expected {folder}/LABEL/IMAGE")
        samples.append(sample.replaced(label=label))
    return tuple(samples)


def class_numbers(samples: Sequence[Sample], classes: Sequence[str] | None, count: int) -> Int64Array:
    """The class of each sample, as a position among a graph's outputs.

    Args:
        classes: the names of the outputs; None where the graph does not tell them. Then labels must be as many as
            outputs, and are taken in alphabetical order.
        count: how many outputs there are.

    Raises:
        EdgetlError: labels and classes do not go together.
    """
    labels = sorted({sample.label for sample in samples})
    if classes is None:
        if len(labels) != count:
            raise EdgetlError(
                f"the graph does not name its {count} classes and the images have {len(labels)} labels; export it with "
                "labels in its metadata, or give images of every class"
            )
        classes = labels
    unknown = [label for label in labels if label not in classes]
    if unknown:
        raise EdgetlError(f"the images have the labels {listed(unknown)}, which are no classes of the graph")
    positions = {name: number for number, name in enumerate(classes)}
    return np.array([positions[sample.label] for sample in samples], np.int64)
