"""What a file or directory is: told from its content and the notes beside it, without running anything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from edgetl.artifacts.bundle import Bundle
from edgetl.artifacts.engine_manifest import EngineLayer, manifest_path, read_manifest
from edgetl.artifacts.files import read_json, sha256_file
from edgetl.artifacts.inspection import Inspection
from edgetl.artifacts.prepared import is_prepared
from edgetl.artifacts.run_directory import RunDirectory, StageRecord
from edgetl.engine.layer_precisions import graph_layers, graph_tensors
from edgetl.errors import EdgetlError
from edgetl.graph.cost import CostModel
from edgetl.graph.metadata import CHANNELS, division_of
from edgetl.graph.model import load_model, opset, stored_bytes
from edgetl.graph.quantize import qdq_format

_BUNDLE = "bundle.json"


def inspect(path: Path, trust: bool = False) -> Inspection:
    """Look at a graph, an engine, a bundle or a run directory.

    Args:
        trust: describe an engine by its manifest though it is not the file that the manifest speaks of.

    Raises:
        EdgetlError: it is none of these, or is damaged.
    """
    if path.is_dir():
        return _inspect_directory(path)
    if path.name == _BUNDLE:
        return _inspect_bundle(path)
    if manifest_path(path).is_file() and not is_prepared(path):
        return _inspect_engine(path, trust)
    return _inspect_graph(path)


def _inspect_directory(path: Path) -> Inspection:
    if (path / "stages").is_dir():
        return _inspect_run(path)
    if (path / _BUNDLE).is_file():
        return _inspect_bundle(path / _BUNDLE)
    raise EdgetlError(f"{path} is no run directory (it has no stages) and no bundle (it has no {_BUNDLE}); name a file")


def _inspect_graph(path: Path) -> Inspection:
    model = load_model(path)
    inputs, outputs = graph_tensors(model)
    layers = graph_layers(model)
    return Inspection(
        kind="graph",
        path=str(path),
        inputs=inputs,
        outputs=outputs,
        layers=layers,
        precisions=_precisions(layers),
        figures={"bytes": stored_bytes(path), "nodes": len(model.graph.node), **_costs(model)},
        notes=_notes(model),
        lineage={"sha256": sha256_file(path)},
    )


def _notes(model: Any) -> dict[str, Any]:
    """What is on record, but of divided channels only in how many tensors there are some: it has a number for each."""
    notes = {entry.key: entry.value for entry in model.metadata_props}
    if CHANNELS in notes:
        notes[CHANNELS] = f"of {len(division_of(model))} tensors divided"
    return {"opset": opset(model), "qdq_format": qdq_format(model), **notes}


def _costs(model: Any) -> dict[str, Any]:
    """Parameters and FLOPs of one image; nothing where the graph does not tell them."""
    try:
        cost = CostModel(model).cost()
    except EdgetlError:
        return {}
    return {"parameters": cost.parameters, "flops": cost.flops}


def _inspect_engine(path: Path, trust: bool) -> Inspection:
    manifest = read_manifest(path, trust)
    return Inspection(
        kind="engine",
        path=str(path),
        inputs=manifest.inputs,
        outputs=manifest.outputs,
        layers=manifest.layers,
        precisions=_precisions(manifest.layers),
        figures={
            "bytes": manifest.bytes,
            "build_seconds": manifest.build_seconds,
            "build_peak_mb": manifest.build_peak_mb,
        },
        notes={
            "runtime": manifest.runtime,
            "layers_of": manifest.layers_of,
            "runs_on": manifest.target,
            "built_on": manifest.built_on,
            "built_at": manifest.built_at,
            "options": {name: value for name, value in manifest.options.items() if value not in (None, False)},
        },
        lineage={"sha256": manifest.engine_sha256, "graph": manifest.graph, "graph_sha256": manifest.graph_sha256},
    )


def _inspect_bundle(path: Path) -> Inspection:
    bundle = read_json(path, Bundle)
    backbone = bundle.backbone
    heads = {
        head.name: {"classes": len(head.classes), "cut": head.place, "val_accuracy": round(head.val_accuracy, 4)}
        for head in bundle.heads
    }
    return Inspection(
        kind="bundle",
        path=str(path.parent),
        figures={"heads": len(bundle.heads), "parameters": backbone.parameters},
        notes={"labels": list(bundle.labels), "groups": bundle.groups, "heads": heads},
        lineage={"backbone": backbone.name, "weights": backbone.weights, "fingerprint": backbone.fingerprint},
    )


def _inspect_run(path: Path) -> Inspection:
    run = RunDirectory(path)
    records = [read_json(file, StageRecord) for file in sorted((path / "stages").glob("*.json"))]
    return Inspection(
        kind="run",
        path=str(path),
        figures={record.stage: f"{len(record.outputs)} files" for record in records},
        notes={record.stage: _state(run, record) for record in records},
        lineage={record.stage: {"digest": record.digest, "parents": record.parents} for record in records},
    )


def _state(run: RunDirectory, record: StageRecord) -> str:
    missing = next((name for name in record.outputs if not (run.path / name).is_file()), None)
    if missing is not None:
        return f"{missing} is missing"
    damaged = run.damaged(record)
    return "whole" if damaged is None else f"{damaged} was changed"


def _precisions(layers: Iterable[EngineLayer]) -> dict[str, int]:
    return dict(Counter(layer.precision for layer in layers).most_common())
