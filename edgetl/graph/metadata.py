"""A graph's metadata: the labels and detections of its outputs, its preprocessing, and its equalised channels."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, TypeVar

import onnx
from onnx import helper
from pydantic import Field, TypeAdapter, ValidationError

from edgetl.artifacts.bundle import Preprocessing
from edgetl.artifacts.predictions import DetectionOutput
from edgetl.errors import EdgetlError

LABELS = "edgetl.labels"
DETECTIONS = "edgetl.detections"
INPUT = "edgetl.input"
CHANNELS = "edgetl.channels"

# The entries that map names of outputs to something.
_OF_OUTPUTS = (LABELS, DETECTIONS)

_Octaves = Annotated[float, Field(ge=-128, le=128)]
_T = TypeVar("_T")


def merged_metadata(models: Mapping[str, onnx.ModelProto]) -> dict[str, str]:
    """The metadata of a fused graph, whose outputs have the prefix of the graph they come from.

    Entries about outputs follow these. Other entries keep their key where all graphs agree, else they get the prefix.

    Raises:
        EdgetlError: an entry is damaged, or the graphs take images that are prepared differently.
    """
    notes = {prefix: _entries(model, prefix) for prefix, model in models.items()}
    merged = {}
    for key in _OF_OUTPUTS:
        entry = {f"{p}/{output}": value for p, own in notes.items() for output, value in _entry_of(own, key, p).items()}
        merged.update({key: _dump(entry)} if entry else {})
    for prefix, own in notes.items():
        for key in own.keys() - set(_OF_OUTPUTS):
            agreed = all(other.get(key, own[key]) == own[key] for other in notes.values())
            if key == INPUT:
                recorded = {prefix: other[INPUT] for prefix, other in notes.items() if INPUT in other}
                if not agreed:
                    first, other = next((p, q) for p in recorded for q in recorded if recorded[p] != recorded[q])
                    raise EdgetlError(
                        f"images are prepared differently: {recorded[first]} for {first}, {recorded[other]} for "
                        f"{other}; one graph takes its images in one way: train and export the models alike"
                    )
                if len(recorded) < len(notes):
                    continue  # a graph without the entry may take its images differently
            merged[key if agreed else f"{prefix}/{key}"] = own[key]
    return dict(sorted(merged.items()))


def metadata_for(model: onnx.ModelProto, outputs: Collection[str]) -> dict[str, str]:
    """The metadata with the entries of some outputs only."""
    notes = _entries(model, "the graph")
    kept = {}
    for key in _OF_OUTPUTS:
        entry = {output: value for output, value in _entry_of(notes, key, "the graph").items() if output in outputs}
        kept.update({key: _dump(entry)} if entry else {})
    return kept | {key: value for key, value in notes.items() if key not in _OF_OUTPUTS}


def describe(
    model: onnx.ModelProto,
    labels: Mapping[str, tuple[str, ...]],
    detecting: Mapping[str, DetectionOutput],
    preprocessing: Preprocessing,
) -> None:
    """Replace the metadata of a graph, so that code on the device needs no other file."""
    del model.metadata_props[:]
    notes = {LABELS: _dump(labels), INPUT: preprocessing.model_dump_json()}
    if detecting:
        notes[DETECTIONS] = _dump({output: one.model_dump(mode="json") for output, one in detecting.items()})
    helper.set_model_props(model, notes)


def labels_of(model: onnx.ModelProto) -> dict[str, tuple[str, ...]]:
    """The labels of every output that has labels.

    Raises:
        EdgetlError: the entry is damaged.
    """
    return _validated(model, LABELS, TypeAdapter(dict[str, tuple[str, ...]]))


def detecting_outputs(model: onnx.ModelProto) -> dict[str, DetectionOutput]:
    """The outputs that are detections, and how each was suppressed.

    Raises:
        EdgetlError: the entry is damaged.
    """
    return _validated(model, DETECTIONS, TypeAdapter(dict[str, DetectionOutput]))


def recorded_preprocessing(model: onnx.ModelProto) -> Preprocessing | None:
    """The preprocessing that the metadata record, if they do.

    Raises:
        EdgetlError: the entry is damaged.
    """
    recorded = INPUT in _entries(model, "the graph")
    return _validated(model, INPUT, TypeAdapter(Preprocessing)) if recorded else None


def record_preprocessing(model: onnx.ModelProto, preprocessing: Preprocessing) -> None:
    """Write the preprocessing into the metadata."""
    helper.set_model_props(model, _entries(model, "the graph") | {INPUT: preprocessing.model_dump_json()})


def record_division(model: onnx.ModelProto, octaves: Mapping[str, Sequence[float]]) -> None:
    """Write into the metadata by how many octaves each channel of some tensors is divided."""
    helper.set_model_props(model, _entries(model, "the graph") | {CHANNELS: _dump(octaves)})


def division_of(model: onnx.ModelProto) -> dict[str, tuple[float, ...]]:
    """The tensors whose channels are divided, in octaves for each channel: see `record_division`.

    Raises:
        EdgetlError: the entry is damaged.
    """
    return _validated(model, CHANNELS, TypeAdapter(dict[str, tuple[_Octaves, ...]]))


def _validated(model: onnx.ModelProto, key: str, kind: TypeAdapter[_T]) -> _T:
    try:
        return kind.validate_json(_entries(model, "the graph").get(key, "{}"))
    except ValidationError:
        raise _damaged(key, "the graph") from None


def _entries(model: onnx.ModelProto, owner: str) -> dict[str, str]:
    entries = {entry.key: entry.value for entry in model.metadata_props}
    # Protobuf gives bytes where text is no UTF-8.
    if not all(isinstance(text, str) for entry in entries.items() for text in entry):
        raise EdgetlError(f"the metadata of {owner} is no text; export the graph again")
    return entries


def _dump(entry: Mapping[str, object]) -> str:
    return json.dumps(entry, ensure_ascii=False)


def _entry_of(notes: Mapping[str, str], key: str, owner: str) -> dict[str, object]:
    """An entry that maps names of outputs to something."""
    try:
        entry = json.loads(notes.get(key, "{}"))
    except (ValueError, RecursionError):
        entry = None
    if not isinstance(entry, dict):
        raise _damaged(key, owner)
    return entry


def _damaged(key: str, owner: str) -> EdgetlError:
    return EdgetlError(f"the metadata entry {key} of {owner} is damaged; export the graph again")
