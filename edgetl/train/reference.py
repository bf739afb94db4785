"""Features and heads computed by PyTorch: the reference for every graph, and the heads' outputs on validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from edgetl.arrays import Float32Array
from edgetl.artifacts.bundle import ClassificationHead
from edgetl.train.backbones import Backbone
from edgetl.train.cuts import pooled, split
from edgetl.train.linear_heads import read_tensors
from edgetl.train.tune import with_state


def head_outputs(
    heads: Sequence[ClassificationHead], tensors: Mapping[str, Float32Array], features: Mapping[str, Float32Array]
) -> dict[str, Float32Array]:
    """Every head's probabilities, N x (number of its classes).

    Args:
        heads: a second level comes after its first one.
        tensors: ``NAME.weight`` (classes x D) and ``NAME.bias`` (classes), temperature included.
        features: the features that heads read, N x D, by the name of the tensor in the trunk's graph.
    """
    outputs: dict[str, Float32Array] = {}
    for head in heads:
        given = torch.from_numpy(features[head.features])
        if head.first_level is not None:
            given = torch.cat([given, torch.from_numpy(outputs[head.first_level])], dim=1)
        weight, bias = (torch.from_numpy(tensors[f"{head.name}.{part}"]) for part in ("weight", "bias"))
        logits = torch.addmm(bias, given, weight.T)
        probabilities = logits.softmax(dim=1) if head.activation == "softmax" else logits.sigmoid()
        outputs[head.name] = probabilities.numpy()
    return outputs


def reference_features(
    backbone: Backbone, head: ClassificationHead, states: Mapping[str, Mapping[str, Float32Array]], images: Float32Array
) -> Float32Array:
    """The features that a head reads (N x D) of images (N x 3 x S x S in [0, 1]).

    Args:
        states: the tensors that tuning changed, by the head they were tuned for.
    """
    if head.truncated:
        network = truncated(backbone, head.cut)
    else:
        owner = head.features.removesuffix("/features")
        network = with_state(backbone, states.get(owner, {})).trunk
    with torch.inference_mode():
        features: Float32Array = network(torch.from_numpy(images)).numpy()
    return features


def truncated(backbone: Backbone, cut: str) -> nn.Module:
    """The network that ends at a cut: N x 3 x S x S in [0, 1] to N x C."""
    return pooled(split(backbone, cut)[0])


def read_branches(path: Path) -> dict[str, dict[str, Float32Array]]:
    """The tensors that tuning changed, by the head they were tuned for, from a bundle's ``branches.safetensors``.

    Raises:
        EdgetlError: the file is missing or damaged.
    """
    states: dict[str, dict[str, Float32Array]] = {}
    for name, tensor in read_tensors(path).items():
        head, _, inner = name.partition("/")
        states.setdefault(head, {})[inner] = tensor
    return states
