"""Print tables to a terminal or a pipe."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.console import RenderableType

_PIPE_WIDTH = 100


def text_width() -> int:
    """The number of columns for sentences: at most 100, because longer lines are hard to read."""
    from rich.console import Console

    return min(Console(width=_width()).width, _PIPE_WIDTH)


def echo(*renderables: RenderableType) -> None:
    """Print tables, each below the one before."""
    from rich.console import Console

    # By way of click, which replaces what the terminal's encoding lacks: rich would fail on such names.
    console = Console(width=_width())
    with console.capture() as captured:
        for one in renderables:
            console.print(one)
    click.echo(captured.get(), nl=False)


def _width() -> int | None:
    # None lets rich ask the terminal; of a pipe it would take 80.
    return None if sys.stdout.isatty() else _PIPE_WIDTH
