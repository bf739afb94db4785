"""The results on a terminal: a table that fits 80 columns, and the verdict as a list of reasons."""

from __future__ import annotations

import textwrap

from rich import box
from rich.table import Table
from rich.text import Text

from edgetl.artifacts.results import Results, Verdict
from edgetl.report.table import UNKNOWN, Row, rows
from edgetl.report.wording import printable

_CAPTION = (
    "Accuracy: % of the test images, below it the 95 % interval. By group: all labels compete/masked to the "
    "group's own labels. Latency: ms for one image. Memory: engine files, and what running them uses."
)


def render_table(results: Results) -> Table:
    """One row for each deployment and precision; the chosen one is marked ``>``.

    Every cell is a `Text`: names from a file are never read as markup.
    """
    shown = rows(results)
    # One blank between columns and two lines in a row: the figures and the groups fit 80 columns.
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), caption=_CAPTION, caption_justify="left")
    table.add_column("", no_wrap=True)
    table.add_column("accuracy", justify="right", no_wrap=True)
    table.add_column("by group: all/masked", overflow="fold")
    energy = any(row.energy_mj != UNKNOWN for row in shown)
    for header in ("p50", "p90\np99", "MB file\nMB used", *(["mJ"] if energy else [])):
        table.add_column(header, justify="right", no_wrap=True)
    for row in shown:
        cells = [_title(row), *(_not_run(row) if row.unsupported else _run(row))]
        table.add_row(*(cells if energy else cells[:6]), style="bold green" if row.chosen else None)
    return table


def _title(row: Row) -> Text:
    return Text(f"{'>' if row.chosen else ' '} {row.name}\n  {row.precision}")


def _not_run(row: Row) -> list[Text]:
    return [Text(UNKNOWN), Text(f"not run: {row.unsupported}", style="dim"), *(Text(UNKNOWN) for _ in range(4))]


def _run(row: Row) -> list[Text]:
    latency = Text(f"{row.p50}\n{row.p50_interval}")
    if row.unstable:
        latency.append("\nUNSTABLE", style="bold red")
    return [
        Text(f"{row.accuracy}\n{row.accuracy_interval}"),
        Text("\n".join(f"{group.name} {group.unmasked}/{group.masked}" for group in row.groups)),
        latency,
        Text(f"{row.p90}\n{row.p99}"),
        Text(f"{row.engines_mb}\n{row.memory_mb}"),
        Text(row.energy_mj),
    ]


def headline(verdict: Verdict) -> str:
    """The verdict in a few words: ``ship combined int8``."""
    if verdict.deployment is None:
        return "nothing meets the budget"
    return printable(f"ship {verdict.deployment} {verdict.precision}")


def render_verdict(verdict: Verdict, width: int) -> str:
    """The headline and the reasons as a list, wrapped to a terminal of so many columns."""
    reasons = (
        textwrap.fill(printable(reason), width, initial_indent="  - ", subsequent_indent="    ")
        for reason in verdict.reasons
    )
    doubt = "" if verdict.stable else " (UNSTABLE: measure again before you rely on it)"
    return "\n".join([f"Verdict: {headline(verdict)}{doubt}", *reasons])
