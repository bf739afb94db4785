"""Write docs/cli.md from the commands themselves. ``make docs`` runs it; a test keeps the file true."""

from __future__ import annotations

from pathlib import Path

import click

from edgetl.cli import COMMANDS, cli

TARGET = Path(__file__).parent / "cli.md"


def reference() -> str:
    """The whole reference as Markdown."""
    context = click.Context(cli, info_name="edgetl", **cli.context_settings)
    parts = [
        "# Command reference",
        "Made by `make docs` from the commands themselves.",
        _section("edgetl", cli, context),
    ]
    for name in COMMANDS:
        command = cli.get_command(context, name)
        assert command is not None
        inner = click.Context(command, parent=context, info_name=name, max_content_width=100)
        parts.append(_section(f"edgetl {name}", command, inner))
    return "\n\n".join(parts) + "\n"


def _section(title: str, command: click.Command, context: click.Context) -> str:
    formatter = click.HelpFormatter(width=100)
    command.format_help(context, formatter)
    return f"## {title}\n\n```text\n{formatter.getvalue().rstrip()}\n```"


if __name__ == "__main__":
    TARGET.write_text(reference(), encoding="utf-8")
