"""Prepared graphs to engines, on the machine that will run them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgetl.artifacts.accuracy_control_record import AccuracyControlResult, StudyAccuracyControl
from edgetl.artifacts.deployment import Deployment, GraphSpec, Shortlist
from edgetl.artifacts.engine_manifest import manifest_path
from edgetl.artifacts.files import read_json
from edgetl.artifacts.results import DeploymentResult
from edgetl.engine.nvidia.timing_cache import cache_folder
from edgetl.engine.runtime import BuildOptions, BuildResources, build_engine, get_runtime
from edgetl.errors import EdgetlError
from edgetl.stages.stage import Context


@dataclass(frozen=True)
class PlannedDeployment:
    """A deployment in a precision. ``unsupported``: why it is not run (the runtime cannot, or INT8 loses too much)."""

    deployment: Deployment
    precision: str
    unsupported: str | None

    @property
    def title(self) -> str:
        return f"{self.deployment.name} {self.precision}"

    @property
    def graphs(self) -> tuple[GraphSpec, ...]:
        return self.deployment.graphs

    def result(self, runtime: str) -> DeploymentResult:
        """Its row in results.json, without figures yet."""
        one = self.deployment
        return DeploymentResult(
            name=one.name,
            precision=self.precision,
            runtime=runtime,
            cuts=one.cuts,
            flops=one.flops,
            unsupported=self.unsupported,
        )


def planned_deployments(context: Context) -> tuple[PlannedDeployment, ...]:
    """Every deployment of the shortlist in every precision of the study."""
    runtime = get_runtime(context.runtime)
    controlled = accuracy_control_result(context)
    missed = {"int8": controlled.why_not_met} if controlled is not None else {}
    return tuple(
        PlannedDeployment(deployment, precision, runtime.unsupported(precision) or missed.get(precision))
        for deployment in read_json(context.run.shortlist, Shortlist).deployments
        for precision in context.study.precisions
    )


def accuracy_control_result(context: Context) -> AccuracyControlResult | None:
    """The result of accuracy control for the runtime's INT8; None where the study has no accuracy control."""
    if context.study.accuracy_control is None:
        return None
    return read_json(context.run.accuracy_control, StudyAccuracyControl).formats[
        get_runtime(context.runtime).QDQ_FORMAT
    ]


def engine_paths(context: Context, candidate: PlannedDeployment) -> tuple[Path, ...]:
    """The paths of the engines of a candidate."""
    suffix = get_runtime(context.runtime).SUFFIX
    folder = context.run.engines / context.runtime
    return tuple(folder / f"{spec.stem}.{candidate.precision}{suffix}" for spec in candidate.graphs)


def inputs(context: Context) -> dict[str, Any]:
    """The machine, as far as engines are tied to it. Measurements of them are tied to it too."""
    return dict(get_runtime(context.runtime).target(_options(context)))


def _options(context: Context) -> BuildOptions:
    """The options to build a study's engines with; the batch stays the graph's, for `evaluate` gives them many images.

    Raises:
        EdgetlError: the study asks for a way of running engines that the runtime does not have.
    """
    engine = context.study.engine
    if (engine.cuda_graph or engine.share_scratch) and context.runtime.startswith("onnxruntime"):
        raise EdgetlError(
            f"{context.runtime} has no CUDA graphs and no scratch memory to share; take engine.cuda_graph and "
            "engine.share_scratch out of the study, or name runtime tensorrt or tensorrt-rtx"
        )
    settings = engine.model_dump(exclude={"cuda_graph", "share_scratch"})
    return BuildOptions(compute_capability=context.options.compute_capability, **settings)


def work(context: Context) -> list[Path]:
    runtime = get_runtime(context.runtime)
    able = [candidate for candidate in planned_deployments(context) if candidate.unsupported is None]
    for candidate in planned_deployments(context):
        if candidate.unsupported is not None:
            context.reporter.message(f"build-engine: no {candidate.title}: {candidate.unsupported}")
    if not able:
        raise EdgetlError(f"none of the study's precisions can be run by {context.runtime}; name another in precisions")
    # Deployments share graphs: each engine is built once.
    graphs = {engine: graph for candidate in able for engine, graph in engine_graphs(context, candidate)}
    with context.reporter.progress("building engines", len(graphs)) as advance:
        for engine, graph in graphs.items():
            build_engine(runtime, graph, engine, _options(context), BuildResources(cache_folder()))
            advance(1)
    context.reporter.message(f"build-engine: {len(graphs)} engines in {context.run.engines / context.runtime}")
    return [file for engine in graphs for file in (engine, manifest_path(engine))]


def engine_graphs(context: Context, candidate: PlannedDeployment) -> Iterator[tuple[Path, Path]]:
    """A candidate's engines and the graphs to build them from. Trees of ``specialised`` share some of them."""
    runtime = get_runtime(context.runtime)
    for spec, engine in zip(candidate.graphs, engine_paths(context, candidate), strict=True):
        yield engine, context.run.graphs / spec.file(candidate.precision, runtime.QDQ_FORMAT)
