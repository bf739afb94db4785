"""The builder against every generation's bindings: each name that it touches is there, and so is each call's form."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from edgetl.artifacts.calibration_table import CalibrationImage
from edgetl.artifacts.engine_manifest import manifest_path, read_manifest
from edgetl.config import CalibrationRecipe
from edgetl.engine.nvidia import tensorrt_runtime as nvidia
from edgetl.engine.nvidia.device import CudaDevice
from edgetl.engine.runtime import BuildOptions, BuildResources, build_engine, get_runtime, load_engine
from edgetl.errors import EdgetlError
from edgetl.graph.fp16 import to_fp16
from edgetl.graph.quantize import quantize
from tests.calibrating import calibrate
from tests.unit.engine.nvidia.standin_tensorrt import GENERATIONS, Play

Generation = Callable[[str], Play]
TENSORRT = get_runtime("tensorrt")
CACHE = b"TRT-100300-EntropyCalibration2\nimages: 3c010a14\n"
WEAK = ("8.6.1",)


def prepared(network: onnx.ModelProto, precision: str, images: NDArray[np.float32]) -> onnx.ModelProto:
    if precision == "fp16":
        return to_fp16(network)
    if precision == "int8":
        record = tuple(CalibrationImage(path=str(n), sha256="") for n in range(len(images)))
        return quantize(network, calibrate(network, [images], CalibrationRecipe(), record), "tensorrt")
    return network


def built(graph: Path, engine: Path, workshop: BuildResources | None = None, **options: Any) -> bool:
    return build_engine(TENSORRT, graph, engine, BuildOptions(**options), workshop)


def refusal(graph: Path, engine: Path, workshop: BuildResources | None = None, **options: Any) -> str:
    with pytest.raises(EdgetlError) as caught:
        built(graph, engine, workshop, **options)
    assert "\n" not in str(caught.value) and not engine.exists()
    return str(caught.value)


@pytest.mark.parametrize("version", GENERATIONS)
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_every_generation_builds_every_precision(
    version: str, precision: str, network: onnx.ModelProto, images: NDArray[np.float32], graph: Path, engine_file: Path,
    generation: Generation,
) -> None:  # fmt: skip
    play = generation(version)
    onnx.save(prepared(network, precision, images), graph)
    assert built(graph, engine_file)
    flags = play.configs[0]._held["flags_set"]
    weakly = {"fp32": [], "fp16": ["FP16"], "int8": ["INT8"]}[precision]
    assert flags == (weakly if version in WEAK else [])
    assert play.configs[0]._held["profile"] == {"images": [(1, 3, 16, 16), (1, 3, 16, 16), (16, 3, 16, 16)]}


@pytest.mark.parametrize("version", GENERATIONS)
def test_every_generation_takes_every_option(
    version: str, graph: Path, engine_file: Path, generation: Generation
) -> None:
    play = generation(version)
    options = {"workspace_mb": 64, "optimization_level": 5, "sparse": True, "version_compatible": True, "min_batch": 2,
               "opt_batch": 4, "max_batch": 8, "hardware_compatible": "ampere-plus"}  # fmt: skip
    assert built(graph, engine_file, BuildResources(timing_caches=engine_file.parent / "caches"), **options)
    config = play.configs[0]._held
    assert config["builder_optimization_level"] == 5
    assert config["flags_set"] == ["SPARSE_WEIGHTS", "VERSION_COMPATIBLE"]
    assert config["hardware_compatibility_level"].name == "AMPERE_PLUS"
    assert config["profile"]["images"] == [(2, 3, 16, 16), (4, 3, 16, 16), (8, 3, 16, 16)]
    assert read_manifest(engine_file).target == {
        "tensorrt": f"{version} or newer", "compute capability": "SM80 or newer"
    }  # fmt: skip
    assert {"IBuilderConfig.set_memory_pool_limit", "IBuilderConfig.set_timing_cache"} <= play.touched


@pytest.mark.parametrize("version", GENERATIONS)
def test_the_manifest_tells_the_machine_and_the_layers(
    version: str, graph: Path, engine_file: Path, generation: Generation
) -> None:
    generation(version)
    built(graph, engine_file)
    manifest = read_manifest(engine_file)
    assert manifest.target == {"tensorrt": version, "compute capability": "SM87", "device": "Orin (16 SMs)"}
    assert manifest.built_on["CUDA driver"] == "12.6"
    assert manifest.layers_of == "engine"
    assert [layer.precision for layer in manifest.layers] == ["fp16"]
    assert manifest.build_peak_mb is not None and manifest.build_peak_mb >= 0.0


def test_progress_is_told_where_there_is_any(graph: Path, engine_file: Path, generation: Generation) -> None:
    for version, expected in (("8.6.1", []), ("10.3.0", [0.5, 1.0])):
        generation(version)
        told: list[float] = []
        built(graph, engine_file, BuildResources(on_progress=told.append))
        assert told == expected


def test_scratch_memory_is_bounded_by_the_devices(
    graph: Path, engine_file: Path, generation: Generation, monkeypatch: pytest.MonkeyPatch
) -> None:
    play = generation("10.3.0")
    limits: list[tuple[str, int]] = []
    monkeypatch.setattr(
        Play, "_IBuilderConfig_set_memory_pool_limit",
        lambda self, config, pool, size: limits.append((pool.name, size)), raising=False,
    )  # fmt: skip
    play = Play("10.3.0", play.gpu)
    monkeypatch.setattr(nvidia.TensorRTPackage, "load", lambda self: play.module)
    built(graph, engine_file)
    built(graph, engine_file, workspace_mb=64)
    assert limits == [("WORKSPACE", 7620 // 4 * 2**20), ("WORKSPACE", 64 * 2**20)]


def test_an_engine_runs_on_its_version_or_a_newer_one(graph: Path, engine_file: Path, generation: Generation) -> None:
    generation("10.3.0")
    built(graph, engine_file)
    generation("10.14.1.48")
    with pytest.raises(EdgetlError, match=r"was built for tensorrt 10\.3\.0, this machine has tensorrt 10\.14\.1\.48"):
        load_engine(engine_file)
    generation("10.3.0")
    built(graph, engine_file, version_compatible=True)
    generation("10.14.1.48")
    load_engine(engine_file)
    generation("8.6.1")
    with pytest.raises(EdgetlError, match=r"was built for tensorrt 10\.3\.0 or newer, this machine has tensorrt 8\.6"):
        load_engine(engine_file)


@pytest.mark.parametrize(
    ("options", "other", "loads"),
    [
        ({}, {"capability": "SM89", "name": "RTX 4090", "multiprocessors": 128}, False),
        ({}, {"multiprocessors": 8}, False),
        ({"hardware_compatible": "same-compute-capability"}, {"multiprocessors": 8}, True),
        ({"hardware_compatible": "same-compute-capability"}, {"capability": "SM89"}, False),
        ({"hardware_compatible": "ampere-plus"}, {"capability": "SM89"}, True),
        ({"hardware_compatible": "ampere-plus"}, {"capability": "SM75"}, False),
    ],
)
def test_an_engine_runs_on_the_device_that_it_was_built_for(
    options: dict[str, str], other: dict[str, Any], loads: bool, graph: Path, engine_file: Path, generation: Generation,
    orin: CudaDevice, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    generation("10.14.1.48")
    built(graph, engine_file, **options)
    monkeypatch.setattr(nvidia, "find_device", lambda: dataclasses.replace(orin, **other))
    if loads:
        load_engine(engine_file)
    else:
        with pytest.raises(EdgetlError, match=r"was built for .*, this machine has .*; run edgetl build-engine here"):
            load_engine(engine_file)


def test_engines_for_other_devices_are_refused_where_they_cannot_be_built(
    graph: Path, engine_file: Path, generation: Generation, orin: CudaDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    generation("10.3.0")
    said = refusal(graph, engine_file, hardware_compatible="same-compute-capability")
    assert said == "TensorRT 10.3.0 cannot build for every device of a compute capability; leave it out"
    monkeypatch.setattr(nvidia, "find_device", lambda: dataclasses.replace(orin, capability="SM75"))
    assert "begins with SM80 and Orin is SM75" in refusal(graph, engine_file, hardware_compatible="ampere-plus")


@pytest.mark.parametrize("version", ["8.6.1", "10.3.0", "10.14.1.48", "10.16.1.11"])
def test_a_dla_core_takes_fp16_or_a_calibration_cache(
    version: str, network: onnx.ModelProto, graph: Path, engine_file: Path, tmp_path: Path, generation: Generation
) -> None:
    play = generation(version)
    one = {"dla_core": 1, "max_batch": 1}
    assert "FP32 and a DLA core computes in FP16 or INT8" in refusal(graph, engine_file, **one)
    (tmp_path / "cache").write_bytes(CACHE)
    workshop = BuildResources(calibration_cache=tmp_path / "cache")
    assert built(graph, engine_file, workshop, gpu_fallback=True, calibration_sha256="0" * 64, **one)
    config = play.configs[-1]._held
    assert (config["default_device_type"].name, config["DLA_core"]) == ("DLA", 1)
    assert set(config["flags_set"]) == {"GPU_FALLBACK", "FP16", "INT8"}
    assert config["int8_calibrator"].read_calibration_cache() == CACHE
    assert config["int8_calibrator"].get_batch(["images"]) is None
    onnx.save(to_fp16(network), graph)
    assert built(graph, engine_file, **one)
    assert play.configs[-1]._held["flags_set"] == ["FP16"]
    assert play.flags[-1] == 1 << int(play.module.NetworkDefinitionCreationFlag.EXPLICIT_BATCH)


def test_tensorrt_11_gives_a_dla_core_what_is_in_the_graph_and_takes_no_cache(
    network: onnx.ModelProto, images: NDArray[np.float32], graph: Path, engine_file: Path, tmp_path: Path,
    generation: Generation,
) -> None:  # fmt: skip
    play = generation("11.4.0.106")
    onnx.save(prepared(network, "int8", images), graph)
    assert built(graph, engine_file, dla_core=0, max_batch=1)
    assert play.configs[-1]._held["flags_set"] == []
    (tmp_path / "cache").write_bytes(CACHE)
    said = refusal(graph, tmp_path / "e.engine", BuildResources(calibration_cache=tmp_path / "cache"))
    assert "TensorRT 11.4.0.106 takes no calibration cache; give it a graph in INT8" in said


def test_what_a_dla_core_cannot_do_is_refused(
    network: onnx.ModelProto, images: NDArray[np.float32], graph: Path, engine_file: Path, tmp_path: Path,
    generation: Generation,
) -> None:  # fmt: skip
    play = generation("10.3.0")
    onnx.save(to_fp16(network), graph)
    assert "takes one batch size alone; give --batches with one number" in refusal(graph, engine_file, dla_core=0)
    play.cores = 1
    said = refusal(graph, engine_file, dla_core=1, max_batch=1)
    assert said == "DLA core 1 is asked for, and TensorRT 10.3.0 finds 1 on this device"
    onnx.save(prepared(network, "int8", images), graph)
    assert "a DLA core takes no Q/DQ nodes from TensorRT 10.3.0" in refusal(graph, engine_file, dla_core=0, max_batch=1)
    (tmp_path / "cache").write_bytes(CACHE)
    assert "is INT8 already" in refusal(graph, engine_file, BuildResources(calibration_cache=tmp_path / "cache"))


@pytest.mark.parametrize("content", [b"", b"\x00\xff", b"images: 3c010a14\n", b"TRT-8602-MinMaxCalibration\n"])
def test_a_file_that_is_no_calibration_cache_is_refused(
    content: bytes, graph: Path, engine_file: Path, tmp_path: Path, generation: Generation
) -> None:
    generation("10.3.0")
    (tmp_path / "cache").write_bytes(content)
    assert "is no calibration cache" in refusal(
        graph, engine_file, BuildResources(calibration_cache=tmp_path / "cache")
    )


def test_what_was_timed_is_kept_and_joined(graph: Path, engine_file: Path, generation: Generation) -> None:
    caches = engine_file.parent / "caches"
    play = generation("10.3.0")
    built(graph, engine_file, BuildResources(timing_caches=caches))
    (cache,) = caches.iterdir()
    assert cache.name == "tensorrt-10.3.0-Orin_16_SMs-SM87-12.6.timing"
    assert cache.read_bytes() == b"Conv"
    cache.write_bytes(b"Gemm")
    engine_file.unlink()
    built(graph, engine_file, BuildResources(timing_caches=caches))
    assert cache.read_bytes() == b"Conv Gemm"
    assert play.configs[-1]._held["timing"]._held["known"] == {b"Conv", b"Gemm"}
    generation("10.14.1.48")
    built(graph, engine_file, BuildResources(timing_caches=caches))
    assert len(list(caches.iterdir())) == 2


def test_a_timing_cache_that_is_refused_is_begun_anew(graph: Path, engine_file: Path, generation: Generation) -> None:
    generation("10.3.0")
    caches = engine_file.parent / "caches"
    caches.mkdir(parents=True)
    path = caches / "tensorrt-10.3.0-Orin_16_SMs-SM87-12.6.timing"
    path.write_bytes(b"damaged")
    built(graph, engine_file, BuildResources(timing_caches=caches))
    assert path.read_bytes() == b"Conv"


def test_an_option_of_the_other_runtime_is_refused(graph: Path, engine_file: Path, generation: Generation) -> None:
    generation("10.3.0")
    assert "tensorrt takes no compute capability (SM86 was given)" in refusal(
        graph, engine_file, compute_capability="SM86"
    )


def test_a_failed_build_takes_the_old_manifest_with_it(graph: Path, engine_file: Path, generation: Generation) -> None:
    play = generation("10.3.0")
    built(graph, engine_file)
    play.refuse = "no reason"
    with pytest.raises(EdgetlError, match="it gave no reason"):
        built(graph, engine_file, optimization_level=1)
    assert not manifest_path(engine_file).exists()


def test_a_manifest_that_lies_is_found_out(graph: Path, engine_file: Path, generation: Generation) -> None:
    generation("10.3.0")
    built(graph, engine_file)
    path = manifest_path(engine_file)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"engine_sha256": "0" * 64}))
    with pytest.raises(EdgetlError, match=r"damaged or was replaced.*--trust if you know where it comes from"):
        load_engine(engine_file)
    load_engine(engine_file, trust=True)


def test_what_tensorrt_itself_does_not_take_is_one_line(graph: Path, engine_file: Path, generation: Generation) -> None:
    generation("10.3.0")
    built(graph, engine_file)
    engine_file.write_bytes(engine_file.read_bytes()[:200])
    with pytest.raises(EdgetlError, match="is damaged: it has 200 bytes"):
        load_engine(engine_file)
    with pytest.raises(EdgetlError, match=r"TensorRT 10\.3\.0 cannot load .*build it again"):
        load_engine(engine_file, trust=True)
