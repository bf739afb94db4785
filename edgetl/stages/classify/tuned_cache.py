"""A cache of tuned branches: each takes minutes, so a run that is begun again takes them from here."""

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
    """The heads, and the digest of the file with their tensors. It is written last, so it vouches for that file."""

    schema_version: Literal[1] = 1
    heads: dict[str, ClassificationHead]
    tensors_sha256: str


def cached(
    folder: Path, facts: object, tune: Callable[[], Mapping[str, TunedBranch]]
) -> tuple[Mapping[str, TunedBranch], bool]:
    """The branches that ``tune`` makes, from the cache if they are there; and whether they were.

    Args:
        facts: everything that decides the result, as JSON can hold it.
    """
    stem = folder / sha256_json(facts)[:32]
    tensors, record = stem.with_suffix(".safetensors"), stem.with_suffix(".json")
    if (branches := _read(tensors, record)) is not None:
        return branches, True
    made = tune()
    arrays: dict[str, Float32Array] = {}
    for key, one in made.items():
        own = {"weight": one.weight, "bias": one.bias, "val_features": one.val_features}
        own |= {f"state/{name}": value for name, value in one.state.items()}
        arrays |= {f"{key}/{name}": value for name, value in own.items()}
    content = save(arrays)
    write_bytes(tensors, content)
    heads = {key: one.head for key, one in made.items()}
    write_json(record, _TunedRecord(heads=heads, tensors_sha256=sha256_bytes(content)))
    return made, False


def _read(tensors: Path, record: Path) -> dict[str, TunedBranch] | None:
    if not (tensors.is_file() and record.is_file()):
        return None
    try:
        known = read_json(record, _TunedRecord)
    except EdgetlError:  # damaged or of another version: the branches are tuned anew
        return None
    if sha256_file(tensors) != known.tensors_sha256:
        return None
    every = load_file(tensors)
    branches = {}
    for key, head in known.heads.items():
        own = {name.removeprefix(f"{key}/"): value for name, value in every.items() if name.startswith(f"{key}/")}
        state = {name.removeprefix("state/"): value for name, value in own.items() if name.startswith("state/")}
        branches[key] = TunedBranch(head, own["weight"], own["bias"], state, own["val_features"])
    return branches
