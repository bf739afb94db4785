"""Profiles through a real sshd on this machine: two servers with homes of their own stand for two devices."""

from __future__ import annotations

import getpass
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgetl.errors import EdgetlError
from edgetl.stages.remote import Hosts, Job, files_job, profile_on
from edgetl.stages.stage import Watcher

SSHD = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")
PATIENCE = 60.0
"""Seconds until what must happen has happened, on a machine that has much else to do."""

pytestmark = pytest.mark.skipif(SSHD is None or shutil.which("ssh") is None, reason="no sshd here: openssh-server")


@dataclass(frozen=True)
class Server:
    """An sshd of its own, and the home that its users see."""

    process: subprocess.Popen[bytes]
    home: Path

    @property
    def work(self) -> list[Path]:
        return list(self.home.glob(".cache/edgetl/*/.work-*"))


@dataclass(frozen=True)
class Network:
    servers: dict[str, Server]
    config: Path

    def hosts(self, *names: str, python: str = sys.executable) -> Hosts:
        return Hosts(names, python, self.config)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    folder = tmp_path_factory.mktemp("ssh")
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where an sshd of root's locks itself in
    servers = {name: started(name, folder) for name in ("nano", "orin")}
    lines = [f"Host {name}\n  Port {port(folder, name)}" for name in servers] + [f"Host gone\n  Port {free_port()}"]
    options = {"HostName": "127.0.0.1", "User": getpass.getuser(), "IdentityFile": folder / "user"}
    options |= {"UserKnownHostsFile": folder / "known", "StrictHostKeyChecking": "accept-new"}
    config = folder / "config"
    config.write_text("\n".join([*lines, "Host *", *(f"  {name} {value}" for name, value in options.items()), ""]))
    try:
        reached = [subprocess.run(["ssh", "-F", config, name, "true"], capture_output=True) for name in servers]
        if any(done.returncode for done in reached):
            pytest.skip(f"sshd lets nobody in here: {reached[0].stderr.decode().strip()}")
        yield Network(servers, config)
    finally:
        for server in servers.values():
            server.process.kill()
            server.process.wait()


def started(name: str, folder: Path) -> Server:
    home = folder / name
    home.mkdir()
    settings = {
        "Port": free_port(),
        "ListenAddress": "127.0.0.1",
        "HostKey": folder / "host",
        "AuthorizedKeysFile": folder / "user.pub",
        "PidFile": "none",
        "StrictModes": "no",
        "UsePAM": "no",
        "PasswordAuthentication": "no",
        "SetEnv": f"HOME={home} OMP_NUM_THREADS=1",
    }
    config = folder / f"{name}.sshd"
    config.write_text("".join(f"{key} {value}\n" for key, value in settings.items()))
    assert SSHD is not None
    server = subprocess.Popen([SSHD, "-D", "-e", "-f", config], stderr=subprocess.DEVNULL, start_new_session=True)
    until(lambda: accepts(int(str(settings["Port"]))))
    return Server(server, home)


def port(folder: Path, name: str) -> str:
    return (folder / f"{name}.sshd").read_text().split()[1]


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def accepts(number: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", number)) == 0


def until(happened: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


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


def quick(graphs: list[Path], seconds: float = 0.2) -> Job:
    return files_job(graphs, "onnxruntime", ["--threads", "1", "--seconds", str(seconds)])


def test_two_hosts_measure_at_once_and_one_that_is_gone_costs_them_nothing(
    network: Network, graphs: list[Path], listener: Watcher
) -> None:
    found = profile_on(network.hosts("nano", "gone", "orin"), quick(graphs), listener)
    nano, gone, orin = found.hosts
    for one in (nano, orin):
        assert one.error is None and one.profile is not None and one.device
        assert [row.name for row in one.profile.deployments] == list(map(str, graphs))
        assert all(row.latency_ms and row.latency_ms.p50 > 0 for row in one.profile.deployments)
        assert {one.profile.comparisons[0].a, one.profile.comparisons[0].b} == set(map(str, graphs))
    assert gone.profile is None and gone.error is not None
    assert "Connection refused" in gone.error and "try: ssh gone true" in gone.error
    assert found.failed == (gone,)
    for server in network.servers.values():  # nothing stays but the environment
        (kept,) = server.home.glob(".cache/edgetl/*/*")
        assert (kept / "bin" / "python").exists() and not list(server.home.glob(".cache/edgetl/*/.*"))


def test_edgetl_is_installed_once(network: Network, graphs: list[Path]) -> None:
    lines: list[str] = []

    class Told:
        say = staticmethod(lines.append)

    profile_on(network.hosts("nano"), quick(graphs), Told())  # type: ignore[arg-type]
    profile_on(network.hosts("nano"), quick(graphs), Told())  # type: ignore[arg-type]
    assert sum("installing" in line for line in lines) <= 1
    assert lines[-1] == "nano: measuring"


def test_an_error_of_the_command_there_is_the_hosts_line(
    network: Network, graphs: list[Path], listener: Watcher
) -> None:
    graphs[0].write_bytes(b"no graph")
    (one,) = profile_on(network.hosts("nano"), quick(graphs), listener).hosts
    assert one.error is not None and "it's a model.onnx" in one.error and "Traceback" not in one.error


def test_a_host_without_that_python_says_so(network: Network, graphs: list[Path], listener: Watcher) -> None:
    (one,) = profile_on(network.hosts("nano", python="python9"), quick(graphs), listener).hosts
    assert one.error == "there is no python9 there; install Python 3.10 or newer, or name it with --remote-python"


def test_a_python_that_is_too_old_is_told_before_it_reads_anything_new(
    network: Network, graphs: list[Path], listener: Watcher, tmp_path: Path
) -> None:
    old = tmp_path / "python3.8"
    # The same interpreter, which takes itself for an old one.
    pretend = "import collections, sys; sys.version_info = collections.namedtuple('v', 'major minor')(3, 8);"
    old.write_text(f'#!/bin/sh\nshift\nboot="$1"\nshift\nexec {sys.executable} -c "{pretend} $boot" "$@"\n')
    old.chmod(0o755)
    (one,) = profile_on(network.hosts("nano", python=str(old)), quick(graphs), listener).hosts
    assert one.error is not None and "Python 3.8, edgetl needs 3.10 or newer" in one.error


def test_a_folder_that_cannot_be_written_is_told(network: Network, graphs: list[Path], listener: Watcher) -> None:
    cache = network.servers["orin"].home / ".cache"
    shutil.rmtree(cache, ignore_errors=True)
    cache.write_text("a file where a folder should be")
    try:
        (one,) = profile_on(network.hosts("orin"), quick(graphs), listener).hosts
    finally:
        cache.unlink()
    assert one.error is not None and ".cache" in one.error and "free space or mend the folder" in one.error


def test_a_host_that_dies_meanwhile_is_a_line_and_its_work_ends(
    network: Network, graphs: list[Path], listener: Watcher
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


INTERRUPTED = """
import json, sys
from pathlib import Path
from edgetl.stages.remote import Hosts, files_job, profile_on

class Quiet:
    def say(self, text): pass

config, python, *graphs = sys.argv[1:]
job = files_job([Path(graph) for graph in graphs], "onnxruntime", ["--seconds", "60"])
profile_on(Hosts(("nano",), python, Path(config)), job, Quiet())
"""


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
    name: str, network: Network, graphs: list[Path], listener: Watcher
) -> None:
    with pytest.raises(EdgetlError, match="is no host; give user@host"):
        profile_on(network.hosts("nano", name), quick(graphs), listener)


def test_a_host_or_file_that_is_named_twice_is_refused(network: Network, graphs: list[Path], listener: Watcher) -> None:
    with pytest.raises(EdgetlError, match="host is named twice"):
        profile_on(network.hosts("nano", "nano"), quick(graphs), listener)
    with pytest.raises(EdgetlError, match="file is named twice"):
        quick([graphs[0], graphs[0]])


def test_engines_are_built_over_there_before_they_are_measured(graphs: list[Path]) -> None:
    job = files_job(graphs, "tensorrt", ["--threads", "1"])
    assert json.loads(json.dumps(job.commands)) == [
        ["build-engine", "0/it's a model.onnx", "--runtime", "tensorrt", "-o", "0/it's a model.engine"],
        ["build-engine", "1/it's a model.onnx", "--runtime", "tensorrt", "-o", "1/it's a model.engine"],
        ["profile", "0/it's a model.engine", "1/it's a model.engine", "--json", "--threads", "1"],
    ]
    assert job.names["1/it's a model.engine"] == str(graphs[1])
