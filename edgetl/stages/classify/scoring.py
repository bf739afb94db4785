"""Accuracy of a study's deployments on the test images."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetl.arrays import Float32Array, Int64Array
from edgetl.artifacts.data_index import Sample
from edgetl.artifacts.files import write_bytes
from edgetl.artifacts.results import Comparison
from edgetl.measure.accuracy import Answers
from edgetl.measure.metrics import Computation


class ClassifierScoring:
    """Collects probabilities, N x labels, of every deployment."""

    def __init__(
        self,
        samples: Sequence[Sample],
        groups: Mapping[str, Sequence[str]],
        titles: Sequence[str],
        computation: Computation,
    ) -> None:
        self._groups, self._computation = groups, computation
        self._labels = tuple(label for labels in groups.values() for label in labels)
        self._right = np.array([self._labels.index(sample.label) for sample in samples], np.int64)
        self._rows: list[Int64Array] = []
        self._parts: dict[str, list[Float32Array]] = {title: [] for title in titles}

    def add(self, rows: Int64Array, answers: Mapping[str, Float32Array]) -> None:
        self._rows.append(rows)
        for title, probabilities in answers.items():
            self._parts[title].append(probabilities)

    @property
    def images(self) -> int:
        return sum(map(len, self._rows))

    def figures(self) -> dict[str, dict[str, Any]]:
        answers = self._answers.items()
        return {title: {"accuracy": self._computation.accuracy(one, self._groups)} for title, one in answers}

    def comparisons(self) -> tuple[Comparison, ...]:
        return self._computation.compare(self._answers)

    def write(self, folder: Path) -> Path:
        buffer, path = io.BytesIO(), folder / "predictions.npz"
        arrays: dict[str, npt.NDArray[np.generic]] = {"truth": self._truth, **self._predictions}
        np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]  # numpy's stub takes the names for options
        write_bytes(path, buffer.getvalue())
        return path

    @property
    def _truth(self) -> Int64Array:
        return self._right[np.concatenate(self._rows)]

    @property
    def _answers(self) -> dict[str, Answers]:
        truth = self._truth
        return {title: Answers(one, truth, self._labels) for title, one in self._predictions.items()}

    @property
    def _predictions(self) -> dict[str, Float32Array]:
        return {title: np.concatenate(parts) for title, parts in self._parts.items()}
