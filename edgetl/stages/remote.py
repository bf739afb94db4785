"""Profiles the same files on several machines at once, through ssh."""

from __future__ import annotations

import base64
import io
import json
import tarfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath

from pydantic import ValidationError

from edgetl import __version__
from edgetl.artifacts.files import file_stem, read_bytes, sha256_bytes, write_bytes, write_json
from edgetl.artifacts.hosts import HostProfile, HostProfiles
from edgetl.artifacts.results import Profile
from edgetl.artifacts.run_directory import RunDirectory
from edgetl.errors import EdgetlError
from edgetl.report.profile_lines import device_of
from edgetl.stages.ssh import Connections, check_host
from edgetl.stages.stage import ProgressReporter
from edgetl.stages.wheel import build_wheel

_FIGURES = "figures"
_NOT_SENT = ("cache", "engines", "measurements", "results.json", "report.html", ".lock")
"""The parts of a run directory that are large, tied to this machine, or made anew on the host."""


@dataclass(frozen=True)
class Hosts:
    """The hosts by the names that the user's ssh knows, the Python they run, and another ssh configuration, if any."""

    names: tuple[str, ...]
    python: str = "python3"
    config: Path | None = None


@dataclass(frozen=True)
class RemoteJob:
    """The work of a host: edgetl's commands, one after another, in a folder with ``files``. The last prints a profile.

    ``commands`` gives the commands for a runtime; ``runtime`` is one, or ``auto``: TensorRT where the host has it and
    PyCUDA, else ONNX Runtime. ``names`` maps names of files on the host to their names here. Files that match
    ``outputs_glob`` are brought back into the host's folder below ``output``, without the first part of their path.
    """

    files: Mapping[str, bytes]
    commands: Callable[[str], Sequence[Sequence[str]]]
    outputs_glob: str
    runtime: str = "auto"
    names: Mapping[str, str] = field(default_factory=dict)
    output: Path | None = None


def files_job(
    graphs: Mapping[str, Path],
    runtime: str = "auto",
    options: Mapping[str, object] | None = None,
    output: Path | None = None,
) -> RemoteJob:
    """The job that builds plain ONNX files for a runtime and profiles them.

    Args:
        graphs: by the names that they have in profiles.
        options: those of ``edgetl profile``, such as ``{"seconds": 5, "no_energy": True}``.
        output: a folder for the hosts' figures and raw samples.

    Raises:
        EdgetlError: a file cannot be read.
    """
    # Numbered folders: files of different folders may have one name.
    there = {f"{number}/{graph.name}": name for number, (name, graph) in enumerate(graphs.items())}
    engines = {name: f"{name.removesuffix('.onnx')}.engine" for name in there}

    def commands(chosen: str) -> Sequence[Sequence[str]]:
        built = list(there) if chosen == "onnxruntime" else list(engines.values())
        profile = ["profile", *built, "--json", "-o", _FIGURES, *_words(options)]
        if chosen == "onnxruntime":
            return [profile]
        builds = [["build-engine", name, "--runtime", chosen, "-o", engine] for name, engine in engines.items()]
        return [*builds, profile]

    names = {file: name for graph, name in there.items() for file in (graph, engines[graph])}
    files = {graph: read_bytes(graphs[name]) for graph, name in there.items()}
    return RemoteJob(files, commands, f"{_FIGURES}/**/*", runtime, names, output)


def study_job(study: Path, run: RunDirectory, options: Mapping[str, object] | None = None) -> RemoteJob:
    """The job that builds and profiles all deployments of a study that was exported here, with figures in the run's
    ``hosts/``. ``options`` are as in `files_job`.

    Raises:
        EdgetlError: the study has no graphs yet, or a file cannot be read.
    """
    if not run.shortlist.is_file():
        raise EdgetlError(f"{run.graphs} holds no graphs of the study; run edgetl export on it first")
    left = {run.path / name for name in _NOT_SENT} | {run.path / "hosts"}
    paths = [path for path in run.path.rglob("*") if path.is_file() and not left & {path, *path.parents}]
    files = {f"run/{run.relative(path)}": read_bytes(path) for path in paths}
    profile = ["profile", "--json", *_words(options)]
    commands = [[*words, "study.yaml", "-o", "run"] for words in (["build-engine"], profile)]
    there = {"study.yaml": read_bytes(study), **files}
    return RemoteJob(there, lambda _: commands, "run/measurements/**/*", output=run.path / "hosts")


def _words(options: Mapping[str, object] | None) -> list[str]:
    """The options as a command line has them."""
    words = []
    for name, value in (options or {}).items():
        if value is not False:
            words += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
    return words


def profile_on(hosts: Hosts, job: RemoteJob, reporter: ProgressReporter) -> HostProfiles:
    """The profiles of all hosts, measured at once. A host that fails is reported, and the others go on.

    Raises:
        EdgetlError: a host's name is none, is given twice, or edgetl is not installed here.
    """
    for host in hosts.names:
        check_host(host)
    if len(set(hosts.names)) < len(hosts.names):
        raise EdgetlError("a host is named twice; give each host once")
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        for name, content in job.files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    connections = Connections(hosts.config, hosts.python)
    one = partial(_profile_on, connections, build_wheel(), tar.getvalue(), job, reporter)
    try:
        with ThreadPoolExecutor(len(hosts.names)) as pool:
            try:
                return HostProfiles(hosts=tuple(pool.map(one, hosts.names)))
            except BaseException:
                connections.close()  # at once: leaving the pool waits for its threads, and they wait for hosts
                raise
    finally:
        connections.close()


def _profile_on(
    connections: Connections,
    wheel: tuple[str, bytes],
    tar: bytes,
    job: RemoteJob,
    reporter: ProgressReporter,
    host: str,
) -> HostProfile:
    name, content = wheel
    # The environment's folder there: two builds of one version, or two Pythons, must not share it.
    key = f"{__version__}/{sha256_bytes(content + connections.python.encode())[:16]}"
    device = None
    try:
        found = connections.ask(host, "look", key)
        device = found["device"]
        if not found["ready"]:
            reporter.message(f"{host}: installing edgetl {__version__} in ~/.cache/edgetl")
            connections.ask(host, "install", key, name, data=content)
        reporter.message(f"{host}: measuring")
        chosen = ("tensorrt" if found["tensorrt"] else "onnxruntime") if job.runtime == "auto" else job.runtime
        answer = connections.ask(host, "work", key, json.dumps(job.commands(chosen)), job.outputs_glob, data=tar)
        profile = _profile(answer["output"], job.names)
        if job.output is not None:
            _keep(answer["files"], job.output / file_stem(host.replace("/", "_")), profile)
    except EdgetlError as error:
        return HostProfile(host=host, device=device, error=str(error))
    return HostProfile(host=host, device=device or device_of(profile), profile=profile)


def _keep(files: Mapping[str, str], folder: Path, profile: Profile) -> None:
    """Write the files that a host sent into its folder."""
    for name, content in files.items():
        # A host is only trusted as far as its files stay in its folder.
        inside = Path(*PurePosixPath(name).parts[1:])
        if inside.is_absolute() or ".." in inside.parts:
            raise EdgetlError(f"it sent a file outside of its folder: {name}")
        write_bytes(folder / inside, base64.b64decode(content))
    if f"{_FIGURES}/profile.json" in files:
        write_json(folder / "profile.json", profile)  # with the names that the files have here


def _profile(output: str, names: Mapping[str, str]) -> Profile:
    """The profile that a host printed, with the names that the files have here."""
    try:
        profile = Profile.model_validate_json(output)
    except ValidationError as error:
        raise EdgetlError("its answer is no profile; run the command again") from error
    rows = []
    for row in profile.deployments:
        engines = tuple(one.replaced(file=names.get(one.file, one.file)) for one in row.engines)
        rows.append(row.replaced(name=names.get(row.name, row.name), engines=engines))
    pairs = tuple(
        pair.replaced(a=names.get(pair.a, pair.a), b=names.get(pair.b, pair.b)) for pair in profile.comparisons
    )
    return profile.replaced(deployments=tuple(rows), comparisons=pairs)
