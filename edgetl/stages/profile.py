"""Measures latency, memory and energy of all deployments of a study side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgetl.artifacts.engine_manifest import read_manifest
from edgetl.artifacts.files import write_json
from edgetl.artifacts.measurements import Energy, EngineLayers, Scenario, Waterfall
from edgetl.artifacts.results import DeploymentResult, EngineFile, Latency, Profile
from edgetl.engine.footprint import footprint
from edgetl.engine.processor import processor
from edgetl.measure.disturbances import disturbances
from edgetl.measure.environment import describe
from edgetl.measure.latency import compare_latencies, summarise
from edgetl.measure.scenarios.interleave import ScenarioPlan
from edgetl.measure.timing import Load
from edgetl.stages import build_engine
from edgetl.stages.build_engine import PlannedDeployment, engine_paths, planned_deployments
from edgetl.stages.layer_profile import layers_of_study, with_latency
from edgetl.stages.measuring import StoppingRule, energies, time_all, write_samples
from edgetl.stages.scenario_request import refuse_shared_scratch
from edgetl.stages.scenarios import StudySubjects, group_rates, measure_scenarios
from edgetl.stages.serving import DeploymentEngines, load, run_options
from edgetl.stages.stage import Context
from edgetl.stages.tasks import task_of
from edgetl.stages.waterfalls import waterfalls_of_study

_MS_PER_S = 1e3
_WAY_SECONDS = 0.5


@dataclass(frozen=True)
class _Measurements:
    """The measurements of every deployment, by title."""

    latencies: Mapping[str, Latency]
    energies: Mapping[str, Energy]
    waterfalls: Mapping[str, Waterfall]
    layers: Mapping[str, tuple[EngineLayers, ...]]


def inputs(context: Context) -> dict[str, Any]:
    options = context.options
    settings = {name: getattr(options, name) for name in ("threads", "seconds", "interval_width", "energy", "layers")}
    return {**build_engine.inputs(context), **settings, **options.scenarios.settings()}


def work(context: Context) -> list[Path]:
    able = [candidate for candidate in planned_deployments(context) if candidate.unsupported is None]
    options, seed = context.options, context.study.seed
    planned = {one.title: (one.deployment, engine_paths(context, one)) for one in able}
    refuse_shared_scratch(options.scenarios, context.study.engine.share_scratch)
    rates = group_rates(options.scenarios, list(context.study.groups), planned)
    layers = layers_of_study(context, able) if options.layers else {}
    loader, until = _loader(context, planned), StoppingRule(options.seconds, options.interval_width)
    timed = time_all(list(planned), loader, until, seed, context.reporter)
    raw = write_samples(context.run.measurements / "latency", timed.samples)
    latencies = {
        title: summarise(one).replaced(raw=context.run.relative(raw[title])) for title, one in timed.samples.items()
    }
    found = _Measurements(
        latencies=latencies,
        energies=energies(list(planned), loader, options.seconds, seed, context.reporter) if options.energy else {},
        waterfalls=_waterfalls(context, planned),
        layers={title: with_latency(own, latencies[title].p50) for title, own in layers.items()},
    )
    profile = Profile(
        environment=describe(processor(), options.threads),
        # All of them: those that cannot run get a row with the reason.
        deployments=tuple(_summarise(context, candidate, found) for candidate in planned_deployments(context)),
        comparisons=compare_latencies(timed.samples),
        disturbances=disturbances(timed.states),
        scenarios=_scenarios(context, planned, rates),
    )
    for one in profile.deployments:
        if one.latency_ms is not None and not one.latency_ms.stable:
            context.reporter.message(f"profile: {one.title} is UNSTABLE: {one.latency_ms.why_unstable}")
    for reason in profile.disturbances:
        context.reporter.message(f"profile: {reason}")
    written = context.run.measurements / "latency.json"
    write_json(written, profile)
    return [*raw.values(), written]


def _waterfalls(context: Context, planned: DeploymentEngines) -> dict[str, Waterfall]:
    # In a function of its own: the engines are out of memory before scenarios load theirs.
    loaded = load(planned, run_options(context, context.options.threads))
    ready = {title: (deployment, loaded[title]) for title, (deployment, _) in planned.items()}
    return waterfalls_of_study(context, ready, min(_WAY_SECONDS, context.options.seconds / 10))


def _loader(context: Context, planned: DeploymentEngines) -> Load:
    task = task_of(context.study)

    def loader(titles: Sequence[str], number: int) -> dict[str, Callable[[], object]]:
        loaded = load({title: planned[title] for title in titles}, run_options(context, context.options.threads))
        return task.workloads(context, {title: (planned[title][0], loaded[title]) for title in titles}, number)

    return loader


def _scenarios(context: Context, planned: DeploymentEngines, rates: Mapping[str, float]) -> tuple[Scenario, ...]:
    request = context.options.scenarios
    if not request.scenarios:
        return ()
    subjects = StudySubjects(context, task_of(context.study), planned, rates)
    plan = ScenarioPlan(seconds=context.options.seconds, seed=context.study.seed)
    return measure_scenarios(request, subjects, plan, context.reporter)


def _summarise(context: Context, candidate: PlannedDeployment, found: _Measurements) -> DeploymentResult:
    row = candidate.result(context.runtime)
    if candidate.unsupported is not None:
        return row
    title = candidate.title
    latency, energy = found.latencies[title], found.energies.get(title)
    paths = engine_paths(context, candidate)
    manifests = [read_manifest(path) for path in paths]
    engines = tuple(
        EngineFile(file=context.run.relative(path), sha256=manifest.engine_sha256, bytes=manifest.bytes)
        for path, manifest in zip(paths, manifests, strict=True)
    )
    memory = footprint(paths, context.runtime)
    figures = {
        "engines": engines,
        "latency_ms": latency,
        "throughput_ips": _MS_PER_S / latency.mean,
        "memory": memory,
        "memory_mb": memory.process_mb,
        "energy": energy,
        "energy_mj": None if energy is None else energy.mj,
        "layers": found.layers.get(title, ()),
        "waterfall": found.waterfalls.get(title),
    }
    return row.replaced(**figures)
