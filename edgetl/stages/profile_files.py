"""Measures plain ONNX files and engines side by side, without a study."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from edgetl.artifacts.engine_manifest import manifest_path, read_manifest
from edgetl.artifacts.files import write_json
from edgetl.artifacts.measurements import Memory, Scenario
from edgetl.artifacts.prepared import is_prepared
from edgetl.artifacts.results import AS_IN_FILE, DeploymentResult, EngineFile, Latency, Profile
from edgetl.engine.footprint import footprint
from edgetl.engine.processor import processor
from edgetl.engine.runtime import BuildOptions, RunOptions, build_engine, get_runtime, load_engine
from edgetl.errors import EdgetlError
from edgetl.graph.model import load_model
from edgetl.graph.quantize import qdq_format
from edgetl.measure.disturbances import disturbances
from edgetl.measure.environment import describe
from edgetl.measure.latency import compare_latencies, summarise
from edgetl.measure.scenarios.interleave import ScenarioPlan
from edgetl.measure.timing import Workload
from edgetl.stages.input_contract import image_shape
from edgetl.stages.layer_profile import engine_layers, graph_of_engine, with_latency
from edgetl.stages.measuring import StoppingRule, energies, engine_call, time_all, write_samples
from edgetl.stages.scenario_request import ScenarioRequest, refuse_shared_scratch
from edgetl.stages.scenarios import FileSubjects, file_rates, measure_scenarios
from edgetl.stages.stage import ProgressReporter
from edgetl.stages.waterfalls import waterfall_of_model

ENGINE = ".engine"
"""The suffix of TensorRT's engines; those of ONNX Runtime are ONNX files."""

_MS_PER_S = 1e3
_WAY_SECONDS = 2.0


@dataclass(frozen=True)
class ProfileRequest:
    """Files to measure, by name: ONNX files on ONNX Runtime, engines on the runtime that built them.

    ``batch``: images of one inference. ``scenarios`` are measured beside latency. ``trust``: load engines although they
    are not the files that their manifests record. ``output``: a folder for figures and raw samples. ``energy`` and
    ``layers``: whether these are measured too. ``images``: a folder of images for the time from file to answer.
    """

    files: Mapping[str, Path]
    until: StoppingRule = field(default_factory=StoppingRule)
    run: RunOptions = field(default_factory=RunOptions)
    batch: int = 1
    scenarios: ScenarioRequest = field(default_factory=ScenarioRequest)
    trust: bool = False
    output: Path | None = None
    energy: bool = True
    layers: bool = False
    images: Path | None = None


def by_path(files: Iterable[Path]) -> dict[str, Path]:
    """The files by their paths as they were given.

    Raises:
        EdgetlError: a file is named twice.
    """
    named = [(str(path), path) for path in files]
    if len(dict(named)) < len(named):
        raise EdgetlError("a file is named twice; give each file once")
    return dict(named)


def profile_files(request: ProfileRequest, reporter: ProgressReporter) -> Profile:
    """The profile of files, measured side by side.

    Raises:
        EdgetlError: a file cannot be read or loaded, or is INT8 in TensorRT's QDQ format; or its
            runtime lacks a run option; or a scenario cannot be measured of these files.
    """
    names = list(request.files)
    refuse_shared_scratch(request.scenarios, request.run.scratch is not None)
    rates = file_rates(request.scenarios, names)
    with tempfile.TemporaryDirectory() as scratch:
        engines = {
            name: _engine(path, Path(scratch) / f"{n}.onnx", request)
            for n, (name, path) in enumerate(request.files.items())
        }
        profile = _profile(engines, request, rates, reporter)
    if request.output is not None:
        write_json(request.output / "profile.json", profile)
    return profile


def _profile(
    engines: Mapping[str, Path], request: ProfileRequest, rates: Mapping[str, float], reporter: ProgressReporter
) -> Profile:
    """The profile of engines by the names of their files."""
    names, load = list(engines), partial(_load, engines, request)
    details = {name: _details(name, engine, request) for name, engine in engines.items()}
    timed = time_all(names, load, request.until, 0, reporter)
    latencies = {name: summarise(samples) for name, samples in timed.samples.items()}
    if request.output is not None:
        for name, raw in write_samples(request.output / "latency", timed.samples).items():
            latencies[name] = latencies[name].replaced(raw=raw.relative_to(request.output).as_posix())
    if request.energy:
        for name, energy in energies(names, load, request.until.seconds, 0, reporter).items():
            details[name] |= {"energy": energy, "energy_mj": energy.mj}
    return Profile(
        environment=describe(processor(), request.run.threads),
        deployments=tuple(_row(name, latencies[name], details[name], engines[name], request) for name in names),
        comparisons=compare_latencies(timed.samples),
        disturbances=disturbances(timed.states),
        scenarios=_scenarios(engines, request, rates, reporter),
    )


def _load(
    engines: Mapping[str, Path], request: ProfileRequest, chosen: Sequence[str], number: int
) -> Mapping[str, Workload]:
    del number
    # Only TensorRT's engines keep the parts of their time.
    runs = {name: replace(request.run, timed=engines[name].suffix == ENGINE) for name in chosen}
    loaded = {name: load_engine(engines[name], trust=request.trust, run=run) for name, run in runs.items()}
    return {name: engine_call(engine, request.batch) for name, engine in loaded.items()}


def _details(name: str, engine: Path, request: ProfileRequest) -> dict[str, Any]:
    """Waterfall, layers and memory of one file, measured before latency: what fails, fails before that takes time."""
    found: dict[str, Any] = {}
    if request.images is not None:
        found["waterfall"] = waterfall_of_model(request.files[name], request.images, request.run.threads, _WAY_SECONDS)
    if request.layers:
        graph = graph_of_engine(engine) if engine.suffix == ENGINE else request.files[name]
        found["layers"] = (engine_layers(name, engine, graph, request.run, request.batch, request.trust),)
    try:
        memory = footprint([engine], read_manifest(engine, trust=True).runtime, request.trust)
    except EdgetlError as error:
        # The process that measures it may fail where latency can be measured all the same.
        memory = Memory(reason=str(error))
    return {**found, "memory": memory, "memory_mb": memory.process_mb}


def _engine(path: Path, scratch: Path, request: ProfileRequest) -> Path:
    """The engine of a file: the file itself, or the one that ONNX Runtime makes of a graph."""
    if path.suffix == ENGINE:
        return path
    for option in ("cuda_graph", "spin_wait"):
        if getattr(request.run, option):
            raise EdgetlError(f"{path} runs on the CPU, where there is no --{option.replace('_', '-')}; leave it out")
    if not request.run.transfers:
        raise EdgetlError(f"{path} runs on the CPU, where nothing is copied to a device; leave --no-transfers out")
    if manifest_path(path).is_file() and not is_prepared(path):
        return path
    model = load_model(path)
    if qdq_format(model) == "tensorrt":
        raise EdgetlError(
            f"{path} is INT8 in TensorRT's QDQ format, whose speed on ONNX Runtime says nothing of INT8's; prepare it "
            "with --target onnxruntime"
        )
    # Refused here with a clear line where its images have no fixed size.
    image_shape(model)
    build_engine(get_runtime("onnxruntime"), path, scratch, BuildOptions())
    return scratch


def _scenarios(
    engines: Mapping[str, Path], request: ProfileRequest, rates: Mapping[str, float], reporter: ProgressReporter
) -> tuple[Scenario, ...]:
    if not request.scenarios.scenarios:
        return ()
    opens = {name: partial(load_engine, path, trust=request.trust, run=request.run) for name, path in engines.items()}
    subjects = FileSubjects(opens, request.scenarios, rates)
    return measure_scenarios(request.scenarios, subjects, ScenarioPlan(seconds=request.until.seconds), reporter)


def _row(
    name: str, latency: Latency, details: dict[str, Any], engine: Path, request: ProfileRequest
) -> DeploymentResult:
    manifest = read_manifest(engine, trust=True)
    return DeploymentResult(
        name=name,
        precision=AS_IN_FILE,
        runtime=manifest.runtime,
        engines=(EngineFile(file=name, sha256=manifest.graph_sha256, bytes=request.files[name].stat().st_size),),
        latency_ms=latency,
        throughput_ips=_MS_PER_S * request.batch / latency.mean,
        **details | {"layers": with_latency(details.get("layers", ()), latency.p50)},
    )
