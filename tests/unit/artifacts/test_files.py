from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetl.artifacts.files import (
    Artifact,
    is_temporary,
    read_json,
    sha256_bytes,
    sha256_file,
    sha256_json,
    whole_file,
    write_bytes,
    write_json,
)
from edgetl.errors import EdgetlError


class Note(Artifact):
    schema_version: Literal[1] = 1
    text: str
    numbers: tuple[float, ...] = ()


class Interruption(BaseException):
    """Stands for Ctrl-C, which pytest would take for its own."""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if done.returncode != 0:
        pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_file_is_written_with_the_folders_it_needs_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file.bin"
    write_bytes(path, b"content")
    assert path.read_bytes() == b"content"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("failure", [ValueError, KeyError, Interruption])
def test_a_block_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path, failure: type[BaseException]) -> None:
    path = tmp_path / "file"
    write_bytes(path, b"old")
    with pytest.raises(failure), whole_file(path) as partial:
        partial.write_bytes(b"half of the n")
        raise failure
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_reader_sees_the_old_file_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_bytes(path, b"old")
    with whole_file(path) as partial:
        partial.write_bytes(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"


def test_a_block_that_writes_nothing_is_an_error_and_not_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with pytest.raises(EdgetlError, match="cannot write"), whole_file(path):
        pass
    assert not path.exists()


def test_a_device_or_a_pipe_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "null").symlink_to("/dev/null")
    for name in ("pipe", "null"):
        before = (tmp_path / name).lstat()
        with pytest.raises(EdgetlError, match=f"cannot write {tmp_path / name}: Is no regular file"):
            write_bytes(tmp_path / name, b"content")
        assert (tmp_path / name).lstat() == before


def test_nobody_can_tell_the_temporary_name_and_lay_a_link_there(tmp_path: Path) -> None:
    names = set()
    for _ in range(3):
        with whole_file(tmp_path / "file") as partial:
            partial.write_bytes(b"new")
            names.add(partial.name)
    assert len(names) == 3 and all(is_temporary(name) for name in names)


def test_a_full_disk_is_one_line_and_the_old_file_stays(small_disk: Path) -> None:
    path = small_disk / "file"
    write_bytes(path, b"old")
    with pytest.raises(EdgetlError) as caught:
        write_bytes(path, bytes(200_000))
    assert str(caught.value) == f"cannot write {path}: No space left on device; free space or choose another directory"
    assert path.read_bytes() == b"old"
    assert list(small_disk.iterdir()) == [path]


def test_a_disk_that_can_only_be_read_is_one_line(small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(EdgetlError, match="Read-only file system"):
        write_bytes(small_disk / "file", b"content")


def test_a_limit_on_file_size_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    script = f"""
        from pathlib import Path
        import resource, signal
        from edgetl.artifacts.files import write_bytes
        from edgetl.errors import EdgetlError
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        try:
            write_bytes(Path({str(tmp_path / "file")!r}), bytes(5000))
        except EdgetlError as error:
            print(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True, cwd=Path.cwd()
    )
    assert done.stdout.startswith(f"cannot write {tmp_path / 'file'}: File too large")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_may_not_be_written_is_one_line(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir(mode=0o555)
    script = f"""
        import os
        from pathlib import Path
        from edgetl.artifacts.files import write_bytes
        from edgetl.errors import EdgetlError
        if os.geteuid() == 0:
            os.setgroups([]); os.setgid(65534); os.setuid(65534)
        try:
            write_bytes(Path({str(folder / "file")!r}), b"x")
        except EdgetlError as error:
            print(error)
    """
    for parent in (tmp_path, *tmp_path.parents):  # root's temporary folders are closed to others
        if parent.stat().st_uid == os.geteuid() and not parent.stat().st_mode & 0o001:
            parent.chmod(parent.stat().st_mode | 0o001)
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=False)
    if "Permission denied" in done.stderr:
        pytest.skip("another user may not read this interpreter or this folder")
    assert done.stdout.startswith(f"cannot write {folder / 'file'}: Permission denied"), done.stderr
    assert list(folder.iterdir()) == []


def test_a_file_in_place_of_a_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    for path in (tmp_path / "file" / "below", tmp_path / "file" / "far" / "below"):
        with pytest.raises(EdgetlError, match="cannot write"):
            write_bytes(path, b"x")
    assert (tmp_path / "file").read_bytes() == b"content"


def test_a_folder_in_place_of_the_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(EdgetlError, match="Is a directory"):
        write_bytes(tmp_path / "taken", b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_a_name_that_is_too_long_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(EdgetlError, match="File name too long"):
        write_bytes(tmp_path / ("x" * 255), b"x")


@given(
    st.text(alphabet=st.characters(exclude_categories=["Cs"])),
    st.lists(st.floats(allow_nan=False, allow_infinity=False)),
)
def test_an_artifact_reads_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, text: str, numbers: list[float]
) -> None:
    path = tmp_path_factory.getbasetemp() / "note.json"
    note = Note(text=text, numbers=tuple(numbers))
    write_json(path, note)
    assert read_json(path, Note) == note


def test_the_schema_version_comes_first_and_text_stays_readable(tmp_path: Path) -> None:
    path = tmp_path / "note.json"
    write_json(path, Note(text="Größe 象"))
    assert next(iter(json.loads(path.read_text()))) == "schema_version"
    assert "Größe 象" in path.read_text()


def test_a_figure_that_is_not_a_number_never_gets_into_a_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "note.json", {"value": float("nan")})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\x00",
        b"[" * 100_000,
        b'{"text": 3}',
        b'{"schema_version": 2, "text": "x"}',
        b'{"text": "x", "more": 1}',
        b'{"schema_version": 1}',
    ],
)
def test_a_damaged_artifact_is_one_line_that_says_what_to_do(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "note.json"
    path.write_bytes(content)
    with pytest.raises(EdgetlError) as caught:
        read_json(path, Note)
    assert str(caught.value).startswith(f"{path} is not a valid Note: ")
    assert "run the stage that makes it again" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_artifact_and_a_folder_in_its_place_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(EdgetlError, match="does not exist"):
        read_json(tmp_path / "none.json", Note)
    with pytest.raises(EdgetlError, match="Is a directory"):
        read_json(tmp_path, Note)


@given(st.binary(max_size=300))
def test_any_bytes_are_an_artifact_or_a_clear_error(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_bytes(content)
    with pytest.raises(EdgetlError):
        read_json(path, Note)


def test_digests_are_those_of_sha256sum(tmp_path: Path) -> None:
    # FIPS 180-2, appendix B.1
    abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_bytes(b"abc") == abc
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256_file(tmp_path / "abc") == abc
    (tmp_path / "large").write_bytes(bytes((1 << 20) + 1))
    assert sha256_file(tmp_path / "large") == sha256_bytes(bytes((1 << 20) + 1))


def test_the_digest_of_a_value_does_not_hang_on_the_order_of_its_keys() -> None:
    assert sha256_json({"a": 1, "b": [1, 2]}) == sha256_json({"b": [1, 2], "a": 1})
    assert sha256_json({"a": 1}) != sha256_json({"a": "1"})
