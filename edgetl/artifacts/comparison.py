"""What `edgetl compare` found between two graphs."""

from __future__ import annotations

from typing import Literal

from edgetl.artifacts.files import Artifact


class LayerDifference(Artifact):
    """A layer that both graphs have, by the tensor it makes. ``snr_db``: signal to noise of b's against a's."""

    layer: str
    op: str
    snr_db: float


class OutputDifference(Artifact):
    """An output of both. ``snr_db`` and ``max_abs_difference`` are None where its shape depends on values.

    ``top1_agreement``: the share of images for which both name the same class; None where it does not classify.
    """

    output: str
    snr_db: float | None
    max_abs_difference: float | None
    top1_agreement: float | None


class ImageDifference(Artifact):
    image: str
    snr_db: float


class GraphComparison(Artifact):
    """Two graphs on the same images: layers in the order of the graph, images the worst first."""

    schema_version: Literal[1] = 1
    a: str
    b: str
    images: int
    layers: tuple[LayerDifference, ...]
    outputs: tuple[OutputDifference, ...]
    worst_images: tuple[ImageDifference, ...]
