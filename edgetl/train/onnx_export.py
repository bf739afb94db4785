"""Export of networks as ONNX graphs."""

from __future__ import annotations

import inspect
import io
import warnings
from collections.abc import Sequence
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from edgetl.arrays import Float32Array
from edgetl.artifacts.bundle import IMAGES
from edgetl.errors import EdgetlError
from edgetl.train.backbones import Backbone

# The newest that TensorRT 8.6 reads; enough for every operator of the libraries' networks.
_OPSET = 17


def export_trunk(backbone: Backbone, network: nn.Module | None = None) -> onnx.ModelProto:
    """The graph of a trunk from ``images`` (N x 3 x S x S in [0, 1]) to ``features`` (N x D), with dynamic N.

    Args:
        network: a part of the trunk, from the images on, to export instead.

    Raises:
        EdgetlError: torch cannot export it.
    """
    shape = backbone.preprocessing.shape
    return export_network(network or backbone.trunk, shape, ["features"], backbone.reference.name)


def export_network(
    network: nn.Module, shape: tuple[int, int, int], outputs: Sequence[str], name: str
) -> onnx.ModelProto:
    """The graph of a network that takes ``images`` (N x 3 x H x W in [0, 1]), with dynamic N.

    ``shape`` is that of one image, ``outputs`` are the names for its output tensors, ``name`` is for the message.

    Raises:
        EdgetlError: torch cannot export it.
    """
    buffer = io.BytesIO()
    # The tracing exporter: three times as fast as the newer one here, and the only one that torch 2.4 has.
    options: dict[str, Any] = {"dynamo": False} if "dynamo" in inspect.signature(torch.onnx.export).parameters else {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                network,
                (torch.zeros(2, *shape),),
                buffer,  # type: ignore[arg-type]  # documented, but annotated as a path alone
                opset_version=_OPSET,
                input_names=[IMAGES],
                output_names=list(outputs),
                dynamic_axes={tensor: {0: "N"} for tensor in (IMAGES, *outputs)},
                **options,
            )
    except Exception as error:  # whatever torch's exporter throws at an operator it does not know
        reason = str(error).strip().splitlines()[0]
        raise EdgetlError(f"{name} cannot be exported to ONNX: {reason}") from error
    return onnx.load_from_string(buffer.getvalue())


def network_outputs(network: nn.Module, images: Float32Array) -> tuple[Float32Array, ...]:
    """The outputs, in their order, of a network in evaluation mode for images, N x 3 x H x W."""
    with torch.inference_mode():
        outputs = network(torch.from_numpy(images))
    return tuple(one.numpy() for one in ([outputs] if isinstance(outputs, Tensor) else outputs))
