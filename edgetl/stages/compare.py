"""Two plain ONNX files of one network, side by side on real images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgetl.artifacts.bundle import Preprocessing
from edgetl.artifacts.comparison import GraphComparison
from edgetl.config import InputContract, Recipe
from edgetl.data.calibration_images import draw, image_samples
from edgetl.data.stream import input_of, stream
from edgetl.data.views import renderer
from edgetl.graph.compare import compare
from edgetl.graph.model import load_model
from edgetl.stages.input_contract import agreed_preprocessing
from edgetl.stages.stage import Watcher


@dataclass(frozen=True)
class ComparisonOrder:
    """Two graphs, and images: a folder, or a text file that lists paths. At most ``limit`` of them are used.

    ``contract`` says how images become the graphs' input, where their metadata do not.
    """

    a: Path
    b: Path
    images: Path
    limit: int = 256
    contract: InputContract | None = None


def compare_files(order: ComparisonOrder, watcher: Watcher) -> GraphComparison:
    """See `edgetl.graph.compare.compare`.

    Raises:
        EdgetlError: a file cannot be read; nothing says how they take their images, or they take them in different
            ways; or they have other outputs.
    """
    a, b = load_model(order.a), load_model(order.b)
    preprocessing = agreed_preprocessing({order.a: a, order.b: b}, order.contract)
    names = (str(order.a), str(order.b))
    with watcher.progress("comparing", order.limit) as advance:

        def images() -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
            for one in _images(order, preprocessing):
                yield one
                advance(1)

        return compare(a, b, images(), names)


def _images(order: ComparisonOrder, preprocessing: Preprocessing) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
    samples, root = image_samples(order.images)
    drawn = draw(samples, Recipe(images=order.limit))
    for batch in stream(drawn, root, renderer(preprocessing), input_of(preprocessing)):
        for number, row in enumerate(batch.rows):
            yield drawn[row].path, batch.result[number : number + 1]
