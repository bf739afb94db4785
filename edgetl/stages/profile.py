"""Engines to latency and memory: all deployments side by side."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

from edgetl.artifacts.deployment import Deployment
from edgetl.artifacts.engine import read_manifest
from edgetl.artifacts.files import write_json
from edgetl.artifacts.results import EngineFile, Measured, Profile
from edgetl.engine.cpu import processor
from edgetl.engine.footprint import footprint
from edgetl.measure.environment import describe
from edgetl.measure.latency import compare, summarise
from edgetl.measure.rounds import Load, Samples
from edgetl.stages import build_engine
from edgetl.stages.build_engine import Candidate, candidates, engine_paths
from edgetl.stages.measuring import Precision, time_all, write_samples
from edgetl.stages.serving import Loaded, load
from edgetl.stages.stage import Context

_MS_PER_S = 1e3


def surroundings(context: Context) -> dict[str, Any]:
    options = context.options
    return {
        **build_engine.surroundings(context),
        "threads": options.threads,
        "seconds": options.seconds,
        "width": options.width,
    }


def work(context: Context) -> list[Path]:
    able = [candidate for candidate in candidates(context) if candidate.unsupported is None]
    options = context.options
    until = Precision(options.seconds, options.width)
    titles = [one.title for one in able]
    samples = time_all(titles, _loader(context, able), until, context.study.seed, context.watcher).samples
    raw = write_samples(context.run.measurements / "latency", samples)
    kept = {title: context.run.relative(path) for title, path in raw.items()}
    measured = tuple(_summarise(context, candidate, samples, kept) for candidate in candidates(context))
    for one in measured:
        if one.latency_ms is not None and not one.latency_ms.stable:
            context.watcher.say(f"profile: {one.title} is UNSTABLE: {one.latency_ms.why_unstable}")
    profile = Profile(
        environment=describe(processor(), options.threads), deployments=measured, comparisons=compare(samples)
    )
    written = context.run.measurements / "latency.json"
    write_json(written, profile)
    return [*raw.values(), written]


class Serving(Protocol):
    """The module of a task that asks its deployments."""

    def workloads(
        self, context: Context, loaded: Mapping[str, tuple[Deployment, Sequence[Loaded]]], number: int
    ) -> dict[str, Callable[[], object]]:
        """A call for each deployment, by title, that takes one image through all of its engines.

        ``number``: how often they were loaded before; where images differ, other ones come first each time.
        """


def _loader(context: Context, able: list[Candidate]) -> Load:
    serving = cast(Serving, importlib.import_module(f"edgetl.stages.{context.study.task}.serving"))
    wanted = {one.title: (one.deployment, engine_paths(context, one)) for one in able}

    def loader(titles: Sequence[str], number: int) -> dict[str, Callable[[], object]]:
        loaded = load({title: wanted[title] for title in titles}, context.options.threads)
        return serving.workloads(context, {title: (wanted[title][0], loaded[title]) for title in titles}, number)

    return loader


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
    memory = footprint(paths, context.runtime)
    figures = {
        "engines": engines,
        "latency_ms": latency,
        "throughput_ips": _MS_PER_S / latency.mean,
        "memory": memory,
        "memory_mb": memory.process_mb,
    }
    return row.model_copy(update=figures)
