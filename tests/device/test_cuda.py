"""What a GPU must not change. Skipped where there is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra train")

from edgetl import config  # noqa: E402
from edgetl.data.scenes.one_object import LABELS, render_scene, scene_seed  # noqa: E402
from edgetl.data.stream import to_input  # noqa: E402
from edgetl.graph import parity  # noqa: E402
from edgetl.graph.simplify import simplify  # noqa: E402
from edgetl.train.backbones import fingerprint, load_backbone  # noqa: E402
from edgetl.train.feature_cache import make_extractor  # noqa: E402
from edgetl.train.onnx_export import export_trunk  # noqa: E402

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def test_features_of_the_gpu_are_those_of_the_exported_trunk() -> None:
    backbone = load_backbone(config.BackboneSettings(name="edgetl/nano", image_size=64), Path(), seed=0)
    before, trunk = fingerprint(backbone.trunk), simplify(export_trunk(backbone))
    scenes = [render_scene(label, scene_seed("study", 0, 0), 64) for label in LABELS]
    images = np.stack([np.asarray(scene) for scene in scenes])
    expected = parity.run(trunk, to_input(images))["features"]
    found = make_extractor(backbone.trunk, trunk)(images)
    # TF32 convolutions keep ten bits of mantissa.
    assert np.abs(found - expected).max() <= 5e-3 * np.abs(expected).max()
    assert fingerprint(backbone.trunk) == before
