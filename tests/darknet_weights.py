"""Writes Darknet's .weights files, in the order in which Darknet's ``load_convolutional_weights`` reads them."""

from __future__ import annotations

import struct
from pathlib import Path

from edgetl.train.darknet.network import Darknet


def write_weights(path: Path, network: Darknet) -> None:
    """Write a whole network's weights, version 0.2.5, with no images seen."""
    state, content = network.state_dict(), struct.pack("<iiiQ", 0, 2, 5, 0)
    for layer in network.cfg.convolutions:
        normalised = ("norm.bias", "norm.weight", "norm.running_mean", "norm.running_var")
        for name in (*(normalised if layer.normalised else ("conv.bias",)), "conv.weight"):
            content += state[f"layers.{layer.section.number}.{name}"].detach().cpu().numpy().astype("<f4").tobytes()
    path.write_bytes(content)
