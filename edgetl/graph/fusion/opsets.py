"""Graphs brought to one version of the ONNX operators, without local functions."""

from __future__ import annotations

from collections.abc import Mapping

import onnx
import onnx.checker
import onnx.inliner
import onnx.version_converter

from edgetl.errors import EdgetlError
from edgetl.graph.external_data import with_weights, without_weights
from edgetl.graph.model import one_line, opset


def aligned(models: Mapping[str, onnx.ModelProto]) -> dict[str, onnx.ModelProto]:
    """The graphs at the highest opset among them, local functions inlined.

    Raises:
        EdgetlError: a graph cannot be converted, another domain comes in two versions, or a graph holds sparse
            initializers, quantisation annotations or training information.
    """
    for prefix, model in models.items():
        _refuse_unfit(prefix, model)
    _refuse_versions(models)
    highest = max(models, key=lambda prefix: opset(models[prefix]))
    inlined = {prefix: _inlined(prefix, model) if model.functions else model for prefix, model in models.items()}
    return {
        prefix: model if opset(model) == opset(models[highest]) else _converted(prefix, model, highest, models[highest])
        for prefix, model in inlined.items()
    }


def _refuse_unfit(prefix: str, model: onnx.ModelProto) -> None:
    graph = model.graph
    found = {
        "sparse initializers": graph.sparse_initializer,
        "quantisation annotations": graph.quantization_annotation,
        "training information": model.training_info,
    }
    present = [name for name, items in found.items() if items]
    if present:
        raise EdgetlError(f"{prefix} holds {' and '.join(present)}, which edgetl cannot merge; export it without")


def _refuse_versions(models: Mapping[str, onnx.ModelProto]) -> None:
    """The standard operators can be converted, those of other domains cannot."""
    first: dict[str, tuple[str, int]] = {}
    for prefix, model in models.items():
        for item in model.opset_import:
            owner, version = first.setdefault(item.domain, (prefix, item.version))
            if item.domain not in {"", "ai.onnx"} and version != item.version:
                raise EdgetlError(
                    f"{owner} uses version {version} of the operators {item.domain!r}, {prefix} version "
                    f"{item.version}; export both with one version"
                )


def _inlined(prefix: str, model: onnx.ModelProto) -> onnx.ModelProto:
    light, weights = without_weights(model)
    try:
        inlined = onnx.inliner.inline_local_functions(light)
    except Exception as error:  # as with the converter below
        raise EdgetlError(f"the local functions of {prefix} cannot be inlined: {one_line(error)}") from error
    return with_weights(inlined, weights)


def _converted(prefix: str, model: onnx.ModelProto, to: str, other: onnx.ModelProto) -> onnx.ModelProto:
    light, weights = without_weights(model)
    try:
        converted = onnx.version_converter.convert_version(light, opset(other))
        onnx.checker.check_model(converted)
    except Exception as error:  # the converter raises whatever its C++ part throws
        raise EdgetlError(
            f"{prefix} uses opset {opset(model)} and {to} opset {opset(other)}, and it cannot be converted: "
            f"{one_line(error)}; export both with one opset"
        ) from error
    converted = with_weights(converted, weights)
    del converted.metadata_props[:]
    converted.metadata_props.extend(model.metadata_props)
    return converted
