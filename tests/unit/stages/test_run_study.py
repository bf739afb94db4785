from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from edgetl.artifacts.files import read_json
from edgetl.artifacts.results import Results
from edgetl.artifacts.run_directory import RunDirectory
from edgetl.config import load_study
from edgetl.errors import EdgetlError
from edgetl.stages.run_study import STAGES, run_stages
from edgetl.stages.stage import Context, Options, ProgressReporter

pytest.importorskip("torch", reason="the extra train is not installed")
pytest.importorskip("jinja2", reason="the extra report is not installed")

STUDY = """\
name: two digits
data: {format: digits, per_label: 6, val: 0.34, test: 0.34}
groups: {round: [0], straight: [1]}
backbone: {name: edgetl/nano, image_size: 16}
deployments: [shared]
precisions: [fp32]
training: {l2: [0.01]}
"""
ALL = list(STAGES)

Run = Callable[..., list[str]]


def context_of(folder: Path, watcher: ProgressReporter, study: str, options: Options) -> Context:
    (folder / "study.yaml").write_text(study)
    return Context(load_study(folder / "study.yaml"), folder, RunDirectory(folder / "run"), watcher, options)


OPTIONS = Options(threads=1, seconds=0.1)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, module_listener: ProgressReporter) -> Path:
    """A folder with a study that has been through all stages."""
    folder = tmp_path_factory.mktemp("finished")
    run_stages(context_of(folder, module_listener, STUDY, OPTIONS), ALL)
    return folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may do with as it likes."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.fixture
def run(folder: Path, listener: ProgressReporter) -> Run:
    """Run stages in the copy; return those that were done, not found up to date."""

    def done(stages: list[str] = ALL, study: str = STUDY, options: Options = OPTIONS) -> list[str]:
        before = times(folder, "stages")
        run_stages(context_of(folder, listener, study, options), stages)
        after = times(folder, "stages")
        return [name for name in ALL if before.get(f"{name}.json") != after.get(f"{name}.json")]

    return done


def times(folder: Path, below: str = "") -> dict[str, int]:
    """When every file of the run was written."""
    root = folder / "run" / below
    return {path.relative_to(root).as_posix(): path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_a_study_ends_with_results_and_a_report(finished: Path) -> None:
    results = read_json(finished / "run" / "results.json", Results)
    assert [one.title for one in results.deployments] == ["shared fp32"]
    assert all(one.accuracy is not None and one.latency_ms is not None for one in results.deployments)
    report = finished / "run" / "report.html"
    assert "<html" in report.read_text()
    assert report.stat().st_size < 1.5e6
    assert not [name for name in times(finished) if ".partial" in name]


def test_every_stage_wrote_down_all_of_its_files(finished: Path) -> None:
    run = RunDirectory(finished / "run")
    records = [run.record(name) for name in ALL]
    outputs = {name for record in records if record is not None for name in record.outputs}
    beside = {name for name in times(finished) if name.split("/")[0] not in {"cache", "stages", "data", ".lock"}}
    assert beside <= outputs


def test_what_is_up_to_date_is_not_done_again(folder: Path, run: Run, listener: object) -> None:
    before = times(folder)
    assert run() == []
    after = times(folder)
    assert before == {**after, ".lock": before[".lock"]}
    assert listener.lines == [f"{name}: up to date" for name in ALL]  # type: ignore[attr-defined]


def test_another_budget_or_name_makes_only_the_report_anew(run: Run, folder: Path) -> None:
    assert run(study=STUDY + "budget: {max_latency_ms: 0.000001}\n") == ["report"]
    assert not read_json(folder / "run" / "results.json", Results).verdict.budget_met
    assert run(study=STUDY.replace("two digits", "2 digits") + "budget: {max_latency_ms: 0.000001}\n") == ["report"]


@pytest.mark.slow
def test_a_longer_measurement_is_profiled_anew_and_nothing_else(run: Run) -> None:
    assert run(options=Options(threads=1, seconds=0.12)) == ["profile", "report"]


@pytest.mark.slow
def test_another_precision_is_exported_without_training_again(run: Run) -> None:
    done = run(ALL[:6], study=STUDY.replace("[fp32]", "[fp32, int8]"))
    assert done == ["export", "build-engine", "evaluate"]


def test_another_number_of_trees_is_searched_without_training(run: Run) -> None:
    assert run(study=STUDY + "search: {trees: 2}\n") == ["search"]


def test_a_lost_or_damaged_output_is_made_again_by_its_own_stage(folder: Path, run: Run) -> None:
    engine = folder / "run" / "engines" / "onnxruntime" / "shared.fp32.onnx"
    content = engine.read_bytes()
    engine.write_bytes(content[:-1])
    assert run(["build-engine"]) == ["build-engine"]
    assert engine.read_bytes() == content
    engine.unlink()
    assert run(["build-engine"]) == ["build-engine"]


def test_a_damaged_record_is_made_again_by_its_own_stage(folder: Path, run: Run) -> None:
    (folder / "run" / "stages" / "export.json").write_text("{")
    with pytest.raises(EdgetlError, match="has no finished export stage; run edgetl export first"):
        run(["build-engine"])
    assert run() == ["export"], "it makes the same graphs, so nothing after it changes"


def test_a_stage_without_the_one_before_it_says_which_to_run(tmp_path: Path, listener: ProgressReporter) -> None:
    context = context_of(tmp_path, listener, STUDY, OPTIONS)
    for stage, before, command in (("finetune", "index", "finetune"), ("report", "index", "finetune")):
        with pytest.raises(EdgetlError) as caught:
            run_stages(context, [stage])
        assert str(caught.value) == f"{context.run.path} has no finished {before} stage; run edgetl {command} first"


@pytest.mark.parametrize(
    ("old", "new", "stage", "refusal"),
    [
        ("[0.01]", "[0.02]", "export", "the finetune stage in .* was made with another training"),
        ("straight", "upright", "export", "the index stage in .* was made with another groups"),
        ("per_label: 6", "per_label: 7", "evaluate", "the index stage in .* was made with another data"),
        (
            "name: two digits",
            "seed: 1\nname: two digits",
            "evaluate",
            "the index stage in .* was made with another seed",
        ),
        ("image_size: 16", "image_size: 32", "profile", "the finetune stage in .* was made with another backbone"),
        ("[fp32]", "[fp32, int8]", "build-engine", "the export stage in .* was made with another precisions"),
        (
            "name: two digits",
            "runtime: tensorrt-rtx\nname: x",
            "evaluate",
            "the build-engine stage in .* another runtime",
        ),
    ],
)
def test_later_stages_refuse_a_changed_key(run: Run, old: str, new: str, stage: str, refusal: str) -> None:
    with pytest.raises(EdgetlError, match=refusal + ".* than the study file has now; run edgetl .* again"):
        run([stage], study=STUDY.replace(old, new))


def test_an_output_changed_by_hand_is_refused_by_the_stages_that_read_it(folder: Path, run: Run) -> None:
    graph = folder / "run" / "graphs" / "shared.fp32.onnx"
    graph.write_bytes(graph.read_bytes() + b"\0")
    with pytest.raises(EdgetlError) as caught:
        run(["build-engine"])
    assert str(caught.value) == f"{graph} is not the file that the export stage wrote; run edgetl export again"


def test_a_stage_that_fails_leaves_what_was_finished_before(folder: Path, run: Run, tmp_path: Path) -> None:
    blocked = folder / "run" / "measurements"
    shutil.rmtree(blocked)
    blocked.write_text("a file in place of the folder")
    with pytest.raises(EdgetlError, match="cannot write"):
        run()
    blocked.unlink()
    assert run(ALL[:6]) == ["evaluate"]


def test_a_run_directory_may_be_moved(folder: Path, tmp_path: Path, listener: ProgressReporter) -> None:
    (folder / "run").rename(folder / "moved")
    context = Context(load_study(folder / "study.yaml"), folder, RunDirectory(folder / "moved"), listener, OPTIONS)
    run_stages(context, ALL)
    assert listener.lines == [f"{name}: up to date" for name in ALL]  # type: ignore[attr-defined]
