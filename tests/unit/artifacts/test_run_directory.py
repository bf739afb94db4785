from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgetl.artifacts.files import sha256_bytes, write_bytes
from edgetl.artifacts.run_directory import RunDirectory, StageRecord
from edgetl.errors import EdgetlError

WANTED = StageRecord(stage="export", settings={"seed": 0}, inputs={}, parents={"index": "abc"}, outputs={})


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
    assert here.model_copy(update={"inputs": {"processor": "another"}}).digest == here.digest
    assert here.model_copy(update={"parents": {"index": "def"}}).digest != here.digest
    assert here.model_copy(update={"outputs": {}}).digest != here.digest


def hold(run: RunDirectory, then: str) -> subprocess.Popen[str]:
    """A process that holds the lock, leaves a half-written file, says so and goes on with ``then``."""
    script = f"""
        import os, signal, time
        from pathlib import Path
        from edgetl.artifacts.files import whole_file
        from edgetl.artifacts.run_directory import RunDirectory
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


def foreign(folder: Path) -> dict[str, bytes]:
    """What other programs leave half-written, with its content."""
    names = (".x.partial", ".rsync.partial/big.iso", "deep/er/.y.1234.partial", "graphs/.z.0123abcd.partial")
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return {name: (folder / name).read_bytes() for name in names}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_other_programs_left_half_written_stays(run: RunDirectory) -> None:
    with run.locked():
        pass
    before = foreign(run.path)
    child = hold(run, "os.kill(os.getpid(), signal.SIGKILL)")
    child.communicate()
    assert len(contents(run.path)) == len(before) + 2, "and beside them a half-written file and the lock"
    with run.locked():
        pass
    assert {name: content for name, content in contents(run.path).items() if name != ".lock"} == before


def test_a_folder_that_is_no_run_directory_is_refused_and_stays_as_it_is(tmp_path: Path) -> None:
    before = foreign(tmp_path)
    for lock in (None, b"", b"4711", b"4711\n", b"cargo"):
        if lock is not None:
            (tmp_path / ".lock").write_bytes(lock)
            before[".lock"] = lock
        with pytest.raises(EdgetlError) as caught, RunDirectory(tmp_path).locked():
            pass
        assert str(caught.value).startswith(f"{tmp_path} holds other things (deep) and is no")
        assert str(caught.value).endswith("; choose a new or an empty directory with -o")
        assert contents(tmp_path) == before


def test_an_empty_directory_and_one_that_was_carried_over_without_its_lock_are_taken(run: RunDirectory) -> None:
    run.path.mkdir()
    with run.locked():
        finished(run)
    (run.path / ".lock").unlink()
    with run.locked():
        assert run.record("export") is not None


@pytest.mark.parametrize("name", ["../out/{}", "{absolute}", "link/{}", "graphs/x.partial", "graphs/.x.1.partial", "."])
def test_a_lock_that_names_other_files_removes_none_of_them(name: str, run: RunDirectory, tmp_path: Path) -> None:
    """A run directory may come from anyone."""
    ours = ".x.0123abcd.partial"
    run.graphs.mkdir(parents=True)
    outside = tmp_path / "out"
    outside.mkdir()
    (run.path / "link").symlink_to(outside)
    (run.graphs / ".l.0123abcd.partial").symlink_to(outside)
    for path in (outside / ours, run.graphs / "x.partial", run.graphs / ".x.1.partial"):
        path.write_bytes(b"precious")
    names = [name.format(ours, absolute=outside / ours), "graphs/.l.0123abcd.partial"]
    (run.path / ".lock").write_text("edgetl 1\n" + "".join(f"{json.dumps(one)}\n" for one in names))
    before = contents(tmp_path)
    with run.locked():
        pass
    after = contents(tmp_path)
    assert before.pop("run/.lock") and after.pop("run/.lock")
    assert after == before and (run.graphs / ".l.0123abcd.partial").is_symlink()


LINES = st.recursive(
    st.none() | st.integers() | st.text() | st.sampled_from([".", "..", "/", "a/../..", "\0", "a\0.partial"]),
    lambda inner: st.lists(inner, max_size=2),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(st.lists(LINES.map(json.dumps) | st.text(), max_size=5))
def test_whatever_a_lock_says_nothing_else_is_removed(run: RunDirectory, tmp_path: Path, lines: list[str]) -> None:
    run.graphs.mkdir(parents=True, exist_ok=True)
    (run.graphs / "a.onnx").write_bytes(b"whole")
    (tmp_path / "beside").write_bytes(b"whole")
    (run.path / ".lock").write_bytes("\n".join(["edgetl 1", *lines, ""]).encode("utf-8", "surrogatepass"))
    with run.locked():
        assert (run.graphs / "a.onnx").exists() and (tmp_path / "beside").exists()


def link(lock: Path, victim: Path) -> None:
    lock.symlink_to(victim)


def hard_link(lock: Path, victim: Path) -> None:
    lock.hardlink_to(victim)


def dangling(lock: Path, victim: Path) -> None:
    lock.symlink_to(victim.with_name("not there yet"))


def pipe(lock: Path, victim: Path) -> None:
    os.mkfifo(lock)


def folder(lock: Path, victim: Path) -> None:
    lock.mkdir()


def endpoint(lock: Path, victim: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(lock))


def other_file(lock: Path, victim: Path) -> None:
    lock.write_bytes(b"held by another program\n")


@pytest.mark.parametrize("lay", [link, hard_link, dangling, pipe, folder, endpoint, other_file])
def test_what_is_no_lock_is_refused_and_not_written_to(
    lay: Callable[[Path, Path], None], run: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"edgetl 1\nprecious")
    finished(run)
    monkeypatch.chdir(run.path)  # a socket's path must be short
    lay(Path(".lock"), victim)
    with pytest.raises(EdgetlError) as caught, run.locked():
        pass
    assert str(caught.value) == f"{run.path}/.lock is no lock of edgetl's; move it away, or choose another -o"
    assert victim.read_bytes() == b"edgetl 1\nprecious"
    assert not (tmp_path / "not there yet").exists()
