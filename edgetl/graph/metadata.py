"""What travels in a graph's metadata: labels of its outputs, and how images become its input."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping

import onnx

from edgetl.errors import EdgetlError

LABELS = "edgetl.labels"
INPUT = "edgetl.input"


def merged_metadata(models: Mapping[str, onnx.ModelProto]) -> dict[str, str]:
    """The metadata of several graphs in one, whose outputs have their graph's prefix.

    Labels go with the outputs. Of the rest, what all agree on stays as it is, and other keys get the prefix too.

    Raises:
        EdgetlError: labels are damaged, or the graphs take images that are prepared differently.
    """
    notes = {prefix: _entries(model, prefix) for prefix, model in models.items()}
    labels = {
        f"{prefix}/{output}": names for prefix, own in notes.items() for output, names in _labels(own, prefix).items()
    }
    merged = {LABELS: _dump(labels)} if labels else {}
    for prefix, own in notes.items():
        for key in own.keys() - {LABELS}:
            agreed = all(other.get(key, own[key]) == own[key] for other in notes.values())
            if key == INPUT and not agreed:
                _refuse_preprocessing(notes)
            merged[key if agreed else f"{prefix}/{key}"] = own[key]
    return dict(sorted(merged.items()))


def metadata_for(model: onnx.ModelProto, outputs: Collection[str]) -> dict[str, str]:
    """The metadata with the labels of some outputs alone."""
    notes = _entries(model, "the graph")
    labels = {output: names for output, names in _labels(notes, "the graph").items() if output in outputs}
    rest = {key: value for key, value in notes.items() if key != LABELS}
    return {LABELS: _dump(labels), **rest} if labels else rest


def _entries(model: onnx.ModelProto, owner: str) -> dict[str, str]:
    entries = {entry.key: entry.value for entry in model.metadata_props}
    # Protobuf gives bytes where text is no UTF-8.
    if not all(isinstance(text, str) for entry in entries.items() for text in entry):
        raise EdgetlError(f"the metadata of {owner} is no text; export the graph again")
    return entries


def _dump(labels: Mapping[str, object]) -> str:
    return json.dumps(labels, ensure_ascii=False)


def _labels(notes: Mapping[str, str], owner: str) -> dict[str, object]:
    try:
        labels = json.loads(notes.get(LABELS, "{}"))
    except (ValueError, RecursionError):
        labels = None
    if not isinstance(labels, dict):
        raise EdgetlError(f"the metadata entry {LABELS} of {owner} is damaged; export the graph again")
    return labels


def _refuse_preprocessing(notes: Mapping[str, Mapping[str, str]]) -> None:
    recorded = {prefix: own[INPUT] for prefix, own in notes.items() if INPUT in own}
    first, *others = recorded
    other = next(prefix for prefix in others if recorded[prefix] != recorded[first])
    raise EdgetlError(
        f"images are prepared differently: {recorded[first]} for {first}, {recorded[other]} for {other}; one graph "
        "takes its images in one way: train and export the models alike"
    )
