"""Darknet networks with seeded weights, and what OpenCV's own reader makes of the same two files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

try:
    import torch
except ModuleNotFoundError:  # without the extra train there is nothing to test here
    collect_ignore_glob = ["test_*.py"]
else:
    from torch import Tensor, nn

    from edgetl.train.darknet.cfg import Cfg, read_cfg
    from edgetl.train.darknet.network import Darknet, build
    from edgetl.train.darknet.weights import read_weights
    from edgetl.train.load_weights import load_into
    from tests.darknet_weights import write_weights

Array = NDArray[np.float32]

MATERIAL = Path(__file__).parents[4] / ".." / "shared" / "material" / "darknet"


@dataclass(frozen=True)
class Files:
    """A .cfg file and the .weights file that belongs to it."""

    cfg: Path
    weights: Path

    def read(self) -> Cfg:
        return read_cfg(self.cfg)

    def network(self) -> Darknet:
        """With the weights of the file."""
        network = build(self.read())
        load_into(network, read_weights(self.weights, network.cfg), (), "the network", str(self.weights))
        return network

    def seeded(self) -> Darknet:
        """With seeded weights, which are written too."""
        network = _alive(build(self.read()))
        write_weights(self.weights, network)
        return network

    def opencv(self, images: Tensor) -> list[Array]:
        """Raw outputs of the layers under every [yolo] and [region], or else the last one's, by OpenCV's reader."""
        cv2 = pytest.importorskip("cv2", reason="needs OpenCV")
        cv2.setNumThreads(1)
        network = cv2.dnn.readNetFromDarknet(str(self.cfg), str(self.weights))
        names = list(network.getLayerNames())
        wanted = [names[position - 1] for position, name in enumerate(names) if name.startswith("permute")]
        outputs = []
        for image in images:
            network.setInput(image[None].numpy())
            outputs.append(network.forward(wanted or names[-1:]))
        return [np.concatenate(one) for one in zip(*outputs, strict=True)]

    def difference(self, network: Darknet, images: Tensor) -> float:
        """To OpenCV: the largest absolute difference over the largest absolute value, of the worst output."""
        ours, theirs = outputs_of(network, images), self.opencv(images)
        assert len(ours) == len(theirs)
        return max(relative(one, other.reshape(one.shape)) for one, other in zip(ours, theirs, strict=True))


def outputs_of(network: Any, images: Tensor) -> list[Array]:
    with torch.inference_mode():
        outputs = network(images)
    return [output.numpy() for output in ([outputs] if isinstance(outputs, Tensor) else outputs)]


def relative(ours: Array, theirs: Array) -> float:
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def pictures_of(number: int, height: int, width: int) -> Tensor:
    """Smooth random pictures: noise alone looks the same to every convolution."""
    generator = torch.Generator().manual_seed(7)
    coarse = torch.rand(number, 3, 4, 4, generator=generator)
    noise = torch.rand(number, 3, height, width, generator=generator)
    return 0.7 * nn.functional.interpolate(coarse, (height, width), mode="bilinear") + 0.3 * noise


def _alive(network: Darknet) -> Darknet:
    """Seeded weights under which no layer dies, explodes or saturates.

    Kernels keep the variance of what they read (He et al. 2015), statistics are those of some images, and scales and
    biases vary from channel to channel as they do in trained networks.
    """
    generator = torch.Generator().manual_seed(3)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.normal_(std=(2 / module.weight[0].numel()) ** 0.5, generator=generator)
            if module.bias is not None:
                module.bias.normal_(std=0.1, generator=generator)
        elif isinstance(module, nn.BatchNorm2d):
            module.weight.uniform_(0.6, 1.4, generator=generator)
            module.bias.normal_(std=0.2, generator=generator)
            module.momentum = None  # statistics are then plain means over the batches seen
            module.train()
    with torch.no_grad():
        network(pictures_of(4, network.height, network.width))
    return network.eval()


@pytest.fixture
def written(tmp_path: Path) -> Iterator[Callable[[str], Files]]:
    """A .cfg file of this text."""
    files = Files(tmp_path / "network.cfg", tmp_path / "network.weights")

    def write(text: str) -> Files:
        files.cfg.write_text(text, encoding="utf-8")
        return files

    yield write
    files.weights.unlink(missing_ok=True)  # they are large, and pytest would keep those of three runs


@pytest.fixture(scope="session")
def material() -> Path:
    """Where real Darknet files lie."""
    if not MATERIAL.is_dir():
        pytest.skip("the real networks do not lie beside the project")
    return MATERIAL


@pytest.fixture
def files_of() -> type[Files]:
    return Files


@pytest.fixture
def pictures() -> Callable[[int, int, int], Tensor]:
    return pictures_of


@pytest.fixture
def outputs() -> Callable[[Any, Tensor], list[Array]]:
    return outputs_of
