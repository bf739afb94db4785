"""Runs Python on another machine through the system's own ``ssh``, with the user's configuration, keys and agents."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from edgetl.errors import EdgetlError

_OLDEST = (3, 10)
_TOO_OLD = 78
# No module may come from the home folder, where ssh begins: so -E, and no empty entry in the path. -I would do both and
# hide the packages that the user installed. An older Python ends here, before it reads what it may not understand.
_BOOT = (
    f"import sys; sys.path[:] = filter(None, sys.path); sys.version_info >= {_OLDEST} or "
    f"(sys.stderr.write('Python %d.%d' % sys.version_info[:2]), sys.exit({_TOO_OLD})); exec(sys.argv.pop(1))"
)
_SSH_FAILED, _NOT_FOUND = 255, (126, 127)  # ssh's own errors; what shells return for a command they cannot run
_OPTIONS = (
    "BatchMode=yes",
    "RemoteCommand=none",  # a configuration may set one, which would run in place of ours
    "ControlMaster=no",  # a master would stay when its first connection ends, and with it our pipes
    "ConnectTimeout=10",
    "ServerAliveInterval=15",
    "ServerAliveCountMax=3",
)
_HOST = re.compile(r"[^-\s\x00-\x1f][^\s\x00-\x1f]*")


def check_host(host: str) -> None:
    """Raise EdgetlError for a host that is no name or that ssh would take for an option."""
    if not _HOST.fullmatch(host):
        raise EdgetlError(f"{host!r} is no host; give user@host, or a name from ~/.ssh/config")


@dataclass
class Connections:
    """All connections of a command. ``close`` ends them, and with them the processes on the hosts."""

    config: Path | None
    python: str
    _running: set[subprocess.Popen[bytes]] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _closed: bool = False

    def ask(self, host: str, action: str, *arguments: str, data: bytes = b"") -> dict[str, Any]:
        """The answer of the host's Python to an action of `edgetl.stages.remote_side` with ``data`` on its stdin.

        Raises:
            EdgetlError: the host cannot be reached, has no Python that is new enough, cannot do it, or broke off.
        """
        process = self._start(host, action, arguments)
        try:
            output, errors = _exchange(process, data, keep_open=action == "work")
        finally:
            _end(process)
            with self._lock:
                self._running.discard(process)
        code, last = process.returncode, (errors.decode(errors="replace").strip().splitlines() or [""])[-1].strip()
        answer = None
        with suppress(ValueError):  # the last line: a login script may print others before it
            answer = json.loads(output.splitlines()[-1]) if output.strip() else None
        if isinstance(answer, dict) and "error" in answer:
            raise EdgetlError(str(answer["error"]))
        if isinstance(answer, dict) and code == 0:
            return answer
        if code == _SSH_FAILED:
            fault = f"{last or 'ssh failed'}; try: ssh {shlex.quote(host)} true"
        elif code == _TOO_OLD:
            fault = f"{self.python} there is {last}, edgetl needs 3.10 or newer; name another with --remote-python"
        elif code in _NOT_FOUND:
            fault = f"there is no {self.python} there; install Python 3.10 or newer, or name it with --remote-python"
        else:
            fault = f"it broke off{f' ({last})' if last else f' with code {code}'}; run the command again"
        raise EdgetlError(fault)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            for process in self._running:
                _end(process)

    def _start(self, host: str, action: str, arguments: tuple[str, ...]) -> subprocess.Popen[bytes]:
        source = (resources.files("edgetl.stages") / "remote_side.py").read_text(encoding="utf-8")
        there = shlex.join([self.python, "-E", "-c", _BOOT, source, action, *arguments])
        config = ["-F", str(self.config)] if self.config else []
        options = [part for option in _OPTIONS for part in ("-o", option)]
        command = ["ssh", "-T", *config, *options, "--", host, there]
        with self._lock:
            # Under the lock: a process that starts while the connections are closed would not be ended.
            if self._closed:
                raise EdgetlError("interrupted")
            try:
                pipe = subprocess.PIPE
                process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True)
            except FileNotFoundError as error:
                raise EdgetlError("there is no ssh here; install it: sudo apt install openssh-client") from error
            self._running.add(process)
        return process


def _exchange(process: subprocess.Popen[bytes], data: bytes, keep_open: bool) -> tuple[bytes, bytes]:
    """Send data; return stdout and stderr. An open stdin tells the other end that somebody still waits."""
    assert process.stdin and process.stdout and process.stderr, "pipes were asked for"
    errors: list[bytes] = []
    # Read at once: a full pipe of messages would block the host.
    reader = threading.Thread(target=lambda: errors.append(process.stderr.read()), daemon=True)  # type: ignore[union-attr]
    reader.start()
    with suppress(BrokenPipeError):  # the host ended early: its answer says why
        process.stdin.write(data)
        process.stdin.flush()
    if not keep_open:
        with suppress(BrokenPipeError):
            process.stdin.close()
    output = process.stdout.read()
    process.wait()
    reader.join()
    return output, b"".join(errors)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.kill()
        process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with suppress(OSError):
                pipe.close()
