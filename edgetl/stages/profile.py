"""Engines to latency and memory: all deployments side by side."""

from __future__ import annotations

import importlib
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt

from edgetl.artifacts.deployment import Deployment
from edgetl.artifacts.engine import read_manifest
from edgetl.artifacts.files import file_stem, write_bytes, write_json
from edgetl.artifacts.results import EngineFile, Measured, Profile
from edgetl.artifacts.run import RunDirectory
from edgetl.engine.cpu import processor
from edgetl.engine.footprint import footprint
from edgetl.measure.environment import describe
from edgetl.measure.latency import Plan, Samples, compare, measure, summarise
from edgetl.stages import build_engine
from edgetl.stages.build_engine import Candidate, candidates, engine_paths
from edgetl.stages.serving import Loaded, load
from edgetl.stages.stage import Context

_MS_PER_S = 1e3


def surroundings(context: Context) -> dict[str, Any]:
    options = context.options
    return {**build_engine.surroundings(context), "threads": options.threads, "seconds": options.seconds}


def work(context: Context) -> list[Path]:
    able = [candidate for candidate in candidates(context) if candidate.unsupported is None]
    samples = _measure(context, _workloads(context, able))
    measured = tuple(_summarise(context, candidate, samples) for candidate in candidates(context))
    for one in measured:
        if one.latency_ms is not None and not one.latency_ms.stable:
            context.watcher.say(f"profile: {one.title} is UNSTABLE: {one.latency_ms.why_unstable}")
    profile = Profile(
        environment=describe(processor(), context.options.threads), deployments=measured, comparisons=compare(samples)
    )
    return [*_write_samples(context.run, samples), _write(context.run, profile)]


class Serving(Protocol):
    """The module of a task that asks its deployments."""

    def workloads(
        self, context: Context, loaded: Mapping[str, tuple[Deployment, Sequence[Loaded]]]
    ) -> dict[str, Callable[[], object]]:
        """A call for each deployment, by title, that takes one image through all of its engines."""


def _workloads(context: Context, able: list[Candidate]) -> dict[str, Callable[[], object]]:
    serving = cast(Serving, importlib.import_module(f"edgetl.stages.{context.study.task}.serving"))
    wanted = {one.title: (one.deployment, engine_paths(context, one)) for one in able}
    loaded = load(wanted, context.options.threads)
    return serving.workloads(context, {title: (wanted[title][0], engines) for title, engines in loaded.items()})


def _measure(context: Context, calls: dict[str, Callable[[], object]]) -> dict[str, Samples]:
    plan = Plan(seconds=context.options.seconds, seed=context.study.seed)
    done = 0.0
    with context.watcher.progress("measuring latency", 1.0) as advance:

        def watch(share: float) -> None:
            nonlocal done
            advance(share - done)
            done = share

        return measure(calls, plan, watch)


def _summarise(context: Context, candidate: Candidate, samples: dict[str, Samples]) -> Measured:
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
    latency = summarise(samples[candidate.title])
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


def _write_samples(run: RunDirectory, samples: dict[str, Samples]) -> list[Path]:
    """The raw times (rounds x repeats, ms), so that any figure can be recomputed."""
    paths = []
    for title, one in samples.items():
        path = run.measurements / "latency" / f"{file_stem(title.replace(' ', '.'))}.npy"
        buffer = io.BytesIO()
        times: npt.NDArray[np.float64] = one.times
        np.save(buffer, times, allow_pickle=False)
        write_bytes(path, buffer.getvalue())
        paths.append(path)
    return paths


def _write(run: RunDirectory, profile: Profile) -> Path:
    path = run.measurements / "latency.json"
    write_json(path, profile)
    return path
