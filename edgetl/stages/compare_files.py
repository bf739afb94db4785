"""Compares two plain ONNX files of one network, layer by layer, on real images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgetl.arrays import Float32Array
from edgetl.artifacts.prepared import GraphComparison
from edgetl.config import InputContract
from edgetl.graph.layer_comparison import compare_layers
from edgetl.graph.metadata import recorded_preprocessing
from edgetl.graph.model import load_model
from edgetl.stages.input_contract import agreed_preprocessing, drawn_inputs
from edgetl.stages.stage import ProgressReporter


@dataclass(frozen=True)
class CompareRequest:
    """Two graphs, and images: a folder, or a text file that lists paths. At most ``limit`` of them are used.

    ``contract`` says how images become the graphs' input, where their metadata do not.
    """

    a: Path
    b: Path
    images: Path
    limit: int = 256
    contract: InputContract | None = None


def compare_files(request: CompareRequest, reporter: ProgressReporter) -> GraphComparison:
    """The differences between the layers of two graphs; see `edgetl.graph.layer_comparison.compare_layers`.

    Raises:
        EdgetlError: a file cannot be read; nothing says how they take their images, or they take them in different
            ways; or they have other outputs.
    """
    a, b = load_model(request.a), load_model(request.b)
    preprocessing = agreed_preprocessing({request.a: a, request.b: b}, request.contract)
    if recorded_preprocessing(a) != recorded_preprocessing(b):  # one says it, and it is taken to hold for the other
        reporter.message(f"images become the input of both as {preprocessing}")
    names = (str(request.a), str(request.b))
    with reporter.progress("comparing", request.limit) as advance:

        def images() -> Iterator[tuple[str, Float32Array]]:
            for paths, batch in drawn_inputs(request.images, preprocessing, request.limit):
                for number, path in enumerate(paths):
                    yield path, batch[number : number + 1]
                    advance(1)

        return compare_layers(a, b, images(), names)
