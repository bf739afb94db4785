"""Tables of scenarios, for the terminal and the HTML report."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from rich import box
from rich.table import Table
from rich.text import Text

from edgetl.artifacts.measurements import (
    CadenceResult,
    ConcurrentResult,
    FigureInterval,
    MissFraction,
    OfflineResult,
    QueryResult,
    Scenario,
)
from edgetl.report.wording import count, printable, significant

ScenarioRow = tuple[str, ...]


@dataclass(frozen=True)
class ScenarioTable:
    """Figures of one scenario, written out. The first column names their subject; ``notes`` are what does not hold."""

    title: str
    lead: str
    columns: ScenarioRow
    rows: tuple[ScenarioRow, ...]
    notes: tuple[str, ...] = ()


def scenario_tables(scenarios: Sequence[Scenario]) -> tuple[ScenarioTable, ...]:
    """Return a table for each scenario, in the order in which they were measured."""
    names = dict.fromkeys(one.scenario for one in scenarios)
    return tuple(_WRITERS[name]([one for one in scenarios if one.scenario == name]) for name in names)


def render_scenarios(scenarios: Sequence[Scenario]) -> Iterator[Table | Text]:
    """Yield for a terminal a title, the table, how to read it, and what does not hold."""
    for one in scenario_tables(scenarios):
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
        for number, column in enumerate(one.columns):
            table.add_column(Text(column), justify="right" if number else "left", overflow="fold")
        for row in one.rows:
            table.add_row(*map(Text, row))
        yield Text(one.title, style="bold")
        yield table
        yield Text(one.lead, style="dim")
        for note in one.notes:
            yield Text(note, style="bold red")
        yield Text()


def _queries(found: Sequence[QueryResult]) -> ScenarioTable:
    first = found[0]
    images = count(first.query_size, "image")
    return ScenarioTable(
        title=f"{first.scenario}: one query after the other, each of {images}",
        lead=f"p{first.percentile}: {first.percentile} % of queries take no longer. Batch: images in one inference.",
        columns=("", f"p{first.percentile} ms", "95 % interval", "queries", "batch"),
        rows=tuple((printable(one.title), *_figure(one.latency_ms), str(one.queries), str(one.batch)) for one in found),
        notes=_doubts(found),
    )


def _offline(found: Sequence[OfflineResult]) -> ScenarioTable:
    return ScenarioTable(
        title="offline: all images are there from the start",
        lead="Streams run side by side, each batch after batch.",
        columns=("", "images/s", "95 % interval", "batch", "streams"),
        rows=tuple(
            (printable(one.title), *_figure(one.throughput_ips), str(one.batch), str(one.streams)) for one in found
        ),
        notes=_doubts(found),
    )


def _cadence(found: Sequence[CadenceResult]) -> ScenarioTable:
    rows: list[ScenarioRow] = []
    for one in found:
        missed = _fraction(one.missed) if one.missed else "-"
        rows.append((printable(one.title), f"{one.utilisation.value:.0%}", "", "", missed, "", ""))
        for part in one.parts:
            worst, p99 = significant(part.response_worst_ms), significant(part.response_p99_ms.value)
            rate, takes = f"{part.rate_hz:g}", significant(part.service_ms)
            rows.append((f"  {printable(part.name)}", "", rate, takes, _fraction(part.missed), p99, worst))
    unmet = tuple(f"{printable(one.title)}: CANNOT BE MET: {printable(one.unmet)}" for one in found if one.unmet)
    return ScenarioTable(
        title="cadence: each engine at its own rate, on one device",
        lead="Takes: ms for one inference. p99, worst: ms from when an inference was due until it was done. Missed: it "
        "was not done when the next one was due. The device runs each to its end, the earliest deadline first.",
        columns=("", "busy", "Hz", "takes", "missed", "p99", "worst"),
        rows=tuple(rows),
        notes=(*unmet, *_doubts(found)),
    )


def _fraction(missed: MissFraction) -> str:
    # With its interval, because no miss in few inferences proves little.
    return f"{missed.value:.1%} ({missed.low:.1%}-{missed.high:.1%})"


def _concurrent(found: Sequence[ConcurrentResult]) -> ScenarioTable:
    rows: list[ScenarioRow] = []
    for one in found:
        rows.append((printable(one.title), "", "", "", ""))
        for alone in one.alone:
            name, took = f"  {printable(alone.name)}", significant(alone.p50_ms)
            for pair in one.contention:
                if pair.workload == alone.name:
                    beside = printable(" + ".join(pair.concurrent_with))
                    rows.append((name, took, beside, f"{pair.value:.2f}", f"{pair.low:.2f}-{pair.high:.2f}"))
                    # A part's name stands in the first of its rows alone.
                    name = took = ""
    return ScenarioTable(
        title="concurrent: several engines at once",
        lead="Times: how many times as long an inference takes while others run beside it without a pause.",
        columns=("", "alone ms", "beside", "times", "95 % interval"),
        rows=tuple(rows),
        notes=_doubts(found),
    )


def _figure(interval: FigureInterval) -> tuple[str, str]:
    return significant(interval.value), f"{significant(interval.low)}-{significant(interval.high)}"


def _doubts(found: Sequence[Scenario]) -> tuple[str, ...]:
    return tuple(
        f"{printable(one.title)}: UNSTABLE: {printable(one.why_unstable or 'the rounds differ too much')}"
        for one in found
        if not one.stable
    )


_WRITERS: Mapping[str, Callable[..., ScenarioTable]] = {
    "single-stream": _queries,
    "multi-stream": _queries,
    "offline": _offline,
    "cadence": _cadence,
    "concurrent": _concurrent,
}
