"""Profiles through a real sshd on this machine: two servers with homes of their own stand for two devices."""

from __future__ import annotations

import base64
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgetl.artifacts.results import Profile
from edgetl.errors import EdgetlError
from edgetl.stages.profile_files import by_path
from edgetl.stages.reload import reload
from edgetl.stages.remote import RemoteJob, files_job, profile_on
from edgetl.stages.stage import ProgressReporter
from tests.hostile import hostile_modules
from tests.sshd import PATIENCE, Network, needs_sshd, serve, until

pytestmark = needs_sshd


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    yield from serve(tmp_path_factory.mktemp("ssh"))


@pytest.fixture
def graphs(tmp_path: Path) -> list[Path]:
    """Two files of one name, of which one has twice the channels."""
    paths = []
    for channels in (4, 8):
        weight = numpy_helper.from_array(np.ones((channels, 3, 3, 3), np.float32), "w")
        graph = helper.make_graph(
            [helper.make_node("Conv", ["images", "w"], ["out"])],
            "one layer",
            [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", 3, 16, 16])],
            [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["N", channels, 14, 14])],
            [weight],
        )
        path = tmp_path / str(channels) / "it's a model.onnx"
        path.parent.mkdir()
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
        paths.append(path)
    return paths


class Told:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def message(self, text: str) -> None:
        self.lines.append(text)

    def progress(self, title: str, total: float) -> AbstractContextManager[Callable[[float], object]]:
        return nullcontext(bool)


def quick(graphs: list[Path], seconds: float = 0.1, output: Path | None = None) -> RemoteJob:
    return files_job(by_path(graphs), "auto", {"threads": 1, "seconds": seconds, "width": 0.0001}, output)


def test_two_hosts_measure_at_once_and_one_that_is_gone_costs_them_nothing(
    network: Network, graphs: list[Path], tmp_path: Path, listener: ProgressReporter
) -> None:
    found = profile_on(network.hosts("nano", "gone", "orin"), quick(graphs, output=tmp_path / "out"), listener)
    nano, gone, orin = found.hosts
    for one in (nano, orin):
        assert one.error is None and one.profile is not None and one.device
        assert [row.name for row in one.profile.deployments] == list(map(str, graphs))
        assert [row.runtime for row in one.profile.deployments] == ["onnxruntime"] * 2
        assert {one.profile.comparisons[0].a, one.profile.comparisons[0].b} == set(map(str, graphs))
        # The raw samples came back: every figure can be computed anew.
        assert reload(tmp_path / "out" / one.host / "profile.json") == one.profile
    assert gone.profile is None and gone.error is not None
    assert "Connection refused" in gone.error and "try: ssh gone true" in gone.error
    assert found.failed == (gone,)
    for server in network.servers.values():  # nothing stays but the environment
        (kept,) = server.home.glob(".cache/edgetl/*/*")
        assert (kept / "bin" / "python").exists() and not list(server.home.glob(".cache/edgetl/*/.*"))
    again = Told()
    profile_on(network.hosts("nano"), quick(graphs), again)
    assert again.lines == ["nano: measuring"], "edgetl is installed once"


def test_no_code_from_a_hosts_home_or_from_the_files_that_are_sent_is_run(
    network: Network, graphs: list[Path], listener: ProgressReporter, tmp_path: Path
) -> None:
    home, modules = network.servers["nano"].home, hostile_modules(tmp_path / "run")
    shutil.rmtree(home / ".cache", ignore_errors=True)  # so that it is installed anew
    for name, code in modules.items():
        (home / name).parent.mkdir(exist_ok=True)
        (home / name).write_bytes(code)
    job = quick(graphs)
    try:
        (one,) = profile_on(network.hosts("nano"), replace(job, files={**job.files, **modules}), listener).hosts
    finally:
        for name in modules:
            (home / name).unlink()
    assert not (tmp_path / "run").exists(), (tmp_path / "run").read_text()
    assert one.error is None and one.profile is not None
    assert all(row.memory is not None and row.memory.process_mb is not None for row in one.profile.deployments)


def test_packages_that_the_hosts_user_installed_are_used(
    network: Network, graphs: list[Path], listener: ProgressReporter
) -> None:
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    bare, packages = Path(sys.base_prefix) / "bin" / version, Path(np.__file__).parents[1]
    if not bare.exists() or subprocess.run([bare, "-I", "-c", "import onnx"], capture_output=True).returncode == 0:
        pytest.skip("there is no Python here that lacks what edgetl depends on")
    user = network.servers["nano"].home / ".local" / "lib" / version / "site-packages"
    user.parent.mkdir(parents=True)
    user.symlink_to(packages)
    try:
        (one,) = profile_on(network.hosts("nano", python=str(bare)), quick(graphs), listener).hosts
    finally:
        user.unlink()
    assert one.error is None and one.profile is not None
    assert all(row.memory is not None and row.memory.process_mb is not None for row in one.profile.deployments)


def test_an_error_over_there_is_the_hosts_line(
    network: Network, graphs: list[Path], listener: ProgressReporter
) -> None:
    graphs[0].write_bytes(b"no graph")
    (one,) = profile_on(network.hosts("nano"), quick(graphs), listener).hosts
    assert one.error is not None and "it's a model.onnx" in one.error and "Traceback" not in one.error


def test_a_host_without_that_python_says_so(network: Network, graphs: list[Path], listener: ProgressReporter) -> None:
    (one,) = profile_on(network.hosts("nano", python="python9"), quick(graphs), listener).hosts
    assert one.error == "there is no python9 there; install Python 3.10 or newer, or name it with --remote-python"


def test_a_python_that_is_too_old_is_told_before_it_reads_anything_new(
    network: Network, graphs: list[Path], listener: ProgressReporter, tmp_path: Path
) -> None:
    old = tmp_path / "python3.8"
    # The same interpreter, which takes itself for an old one.
    pretend = "import collections, sys; sys.version_info = collections.namedtuple('v', 'major minor')(3, 8);"
    old.write_text(f'#!/bin/sh\nshift 2\nboot="$1"\nshift\nexec {sys.executable} -c "{pretend} $boot" "$@"\n')
    old.chmod(0o755)
    (one,) = profile_on(network.hosts("nano", python=str(old)), quick(graphs), listener).hosts
    assert one.error is not None and "Python 3.8, edgetl needs 3.10 or newer" in one.error


def test_a_folder_that_cannot_be_written_is_told(
    network: Network, graphs: list[Path], listener: ProgressReporter
) -> None:
    cache = network.servers["orin"].home / ".cache"
    shutil.rmtree(cache, ignore_errors=True)
    cache.write_text("a file where a folder should be")
    try:
        (one,) = profile_on(network.hosts("orin"), quick(graphs), listener).hosts
    finally:
        cache.unlink()
    assert one.error is not None and ".cache" in one.error and "free space or repair the folder" in one.error


def test_a_host_that_dies_is_a_line_and_its_work_ends(
    network: Network, graphs: list[Path], listener: ProgressReporter
) -> None:
    orin = network.servers["orin"]
    found: list[object] = []
    asked = threading.Thread(
        target=lambda: found.extend(profile_on(network.hosts("orin"), quick(graphs, PATIENCE), listener).hosts)
    )
    asked.start()
    until(lambda: orin.work)
    for child in children(orin.process.pid):
        os.kill(child, signal.SIGKILL)
    asked.join(PATIENCE)
    (one,) = found
    assert "try: ssh orin true" in str(one) or "it broke off" in str(one)
    until(lambda: not orin.work)


def children(pid: int) -> list[int]:
    """The processes of an sshd's connections."""
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in listed] + [grand for child in listed for grand in sshd_children(int(child))]


def sshd_children(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(one) for one in listed if "sshd" in Path(f"/proc/{one}/comm").read_text()]


HOSTILE = """#!{python}
import json, sys
answers = {{"look": {{"device": None, "ready": True, "tensorrt": False}}, "work": {work}}}
print(json.dumps(answers[sys.argv[5]]))
"""


@pytest.mark.parametrize("name", ["figures/../../stolen", "figures//stolen", "figures/a/../../../stolen"])
def test_a_host_cannot_write_outside_of_its_folder(
    name: str, network: Network, graphs: list[Path], listener: ProgressReporter, tmp_path: Path
) -> None:
    empty = Profile(environment={}, deployments=(), comparisons=()).model_dump_json()
    sent = {"output": empty, "files": {name: base64.b64encode(b"!").decode()}}
    hostile = tmp_path / "python"
    hostile.write_text(HOSTILE.format(python=sys.executable, work=sent))
    hostile.chmod(0o755)
    job = quick(graphs, output=tmp_path / "deep" / "out")
    (one,) = profile_on(network.hosts("nano", python=str(hostile)), job, listener).hosts
    written = {path.relative_to(tmp_path) for path in tmp_path.rglob("stolen")}
    assert written <= {Path("deep/out/nano/stolen")}
    assert written or (one.error is not None and "outside of its folder" in one.error)


INTERRUPTED = """
import json, sys
from pathlib import Path
from edgetl.stages.remote import Hosts, files_job, profile_on

class Quiet:
    def message(self, text): pass

config, python, *graphs = sys.argv[1:]
job = files_job({graph: Path(graph) for graph in graphs}, "onnxruntime", {"seconds": 60})
profile_on(Hosts(("nano",), python, Path(config)), job, Quiet())
"""


@pytest.fixture
def interruptible() -> Iterator[None]:
    """What a shell starts in the background ignores interrupts, and so would the processes that it starts."""
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, inherited)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_ends_the_work_over_there(network: Network, graphs: list[Path]) -> None:
    nano = network.servers["nano"]
    command = [sys.executable, "-c", INTERRUPTED, network.config, sys.executable, *graphs]
    with subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, start_new_session=True) as asked:
        until(lambda: nano.work)
        asked.send_signal(signal.SIGINT)
        assert asked.wait(PATIENCE) != 0
    until(lambda: not nano.work)


@pytest.mark.parametrize("name", ["-oProxyCommand=touch pwned", "", "two words", "a\nb"])
def test_a_host_that_ssh_takes_for_an_option_is_refused(
    name: str, network: Network, graphs: list[Path], listener: ProgressReporter
) -> None:
    with pytest.raises(EdgetlError, match="is no host; give user@host"):
        profile_on(network.hosts("nano", name), quick(graphs), listener)


def test_a_host_or_file_that_is_named_twice_is_refused(
    network: Network, graphs: list[Path], listener: ProgressReporter
) -> None:
    with pytest.raises(EdgetlError, match="host is named twice"):
        profile_on(network.hosts("nano", "nano"), quick(graphs), listener)
    with pytest.raises(EdgetlError, match="file is named twice"):
        quick([graphs[0], graphs[0]])


def test_engines_are_built_over_there_before_they_are_measured(graphs: list[Path]) -> None:
    job = files_job(by_path(graphs), "auto", {"threads": 1, "no_energy": True, "layers": False})
    assert job.commands("tensorrt") == [
        ["build-engine", "0/it's a model.onnx", "--runtime", "tensorrt", "-o", "0/it's a model.engine"],
        ["build-engine", "1/it's a model.onnx", "--runtime", "tensorrt", "-o", "1/it's a model.engine"],
        [
            "profile",
            "0/it's a model.engine",
            "1/it's a model.engine",
            "--json",
            "-o",
            "figures",
            "--threads",
            "1",
            "--no-energy",
        ],
    ]
    assert job.names["1/it's a model.engine"] == str(graphs[1])
