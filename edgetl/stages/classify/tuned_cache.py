"""Branches that were tuned before: minutes of work each, so a run that is begun again does not tune them again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

from safetensors.numpy import load_file, save

from edgetl.arrays import Float32Array
from edgetl.artifacts.bundle import ClassificationHead
from edgetl.artifacts.files import Artifact, read_json, sha256_bytes, sha256_file, sha256_json, write_bytes, write_json
from edgetl.errors import EdgetlError
from edgetl.train.tune import TunedBranch


class _TunedRecord(Artifact):
    """Written after the tensors: where it is there and their digest is right, they are whole."""

    schema_version: Literal[1] = 1
    heads: dict[str, ClassificationHead]
    tensors_sha256: str


def cached(
    folder: Path, facts: object, tune: Callable[[], Mapping[str, TunedBranch]]
) -> tuple[Mapping[str, TunedBranch], bool]:
    """What ``tune`` makes, from the cache if it is there; and whether it was.

    Args:
        facts: everything that decides the result, as JSON can hold it.
    """
    stem = folder / sha256_json(facts)[:32]
    tensors, record = stem.with_suffix(".safetensors"), stem.with_suffix(".json")
    found = _read(tensors, record)
    if found is not None:
        return found, True
    made = tune()
    content = save({f"{key}/{name}": value for key, one in made.items() for name, value in _tensors(one).items()})
    write_bytes(tensors, content)
    heads = {key: one.head for key, one in made.items()}
    write_json(record, _TunedRecord(heads=heads, tensors_sha256=sha256_bytes(content)))
    return made, False


def _tensors(tuned: TunedBranch) -> dict[str, Float32Array]:
    state = {f"state/{name}": value for name, value in tuned.state.items()}
    return {"weight": tuned.weight, "bias": tuned.bias, "val_features": tuned.val_features, **state}


def _read(tensors: Path, record: Path) -> dict[str, TunedBranch] | None:
    if not (tensors.is_file() and record.is_file()):
        return None
    try:
        known = read_json(record, _TunedRecord)
    except EdgetlError:  # damaged or of another version: it is tuned anew
        return None
    if sha256_file(tensors) != known.tensors_sha256:
        return None
    every = load_file(tensors)
    found = {}
    for key, head in known.heads.items():
        own = {name.removeprefix(f"{key}/"): value for name, value in every.items() if name.startswith(f"{key}/")}
        state = {name.removeprefix("state/"): value for name, value in own.items() if name.startswith("state/")}
        found[key] = TunedBranch(head, own["weight"], own["bias"], state, own["val_features"])
    return found
