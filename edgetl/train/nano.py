"""edgetl/nano: a small residual network of our own, for images of 32 to 96 pixels and studies that run anywhere.

``benchmarks/pretrain_nano.py`` pretrained its weights on synthetic road scenes; ``weights/nano.json`` records how. It
has only layers that every runtime fuses and quantises: convolution, batch normalisation, ReLU, addition and pooling.
"""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor, nn

MEAN: tuple[float, float, float] = (0.5, 0.5, 0.5)
"""The mean of each channel of an RGB image scaled to 0..1, which is subtracted."""
STD: tuple[float, float, float] = (0.25, 0.25, 0.25)
"""The divisor of each channel after that."""

WEIGHTS: Path = Path(__file__).parent / "weights" / "nano.safetensors"


class Nano(nn.Module):
    """A residual network of three stages, 0.24 million parameters.

    Input: float32 ``(N, 3, H, W)``, normalised by `MEAN` and `STD`, ``H`` and ``W`` at least 16. Output: pooled
    features ``(N, feature_dim)``, or logits ``(N, num_classes)`` where ``num_classes`` is given.
    """

    feature_dim = 160

    def __init__(self, num_classes: int = 0) -> None:
        super().__init__()
        self.features = nn.Sequential(
            _conv(3, 32, kernel=3, stride=2),
            nn.ReLU(inplace=True),
            _Residual(32, 32, stride=1),
            _Residual(32, 64, stride=2),
            _Residual(64, 96, stride=2),
            # A multiple of 32, as all widths are: TensorRT's INT8 layouts hold channels by 32.
            _conv(96, self.feature_dim, kernel=1, stride=1),
            nn.ReLU(inplace=True),
        )
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classifier = nn.Linear(self.feature_dim, num_classes) if num_classes else nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.pool(self.features(images)))
        return logits


class _Residual(nn.Module):
    """Two 3x3 convolutions around a shortcut (He et al. 2015, basic block)."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _conv(channels_in, channels_out, kernel=3, stride=stride),
            nn.ReLU(inplace=True),
            _conv(channels_out, channels_out, kernel=3, stride=1),
        )
        same = channels_in == channels_out and stride == 1
        self.shortcut = nn.Identity() if same else _conv(channels_in, channels_out, kernel=1, stride=stride)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.relu(self.body(x) + self.shortcut(x))
        return y


def _conv(channels_in: int, channels_out: int, kernel: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(channels_out),
    )


def pretrained() -> Nano:
    """The network with its packaged weights, in evaluation mode and without a classifier."""
    model = Nano()
    model.load_state_dict(load_file(WEIGHTS), strict=True)
    return model.eval()
