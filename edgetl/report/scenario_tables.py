"""Scenarios as tables: what the terminal and the HTML report both show."""

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
    """Figures of one scenario, written out. The first column says of what; ``notes`` are what does not hold."""

    title: str
    lead: str
    columns: ScenarioRow
    rows: tuple[ScenarioRow, ...]
    notes: tuple[str, ...] = ()


def scenario_tables(scenarios: Sequence[Scenario]) -> tuple[ScenarioTable, ...]:
    """One for each scenario, in the order in which they were measured."""
    names = dict.fromkeys(one.scenario for one in scenarios)
    return tuple(_WRITERS[name]([one for one in scenarios if one.scenario == name]) for name in names)


def render_scenarios(scenarios: Sequence[Scenario]) -> Iterator[Table | Text]:
    """For a terminal: a title, the table, how to read it, and what does not hold."""
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
    unmet = tuple(f"{printable(one.title)}: CANNOT BE MET: {printable(one.unmet)}" for one in found if one.unmet)
    return ScenarioTable(
        title="cadence: each engine at its own rate, on one device",
        lead="In ms: what an inference takes, and how long after it was due it was done. It is missed if the next one "
        "was due before that. The device runs each to its end, the earliest deadline first.",
        columns=("", "busy", "Hz", "takes", "missed", "p99", "worst"),
        rows=tuple(row for one in found for row in _cadence_rows(one)),
        notes=(*unmet, *_doubts(found)),
    )


def _cadence_rows(one: CadenceResult) -> Iterator[ScenarioRow]:
    missed = _fraction(one.missed) if one.missed else "-"
    yield printable(one.title), f"{one.utilisation.value:.0%}", "", "", missed, "", ""
    for part in one.parts:
        yield (
            f"  {printable(part.name)}",
            "",
            f"{part.rate_hz:g}",
            significant(part.service_ms),
            _fraction(part.missed),
            significant(part.response_p99_ms.value),
            significant(part.response_worst_ms),
        )


def _fraction(missed: MissFraction) -> str:
    """With what may have gone unseen: no miss in few inferences proves little."""
    return f"{missed.value:.1%} ({missed.low:.1%}-{missed.high:.1%})"


def _concurrent(found: Sequence[ConcurrentResult]) -> ScenarioTable:
    return ScenarioTable(
        title="concurrent: several engines at once",
        lead="How many times as long an inference takes beside others that run without a pause.",
        columns=("", "alone ms", "beside", "times", "95 % interval"),
        rows=tuple(row for one in found for row in _concurrent_rows(one)),
        notes=_doubts(found),
    )


def _concurrent_rows(one: ConcurrentResult) -> Iterator[ScenarioRow]:
    yield printable(one.title), "", "", "", ""
    for alone in one.alone:
        name, took = f"  {printable(alone.name)}", significant(alone.p50_ms)
        for pair in one.contention:
            if pair.workload == alone.name:
                beside = printable(" + ".join(pair.concurrent_with))
                yield name, took, beside, f"{pair.value:.2f}", f"{pair.low:.2f}-{pair.high:.2f}"
                name = took = ""


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
