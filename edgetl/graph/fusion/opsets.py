"""Converting graphs to one opset and inlining their local functions."""

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
    _refuse_unfit(models)
    highest = max(models, key=lambda prefix: opset(models[prefix]))
    result = {}
    for prefix, original in models.items():
        model = original
        if model.functions:
            light, weights = without_weights(model)
            try:
                model = with_weights(onnx.inliner.inline_local_functions(light), weights)
            except Exception as error:  # as with the converter below
                raise EdgetlError(f"the local functions of {prefix} cannot be inlined: {one_line(error)}") from error
        if opset(model) != opset(models[highest]):
            model = _converted(prefix, model, highest, models[highest])
        result[prefix] = model
    return result


def _refuse_unfit(models: Mapping[str, onnx.ModelProto]) -> None:
    first: dict[str, tuple[str, int]] = {}
    for prefix, model in models.items():
        found = {
            "sparse initializers": model.graph.sparse_initializer,
            "quantisation annotations": model.graph.quantization_annotation,
            "training information": model.training_info,
        }
        present = [name for name, items in found.items() if items]
        if present:
            raise EdgetlError(f"{prefix} holds {' and '.join(present)}, which edgetl cannot merge; export it without")
        for item in model.opset_import:
            owner, version = first.setdefault(item.domain, (prefix, item.version))
            # The standard operators can be converted, those of other domains cannot.
            if item.domain not in {"", "ai.onnx"} and version != item.version:
                raise EdgetlError(
                    f"{owner} uses version {version} of the operators {item.domain!r}, {prefix} version "
                    f"{item.version}; export both with one version"
                )


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
    del converted.metadata_props[:]  # the converter may drop them
    converted.metadata_props.extend(model.metadata_props)
    return converted
