"""`edgetl profile` for other machines: measured through ssh, or estimated."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgetl.commands.console import echo
from edgetl.commands.profile_options import profile_request
from edgetl.commands.study_command import PATH, TerminalReporter, with_options

if TYPE_CHECKING:
    from edgetl.artifacts.measurements import DeviceEstimate
    from edgetl.artifacts.results import Profile
    from edgetl.stages.remote import RemoteJob

elsewhere_options = with_options(
    click.option(
        "--estimate",
        metavar="DEVICE[@MODE]",
        multiple=True,
        help="Measure nothing: estimate for this Jetson, such as 'AGX Orin 64GB@30W'. Repeatable.",
    ),
    click.option(
        "--precision",
        type=click.Choice(["fp32", "fp16", "int8"]),
        help="With --estimate: as if models were prepared so.",
    ),
    click.option("--on", metavar="HOST", multiple=True, help="Build and measure on this host through ssh. Repeatable."),
    click.option(
        "--runtime",
        type=click.Choice(["auto", "onnxruntime", "tensorrt", "tensorrt-rtx"]),
        default="auto",
        show_default="TensorRT where a host has it and PyCUDA, else ONNX Runtime",
        help="With --on: what runs MODEL.onnx.",
    ),
    click.option("--remote-python", default="python3", show_default=True, help="With --on: the hosts' Python."),
    click.option("--ssh-config", type=PATH, help="With --on: a configuration for ssh instead of ~/.ssh/config."),
)
# Options that the hosts' edgetl gets too, with a value and as flags; and those that only work on this machine.
_PASSED = ("threads", "seconds", "width", "batch")
_FLAGS = ("cuda_graph", "spin_wait", "no_transfers", "share_scratch", "trust", "layers", "no_energy")
_HERE_ALONE = {"scenarios": "scenario", "images": "images", "runtime_cache": "runtime-cache"}


def refuse_at_home(values: dict[str, Any]) -> None:
    """Refuse options of --on and --estimate without these, and with these the options that need this machine."""
    elsewhere = next((option for option in ("on", "estimate") if values[option]), None)
    given = next((option for name, option in _HERE_ALONE.items() if values[name]), None)
    if elsewhere and given:
        raise click.UsageError(f"--{given} is not for --{elsewhere}; run edgetl on that device for it")
    # click gives defaults for these two, so that only another value shows that the user gave them.
    unused = {"precision": values["precision"], "ssh-config": values["ssh_config"]}
    unused |= {"runtime": values["runtime"] != "auto", "remote-python": values["remote_python"] != "python3"}
    for name, given in unused.items():
        if given and not (values["estimate"] if name == "precision" else values["on"]):
            raise click.UsageError(f"--{name} is for {'--estimate' if name == 'precision' else '--on'}")


def show_estimates(sources: tuple[Path, ...], values: dict[str, Any], as_json: bool) -> None:
    """Print estimates for a study's deployments, or for models."""
    rows = _estimates(sources, values)
    if as_json:
        from edgetl.artifacts.results import Profile

        empty = Profile(environment={}, deployments=(), comparisons=(), estimates=rows)
        click.echo(empty.model_dump_json(indent=1))
        return
    from edgetl.report.terminal import estimate_table

    echo(estimate_table(rows))


def profile_on_hosts(sources: tuple[Path, ...], values: dict[str, Any], as_json: bool) -> Iterator[Profile]:
    """Print what all hosts measured, then yield their profiles.

    Raises:
        EdgetlError: a host failed.
    """
    from edgetl.errors import EdgetlError
    from edgetl.report.terminal import failures, host_table
    from edgetl.stages.remote import Hosts, profile_on

    hosts = Hosts(values["on"], values["remote_python"], values["ssh_config"])
    profiles = profile_on(hosts, _job(sources, values), TerminalReporter())
    if as_json:
        click.echo(profiles.model_dump_json(indent=1))
    else:
        echo(host_table(profiles))
    for line in failures(profiles):
        click.echo(line, err=True)
    if profiles.failed:  # only now: what the other hosts measured is shown all the same
        raise EdgetlError(f"{len(profiles.failed)} of {len(profiles.hosts)} hosts failed; the lines above say why")
    yield from (one.profile for one in profiles.hosts if one.profile is not None)


def _estimates(sources: tuple[Path, ...], values: dict[str, Any]) -> tuple[DeviceEstimate, ...]:
    from edgetl.stages.estimate import estimate_files, estimate_study

    if sources and sources[0].suffix == ".onnx":
        if values["output"] is not None:
            raise click.UsageError("-o is for a study here: estimates of models are printed, with --json for programs")
        return estimate_files(
            tuple(profile_request(sources, values).files.values()), values["estimate"], values["precision"]
        )
    study, run = _study(sources, values, "--estimate")
    if values["precision"]:
        raise click.UsageError("--precision is for models; a study names its own")
    from edgetl.artifacts.run_directory import RunDirectory
    from edgetl.config import load_study

    return estimate_study(load_study(study), RunDirectory(run), values["estimate"])


def _job(sources: tuple[Path, ...], values: dict[str, Any]) -> RemoteJob:
    from edgetl.artifacts.run_directory import RunDirectory
    from edgetl.stages.remote import files_job, study_job

    if sources and sources[0].suffix == ".onnx":
        options = [*_passed(values, _PASSED), *_flags(values, _FLAGS)]
        return files_job(
            tuple(profile_request(sources, values).files.values()), values["runtime"], options, values["output"]
        )
    study, run = _study(sources, values, "--on")
    if values["runtime"] != "auto":
        raise click.UsageError("--runtime is for models; a study names its own")
    options = [
        *_passed(values, ("threads", "seconds", "width", "provider")),
        *_flags(values, ("layers", "no_energy")),
    ]
    return study_job(study, RunDirectory(run), options)


def _study(sources: tuple[Path, ...], values: dict[str, Any], option: str) -> tuple[Path, Path]:
    if len(sources) != 1 or sources[0].suffix == ".engine" or values["output"] is None:
        raise click.UsageError(
            f"{option} takes MODEL.onnx files, or STUDY.yaml with -o DIR; engines are built on the host"
        )
    return sources[0], values["output"]


def _flags(values: dict[str, Any], names: tuple[str, ...]) -> Iterator[str]:
    return (f"--{name.replace('_', '-')}" for name in names if values[name])


def _passed(values: dict[str, Any], names: tuple[str, ...]) -> Iterator[str]:
    for name in names:
        yield from (f"--{name.replace('_', '-')}", str(values[name]))
