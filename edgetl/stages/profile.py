"""Engines to latency and memory: all deployments side by side."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from edgetl.artifacts.engine import read_manifest
from edgetl.artifacts.files import write_json
from edgetl.artifacts.results import EngineFile, Measured, Profile
from edgetl.artifacts.scenarios import Scenario
from edgetl.engine.cpu import processor
from edgetl.engine.footprint import peak_mb
from edgetl.measure.environment import describe
from edgetl.measure.latency import compare, summarise
from edgetl.measure.rounds import Load, Samples
from edgetl.measure.scenarios.rounds import Plan
from edgetl.stages import build_engine
from edgetl.stages.build_engine import Candidate, candidates, engine_paths
from edgetl.stages.measuring import Precision, time_all, write_samples
from edgetl.stages.scenario_order import refuse_shared_scratch
from edgetl.stages.scenarios import measure_scenarios
from edgetl.stages.serving import load, run_options
from edgetl.stages.stage import Context
from edgetl.stages.study_scenarios import Serving, StudySubjects, Wanted, group_rates

_MS_PER_S = 1e3


def surroundings(context: Context) -> dict[str, Any]:
    options = context.options
    return {
        **build_engine.surroundings(context),
        "threads": options.threads,
        "seconds": options.seconds,
        "width": options.width,
        **options.scenarios.settings(),
    }


def work(context: Context) -> list[Path]:
    able = [candidate for candidate in candidates(context) if candidate.unsupported is None]
    options = context.options
    until = Precision(options.seconds, options.width)
    titles = [one.title for one in able]
    wanted = {one.title: (one.deployment, engine_paths(context, one)) for one in able}
    refuse_shared_scratch(options.scenarios, context.study.engine.share_scratch)
    rates = group_rates(options.scenarios, list(context.study.groups), wanted)
    samples = time_all(titles, _loader(context, wanted), until, context.study.seed, context.watcher).samples
    raw = write_samples(context.run.measurements / "latency", samples)
    kept = {title: context.run.relative(path) for title, path in raw.items()}
    measured = tuple(_summarise(context, candidate, samples, kept) for candidate in candidates(context))
    for one in measured:
        if one.latency_ms is not None and not one.latency_ms.stable:
            context.watcher.say(f"profile: {one.title} is UNSTABLE: {one.latency_ms.why_unstable}")
    profile = Profile(
        environment=describe(processor(), options.threads),
        deployments=measured,
        comparisons=compare(samples),
        scenarios=_scenarios(context, wanted, rates),
    )
    written = context.run.measurements / "latency.json"
    write_json(written, profile)
    return [*raw.values(), written]


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


def _summarise(
    context: Context, candidate: Candidate, samples: Mapping[str, Samples], raw: Mapping[str, str]
) -> Measured:
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
    latency = summarise(samples[candidate.title]).model_copy(update={"raw": raw[candidate.title]})
    paths = engine_paths(context, candidate)
    manifests = [read_manifest(path) for path in paths]
    engines = tuple(
        EngineFile(file=context.run.relative(path), sha256=manifest.engine_sha256, bytes=manifest.bytes)
        for path, manifest in zip(paths, manifests, strict=True)
    )
    figures = {
        "engines": engines,
        "latency_ms": latency,
        "throughput_ips": _MS_PER_S / latency.mean,
        "memory_mb": peak_mb(paths, context.runtime),
    }
    return row.model_copy(update=figures)
