"""Engines to latency and memory: all deployments side by side."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from edgetl.artifacts.energy import Energy
from edgetl.artifacts.engine import read_manifest
from edgetl.artifacts.files import write_json
from edgetl.artifacts.layers import Layers
from edgetl.artifacts.results import EngineFile, Latency, Measured, Profile
from edgetl.artifacts.scenarios import Scenario
from edgetl.artifacts.waterfall import Waterfall
from edgetl.engine.cpu import processor
from edgetl.engine.footprint import footprint
from edgetl.measure.disturbances import disturbances
from edgetl.measure.environment import describe
from edgetl.measure.latency import compare, summarise
from edgetl.measure.rounds import Load
from edgetl.measure.scenarios.rounds import Plan
from edgetl.stages import build_engine
from edgetl.stages.build_engine import Candidate, candidates, engine_paths
from edgetl.stages.energy import energies
from edgetl.stages.layers import beside_latency, layers_of_study
from edgetl.stages.measuring import Precision, time_all, write_samples
from edgetl.stages.scenario_order import refuse_shared_scratch
from edgetl.stages.scenarios import measure_scenarios
from edgetl.stages.serving import load, run_options
from edgetl.stages.stage import Context
from edgetl.stages.study_scenarios import Serving, StudySubjects, Wanted, group_rates
from edgetl.stages.waterfall import waterfalls_of_study

_MS_PER_S = 1e3
_WAY_SECONDS = 0.5


@dataclass(frozen=True)
class _Found:
    """What was measured, by title."""

    latencies: Mapping[str, Latency]
    energies: Mapping[str, Energy]
    waterfalls: Mapping[str, Waterfall]
    layers: Mapping[str, tuple[Layers, ...]]


def surroundings(context: Context) -> dict[str, Any]:
    options = context.options
    settings = {name: getattr(options, name) for name in ("threads", "seconds", "width", "energy", "layers")}
    return {**build_engine.surroundings(context), **settings, **options.scenarios.settings()}


def work(context: Context) -> list[Path]:
    able = [candidate for candidate in candidates(context) if candidate.unsupported is None]
    options, seed = context.options, context.study.seed
    wanted = {one.title: (one.deployment, engine_paths(context, one)) for one in able}
    refuse_shared_scratch(options.scenarios, context.study.engine.share_scratch)
    rates = group_rates(options.scenarios, list(context.study.groups), wanted)
    layers = layers_of_study(context, able) if options.layers else {}
    loader, until = _loader(context, wanted), Precision(options.seconds, options.width)
    timed = time_all(list(wanted), loader, until, seed, context.watcher)
    raw = write_samples(context.run.measurements / "latency", timed.samples)
    latencies = {
        title: summarise(one).model_copy(update={"raw": context.run.relative(raw[title])})
        for title, one in timed.samples.items()
    }
    found = _Found(
        latencies=latencies,
        energies=energies(list(wanted), loader, options.seconds, seed, context.watcher) if options.energy else {},
        waterfalls=_waterfalls(context, wanted),
        layers={title: beside_latency(own, latencies[title].p50) for title, own in layers.items()},
    )
    profile = Profile(
        environment=describe(processor(), options.threads),
        deployments=tuple(_summarise(context, candidate, found) for candidate in candidates(context)),
        comparisons=compare(timed.samples),
        disturbances=disturbances(timed.states),
        scenarios=_scenarios(context, wanted, rates),
    )
    _tell(context, profile)
    written = context.run.measurements / "latency.json"
    write_json(written, profile)
    return [*raw.values(), written]


def _tell(context: Context, profile: Profile) -> None:
    """What the user should know before believing the figures."""
    for one in profile.deployments:
        if one.latency_ms is not None and not one.latency_ms.stable:
            context.watcher.say(f"profile: {one.title} is UNSTABLE: {one.latency_ms.why_unstable}")
    for reason in profile.disturbances:
        context.watcher.say(f"profile: {reason}")


def _waterfalls(context: Context, wanted: Wanted) -> dict[str, Waterfall]:
    loaded = load(wanted, run_options(context, context.options.threads))
    ready = {title: (deployment, loaded[title]) for title, (deployment, _) in wanted.items()}
    return waterfalls_of_study(context, ready, min(_WAY_SECONDS, context.options.seconds / 10))


def _serving(context: Context) -> Serving:
    return cast(Serving, importlib.import_module(f"edgetl.stages.{context.study.task}.serving"))


def _loader(context: Context, wanted: Wanted) -> Load:
    serving = _serving(context)

    def loader(titles: Sequence[str], number: int) -> dict[str, Callable[[], object]]:
        loaded = load({title: wanted[title] for title in titles}, run_options(context, context.options.threads))
        return serving.workloads(context, {title: (wanted[title][0], loaded[title]) for title in titles}, number)

    return loader


def _scenarios(context: Context, wanted: Wanted, rates: Mapping[str, float]) -> tuple[Scenario, ...]:
    order = context.options.scenarios
    if not order.scenarios:
        return ()
    subjects = StudySubjects(context, _serving(context), wanted, rates)
    plan = Plan(seconds=context.options.seconds, seed=context.study.seed)
    return measure_scenarios(order, subjects, plan, context.watcher)


def _summarise(context: Context, candidate: Candidate, found: _Found) -> Measured:
    row = Measured(
        name=candidate.deployment.name,
        precision=candidate.precision,
        runtime=context.runtime,
        cuts=candidate.deployment.cuts,
        flops=candidate.deployment.flops,
        unsupported=candidate.unsupported,
    )
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
    return row.model_copy(update=figures)
