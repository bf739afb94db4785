"""Profiles of the same files from several machines at once, through ssh."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pydantic import ValidationError

from edgetl import __version__
from edgetl.artifacts.files import read_bytes, sha256_bytes
from edgetl.artifacts.hosts import HostProfile, HostProfiles
from edgetl.artifacts.results import Measured, Profile
from edgetl.errors import EdgetlError
from edgetl.stages.ssh import Connections, check_host
from edgetl.stages.stage import Watcher
from edgetl.stages.wheel import build_wheel


@dataclass(frozen=True)
class Hosts:
    """Who is asked, as the user's ssh knows them; which Python they run, and another ssh configuration, if any."""

    names: tuple[str, ...]
    python: str = "python3"
    config: Path | None = None


@dataclass(frozen=True)
class Job:
    """What a host does: edgetl's commands, one after another, in a folder with these files. The last prints a profile.

    ``wanted`` is a pattern of files to bring back; ``names`` are those that the files have here.
    """

    files: Mapping[str, bytes]
    commands: Sequence[Sequence[str]]
    names: Mapping[str, str]
    wanted: str = ""


@dataclass(frozen=True)
class _Wheel:
    name: str
    content: bytes

    def key(self, python: str) -> str:
        """Where it is installed below a host's cache, for one of its Pythons."""
        return f"{__version__}/{sha256_bytes(self.content + python.encode())[:16]}"


def files_job(graphs: Sequence[Path], runtime: str, options: Sequence[str]) -> Job:
    """Build plain ONNX files for a runtime and profile them. ``options`` are those of ``edgetl profile``.

    Raises:
        EdgetlError: a file cannot be read, or is named twice.
    """
    if len({str(graph) for graph in graphs}) < len(graphs):
        raise EdgetlError("a file is named twice; give each file once")
    there = {f"{number}/{graph.name}": graph for number, graph in enumerate(graphs)}
    files = {name: read_bytes(graph) for name, graph in there.items()}
    if runtime == "onnxruntime":
        built, commands = {name: name for name in there}, []
    else:
        built = {name: f"{name.removesuffix('.onnx')}.engine" for name in there}
        commands = [["build-engine", name, "--runtime", runtime, "-o", engine] for name, engine in built.items()]
    profile = ["profile", *built.values(), "--json", *options]
    return Job(files, [*commands, profile], {built[name]: str(graph) for name, graph in there.items()})


def profile_on(hosts: Hosts, job: Job, watcher: Watcher) -> HostProfiles:
    """Do the job on all hosts at once. A host that fails is a line, and costs the others nothing.

    Raises:
        EdgetlError: a host's name is none, is given twice, or edgetl is not installed here.
    """
    for host in hosts.names:
        check_host(host)
    if len(set(hosts.names)) < len(hosts.names):
        raise EdgetlError("a host is named twice; give each host once")
    connections, wheel, tar = Connections(hosts.config, hosts.python), _Wheel(*build_wheel()), _tar(job.files)
    one = partial(_profile_on, connections=connections, wheel=wheel, tar=tar, job=job, watcher=watcher)
    try:
        with ThreadPoolExecutor(len(hosts.names)) as pool:
            try:
                return HostProfiles(hosts=tuple(pool.map(one, hosts.names)))
            except BaseException:
                connections.close()  # before the pool waits for its threads
                raise
    finally:
        connections.close()


def _profile_on(
    host: str, connections: Connections, wheel: _Wheel, tar: bytes, job: Job, watcher: Watcher
) -> HostProfile:
    device, key = None, wheel.key(connections.python)
    try:
        found = connections.ask(host, "look", key)
        device = found["device"]
        if not found["ready"]:
            watcher.say(f"{host}: installing edgetl {__version__} in ~/.cache/edgetl")
            connections.ask(host, "install", key, wheel.name, data=wheel.content)
        watcher.say(f"{host}: measuring")
        answer = connections.ask(host, "work", key, json.dumps(job.commands), job.wanted, data=tar)
        profile = _profile(answer["output"], job.names)
    except EdgetlError as error:
        return HostProfile(host=host, device=device, error=str(error))
    return HostProfile(host=host, device=device or profile.environment.get("processor"), profile=profile)


def _profile(output: str, names: Mapping[str, str]) -> Profile:
    """What the host printed, with the names that the files have here."""
    try:
        profile = Profile.model_validate_json(output)
    except ValidationError as error:
        raise EdgetlError("its answer is no profile; run the command again") from error
    here = {
        "deployments": tuple(_renamed(row, names) for row in profile.deployments),
        "comparisons": tuple(
            pair.model_copy(update={"a": names.get(pair.a, pair.a), "b": names.get(pair.b, pair.b)})
            for pair in profile.comparisons
        ),
    }
    return profile.model_copy(update=here)


def _renamed(row: Measured, names: Mapping[str, str]) -> Measured:
    engines = tuple(one.model_copy(update={"file": names.get(one.file, one.file)}) for one in row.engines)
    return row.model_copy(update={"name": names.get(row.name, row.name), "engines": engines})


def _tar(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()
