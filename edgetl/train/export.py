"""The trunk as an ONNX graph."""

from __future__ import annotations

import inspect
import io
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch

from edgetl.artifacts.bundle import FEATURES, IMAGES, Head
from edgetl.errors import EdgetlError
from edgetl.train.backbones import Backbone

Array = npt.NDArray[np.float32]

_OPSET = 17
"""The newest that TensorRT 8.6 reads; enough for every operator of the libraries' networks."""


def export_trunk(backbone: Backbone) -> onnx.ModelProto:
    """The trunk from ``images`` (N x 3 x S x S in [0, 1]) to ``features`` (N x D), with dynamic N."""
    size = backbone.preprocessing.image_size
    buffer = io.BytesIO()
    # The tracing exporter: three times as fast as the newer one here, and the only one that torch 2.4 has.
    options: dict[str, Any] = {"dynamo": False} if "dynamo" in inspect.signature(torch.onnx.export).parameters else {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                backbone.trunk,
                (torch.zeros(2, 3, size, size),),
                buffer,  # type: ignore[arg-type]  # documented, but annotated as a path alone
                opset_version=_OPSET,
                input_names=[IMAGES],
                output_names=["features"],
                dynamic_axes={IMAGES: {0: "N"}, "features": {0: "N"}},
                **options,
            )
    except Exception as error:  # whatever torch's exporter throws at an operator it does not know
        reason = str(error).strip().splitlines()[0]
        raise EdgetlError(f"{backbone.reference.name} cannot be exported to ONNX: {reason}") from error
    return onnx.load_from_string(buffer.getvalue())


def reference_outputs(
    backbone: Backbone, heads: tuple[Head, ...], tensors: dict[str, Array], images: Array
) -> dict[str, Array]:
    """What PyTorch computes for images (N x 3 x S x S in [0, 1]): features, and every head's probabilities."""
    with torch.inference_mode():
        features = backbone.trunk(torch.from_numpy(images))
        outputs = {FEATURES: features.numpy()}
        for head in heads:
            weight, bias = (torch.from_numpy(tensors[f"{head.name}.{part}"]) for part in ("weight", "bias"))
            logits = torch.addmm(bias, features, weight.T)
            probabilities = logits.softmax(dim=1) if head.activation == "softmax" else logits.sigmoid()
            outputs[head.name] = probabilities.numpy()
    return outputs
