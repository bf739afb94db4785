"""Machines that are elsewhere: profiled through ssh, and estimated."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Done
from tests.sshd import Network, needs_sshd, serve

Command = Callable[..., Done]


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    yield from serve(tmp_path_factory.mktemp("ssh"))


def test_estimates_of_models_are_marked_and_none_is_a_latency(call: Command, finished: Path) -> None:
    graph = finished / "run" / "graphs" / "combined.fp32.onnx"
    devices = ("--device", "Orin Nano 8GB", "--device", "AGX Orin 64GB@30W")
    shown = call("estimate", graph, *devices, "--precision", "int8")
    assert shown.returncode == 0 and "ESTIMATE: nothing was measured" in shown.stdout
    found = json.loads(call("estimate", graph, *devices, "--json").stdout)
    assert (found["deployments"], found["comparisons"]) == ([], [])
    assert [(row["device"], row["mode"]) for row in found["estimates"]] == [
        ("Orin Nano 8GB", "MAXN_SUPER"),
        ("AGX Orin 64GB", "30W"),
    ]
    assert all(0 < row["low"] < row["middle"] < row["high"] for row in found["estimates"])


def test_a_study_is_estimated_deployment_by_deployment_and_left_as_it_is(call: Command, finished: Path) -> None:
    run = finished / "run"
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    done = call("estimate", finished / "study.yaml", "-o", run, "--device", "Orin NX 16GB", "--json")
    rows = json.loads(done.stdout)["estimates"]
    assert [(row["name"], row["precision"]) for row in rows] == [
        (name, precision) for name in ("combined", "shared") for precision in ("fp32", "int8")
    ]
    assert before == {path: path.stat().st_mtime_ns for path in run.rglob("*")}


@needs_sshd
def test_a_study_is_built_and_measured_on_a_host(call: Command, copied: Path, network: Network) -> None:
    run = copied / "run"
    options = ("--on", "orin", "--remote-python", sys.executable, "--ssh-config", network.config)
    options += ("--seconds", 0.2, "--threads", 1, "--json")
    measured = call("profile-remote", copied / "study.yaml", "-o", run, *options)
    assert measured.returncode == 0, measured.stderr
    (host,) = json.loads(measured.stdout)["hosts"]
    assert (host["host"], host["error"]) == ("orin", None)
    assert {row["name"] for row in host["profile"]["deployments"]} == {"combined", "shared"}
    again = call("compare-profiles", run / "hosts" / "orin" / "measurements" / "latency.json", "--json")
    assert json.loads(again.stdout)["deployments"] == host["profile"]["deployments"]


@needs_sshd
def test_hosts_are_in_one_table_and_one_that_fails_is_a_line(call: Command, finished: Path, network: Network) -> None:
    graph = finished / "run" / "graphs" / "combined.fp32.onnx"
    options = ("--remote-python", sys.executable, "--ssh-config", network.config, "--seconds", 0.1, "--threads", 1)
    done = call("profile-remote", graph, "--on", "nano", "--on", "gone", *options)
    assert done.returncode == 1
    assert "nano" in done.stdout and "onnxruntime" in done.stdout
    errors = done.stderr.splitlines()
    assert any(line.startswith("gone: ") and "refused" in line for line in errors)
    assert errors[-1] == "error: 1 of 2 hosts failed; the lines above say why"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["estimate", "m.onnx"], "Missing option '--device'"),
        (["estimate", "m.onnx", "--device", "Nano", "-o", "x"], "-o is for a study"),
        (["estimate", "m.engine", "--device", "Nano"], "a study needs -o DIR"),
        (["estimate", "study.yaml", "-o", "x", "--device", "Nano", "--precision", "int8"], "--precision is for models"),
        (["profile-remote", "m.onnx"], "Missing option '--on'"),
        (["profile-remote", "m.engine", "--on", "nano"], "engines are built on the host"),
        (["profile-remote", "m.onnx", "--on", "nano", "--provider", "cuda"], "--provider is for a study"),
        (["profile-remote", "study.yaml", "--on", "nano"], "a study needs -o DIR"),
        (["profile-remote", "s.yaml", "-o", "x", "--on", "nano", "--runtime", "tensorrt"], "--runtime is for models"),
        (["profile-remote", "study.yaml", "-o", "x", "--on", "nano", "--batch", "4"], "--batch is for models"),
    ],
)
def test_what_does_not_go_together_is_a_usage_error(call: Command, options: list[str], told: str) -> None:
    done = call(*options)
    assert done.returncode == 2 and told in " ".join(done.stderr.split())


def test_a_study_without_graphs_is_told_what_to_run(
    call: Command, write_study: Callable[..., Path], tmp_path: Path, fault: Callable[[Done], str]
) -> None:
    study = write_study(tmp_path)
    assert "run edgetl export on it first" in fault(
        call("profile-remote", study, "-o", tmp_path / "run", "--on", "nano")
    )
    assert "shortlist.json does not exist" in fault(call("estimate", study, "-o", tmp_path / "run", "--device", "Nano"))
