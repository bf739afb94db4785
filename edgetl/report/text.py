"""The results for a terminal: a table that fits 80 columns, and the verdict as a list of reasons."""

from __future__ import annotations

import textwrap

from rich import box
from rich.table import Table
from rich.text import Text

from edgetl.artifacts.results import Results, Verdict
from edgetl.config import Metric, metric_named
from edgetl.report.cut_sweep import has_cuts
from edgetl.report.deployment_names import folded
from edgetl.report.table import UNKNOWN, ResultRow, rows, unit_of_flops
from edgetl.report.training_facts import cascade_note
from edgetl.report.wording import printable

# Beside a name of this width, accuracy, two groups and the costs fit 80 columns.
_NAME_WIDTH = 15

_COSTS = "Latency: ms for one image. Memory: engine files, and what running them uses."


def render_table(results: Results) -> Table:
    """Return a table with a row for each deployment and precision; the chosen one is marked ``>``.

    A long name is broken after ``@``.
    """
    # Every cell is a `Text`: rich would read a name in brackets as markup.
    shown, swept, metric = rows(results), has_cuts(results), metric_named(results.metric)
    captions = (metric.words.caption, metric.task_words.caption, _COSTS, cascade_note(results))
    caption = Text(" ".join(filter(None, captions)))
    # One blank between columns and two lines in a row: the figures and the groups fit 80 columns.
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), caption=caption, caption_justify="left")
    energy = any(row.energy_mj != UNKNOWN for row in shown)
    _add_columns(table, metric, unit_of_flops(results) if swept else "", energy)
    reasons: set[str | None] = set()
    for position, row in enumerate(shown):
        if swept and row.name != shown[position - 1].name:
            table.add_section()
        title = Text(f"{'>' if row.chosen else ' '} " + "\n  ".join([*folded(row.name, _NAME_WIDTH), row.precision]))
        why_not = row.unsupported and ("as above" if row.unsupported in reasons else row.unsupported)
        reasons.add(row.unsupported)
        not_run = [Text(UNKNOWN), Text(f"not run: {why_not}", style="dim"), *(Text(UNKNOWN) for _ in range(4))]
        cells = [title, *(not_run if why_not else _run(row, swept))]
        table.add_row(*(cells if energy else cells[:6]), style="bold green" if row.chosen else None)
    return table


def _add_columns(table: Table, metric: Metric, unit_of_flops: str, energy: bool) -> None:
    table.add_column("", no_wrap=True)
    table.add_column(metric.words.name, justify="right", no_wrap=True)
    table.add_column("by group: all/masked" if metric.task_words.masked else "by group", overflow="fold")
    size = f"MB file\nMB used\n{unit_of_flops}".rstrip()
    for header in ("p50", "p90\np99", size, *(["mJ"] if energy else [])):
        table.add_column(header, justify="right", no_wrap=True)


def _run(row: ResultRow, swept: bool) -> list[Text]:
    latency = Text(f"{row.p50}\n{row.p50_interval}")
    if row.unstable:
        latency.append("\nUNSTABLE", style="bold red")
    return [
        Text(f"{row.accuracy}\n{row.accuracy_interval}"),
        Text("\n".join(f"{group.name} {'/'.join(group.figures)}" for group in row.groups)),
        latency,
        Text(f"{row.p90}\n{row.p99}"),
        Text(f"{row.engines_mb}\n{row.memory_mb}" + (f"\n{row.flops}" if swept else "")),
        Text(row.energy_mj),
    ]


def headline(verdict: Verdict) -> str:
    """Return the verdict in a few words: ``ship combined int8``."""
    if verdict.deployment is None:
        return "nothing meets the budget"
    return printable(f"ship {verdict.deployment} {verdict.precision}")


def render_verdict(verdict: Verdict, width: int) -> str:
    """Return the headline and the reasons as a list, wrapped to a terminal of so many columns."""
    reasons = (
        textwrap.fill(printable(reason), width, initial_indent="  - ", subsequent_indent="    ")
        for reason in verdict.reasons
    )
    doubt = "" if verdict.stable else " (UNSTABLE: measure again before you rely on it)"
    return "\n".join([f"Verdict: {headline(verdict)}{doubt}", *reasons])
