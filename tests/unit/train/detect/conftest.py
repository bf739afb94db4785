"""Kinds of raw outputs, and a small Darknet detector with seeded weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

try:
    import torch
except ModuleNotFoundError:  # without the extra train there is nothing to test here
    collect_ignore_glob = ["test_*.py"]
else:
    from torch import nn

    from edgetl.config import BackboneSettings
    from edgetl.train.darknet.cfg import read_cfg
    from edgetl.train.darknet.network import build
    from edgetl.train.detect.detector import Detector, load_detector
    from tests.darknet_weights import write_weights

Array = NDArray[np.float32]

NAMES = ("car", "bus", "stop")

CFG = """\
[net]
width=64
height=32
channels=3

[convolutional]
batch_normalize=1
filters=8
size=3
stride=4
pad=1
activation=leaky

[convolutional]
batch_normalize=1
filters=12
size=3
stride=2
pad=1
activation=leaky

[convolutional]
batch_normalize=1
filters=16
size=3
stride=2
pad=1
activation=leaky

[convolutional]
size=1
filters=24
activation=linear

[yolo]
mask=2,3,4
anchors=6,5, 10,14, 20,18, 40,30, 50,20
classes=3
num=5

[route]
layers=1

[convolutional]
size=3
pad=1
filters=16
activation=linear

[yolo]
mask=0,1
anchors=6,5, 10,14, 20,18, 40,30, 50,20
classes=3
num=5
"""
"""Two endings, the coarse one first, with different numbers of anchors."""


@pytest.fixture(scope="session")
def darknet_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``network.cfg``, ``network.weights`` and ``network.names``."""
    folder = tmp_path_factory.mktemp("darknet")
    (folder / "network.cfg").write_text(CFG)
    (folder / "network.names").write_text("\n".join(NAMES))
    network = build(read_cfg(folder / "network.cfg"))
    generator = torch.Generator().manual_seed(5)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.normal_(std=(2 / module.weight[0].numel()) ** 0.5, generator=generator)
            if module.bias is not None:
                module.bias.normal_(std=0.5, generator=generator)
        elif isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1, generator=generator)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 1.5, generator=generator)  # type: ignore[union-attr]
            module.weight.uniform_(0.6, 1.4, generator=generator)
    write_weights(folder / "network.weights", network)
    return folder


@pytest.fixture
def darknet(darknet_folder: Path) -> Callable[..., Detector]:
    """Load the small Darknet detector; keywords change the study's backbone."""

    def load(**changes: object) -> Detector:
        study = {"name": "darknet/network.cfg", "weights": "network.weights", "labels": "network.names"} | changes
        return load_detector(BackboneSettings(**study), darknet_folder, 0)

    return load


@pytest.fixture
def one_thread() -> object:
    """What adds in several threads may add in another order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
