"""Graphs of a bundle's deployments: every file computes what its heads compute, in its precision and its spelling."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from PIL import Image

from edgetl.artifacts.box_index import Box, BoxedImage
from edgetl.artifacts.deployment import Shortlist
from edgetl.artifacts.files import read_json, sha256_file
from edgetl.artifacts.run_directory import RunDirectory
from edgetl.config import Study
from edgetl.graph.detection_postprocessing import with_detections
from edgetl.graph.parity import Session, run
from edgetl.stages.detect import export, search
from edgetl.stages.stage import Context, ProgressReporter

Array = NDArray[np.float32]

PIXELS: Array = np.random.default_rng(5).random((4, 3, 32, 48), dtype=np.float32)
HEADS = ("combined", "vehicles@cascade", "signs@cascade")


@pytest.fixture
def context(trained: Any, tmp_path: Path, listener: ProgressReporter) -> Context:
    """A run directory up to the search, with pictures to calibrate on."""
    images, folder = [], tmp_path / "run"
    folder.mkdir()
    for number in range(4):
        pixels = np.random.default_rng(number).integers(0, 255, (32, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        boxes = tuple(Box(label=label, x1=4, y1=4, x2=20, y2=20) for label in ("car", "stop"))
        sha256 = sha256_file(folder / f"{number}.png")
        images.append(BoxedImage(path=f"{number}.png", sha256=sha256, width=48, height=32, boxes=boxes))
    study = Study(
        name="signs",
        task="detect",
        data={"format": "synthetic"},
        groups=trained.bundle.groups,
        backbone={"name": "edgetl/nano", "image_size": (48, 32)},
        deployments=("combined", "specialised", "shared", "cascade"),
        precisions=("fp32", "fp16", "int8"),
    )
    context = Context(study, tmp_path, RunDirectory(folder), listener)
    nothing = {name: [np.empty((0, 6), np.float32)] * len(images) for name in HEADS}
    trained.write(context.run.path, images, nothing)
    search.work(context)
    return context


def fed(path: Path, tensors: dict[str, Array]) -> dict[str, Array]:
    model = onnx.load(path)
    onnx.checker.check_model(model)
    return Session(model).run({value.name: tensors[value.name] for value in model.graph.input})


@pytest.mark.slow
def test_every_graph_of_every_deployment_finds_what_its_heads_find(trained: Any, context: Context) -> None:
    written = export.work(context)
    assert len({path.name for path in written}) == len(written)
    every = [trained.raw_head(head.name) for head in trained.bundle.heads]
    suppression = context.study.detection.nms
    expected = run(with_detections(trained.network, every, trained.bundle.preprocessing, suppression), PIXELS)
    for deployment in read_json(context.run.shortlist, Shortlist).deployments:
        first: dict[str, Array] = {}
        for spec in deployment.graphs:
            for target in ("onnxruntime", "tensorrt"):
                path = context.run.graphs / spec.file("fp32", target)
                assert path in written
                found = fed(path, {"images": PIXELS, **first})
                assert set(found) == {*spec.heads, *spec.handed_on}
                for name in spec.heads:
                    np.testing.assert_allclose(found[name], expected[name], rtol=1e-4, atol=1e-3)
            first |= {name: found[name] for name in spec.handed_on}


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_a_second_level_of_nothing_but_heads_is_there_in_every_precision(context: Context, precision: str) -> None:
    """Heads stay in float, and the second level of a Darknet network is one convolution."""
    export.work(context)
    (cascade,) = (one for one in read_json(context.run.shortlist, Shortlist).deployments if one.kind == "cascade")
    for target in ("onnxruntime", "tensorrt"):
        first: dict[str, Array] = {}
        for spec in cascade.graphs:
            found = fed(context.run.graphs / spec.file(precision, target), {"images": PIXELS, **first})
            assert all(value.dtype == np.float32 and np.isfinite(value).all() for value in found.values())
            first |= found


@pytest.mark.slow
def test_the_two_spellings_end_in_what_their_runtimes_have(context: Context) -> None:
    for path in export.work(context):
        if path.suffix == ".onnx":
            kinds = {node.op_type for node in onnx.load(path).graph.node}
            assert ("NonMaxSuppression" in kinds) == path.name.endswith(".onnxruntime.onnx")
            assert ("Loop" in kinds) == path.name.endswith(".tensorrt.onnx")
