from __future__ import annotations

from pathlib import Path

import click

from edgetl.commands.study_command import PATH


@click.command("inspect")
@click.argument("path", metavar="FILE|DIR", type=PATH)
@click.option("--trust", is_flag=True, help="Describe an engine that is not the file that its manifest describes.")
@click.option("--json", "as_json", is_flag=True, help="Print it for programs, each layer by name.")
def command(path: Path, trust: bool, as_json: bool) -> None:
    """Tell what a graph, an engine, a bundle or a run directory holds: inputs, outputs, layers, precisions, lineage.

    Nothing is run, and no engine is given to TensorRT.

    \b
    Example:  edgetl inspect m.int8.engine
    """
    from edgetl.report.terminal import inspection_lines
    from edgetl.stages.inspect_file import inspect

    inspection = inspect(path, trust)
    click.echo(inspection.model_dump_json(indent=1) if as_json else "\n".join(inspection_lines(inspection)))
