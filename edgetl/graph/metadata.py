"""What travels in a graph's metadata: what its outputs say, and how images become its input."""

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

_OF_OUTPUTS = (LABELS, DETECTIONS)
"""The entries that say something of each output, by its name."""

_Octaves = Annotated[float, Field(ge=-128, le=128)]
_T = TypeVar("_T")


def merged_metadata(models: Mapping[str, onnx.ModelProto]) -> dict[str, str]:
    """The metadata of several graphs in one, whose outputs have their graph's prefix.

    What is said of outputs goes with them. Of the rest, what all agree on stays as it is, and other keys get the
    prefix too.

    Raises:
        EdgetlError: an entry is damaged, or the graphs take images that are prepared differently.
    """
    notes = {prefix: _entries(model, prefix) for prefix, model in models.items()}
    merged = {}
    for key in _OF_OUTPUTS:
        said = {f"{p}/{output}": what for p, own in notes.items() for output, what in _entry_of(own, key, p).items()}
        merged.update({key: _dump(said)} if said else {})
    for prefix, own in notes.items():
        for key in own.keys() - set(_OF_OUTPUTS):
            agreed = all(other.get(key, own[key]) == own[key] for other in notes.values())
            if key == INPUT:
                if not agreed:
                    _refuse_preprocessing(notes)
                if any(INPUT not in other for other in notes.values()):
                    continue  # what one graph says of its images is not true of a graph that says nothing
            merged[key if agreed else f"{prefix}/{key}"] = own[key]
    return dict(sorted(merged.items()))


def metadata_for(model: onnx.ModelProto, outputs: Collection[str]) -> dict[str, str]:
    """The metadata with what is said of some outputs alone."""
    notes = _entries(model, "the graph")
    kept = {}
    for key in _OF_OUTPUTS:
        said = {output: what for output, what in _entry_of(notes, key, "the graph").items() if output in outputs}
        kept.update({key: _dump(said)} if said else {})
    return kept | {key: value for key, value in notes.items() if key not in _OF_OUTPUTS}


def describe(
    model: onnx.ModelProto,
    labels: Mapping[str, tuple[str, ...]],
    detecting: Mapping[str, DetectionOutput],
    preprocessing: Preprocessing,
) -> None:
    """Write the metadata of a graph anew, so that device code needs nothing beside it."""
    del model.metadata_props[:]
    notes = {LABELS: _dump(labels), INPUT: preprocessing.model_dump_json()}
    if detecting:
        notes[DETECTIONS] = _dump({output: one.model_dump(mode="json") for output, one in detecting.items()})
    helper.set_model_props(model, notes)


def labels_of(model: onnx.ModelProto) -> dict[str, tuple[str, ...]]:
    """The labels of every output that has some.

    Raises:
        EdgetlError: the entry is damaged.
    """
    return _validated(model, LABELS, TypeAdapter(dict[str, tuple[str, ...]]))


def detecting_outputs(model: onnx.ModelProto) -> dict[str, DetectionOutput]:
    """The outputs that are detections, and how they are given.

    Raises:
        EdgetlError: the entry is damaged.
    """
    return _validated(model, DETECTIONS, TypeAdapter(dict[str, DetectionOutput]))


def recorded_preprocessing(model: onnx.ModelProto) -> Preprocessing | None:
    """How images become the graph's input, where its metadata say it.

    Raises:
        EdgetlError: the entry is damaged.
    """
    said = _entries(model, "the graph").get(INPUT)
    try:
        return None if said is None else Preprocessing.model_validate_json(said)
    except ValidationError:
        raise _damaged(INPUT, "the graph") from None


def record_preprocessing(model: onnx.ModelProto, preprocessing: Preprocessing) -> None:
    """Write into the metadata how images become the graph's input."""
    helper.set_model_props(model, _entries(model, "the graph") | {INPUT: preprocessing.model_dump_json()})


def record_division(model: onnx.ModelProto, octaves: Mapping[str, Sequence[float]]) -> None:
    """Note of tensors that their channels are divided, each by so many octaves."""
    helper.set_model_props(model, _entries(model, "the graph") | {CHANNELS: _dump(octaves)})


def division_of(model: onnx.ModelProto) -> dict[str, tuple[float, ...]]:
    """Tensors whose channels are divided against those of the graph that this one was made from: see `record_division`.

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


def _dump(said: Mapping[str, object]) -> str:
    return json.dumps(said, ensure_ascii=False)


def _entry_of(notes: Mapping[str, str], key: str, owner: str) -> dict[str, object]:
    """An entry that says something of outputs."""
    try:
        said = json.loads(notes.get(key, "{}"))
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        raise _damaged(key, owner)
    return said


def _damaged(key: str, owner: str) -> EdgetlError:
    return EdgetlError(f"the metadata entry {key} of {owner} is damaged; export the graph again")


def _refuse_preprocessing(notes: Mapping[str, Mapping[str, str]]) -> None:
    recorded = {prefix: own[INPUT] for prefix, own in notes.items() if INPUT in own}
    first, *others = recorded
    other = next(prefix for prefix in others if recorded[prefix] != recorded[first])
    raise EdgetlError(
        f"images are prepared differently: {recorded[first]} for {first}, {recorded[other]} for {other}; one graph "
        "takes its images in one way: train and export the models alike"
    )
