from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from edgetl.artifacts.files import sha256_bytes, write_bytes
from edgetl.artifacts.run import RunDirectory, StageRecord
from edgetl.errors import EdgetlError

WANTED = StageRecord(stage="export", settings={"seed": 0}, surroundings={}, parents={"index": "abc"}, outputs={})


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory(tmp_path / "run")


def finished(run: RunDirectory) -> StageRecord:
    for name in ("b.onnx", "a.onnx"):
        write_bytes(run.graphs / name, name.encode())
    return run.finish(WANTED, [run.graphs / "b.onnx", run.graphs / "a.onnx"])


def test_a_finished_stage_is_remembered_with_the_digests_of_its_files(run: RunDirectory) -> None:
    record = finished(run)
    assert record.outputs == {f"graphs/{name}": sha256_bytes(name.encode()) for name in ("a.onnx", "b.onnx")}
    assert run.record("export") == record
    assert run.damaged(record) is None


def test_a_stage_that_never_ran_or_lost_a_file_has_no_record(run: RunDirectory) -> None:
    assert run.record("export") is None
    finished(run)
    (run.graphs / "a.onnx").unlink()
    assert run.record("export") is None


@pytest.mark.parametrize("content", [b"", b"{", b'{"schema_version": 2}', b"\xff"])
def test_a_damaged_record_means_the_stage_is_done_again(run: RunDirectory, content: bytes) -> None:
    finished(run)
    run.record_path("export").write_bytes(content)
    assert run.record("export") is None


def test_an_output_that_was_changed_afterwards_is_named(run: RunDirectory) -> None:
    record = finished(run)
    (run.graphs / "b.onnx").write_bytes(b"other")
    assert run.damaged(record) == "graphs/b.onnx"


def test_the_digest_of_a_stage_tells_what_was_made_and_not_where(tmp_path: Path) -> None:
    here, there = finished(RunDirectory(tmp_path / "here")), finished(RunDirectory(tmp_path / "there"))
    assert here.digest == there.digest
    assert here.model_copy(update={"surroundings": {"processor": "another"}}).digest == here.digest
    assert here.model_copy(update={"parents": {"index": "def"}}).digest != here.digest
    assert here.model_copy(update={"outputs": {}}).digest != here.digest


def hold(run: RunDirectory, then: str) -> subprocess.Popen[str]:
    """A process that holds the lock, leaves a half-written file, says so and goes on with ``then``."""
    script = f"""
        import os, signal, time
        from pathlib import Path
        from edgetl.artifacts.files import whole_file
        from edgetl.artifacts.run import RunDirectory
        run = RunDirectory(Path({str(run.path)!r}))
        with run.locked(), whole_file(run.graphs / "a.onnx") as partial:
            partial.write_bytes(b"half")
            print("held", flush=True)
            {then}
    """
    child = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"
    return child


def test_a_second_process_is_refused_while_the_first_is_at_work(run: RunDirectory) -> None:
    child = hold(run, "time.sleep(60)")
    try:
        with pytest.raises(EdgetlError) as caught, run.locked():
            pass
        by_whom = f"another edgetl (process {child.pid}) is at work in {run.path}"
        assert str(caught.value) == f"{by_whom}; wait for it or choose another -o"
        assert len(list(run.graphs.iterdir())) == 1, "the file that the first one is writing stays"
    finally:
        child.kill()
        child.communicate()


def test_a_killed_processs_partial_files_are_cleared_and_its_lock_is_free(run: RunDirectory) -> None:
    child = hold(run, "os.kill(os.getpid(), signal.SIGKILL)")
    child.communicate()
    write_bytes(run.graphs / "whole.onnx", b"whole")
    assert len(list(run.graphs.iterdir())) == 2
    with run.locked():
        assert [path.name for path in run.graphs.iterdir()] == ["whole.onnx"]


def test_the_lock_is_given_back_when_the_work_fails(run: RunDirectory) -> None:
    with pytest.raises(ValueError, match="the work"), run.locked():
        raise ValueError("the work")
    with run.locked():
        pass


def test_a_file_in_place_of_the_run_directory_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "taken").write_bytes(b"content")
    for path in (tmp_path / "taken", tmp_path / "taken" / "below"):
        with pytest.raises(EdgetlError, match="cannot write"), RunDirectory(path).locked():
            pass
