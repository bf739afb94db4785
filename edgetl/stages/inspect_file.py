"""Describes a file or directory from its content and the records beside it, without running anything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
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
    """The description of a graph, an engine, a bundle or a run directory.

    Args:
        trust: describe an engine by its manifest although it is not the file that the manifest records.

    Raises:
        EdgetlError: it is none of these, or is damaged.
    """
    if path.is_dir() and (path / "stages").is_dir():
        return inspect_run(path)
    if path.is_dir() or path.name == _BUNDLE:
        bundle = path / _BUNDLE if path.is_dir() else path
        if path.is_dir() and not bundle.is_file():
            raise EdgetlError(
                f"{path} is no run directory (it has no stages) and no bundle (it has no {_BUNDLE}); name a file"
            )
        return inspect_bundle(bundle)
    if manifest_path(path).is_file() and not is_prepared(path):
        return inspect_engine(path, trust)
    return inspect_graph(path)


def inspect_graph(path: Path) -> Inspection:
    model = load_model(path)
    inputs, outputs = graph_tensors(model)
    layers = graph_layers(model)
    figures: dict[str, Any] = {"bytes": stored_bytes(path), "nodes": len(model.graph.node)}
    with suppress(EdgetlError):  # of a graph without fixed shapes nothing can be counted
        cost = CostModel(model).cost()
        figures |= {"parameters": cost.parameters, "flops": cost.flops}
    notes = {entry.key: entry.value for entry in model.metadata_props}
    if CHANNELS in notes:
        # The record has a number for each channel: too long to be shown.
        notes[CHANNELS] = f"of {len(division_of(model))} tensors divided"
    return Inspection(
        kind="graph",
        path=str(path),
        inputs=inputs,
        outputs=outputs,
        layers=layers,
        precisions=_precisions(layers),
        figures=figures,
        notes={"opset": opset(model), "qdq_format": qdq_format(model), **notes},
        lineage={"sha256": sha256_file(path)},
    )


def inspect_engine(path: Path, trust: bool) -> Inspection:
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


def inspect_bundle(path: Path) -> Inspection:
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


def inspect_run(path: Path) -> Inspection:
    run = RunDirectory(path)
    records = [read_json(file, StageRecord) for file in sorted((path / "stages").glob("*.json"))]
    states = {}
    for record in records:
        missing = next((name for name in record.outputs if not (run.path / name).is_file()), None)
        damaged = None if missing else run.damaged(record)
        states[record.stage] = f"{missing} is missing" if missing else f"{damaged} was changed" if damaged else "whole"
    return Inspection(
        kind="run",
        path=str(path),
        figures={record.stage: f"{len(record.outputs)} files" for record in records},
        notes=states,
        lineage={record.stage: {"digest": record.digest, "parents": record.parents} for record in records},
    )


def _precisions(layers: Iterable[EngineLayer]) -> dict[str, int]:
    return dict(Counter(layer.precision for layer in layers).most_common())
