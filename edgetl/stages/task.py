"""What differs between the tasks of studies: one object for each, in its own folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from edgetl.arrays import Float32Array, Int64Array
from edgetl.artifacts.box_index import BoxIndex
from edgetl.artifacts.bundle import Bundle
from edgetl.artifacts.data_index import DataIndex
from edgetl.artifacts.deployment import Deployment
from edgetl.artifacts.detector_bundle import DetectionBundle
from edgetl.artifacts.results import Comparison
from edgetl.config import Study
from edgetl.stages.serving import Loaded, Service
from edgetl.stages.stage import Context, Worker

LoadedDeployments = Mapping[str, tuple[Deployment, Sequence[Loaded]]]
"""Deployments by title, with their engines."""


class Scoring(Protocol):
    """The answers of all deployments to the test images, collected batch by batch, and their accuracy."""

    def add(self, rows: Int64Array, answers: Mapping[str, Any]) -> None:
        """Collect the answers, by title, to the images at some positions of the test set."""

    @property
    def images(self) -> int:
        """The number of images that were answered."""

    def figures(self) -> Mapping[str, Mapping[str, Any]]:
        """The fields of `DeploymentResult` that hold the accuracy, by title."""

    def comparisons(self) -> tuple[Comparison, ...]:
        """The difference in accuracy of every pair."""

    def write(self, folder: Path) -> Path:
        """Write all answers to a file, and return it."""


class Task(Protocol):
    """What a study's networks are to do with an image, and all that follows from it.

    Methods import what they need when they are called: some of it needs packages that a device lacks.
    """

    @property
    def name(self) -> str:
        """As ``task`` in a study file."""

    def worker(self, stage: str) -> Worker:
        """The module of one of its own stages: ``index``, ``finetune``, ``search`` or ``export``."""

    def training_settings(self, study: Study) -> dict[str, Any]:
        """The settings that trained heads depend on, beside backbone, deployments and seed."""

    def export_settings(self, study: Study) -> dict[str, Any]:
        """The settings that graphs depend on, beside precisions and calibration."""

    def read_index(self, context: Context) -> tuple[DataIndex | BoxIndex, Path]:
        """The data index, and the folder that its paths are relative to."""

    def read_bundle(self, context: Context) -> Bundle | DetectionBundle:
        """The bundle of trained heads."""

    def service(self, context: Context) -> Service[Any]:
        """What makes the answers of deployments of the outputs of their heads."""

    def workloads(
        self, context: Context, loaded: LoadedDeployments, number: int, batch: int = 1
    ) -> dict[str, Callable[[], object]]:
        """A call for each deployment, by title, that runs ``batch`` images at once through all of its engines.

        ``number``: how often they were loaded before; where images differ, other ones come first each time.
        """

    def image(self, context: Context, shape: tuple[int, ...]) -> Float32Array:
        """An image to queue inferences with, as an engine takes it."""

    def scoring(self, context: Context, titles: Sequence[str]) -> Scoring:
        """What collects the answers of these deployments to the test images."""

    def facts(self, context: Context) -> tuple[dict[str, Any], dict[str, Any]]:
        """What it adds to the sections ``data`` and ``training`` of results.json."""
