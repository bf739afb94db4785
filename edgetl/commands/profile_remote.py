from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgetl.commands.console import echo
from edgetl.commands.options import argument, make_command, option, part, refuse
from edgetl.commands.shared_options import (
    GateOptions,
    JudgingOptions,
    MeasuringOptions,
    ModelRunOptions,
    ProviderOption,
)
from edgetl.commands.show_profile import judge
from edgetl.commands.study_command import TerminalReporter, study_and_run

if TYPE_CHECKING:
    from edgetl.stages.remote import RemoteJob


class _RemoteModelOptions(GateOptions, ModelRunOptions):
    """What a study names itself, or has no use for."""

    runtime: str = option(
        "What runs MODEL.onnx.",
        type=click.Choice(["auto", "onnxruntime", "tensorrt", "tensorrt-rtx"]),
        default="auto",
        show_default="TensorRT where a host has it and PyCUDA, else ONNX Runtime",
    )


class _RemoteOptions(ProviderOption, MeasuringOptions, JudgingOptions, _RemoteModelOptions):
    sources: tuple[Path, ...] = argument("STUDY.yaml|MODEL.onnx...")
    hosts: tuple[str, ...] = option("Measure on this host. Repeatable.", "--on", metavar="HOST", required=True)
    output: Path | None = option("A study's run directory; a folder for the figures of models.", "-o", "--output")
    remote_python: str = option("The hosts' Python.", default="python3")
    ssh_config: Path | None = option("A configuration for ssh instead of ~/.ssh/config.")


@make_command("profile-remote", _RemoteOptions)
def command(options: _RemoteOptions) -> None:
    """Build and profile on other machines through ssh, all at once, with one table of what they measured.

    A host needs Python 3.10 or newer, and ssh has to log in without a question. Scenarios, and the way from images to
    answers, are measured by edgetl profile on the device itself.

    \b
    Examples:  edgetl profile-remote model.onnx --on nano --on user@orin
               edgetl profile-remote configs/digits.yaml -o runs/digits --on nano
    """
    job = _job(options)
    from edgetl.errors import EdgetlError
    from edgetl.report.terminal import failures, host_table
    from edgetl.stages.remote import Hosts, profile_on

    profiles = profile_on(Hosts(options.hosts, options.remote_python, options.ssh_config), job, TerminalReporter())
    if options.as_json:
        click.echo(profiles.model_dump_json(indent=1))
    else:
        echo(host_table(profiles))
    for line in failures(profiles):
        click.echo(line, err=True)
    if profiles.failed:  # only now: what the other hosts measured is shown all the same
        raise EdgetlError(f"{len(profiles.failed)} of {len(profiles.hosts)} hosts failed; the lines above say why")
    for one in profiles.hosts:
        if one.profile is not None:
            judge(one.profile, options, options.fail_if_slower)


def _job(options: _RemoteOptions) -> RemoteJob:
    """The work of each host; its edgetl gets the options that are given here."""
    from edgetl.stages.profile_files import by_path
    from edgetl.stages.remote import files_job, study_job

    measuring = part(options, MeasuringOptions)
    if options.sources[0].suffix == ".onnx":
        if options.provider != "cpu":
            raise click.UsageError("--provider is for a study; --runtime chooses what runs models")
        passed = measuring | part(options, ModelRunOptions)
        graphs = by_path(options.files(options.sources))
        return files_job(graphs, options.runtime, passed, options.output)
    study, run = study_and_run(options.sources, options.output, "MODEL.onnx files, whose engines are built on the host")
    refuse(_RemoteModelOptions, "is for models; a study names its own")
    from edgetl.artifacts.run_directory import RunDirectory

    return study_job(study, RunDirectory(run), measuring | part(options, ProviderOption))
