"""Scenarios from the command line: of plain files, and of a study with real engines."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgetl.artifacts.deployment import Deployment, Shortlist
from edgetl.artifacts.files import read_json
from edgetl.artifacts.run_directory import RunDirectory
from edgetl.commands.study_command import TerminalReporter, run_study
from edgetl.config import load_study
from edgetl.errors import EdgetlError
from edgetl.measure.scenarios.interleave import ScenarioPlan
from edgetl.stages.build_engine import engine_paths, planned_deployments
from edgetl.stages.classify.task import CLASSIFY
from edgetl.stages.scenario_request import ScenarioRequest
from edgetl.stages.scenarios import ALL_GROUPS, DeploymentEngines, StudySubjects, group_rates, measure_scenarios
from edgetl.stages.stage import Context, Options

Command = Callable[..., Any]

GROUPS = ("round", "ángulo")
SHORT = ("--seconds", 0.1, "--threads", 1)


@pytest.fixture(scope="module")
def specialised(tmp_path_factory: pytest.TempPathFactory, write_study: Command) -> Path:
    """A study with an engine for each group, and one for all."""
    folder = tmp_path_factory.mktemp("specialised")
    study = write_study(folder, deployments=["combined", "specialised"], precisions=["fp32"])
    run_study(study, folder / "run", ["index", "finetune", "search", "export", "build-engine"])
    return folder


def measured(folder: Path, order: ScenarioRequest) -> list[Any]:
    run = RunDirectory(folder / "run")
    options = Options(threads=1, scenarios=order)
    context = Context(load_study(folder / "study.yaml"), folder, run, TerminalReporter(), options)
    wanted: DeploymentEngines = {
        one.title: (one.deployment, engine_paths(context, one)) for one in planned_deployments(context)
    }
    rates = group_rates(order, GROUPS, wanted)
    plan = ScenarioPlan(seconds=0.001, warmup_ms=1.0, slice_ms=2.0, min_rounds=2)
    return list(measure_scenarios(order, StudySubjects(context, CLASSIFY, wanted, rates), plan, TerminalReporter()))


def test_each_group_s_engine_has_its_rate_and_one_for_all_the_fastest(specialised: Path) -> None:
    order = ScenarioRequest(("cadence",), (("round", 20.0), ("ángulo", 8.0)))
    rates = {one.title: {part.name: part.rate_hz for part in one.parts} for one in measured(specialised, order)}
    assert rates == {
        "combined fp32": {ALL_GROUPS: 20.0},
        "specialised fp32": {"round": 20.0, "ángulo": 8.0},
    }


def test_only_deployments_of_several_engines_contend(specialised: Path) -> None:
    (found,) = measured(specialised, ScenarioRequest(("concurrent",)))
    assert found.title == "specialised fp32"
    assert [(one.workload, one.concurrent_with) for one in found.contention] == [
        ("round", ("ángulo",)),
        ("ángulo", ("round",)),
    ]


def test_queries_and_batches_go_through_whole_deployments(specialised: Path) -> None:
    found = measured(specialised, ScenarioRequest(("multi-stream", "offline"), query_size=4, batch=3, streams=2))
    assert [(one.scenario, one.title, one.batch) for one in found] == [
        ("multi-stream", "combined fp32", 4),
        ("multi-stream", "specialised fp32", 4),
        ("offline", "combined fp32", 3),
        ("offline", "specialised fp32", 3),
    ]
    assert {one.streams for one in found[2:]} == {2}


def test_a_study_without_several_engines_has_no_contention(finished: Path) -> None:
    shortlist = read_json(RunDirectory(finished / "run").shortlist, Shortlist)
    alone: dict[str, tuple[Deployment, list[Path]]] = {one.name: (one, []) for one in shortlist.deployments}
    with pytest.raises(EdgetlError, match=r"concurrent needs a deployment of several engines; add specialised"):
        group_rates(ScenarioRequest(("concurrent",)), GROUPS, alone)


def test_a_study_s_scenarios_are_in_its_results_and_its_page(call: Command, copied: Path) -> None:
    run, options = copied / "run", (*SHORT, "--scenario", "single-stream")
    done = call("profile", copied / "study.yaml", "-o", run, *options)
    assert done.returncode == 0, done.stderr
    assert "single-stream: one query after the other" in done.stdout
    again = call("profile", copied / "study.yaml", "-o", run, *options)
    assert "profile: up to date" in again.stderr and "single-stream: one query" in again.stdout
    assert call("report", copied / "study.yaml", "-o", run).returncode == 0
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    titles = [f"{row['name']} {row['precision']}" for row in results["deployments"] if row["latency_ms"]]
    assert [one["title"] for one in results["scenarios"]] == titles
    assert "Under load" in (run / "report.html").read_text(encoding="utf-8")


def test_files_run_together_each_at_its_rate(call: Command, finished: Path) -> None:
    graphs = finished / "run" / "graphs"
    a, b = graphs / "combined.fp32.onnx", graphs / "shared.fp32.onnx"
    rates = ("--scenario", "cadence", "--rate", "combined.fp32=30", "--rate", f"{b}=15")
    done = call("profile", a, b, *SHORT, *rates, "--json")
    assert done.returncode == 0, done.stderr
    [found] = json.loads(done.stdout)["scenarios"]
    assert found["scenario"] == "cadence"
    assert [(part["name"], part["rate_hz"]) for part in found["parts"]] == [(str(a), 30.0), (str(b), 15.0)]


def test_a_cadence_that_cannot_be_met_is_said_and_ends(call: Command, finished: Path) -> None:
    graph = finished / "run" / "graphs" / "combined.fp32.onnx"
    done = call("profile", graph, *SHORT, "--scenario", "cadence", "--rate", "combined.fp32=1e7")
    assert done.returncode == 0, done.stderr
    assert "all files: CANNOT BE MET: it needs " in done.stdout


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--rate", "round=30"), "cadence needs the rate of each group, and ángulo has none; add --rate ángulo=HZ"),
        (("--rate", "rund=30"), "--rate rund=30 names no group (did you mean round?); there are round, ángulo"),
        (("--rate", "round=0"), "--rate round=0 is not NAME=HZ with a rate above 0; write for example signs=5"),
        (("--rate", "round=1", "--rate", "round=2"), "--rate gives round two rates; give it once"),
    ],
)
def test_a_rate_that_does_not_fit_is_refused_before_anything_is_measured(
    call: Command, fault: Command, copied: Path, options: tuple[str, ...], expected: str
) -> None:
    latency = (copied / "run" / "measurements" / "latency.json").read_bytes()
    done = call("profile", copied / "study.yaml", "-o", copied / "run", *SHORT, "--scenario", "cadence", *options)
    assert fault(done) == expected
    assert (copied / "run" / "measurements" / "latency.json").read_bytes() == latency


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("a.onnx", "--rate", "a=5"), "--rate is for --scenario cadence"),
        (("a.onnx", "--scenario", "server"), "'server' is not one of 'single-stream'"),
        (("study.yaml", "-o", "run", "--batch", 4), "--batch is for models"),
    ],
)
def test_what_makes_no_sense_is_a_usage_error(call: Command, arguments: tuple[object, ...], expected: str) -> None:
    done = call("profile", *arguments)
    assert done.returncode == 2
    assert expected in done.stderr
