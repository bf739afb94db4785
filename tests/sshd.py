"""Real sshds on this machine, each with a home of its own, that stand for devices."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgetl.stages.remote import Hosts

SSHD = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")
PATIENCE = 60.0
"""Seconds until what must happen has happened, on a machine that has much else to do."""

needs_sshd = pytest.mark.skipif(SSHD is None or shutil.which("ssh") is None, reason="no sshd here: openssh-server")


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


def serve(folder: Path) -> Iterator[Network]:
    """Two servers, ``nano`` and ``orin``; nobody answers at ``gone``."""
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
