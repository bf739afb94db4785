"""inspect and doctor, as they are called."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Done = subprocess.CompletedProcess[str]
Command = Callable[..., Done]


def told(call: Command, *arguments: object) -> dict[str, object]:
    done = call("inspect", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    result: dict[str, object] = json.loads(done.stdout)
    return result


def test_a_graph_tells_its_inputs_layers_costs_and_precisions(call: Command, finished: Path) -> None:
    found = told(call, finished / "run" / "graphs" / "combined.fp32.onnx")
    assert found["kind"] == "graph"
    assert found["inputs"] == [{"name": "images", "type": "fp32", "shape": ["N", 3, 16, 16]}]
    assert found["precisions"] == {"fp32": len(found["layers"])}  # type: ignore[arg-type]
    assert {"parameters", "flops", "bytes"} <= found["figures"].keys()  # type: ignore[attr-defined]
    quantised = told(call, finished / "run" / "graphs" / "combined.int8.onnxruntime.onnx")
    assert quantised["precisions"]["int8"] > 0  # type: ignore[index]
    assert quantised["notes"]["qdq_format"] == "onnxruntime"  # type: ignore[index]


def test_an_engine_tells_what_it_was_made_from_and_for(call: Command, finished: Path) -> None:
    found = told(call, finished / "run" / "engines" / "onnxruntime" / "combined.fp32.onnx")
    graph = told(call, finished / "run" / "graphs" / "combined.fp32.onnx")
    assert found["kind"] == "engine"
    assert found["lineage"]["graph_sha256"] == graph["lineage"]["sha256"]  # type: ignore[index]
    assert found["notes"]["runs_on"].keys() == {"onnxruntime", "processor"}  # type: ignore[index]
    assert found["inputs"] == graph["inputs"]


def test_a_bundle_and_a_run_tell_their_lineage(call: Command, copied: Path) -> None:
    bundle = told(call, copied / "run" / "bundle")
    assert bundle == told(call, copied / "run" / "bundle" / "bundle.json")
    assert bundle["lineage"]["backbone"] == "edgetl/nano"  # type: ignore[index]
    run = told(call, copied / "run")
    assert set(run["notes"].values()) == {"whole"}  # type: ignore[attr-defined]
    assert run["lineage"]["export"]["parents"]["finetune"] == run["lineage"]["finetune"]["digest"]  # type: ignore[index]
    (copied / "run" / "graphs" / "combined.fp32.onnx").write_bytes(b"")
    (copied / "run" / "report.html").unlink()
    states = told(call, copied / "run")["notes"]
    assert states["export"] == "graphs/combined.fp32.onnx was changed"  # type: ignore[index]
    assert states["report"] == "report.html is missing"  # type: ignore[index]


def test_the_text_says_it_for_people(call: Command, finished: Path) -> None:
    done = call("inspect", finished / "run" / "graphs" / "combined.fp32.onnx")
    assert "input: images fp32 N x 3 x 16 x 16" in done.stdout
    assert "Conv in fp32" in done.stdout


def test_a_prepared_file_is_described_as_a_graph(call: Command, finished: Path, photos: Path, tmp_path: Path) -> None:
    """The record beside it has the name that an engine's manifest would have."""
    graph, prepared = finished / "run" / "graphs" / "combined.fp32.onnx", tmp_path / "i.onnx"
    done = call("prepare", graph, "--precision", "int8", "--calibration-images", photos, "-o", prepared)
    assert done.returncode == 0, done.stderr
    found = told(call, prepared)
    assert (found["kind"], found["notes"]["qdq_format"]) == ("graph", "tensorrt")  # type: ignore[index]
    assert len(found["notes"].get("edgetl.channels", "")) < 40  # type: ignore[attr-defined]
    assert call("predict", prepared, next(photos.rglob("*.png"))).returncode == 0


def test_what_cannot_be_inspected_is_one_line(
    call: Command, fault: Callable[[Done], str], copied: Path, tmp_path: Path
) -> None:
    engine = copied / "run" / "engines" / "onnxruntime" / "combined.fp32.onnx"
    engine.write_bytes(engine.read_bytes()[:-1])
    assert "is damaged: it has" in fault(call("inspect", engine))
    assert told(call, engine, "--trust")["kind"] == "engine"
    assert "is no run directory" in fault(call("inspect", tmp_path))
    assert "does not exist" in fault(call("inspect", tmp_path / "none.onnx"))
    (tmp_path / "text.onnx").write_text("text")
    assert "is not an ONNX model" in fault(call("inspect", tmp_path / "text.onnx"))


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_doctor_tells_what_is_here(call: Command, options: list[str]) -> None:
    done = call("doctor", *options)
    assert done.returncode == 0 and "onnxruntime" in done.stdout
    if options:
        assert json.loads(done.stdout).keys() == {"facts", "capabilities"}
