"""Engines to latency and memory: all deployments side by side."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

from edgetl.artifacts.deployment import Deployment
from edgetl.artifacts.energy import Energy
from edgetl.artifacts.engine import read_manifest
from edgetl.artifacts.files import write_json
from edgetl.artifacts.layers import Layers
from edgetl.artifacts.results import EngineFile, Latency, Measured, Profile
from edgetl.artifacts.waterfall import Waterfall
from edgetl.engine.cpu import processor
from edgetl.engine.footprint import footprint
from edgetl.measure.disturbances import disturbances
from edgetl.measure.environment import describe
from edgetl.measure.latency import compare, summarise
from edgetl.measure.rounds import Load
from edgetl.stages import build_engine
from edgetl.stages.build_engine import Candidate, candidates, engine_paths
from edgetl.stages.energy import energies
from edgetl.stages.layers import beside_latency, layers_of_study
from edgetl.stages.measuring import Precision, time_all, write_samples
from edgetl.stages.serving import Loaded, load, run_options
from edgetl.stages.stage import Context
from edgetl.stages.waterfall import waterfalls_of_study

_MS_PER_S = 1e3
_WAY_SECONDS = 0.5


def surroundings(context: Context) -> dict[str, Any]:
    options = context.options
    settings = ("threads", "seconds", "width", "energy", "layers")
    return {**build_engine.surroundings(context), **{name: getattr(options, name) for name in settings}}


def work(context: Context) -> list[Path]:
    able = [candidate for candidate in candidates(context) if candidate.unsupported is None]
    options, seed = context.options, context.study.seed
    layers = layers_of_study(context, able) if options.layers else {}
    loader = _loader(context, able)
    titles, until = [one.title for one in able], Precision(options.seconds, options.width)
    timed = time_all(titles, loader, until, seed, context.watcher)
    raw = write_samples(context.run.measurements / "latency", timed.samples)
    kept = {title: context.run.relative(path) for title, path in raw.items()}
    latencies = {title: summarise(one).model_copy(update={"raw": kept[title]}) for title, one in timed.samples.items()}
    found = _Found(
        latencies=latencies,
        energies=energies(titles, loader, options.seconds, seed, context.watcher) if options.energy else {},
        waterfalls=waterfalls_of_study(context, _loaded(context, able), min(_WAY_SECONDS, options.seconds / 10)),
        layers={title: beside_latency(own, latencies[title].p50) for title, own in layers.items()},
    )
    measured = tuple(_summarise(context, candidate, found) for candidate in candidates(context))
    for one in measured:
        if one.latency_ms is not None and not one.latency_ms.stable:
            context.watcher.say(f"profile: {one.title} is UNSTABLE: {one.latency_ms.why_unstable}")
    disturbed = disturbances(timed.states)
    for reason in disturbed:
        context.watcher.say(f"profile: {reason}")
    profile = Profile(
        environment=describe(processor(), options.threads),
        deployments=measured,
        comparisons=compare(timed.samples),
        disturbances=disturbed,
    )
    written = context.run.measurements / "latency.json"
    write_json(written, profile)
    return [*raw.values(), written]


@dataclass(frozen=True)
class _Found:
    """What was measured, by title."""

    latencies: Mapping[str, Latency]
    energies: Mapping[str, Energy]
    waterfalls: Mapping[str, Waterfall]
    layers: Mapping[str, tuple[Layers, ...]]


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

    def loader(titles: Sequence[str], number: int) -> dict[str, Callable[[], object]]:
        wanted = {one.title: one for one in able}
        return serving.workloads(context, _loaded(context, [wanted[title] for title in titles]), number)

    return loader


def _loaded(context: Context, able: Sequence[Candidate]) -> dict[str, tuple[Deployment, tuple[Loaded, ...]]]:
    """Deployments with their engines, by title, loaded in this order."""
    wanted = {one.title: (one.deployment, engine_paths(context, one)) for one in able}
    loaded = load(wanted, run_options(context, context.options.threads))
    return {one.title: (one.deployment, loaded[one.title]) for one in able}


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
