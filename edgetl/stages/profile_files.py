"""Latencies of plain ONNX files and engines, side by side, without a study."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from edgetl.artifacts.energy import Energy
from edgetl.artifacts.engine import read_manifest
from edgetl.artifacts.files import write_json
from edgetl.artifacts.memory import Memory
from edgetl.artifacts.results import EngineFile, Measured, Profile
from edgetl.artifacts.scenarios import Scenario
from edgetl.engine.cpu import processor
from edgetl.engine.footprint import footprint
from edgetl.engine.runtime import BuildOptions, RunOptions, build_engine, get_runtime, load_engine
from edgetl.errors import EdgetlError
from edgetl.graph.model import load_model
from edgetl.graph.quantise import spelling
from edgetl.measure.disturbances import disturbances
from edgetl.measure.environment import describe
from edgetl.measure.latency import compare, summarise
from edgetl.measure.rounds import Call, Samples
from edgetl.measure.scenarios.rounds import Plan
from edgetl.stages.energy import energies
from edgetl.stages.file_scenarios import FileSubjects, file_rates
from edgetl.stages.input_contract import image_shape
from edgetl.stages.layers import beside_latency, engine_layers, graph_beside
from edgetl.stages.measuring import EngineCall, Precision, engine_call, time_all, write_samples
from edgetl.stages.scenario_order import ScenarioOrder, refuse_shared_scratch
from edgetl.stages.scenarios import measure_scenarios
from edgetl.stages.stage import Watcher
from edgetl.stages.waterfall import waterfall_of_model

ENGINE = ".engine"
"""Ends the name of TensorRT's engines; those of ONNX Runtime are ONNX files."""

_MS_PER_S = 1e3
_WAY_SECONDS = 2.0


@dataclass(frozen=True)
class FileOrder:
    """Files to be measured: ONNX files on ONNX Runtime, engines on what built them. Their paths are the names.

    ``batch``: images of one inference. ``scenarios``: what is measured beside latency. ``trust``: engines are loaded
    though they are not the files that their manifests speak of. ``output``: a folder for figures and raw samples.
    ``energy`` and ``layers``: whether these are measured too. ``images``: a folder of images whose way to the models'
    answers is measured.
    """

    files: tuple[Path, ...]
    until: Precision = field(default_factory=Precision)
    run: RunOptions = field(default_factory=RunOptions)
    batch: int = 1
    scenarios: ScenarioOrder = field(default_factory=ScenarioOrder)
    trust: bool = False
    output: Path | None = None
    energy: bool = True
    layers: bool = False
    images: Path | None = None


def profile_files(order: FileOrder, watcher: Watcher) -> Profile:
    """Measure files side by side.

    Raises:
        EdgetlError: a file cannot be read or loaded, is named twice, or is INT8 in TensorRT's spelling; or a run option
            is none of its runtime's; or a scenario cannot be measured of these files.
    """
    names = [str(path) for path in order.files]
    if len(set(names)) < len(names):
        raise EdgetlError("a file is named twice; give each file once")
    refuse_shared_scratch(order.scenarios, order.run.scratch is not None)
    rates = file_rates(order.scenarios, names)
    with tempfile.TemporaryDirectory() as scratch:
        engines = {name: _engine(Path(name), Path(scratch) / f"{n}.onnx", order) for n, name in enumerate(names)}

        def load(wanted: Sequence[str], number: int) -> Mapping[str, Call]:
            del number
            return {name: _call(engines[name], order) for name in wanted}

        details = {name: _details(name, engine, order) for name, engine in engines.items()}
        timed = time_all(names, load, order.until, 0, watcher)
        raw = {} if order.output is None else write_samples(order.output / "latency", timed.samples)
        joules = energies(names, load, order.until.seconds, 0, watcher) if order.energy else {}
        scenarios = _scenarios(engines, order, rates, watcher)
        rows = [_row(name, engines[name], timed.samples[name], raw.get(name), order) for name in names]
    profile = Profile(
        environment=describe(processor(), order.run.threads),
        deployments=tuple(_with(row, details[row.name], joules.get(row.name)) for row in rows),
        comparisons=compare(timed.samples),
        disturbances=disturbances(timed.states),
        scenarios=scenarios,
    )
    if order.output is not None:
        write_json(order.output / "profile.json", profile)
    return profile


def _details(name: str, engine: Path, order: FileOrder) -> dict[str, Any]:
    """What is measured apart from the others, before latency: what cannot be told is refused before that takes time."""
    found: dict[str, Any] = {}
    if order.images is not None:
        found["waterfall"] = waterfall_of_model(Path(name), order.images, order.run.threads, _WAY_SECONDS)
    if order.layers:
        graph = graph_beside(engine) if engine.suffix == ENGINE else Path(name)
        found["layers"] = (engine_layers(name, engine, graph, order.run, order.batch, order.trust),)
    memory = _memory(engine, order.trust)
    return {**found, "memory": memory, "memory_mb": memory.process_mb}


def _memory(engine: Path, trust: bool) -> Memory:
    """Null with the reason where the process that measures it fails: latency can be told all the same."""
    try:
        return footprint([engine], read_manifest(engine, trust=True).runtime, trust)
    except EdgetlError as error:
        return Memory(reason=str(error))


def _with(row: Measured, details: Mapping[str, Any], energy: Energy | None) -> Measured:
    assert row.latency_ms is not None, "plain files are always measured"
    layers = beside_latency(details.get("layers", ()), row.latency_ms.p50)
    joules = {} if energy is None else {"energy": energy, "energy_mj": energy.mj}
    return row.model_copy(update={**details, "layers": layers, **joules})


def _engine(path: Path, scratch: Path, order: FileOrder) -> Path:
    """The engine of a file: itself, or what ONNX Runtime makes of a graph."""
    if path.suffix == ENGINE:
        return path
    for option in ("cuda_graph", "spin_wait"):
        if getattr(order.run, option):
            raise EdgetlError(f"{path} runs on the CPU, where there is no --{option.replace('_', '-')}; leave it out")
    if not order.run.transfers:
        raise EdgetlError(f"{path} runs on the CPU, where nothing is copied to a device; leave --no-transfers out")
    model = load_model(path)
    if spelling(model) == "tensorrt":
        raise EdgetlError(
            f"{path} is INT8 in TensorRT's spelling, whose speed on ONNX Runtime says nothing of INT8's; prepare it "
            "with --target onnxruntime"
        )
    image_shape(model)
    build_engine(get_runtime("onnxruntime"), path, scratch, BuildOptions())
    return scratch


def _call(engine: Path, order: FileOrder) -> EngineCall:
    timed = replace(order.run, timed=engine.suffix == ENGINE)
    return engine_call(load_engine(engine, trust=order.trust, run=timed), order.batch)


def _scenarios(
    engines: Mapping[str, Path], order: FileOrder, rates: Mapping[str, float], watcher: Watcher
) -> tuple[Scenario, ...]:
    if not order.scenarios.scenarios:
        return ()
    opens = {name: partial(load_engine, path, trust=order.trust, run=order.run) for name, path in engines.items()}
    subjects = FileSubjects(opens, order.scenarios, rates)
    return measure_scenarios(order.scenarios, subjects, Plan(seconds=order.until.seconds), watcher)


def _row(name: str, engine: Path, samples: Samples, raw: Path | None, order: FileOrder) -> Measured:
    latency, manifest = summarise(samples), read_manifest(engine, trust=True)
    if raw is not None and order.output is not None:
        latency = latency.model_copy(update={"raw": raw.relative_to(order.output).as_posix()})
    return Measured(
        name=name,
        precision="as in the file",
        runtime=manifest.runtime,
        engines=(EngineFile(file=name, sha256=manifest.graph_sha256, bytes=Path(name).stat().st_size),),
        latency_ms=latency,
        throughput_ips=_MS_PER_S * order.batch / latency.mean,
    )
