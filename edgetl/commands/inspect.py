from __future__ import annotations

from pathlib import Path

import click

from edgetl.commands.options import CommandOptions, argument, make_command, option


class _InspectOptions(CommandOptions):
    path: Path = argument("FILE|DIR")
    trust: bool = option("Describe an engine that is not the file that its manifest describes.")
    as_json: bool = option("Print it for programs, each layer by name.", "--json")


@make_command("inspect", _InspectOptions)
def command(options: _InspectOptions) -> None:
    """Tell what a graph, an engine, a bundle or a run directory holds: inputs, outputs, layers, precisions, lineage.

    Nothing is run, and no engine is given to TensorRT.

    \b
    Example:  edgetl inspect m.int8.engine
    """
    from edgetl.report.terminal import inspection_lines
    from edgetl.stages.inspect_file import inspect

    inspection = inspect(options.path, options.trust)
    click.echo(inspection.model_dump_json(indent=1) if options.as_json else "\n".join(inspection_lines(inspection)))
