"""What other programs rely on: exit codes, streams, and the shape of what is printed."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
import unicodedata
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from edgetl.artifacts.files import sha256_file, write_json
from edgetl.cli import COMMANDS

Done = subprocess.CompletedProcess[str]
Command = Callable[..., Done]
Start = Callable[..., subprocess.Popen[str]]


# Hit inside an import, Python ends itself by the signal: to a shell, that too is 130.
INTERRUPTED = {130, -signal.SIGINT}


def _last_line(text: str) -> str:
    return text.splitlines()[-1]


def _control_characters(text: str) -> set[str]:
    return {character for character in text if unicodedata.category(character) == "Cc" and character != "\n"}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str, call: Command) -> None:
    done = call(command, "--help")
    assert done.returncode == 0
    assert re.search(rf"Examples?:\s+edgetl {command} ", done.stdout)
    assert done.stderr == ""


def test_help_and_version_end_with_0(call: Command) -> None:
    overview = call("--help")
    assert overview.returncode == call("-h").returncode == call("--version").returncode == 0
    assert all(f"  {command} " in overview.stdout for command in COMMANDS)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["evalute"], "Did you mean evaluate?"),
        (["build_engine"], "Did you mean build-engine?"),
        (["quux"], "No such command 'quux'."),
        (["run"], "Missing argument"),
        (["run", "study.yaml"], "Missing option '-o'"),
        (["run", "study.yaml", "-o", "x", "--thread", "1"], "Did you mean '--threads'?"),
        (["run", "study.yaml", "-o", "x", "--threads", "many"], "is not a valid integer"),
        (["run", "study.yaml", "-o", "x", "--seconds", "0"], "not in the range"),
        (["build-engine", "study.yaml"], "a study needs -o DIR"),
        (["build-engine", "study.yaml", "-o", "x", "--precision", "int8"], "a study names its own"),
        (["profile", "study.yaml"], "a study needs -o DIR"),
        (["profile", "study.yaml", "-o", "x", "--against", "b.onnx"], "--against is for models"),
        (["profile", "study.yaml", "-o", "x", "--batch", "2"], "--batch is for models"),
        (["profile"], "Missing argument"),
        (["profile", "a.onnx", "--on", "nano"], "No such option"),
        (["profile", "a.onnx", "--rate", "a=5"], "--rate is for --scenario cadence"),
        (["export", "yolo.cfg", "-o", "x"], "yolo.cfg is for edgetl import-darknet"),
        (["profile", "a.onnx", "--fail-if-slower", "5%"], "needs --against"),
        (["profile", "a.onnx", "--against", "b.onnx", "--fail-if-slower", "five"], "is no fraction above 0 %"),
        (["profile", "a.onnx", "--width", "nan%"], "is no fraction above 0 %"),
        (["profile", "a.onnx", "--provider", "cuda"], "ONNX files are measured on the CPU"),
        (
            ["prepare", "a.onnx", "--precision", "fp16", "--target", "tensorrt", "-o", "b.onnx"],
            "--target is for --precision int8; FP16 takes --calibration-images alone",
        ),
        (
            ["prepare", "m.onnx", "--precision", "int8", "--scales", "c", "--recipe", "max", "-o", "x.onnx"],
            "--scales",
        ),
        (
            ["prepare", "m.onnx", "--precision", "int8", "--tensorrt-version", "8.6.2", "-o", "x.onnx"],
            "-version is for",
        ),
        (["compare", "a.onnx", "b.onnx"], "Missing option '--images'"),
        (["build-engine", "a.onnx", "--calibration-images", "x"], "--calibration-images is for --precision int8"),
        (["prepare", "m.onnx", "--precision", "fp64", "-o", "x.onnx"], "'fp64' is not one of"),
    ],
)
def test_usage_errors_end_with_2_and_say_what_to_do(arguments: list[str], said: str, call: Command) -> None:
    done = call(*arguments)
    assert done.returncode == 2
    assert said in " ".join(done.stderr.split())
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


def test_no_command_at_all_shows_what_there_is(call: Command) -> None:
    done = call()
    assert done.returncode == 2
    assert "build-engine" in done.stderr


def test_bad_input_ends_with_1_and_an_error_line(edgetl: Command, fault: Callable[[Done], str], tmp_path: Path) -> None:
    assert fault(edgetl("run", tmp_path / "no.yaml", "-o", tmp_path)) == f"{tmp_path}/no.yaml does not exist"


def test_debug_shows_the_traceback_and_still_ends_with_the_error_line(edgetl: Command, tmp_path: Path) -> None:
    done = edgetl("--debug", "run", tmp_path / "no.yaml", "-o", tmp_path)
    assert done.returncode == 1
    assert "Traceback (most recent call last)" in done.stderr
    assert _last_line(done.stderr).startswith("error: ")


def test_a_bug_ends_with_3_and_asks_for_a_report(
    call: Command, monkeypatch: pytest.MonkeyPatch, finished: Path
) -> None:
    def broken(_path: Path) -> None:
        raise RuntimeError("two\nlines")

    monkeypatch.setattr("edgetl.config.load_study", broken)
    arguments = ("report", finished / "study.yaml", "-o", finished / "run")
    done = call(*arguments)
    assert done.returncode == 3
    assert _last_line(done.stderr).startswith("error: a bug in edgetl: RuntimeError: two lines; run again with")
    assert "Traceback" not in done.stderr
    assert "Traceback" in call("--debug", *arguments).stderr


def test_out_of_memory_is_not_called_a_bug(
    call: Command, fault: Callable[[Done], str], monkeypatch: pytest.MonkeyPatch, finished: Path
) -> None:
    def hungry(_path: Path) -> None:
        raise MemoryError

    monkeypatch.setattr("edgetl.config.load_study", hungry)
    assert "out of memory" in fault(call("report", finished / "study.yaml", "-o", finished / "run"))


def test_a_missed_budget_ends_with_4_if_strict(call: Command, copied: Path, write_study: Callable[..., Path]) -> None:
    study = write_study(copied, budget={"max_latency_ms": 1e-6})
    done = call("report", study, "-o", copied / "run", "--strict")
    assert done.returncode == 4
    assert _last_line(done.stderr) == "error: no deployment meets the budget"
    assert "nothing meets the budget" in done.stdout
    assert call("report", study, "-o", copied / "run").returncode == 0
    assert json.loads((copied / "run" / "results.json").read_text())["verdict"]["deployment"] is None


def test_an_unstable_result_ends_with_4_under_strict(call: Command, copied: Path) -> None:
    run = copied / "run"
    latency = json.loads((run / "measurements" / "latency.json").read_text())
    for row in latency["deployments"]:
        row["latency_ms"] |= {"stable": False, "why_unstable": "the fan failed"}
    write_json(run / "measurements" / "latency.json", latency)
    record = json.loads((run / "stages" / "profile.json").read_text())
    record["outputs"]["measurements/latency.json"] = sha256_file(run / "measurements" / "latency.json")
    write_json(run / "stages" / "profile.json", record)
    done = call("report", copied / "study.yaml", "-o", run, "--strict")
    assert done.returncode == 4
    assert _last_line(done.stderr) == "error: the verdict rests on an unstable measurement"
    assert "UNSTABLE" in done.stdout


@pytest.mark.parametrize("said", ["finetune: 72 x 160 features of train", "finetune: head"])
def test_an_interrupt_ends_with_130_and_what_was_done_stays(
    said: str, start: Start, call: Command, write_study: Callable[..., Path], tmp_path: Path
) -> None:
    study, run = write_study(tmp_path), tmp_path / "run"
    process = start("run", study, "-o", run, "--seconds", 60)
    assert process.stderr is not None
    next(line for line in process.stderr if line.startswith(said))
    process.send_signal(signal.SIGINT)
    out, rest = process.communicate(timeout=120)
    assert process.returncode in INTERRUPTED, rest
    assert out == ""
    assert "Traceback" not in rest
    assert _last_line(rest).startswith("error: interrupted; what was finished is kept")
    assert not list(run.rglob("*.partial"))
    again = call("finetune", study, "-o", run)
    assert again.returncode == 0, again.stderr
    assert "index: up to date" in again.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_modules_are_imported_is_a_line(number: signal.Signals, start: Start, finished: Path) -> None:
    process = start("inspect", finished / "run" / "graphs" / "combined.fp32.onnx")
    while "numpy" not in Path(f"/proc/{process.pid}/maps").read_text():
        assert process.poll() is None
    process.send_signal(number)
    _, err = process.communicate(timeout=120)
    assert process.returncode in {128 + number, -number}, err
    assert err.strip().startswith("error: interrupted") and len(err.strip().splitlines()) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_other_signals_end_as_an_interrupt_does(
    number: signal.Signals, start: Start, finished: Path, tmp_path: Path
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    graph = finished / "run" / "graphs" / "combined.fp32.onnx"
    process = start("profile", graph, "--seconds", 60, "--width", 0.0001, env={"TMPDIR": str(scratch)})
    while not list(scratch.glob("*/0.onnx.json")):  # a copy of the model lies there
        assert process.poll() is None
    process.send_signal(number)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (128 + number, ""), err
    assert _last_line(err).startswith("error: interrupted; what was finished is kept") and "Traceback" not in err
    assert not list(scratch.iterdir())


def test_a_signal_that_is_ignored_stays_ignored(start: Start, finished: Path) -> None:
    inherited = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        process = start("report", finished / "study.yaml", "-o", finished / "run", "--json")
    finally:
        signal.signal(signal.SIGHUP, inherited)
    while process.poll() is None:
        process.send_signal(signal.SIGHUP)
        time.sleep(0.01)
    assert process.returncode == 0


def test_an_interrupt_while_measuring_leaves_the_rest_of_the_run_as_it_was(
    start: Start, call: Command, copied: Path, snapshot: Callable[[Path], dict[str, str]]
) -> None:
    run = copied / "run"
    before = snapshot(run)
    process = start("profile", copied / "study.yaml", "-o", run, "--seconds", 60)
    while (run / "stages" / "profile.json").exists():  # it goes when the stage begins
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode in INTERRUPTED, err
    assert before.items() - snapshot(run).items() == {("stages/profile.json", before["stages/profile.json"])}
    options = ("-o", run, "--threads", 1, "--seconds", 0.3)
    assert call("run", copied / "study.yaml", *options).returncode == 0


@pytest.mark.parametrize(
    ("command", "result"),
    [
        ("finetune", "bundle/bundle.json"),
        ("export", "graphs"),
        ("build-engine", "engines"),
        ("evaluate", "measurements/accuracy.json"),
    ],
)
def test_stdout_has_the_result_and_stderr_the_talk(command: str, result: str, call: Command, finished: Path) -> None:
    done = call(command, finished / "study.yaml", "-o", finished / "run")
    assert done.returncode == 0
    assert done.stdout == f"{finished / 'run' / result}\n"
    assert f"{command}: up to date\n" in done.stderr


def test_a_pipe_gets_no_progress_bar_and_no_control_characters(edgetl: Command, finished: Path, copied: Path) -> None:
    (copied / "run" / "stages" / "evaluate.json").unlink()
    for done in (
        edgetl("evaluate", copied / "study.yaml", "-o", copied / "run"),
        edgetl("report", finished / "study.yaml", "-o", finished / "run"),
    ):
        assert done.returncode == 0
        assert _control_characters(done.stdout + done.stderr) == set()
        assert "━" not in done.stderr and "%|" not in done.stderr


def test_the_table_in_a_pipe_is_as_wide_as_it_was_made_for(edgetl: Command, finished: Path) -> None:
    done = edgetl("report", finished / "study.yaml", "-o", finished / "run")
    assert max(map(len, done.stdout.splitlines()[:-1])) <= 100
    assert "by group: all/masked" in done.stdout


def test_an_environment_without_utf8_gets_the_table_all_the_same(edgetl: Command, finished: Path) -> None:
    arguments = ("report", finished / "study.yaml", "-o", finished / "run")
    plain = edgetl(*arguments, env={"PYTHONIOENCODING": "ascii"})
    assert plain.returncode == 0, plain.stderr
    assert "ángulo" in plain.stdout


def test_run_json_prints_exactly_results_json(call: Command, finished: Path) -> None:
    options = ("-o", finished / "run", "--threads", 1, "--seconds", 0.3, "--json")
    done = call("run", finished / "study.yaml", *options)
    assert done.returncode == 0, done.stderr
    assert done.stdout == (finished / "run" / "results.json").read_text(encoding="utf-8")
    assert next(iter(json.loads(done.stdout))) == "schema_version"


def test_profile_compares_plain_files_and_prints_json(call: Command, finished: Path) -> None:
    a, b = (str(finished / "run" / "graphs" / f"{name}.fp32.onnx") for name in ("combined", "shared"))
    done = call("profile", a, "--against", b, "--json", "--seconds", 0.1, "--threads", 1)
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert next(iter(printed)) == "schema_version"
    assert [row["name"] for row in printed["deployments"]] == [a, b]
    assert printed["deployments"][0]["latency_ms"]["samples"] >= 20
    [pair] = printed["comparisons"]
    assert (pair["a"], pair["b"], pair["metric"]) == (a, b, "latency")
    assert pair["low"] <= pair["ratio"] <= pair["high"]


def test_profile_of_plain_files_tells_the_ratio_in_words(call: Command, finished: Path) -> None:
    a, b = (finished / "run" / "graphs" / f"combined.{kind}.onnx" for kind in ("fp32", "int8.onnxruntime"))
    done = call("profile", a, b, "--seconds", 0.1, "--threads", 1)
    assert done.returncode == 0, done.stderr
    assert f"{a} takes " in done.stdout and f" times as long as {b} (" in done.stdout
    assert not [path for path in a.parent.iterdir() if path.suffix not in {".onnx", ".json"}]


def test_a_gate_for_ci_fails_what_is_slower_and_says_by_how_much(call: Command, finished: Path, tmp_path: Path) -> None:
    graphs = finished / "run" / "graphs"
    fast = graphs / "combined.fp32.onnx"
    options = ("--against", fast, "--seconds", 0.3, "--threads", 1)
    assert call("profile", graphs / "shared.fp32.onnx", *options, "--fail-if-slower", "90%").returncode == 0
    heavy = big_copy(fast, tmp_path / "heavy.onnx")
    done = call("profile", heavy, *options, "--fail-if-slower", "5%", "-o", tmp_path / "figures")
    assert done.returncode == 4, done.stderr
    assert done.stderr.splitlines()[-1].startswith(f"error: {heavy} takes ")
    assert done.stderr.rstrip().endswith("slower by more than 5.0%")
    loaded = call("compare-profiles", tmp_path / "figures" / "profile.json")
    assert loaded.returncode == 0, loaded.stderr
    assert loaded.stdout == done.stdout
    copy = tmp_path / "copy"
    (tmp_path / "figures").rename(copy)
    both = call("compare-profiles", copy / "profile.json", finished / "run" / "results.json")
    assert "combined fp32" in both.stdout and "heavy.onnx" in both.stdout


def big_copy(graph: Path, path: Path) -> Path:
    """The same network for images of twice the side: four times the work."""
    model = onnx.load(graph)
    for value in model.graph.input:
        for dim in value.type.tensor_type.shape.dim[2:]:
            dim.dim_value *= 2
    for prop in model.metadata_props:
        prop.value = prop.value.replace("16", "32") if "preprocessing" in prop.key else prop.value
    onnx.save(model, path)
    return path


def test_a_studys_latencies_are_recomputed_from_its_samples(call: Command, finished: Path) -> None:
    run = finished / "run"
    for file in (run / "measurements" / "latency.json", run / "results.json"):
        done = call("compare-profiles", file, "--json")
        assert done.returncode == 0, done.stderr
        before, again = json.loads((run / "results.json").read_text()), json.loads(done.stdout)
        for old, new in zip(before["deployments"], again["deployments"], strict=True):
            assert new["latency_ms"] == old["latency_ms"]
        pairs = {(one["a"], one["b"]): one for one in again["comparisons"]}
        for old in before["comparisons"]:
            if old["metric"] == "latency":
                assert pairs[old["a"], old["b"]] == old


@pytest.mark.parametrize("options", [["--json"], []], ids=["json", "table"])
def test_a_reader_that_goes_away_is_no_reason_to_complain(options: list[str], start: Start, finished: Path) -> None:
    process = start("report", finished / "study.yaml", "-o", finished / "run", *options)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == "report: up to date\n"
    assert process.wait(timeout=120) == 128 + signal.SIGPIPE


def test_head_takes_the_first_line_and_the_rest_is_quiet(finished: Path) -> None:
    pipeline = '"$0" -m edgetl report "$1/study.yaml" -o "$1/run" --json | head -1'
    done = subprocess.run(
        ["bash", "-c", pipeline, sys.executable, finished], capture_output=True, text=True, check=False, timeout=120
    )
    assert (done.stdout, done.stderr) == ("{\n", "report: up to date\n")


def test_a_terminal_gets_progress_bars(start: Start, copied: Path) -> None:
    (copied / "run" / "stages" / "evaluate.json").unlink()
    terminal, end = pty.openpty()
    process = start(
        "evaluate", copied / "study.yaml", "-o", copied / "run", stderr=end, env={"TERM": "xterm", "NO_COLOR": ""}
    )
    os.close(end)
    shown = b""
    with contextlib.suppress(OSError):  # Linux ends a terminal's stream with an error
        while block := os.read(terminal, 4096):
            shown += block
    os.close(terminal)
    assert process.wait(timeout=120) == 0
    assert "evaluating" in shown.decode() and "━" in shown.decode()
