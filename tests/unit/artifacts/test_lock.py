"""Locks between real processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgetl.artifacts.lock import locked
from edgetl.errors import EdgetlError

WORKER = """
import sys
from pathlib import Path
from edgetl.artifacts.lock import locked
path = Path(sys.argv[1])
for _ in range(50):
    with locked(path):
        path.write_text(str(int(path.read_text()) + 1))
"""


def test_processes_take_turns(tmp_path: Path) -> None:
    counter = tmp_path / "counter"
    counter.write_text("0")
    workers = [subprocess.Popen([sys.executable, "-c", WORKER, str(counter)]) for _ in range(4)]
    assert [worker.wait(60) for worker in workers] == [0] * 4
    assert counter.read_text() == "200"
    assert list(tmp_path.iterdir()) == [counter], "no lock is left"


def test_a_process_that_dies_lets_go(tmp_path: Path) -> None:
    code = "import sys, os\nfrom pathlib import Path\nfrom edgetl.artifacts.lock import locked\n"
    code += "with locked(Path(sys.argv[1])):\n    os._exit(9)"
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path / "file")], check=False).returncode == 9
    with locked(tmp_path / "file"):
        pass


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EdgetlError, match="cannot write"), locked(tmp_path / "file" / "below"):
        pass


@pytest.mark.parametrize("kind", ["link", "hard link", "pipe", "folder", "another program's"])
def test_what_is_no_lock_is_refused_and_stays(kind: str, tmp_path: Path) -> None:
    lock, victim = tmp_path / ".file.lock", tmp_path / "victim"
    victim.write_bytes(b"")
    if kind == "link":
        lock.symlink_to(victim)
    elif kind == "hard link":
        lock.hardlink_to(victim)
    elif kind == "pipe":
        os.mkfifo(lock)
    elif kind == "folder":
        lock.mkdir()
    else:
        lock.write_bytes(b"4711\n")
    before = lock.lstat()
    with pytest.raises(EdgetlError, match=r"\.file\.lock is no lock of edgetl's"), locked(tmp_path / "file"):
        pass
    assert lock.lstat() == before
