"""The program that another machine runs with its own Python before edgetl is there: only the standard library.

`edgetl.stages.ssh` sends the text of this file; the first argument names the action. The answer is one line of JSON on
stdout. All that is left behind is an environment in ``~/.cache/edgetl``, which is whole or not there. Every Python that
is started is isolated (``-I``): it finds no module in the folder it runs in.
"""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

NEEDED = "import edgetl.commands.profile, edgetl.stages.profile, edgetl.stages.profile_files"
"""An import that fails where a dependency is missing."""

_MODEL = Path("/proc/device-tree/model")


def main() -> int:
    action, *arguments = sys.argv[1:]
    actions: dict[str, Callable[..., dict[str, Any]]] = {"look": look, "install": install, "work": work}
    try:
        answer = actions[action](*arguments)
    except OSError as error:
        answer = {
            "error": f"{error.strerror or error} ({error.filename or 'no file'}); free space or repair the folder"
        }
    print(json.dumps(answer), flush=True)
    return 1 if "error" in answer else 0


def look(key: str) -> dict[str, Any]:
    """The machine's model, and whether edgetl and TensorRT are installed there."""
    try:
        model = _MODEL.read_text(encoding="utf-8", errors="replace").strip("\0\n ")
    except OSError:
        model = ""
    ready = _folder(key).is_dir() and _missing(_folder(key)) is None
    tensorrt = all(importlib.util.find_spec(name) is not None for name in ("tensorrt", "pycuda"))
    return {"device": model or None, "ready": ready, "tensorrt": tensorrt}


def install(key: str, wheel_name: str) -> dict[str, Any]:
    """Make the environment from the wheel on stdin: in a folder beside its place first, then renamed."""
    folder = _folder(key)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".installing-") as scratch:
        wheel, made = Path(scratch) / wheel_name, Path(scratch) / "env"
        wheel.write_bytes(sys.stdin.buffer.read())
        fault = _make(made, wheel)
        # Where another process installed the same meanwhile, its environment is as good.
        if fault is None and not (folder.is_dir() and _missing(folder) is None):
            shutil.rmtree(folder, ignore_errors=True)
            made.rename(folder)
    return {} if fault is None else {"error": fault}


def _make(made: Path, wheel: Path) -> str | None:
    """Fill an environment; return what is missing for it, with the command that mends it."""
    alone = [sys.executable, "-I", "-m", "venv", "--system-site-packages", "--without-pip", str(made)]
    done = subprocess.run(alone, capture_output=True, text=True)
    if done.returncode:
        why = _last(done.stdout + done.stderr)
        return f"{sys.executable} cannot make an environment: {why}; on a Jetson: sudo apt install python3-venv"
    # --system-site-packages are not those of an environment that this Python may be in, and an isolated process leaves
    # out those that the user installed.
    packages = next(made.glob("lib/python3*/site-packages"))
    paths = [path for path in sys.path if path.endswith("-packages")]
    (packages / "parent.pth").write_text("".join(f"{path}\n" for path in paths), encoding="utf-8")
    # First without an index: many devices have no network, and JetPack's own packages must not be replaced.
    pip = [_python(made), "-I", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run(
        [*pip, "--no-index", "--no-deps", "--ignore-installed", str(wheel)], capture_output=True, text=True
    )
    if done.returncode:
        why = _last(done.stderr)
        return f"{sys.executable} cannot install a wheel: {why}; on a Jetson: sudo apt install python3-pip"
    if _missing(made) is None:
        return None
    subprocess.run([*pip, str(wheel)], capture_output=True)
    if (missing := _missing(made)) is None:
        return None
    return (
        f"{missing} is missing and the package index could not be reached; on that machine: {sys.executable} -m pip "
        "install edgetl"
    )


def _missing(made: Path) -> str | None:
    done = subprocess.run([_python(made), "-I", "-c", NEEDED], capture_output=True, text=True)
    return None if done.returncode == 0 else _last(done.stderr)


def work(key: str, commands: str, outputs_glob: str) -> dict[str, Any]:
    """Run edgetl in a new folder with the files of the tar on stdin; return the files that match ``outputs_glob``.

    Stdin stays open as long as somebody waits for the answer: when it ends, the work is killed.
    """
    with tempfile.TemporaryDirectory(dir=_folder(key).parent, prefix=".work-") as scratch:
        # A stream: one cannot seek in stdin.
        with tarfile.open(fileobj=sys.stdin.buffer, mode="r|") as archive:
            archive.extraction_filter = getattr(tarfile, "data_filter", None)  # the earliest 3.10 have none
            archive.extractall(scratch)
        running: list[int] = []
        # ssh gives a program without a terminal no signal when the connection ends, but its stdin ends.
        threading.Thread(target=_end_with_stdin, args=(running, scratch), daemon=True).start()
        output = ""
        for arguments in json.loads(commands):
            command = [_python(_folder(key)), "-I", "-m", "edgetl", *arguments]
            code, output, fault = _run(command, scratch, running)
            if code:
                return {"error": fault.removeprefix("error: ") or f"edgetl {arguments[0]} ended with code {code}"}
        files = {
            path.relative_to(scratch).as_posix(): base64.b64encode(path.read_bytes()).decode()
            for path in (Path(scratch).glob(outputs_glob) if outputs_glob else ())
            if path.is_file()
        }
    return {"output": output, "files": files}


def _run(command: list[str], folder: str, running: list[int]) -> tuple[int, str, str]:
    """Run a command; return its code, stdout, and the last line of stderr, all of which is passed on."""
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.PIPE, text=True,
            errors="replace", start_new_session=True,
        )  # fmt: skip
        running.append(process.pid)
        last = ""
        assert process.stderr is not None, "a pipe was asked for"
        for line in process.stderr:
            print(line, end="", file=sys.stderr, flush=True)
            last = line.strip() or last
        code = process.wait()
        running.clear()
        output.seek(0)
        return code, output.read(), last


def _end_with_stdin(running: list[int], folder: str) -> None:
    while os.read(0, 1 << 16):
        pass
    for group in running:
        with suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)  # sys.exit would end this thread alone


def _folder(key: str) -> Path:
    return Path.home() / ".cache" / "edgetl" / key


def _python(environment: Path) -> str:
    return str(environment / "bin" / "python")


def _last(text: str) -> str:
    return (text.strip().splitlines() or ["no reason given"])[-1]


if __name__ == "__main__":
    sys.exit(main())
