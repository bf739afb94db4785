"""Tables on a terminal or in a pipe."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.console import RenderableType

_PIPE_WIDTH = 100


def text_width() -> int:
    """Columns for sentences, which are hard to read across a whole screen."""
    from rich.console import Console

    return min(Console(width=_width()).width, _PIPE_WIDTH)


def echo(*renderables: RenderableType) -> None:
    """Print tables, each below the one before; unlike rich's own way, fit for names that ASCII cannot encode."""
    from rich.console import Console

    console = Console(width=_width())
    with console.capture() as captured:
        for one in renderables:
            console.print(one)
    click.echo(captured.get(), nl=False)


def _width() -> int | None:
    """A pipe has no width."""
    return None if sys.stdout.isatty() else _PIPE_WIDTH
