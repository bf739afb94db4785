"""A run that was killed goes on where it was, and what is up to date is not done again."""

from __future__ import annotations

import hashlib
import json
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Done = subprocess.CompletedProcess[str]
Command = Callable[..., Done]
Start = Callable[..., subprocess.Popen[str]]
WriteStudy = Callable[..., Path]
Snapshot = Callable[[Path], dict[str, str]]

MEASURING = ("--threads", 1, "--seconds", 0.3)
STAGES = ["index", "finetune", "search", "export", "build-engine", "evaluate", "profile", "report"]


def _times(run: Path) -> dict[str, int]:
    """When each file was last written; the lock, in which every process writes its number, aside."""
    files = (path for path in run.rglob("*") if path.is_file() and path.name != ".lock")
    return {path.relative_to(run).as_posix(): path.stat().st_mtime_ns for path in files}


def _written_since(before: dict[str, int], run: Path) -> set[str]:
    return {name for name, _ in _times(run).items() - before.items()}


def _up_to_date(done: Done) -> list[str]:
    lines = done.stderr.splitlines()
    return [line.removesuffix(": up to date") for line in lines if line.endswith(": up to date")]


def _accuracy_part(run: Path) -> dict[str, Any]:
    """What of `results.json` does not depend on how fast the machine was."""
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    return {
        "data": results["data"],
        "training": results["training"],
        "accuracy": [(row["name"], row["precision"], row["accuracy"]) for row in results["deployments"]],
        "comparisons": [pair for pair in results["comparisons"] if pair["metric"] == "accuracy"],
    }


def _assert_records_hold(run: Path) -> None:
    """Every stage that says it is finished has all its files, whole."""
    for path in (run / "stages").glob("*.json"):
        for name, digest in json.loads(path.read_text())["outputs"].items():
            assert hashlib.sha256((run / name).read_bytes()).hexdigest() == digest, f"{path.stem}: {name}"


def test_a_run_killed_in_every_stage_ends_like_an_undisturbed_one(
    start: Start, edgetl: Command, write_study: WriteStudy, finished: Path, snapshot: Snapshot, tmp_path: Path
) -> None:
    chance = random.Random(20261120)
    study, run = write_study(tmp_path), tmp_path / "run"
    for begun in ("data", *(f"stages/{stage}.json" for stage in STAGES[:6])):
        process = start("run", study, "-o", run, *MEASURING)
        while not (run / begun).exists() and process.poll() is None:
            time.sleep(0.002)
        time.sleep(chance.uniform(0.0, 0.3))
        process.kill()
        assert process.wait() == -signal.SIGKILL, begun
        _assert_records_hold(run)
    done = edgetl("run", study, "-o", run, *MEASURING)
    assert done.returncode == 0, done.stderr
    assert _up_to_date(done)[:4] == STAGES[:4]
    for folder in ("bundle", "graphs", "data"):
        assert snapshot(run / folder) == snapshot(finished / "run" / folder)
    assert _accuracy_part(run) == _accuracy_part(finished / "run")
    assert not list(run.rglob("*.partial"))


def test_a_run_killed_while_it_drew_its_images_can_be_run_again(
    start: Start, edgetl: Command, write_study: WriteStudy, tmp_path: Path
) -> None:
    study, run = write_study(tmp_path), tmp_path / "run"
    process = start("finetune", study, "-o", run)
    while not list(run.glob("data/.digits.*.partial/*")) and process.poll() is None:
        time.sleep(0.001)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert list(run.rglob("*.partial")), "it was not killed while it drew"
    beside = run / "data" / ".digits.partial" / "mine.png"
    beside.parent.mkdir()
    beside.write_bytes(b"mine")
    done = edgetl("finetune", study, "-o", run)
    assert done.returncode == 0, done.stderr
    assert list(run.rglob("*.partial")) == [beside.parent] and beside.read_bytes() == b"mine"


def test_a_finished_run_is_not_done_again(call: Command, finished: Path) -> None:
    before = _times(finished / "run")
    done = call("run", finished / "study.yaml", "-o", finished / "run", *MEASURING)
    assert done.returncode == 0
    assert _up_to_date(done) == STAGES
    assert _times(finished / "run") == before


def test_a_copied_run_directory_is_up_to_date_where_it_was_copied_to(call: Command, copied: Path) -> None:
    done = call("run", copied / "study.yaml", "-o", copied / "run", *MEASURING)
    assert done.returncode == 0
    assert _up_to_date(done) == STAGES


def test_another_budget_needs_only_another_report(call: Command, copied: Path, write_study: WriteStudy) -> None:
    run = copied / "run"
    before = _times(run)
    study = write_study(copied, budget={"min_accuracy": 0.5})
    done = call("run", study, "-o", run, *MEASURING)
    assert done.returncode == 0, done.stderr
    assert _up_to_date(done) == STAGES[:-1]
    assert _written_since(before, run) == {"results.json", "report.html", "stages/report.json"}
    assert json.loads((run / "results.json").read_text())["budget"] == {"min_accuracy": 0.5}


def test_a_lost_engine_is_built_again_and_what_rests_on_it_measured_again(call: Command, copied: Path) -> None:
    run = copied / "run"
    engine = run / "engines" / "onnxruntime" / "shared.int8.onnx"
    engine.unlink()
    before = _times(run)
    done = call("run", copied / "study.yaml", "-o", run, *MEASURING)
    assert done.returncode == 0, done.stderr
    assert _up_to_date(done) == STAGES[:4]
    written = _written_since(before, run)
    assert {name for name in written if name.startswith("engines/")} == {
        "engines/onnxruntime/shared.int8.onnx",
        "engines/onnxruntime/shared.int8.onnx.json",
    }
    assert {f"stages/{stage}.json" for stage in STAGES[4:]} <= written
    assert not {name for name in written if name.startswith(("data/", "cache/", "bundle/", "graphs/"))}


def test_other_heads_are_trained_on_the_cached_features(call: Command, copied: Path, write_study: WriteStudy) -> None:
    study = write_study(copied, training={"l2": [0.01]})
    before = _times(copied / "run")
    done = call("finetune", study, "-o", copied / "run")
    assert done.returncode == 0, done.stderr
    assert _up_to_date(done) == ["index"]
    assert "features of train from the cache" in done.stderr
    assert not {name for name in _written_since(before, copied / "run") if name.startswith(("data/", "cache/"))}


def test_a_lost_cache_is_no_loss(call: Command, copied: Path) -> None:
    for file in (copied / "run" / "cache" / "features").iterdir():
        file.unlink()
    done = call("run", copied / "study.yaml", "-o", copied / "run", *MEASURING)
    assert _up_to_date(done) == STAGES


def test_a_cache_cut_short_is_not_trained_on(call: Command, copied: Path, write_study: WriteStudy) -> None:
    matrices = (copied / "run" / "cache" / "features").glob("*.npy")
    of_train = max(matrices, key=lambda path: path.stat().st_size)
    of_train.write_bytes(of_train.read_bytes()[:5000])
    study = write_study(copied, training={"l2": [0.01]})
    done = call("finetune", study, "-o", copied / "run")
    assert done.returncode == 0, done.stderr
    assert "features of train computed" in done.stderr
    assert "features of val from the cache" in done.stderr
