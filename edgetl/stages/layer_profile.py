"""The time of each layer of an engine, assigned to the nodes of the graph that it was built from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgetl.artifacts.engine_manifest import read_manifest
from edgetl.artifacts.files import sha256_file
from edgetl.artifacts.measurements import EngineLayers
from edgetl.engine.layer_times import origins
from edgetl.engine.runtime import RunOptions, load_engine, time_layers
from edgetl.graph.model import load_model
from edgetl.graph.trunk_and_heads import parts
from edgetl.measure.layer_breakdown import EngineProfile, NodeTime, fold
from edgetl.stages.build_engine import PlannedDeployment, engine_graphs
from edgetl.stages.measuring import engine_call
from edgetl.stages.serving import run_options
from edgetl.stages.stage import Context


def engine_layers(
    name: str, engine: Path, graph: Path | None, run: RunOptions, batch: int = 1, trust: bool = False
) -> EngineLayers:
    """The times of an engine's layers on random images.

    Args:
        name: the engine's name.
        graph: the graph it was built from; None where only the engine is there: layers then have no nodes.

    Raises:
        EdgetlError: as `load_engine` does, or the runtime tells no times of layers.
    """
    inputs = engine_call(load_engine(engine, trust=trust, run=run), batch).inputs
    times = time_layers(engine, inputs, trust=trust, run=run)
    model = None if graph is None else load_model(graph)
    find = None if model is None else origins(model)
    timed = [
        NodeTime(layer.name, None if find is None else find(layer), layer.operator, layer.ms) for layer in times.layers
    ]
    whole = EngineProfile(name, times.source, times.runs, times.whole_ms)
    return fold(timed, whole, {} if model is None else parts(model))


def graph_of_engine(engine: Path) -> Path | None:
    """The graph that an engine was built from, if it still lies beside it."""
    # Trusted: only the graph's name is taken, and the graph is checked by its digest.
    manifest = read_manifest(engine, trust=True)
    graph = engine.with_name(manifest.graph)
    return graph if graph.is_file() and sha256_file(graph) == manifest.graph_sha256 else None


def layers_of_study(context: Context, able: Sequence[PlannedDeployment]) -> dict[str, tuple[EngineLayers, ...]]:
    """The times of layers of every candidate's engines, by title. Engines that candidates share are timed once."""
    graphs = {engine: graph for candidate in able for engine, graph in engine_graphs(context, candidate)}
    run = run_options(context, context.options.threads)
    found: dict[Path, EngineLayers] = {}
    with context.reporter.progress("timing layers", len(graphs)) as advance:
        for engine, graph in graphs.items():
            found[engine] = engine_layers(context.run.relative(engine), engine, graph, run)
            advance(1)
    return {one.title: tuple(found[engine] for engine, _ in engine_graphs(context, one)) for one in able}


def with_latency(layers: Sequence[EngineLayers], p50: float) -> tuple[EngineLayers, ...]:
    """The layers with the latency that was measured without a profiler, where it is the latency of one engine."""
    if len(layers) != 1:
        return tuple(layers)  # the latency is that of all of them together
    return (layers[0].replaced(latency_ms=p50),)
