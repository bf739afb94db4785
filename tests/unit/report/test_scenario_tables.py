from __future__ import annotations

import io

import pytest
from pydantic import ValidationError
from rich.console import Console

from edgetl.artifacts.measurements import (
    CadencePart,
    CadenceResult,
    ConcurrentResult,
    Contention,
    FigureInterval,
    IsolatedLatency,
    MissFraction,
    OfflineResult,
    QueryResult,
    Scenario,
)
from edgetl.artifacts.results import Profile, Results
from edgetl.report.html import render_html
from edgetl.report.scenario_tables import render_scenarios, scenario_tables


def interval(value: float) -> FigureInterval:
    return FigureInterval(value=value, low=0.97 * value, high=1.02 * value)


def missed(value: float, n: int) -> MissFraction:
    return MissFraction(value=value, low=value / 2, high=value + 0.01, n=n)


def part(name: str, rate: float, share: float) -> CadencePart:
    return CadencePart(
        name=name,
        rate_hz=rate,
        service_ms=11.2,
        missed=missed(share, 300),
        response_p50_ms=12.0,
        response_p99_ms=interval(31.4),
        response_worst_ms=38.25,
        lateness_worst_ms=4.9,
    )


@pytest.fixture
def scenarios() -> tuple[Scenario, ...]:
    well = {"rounds": 12, "stable": True}
    return (
        QueryResult(
            title="combined fp32", scenario="multi-stream", query_size=8, batch=8, percentile=99,
            latency_ms=interval(43.21), queries=1200, **well,
        ),
        OfflineResult(title="shared int8", batch=16, streams=2, throughput_ips=interval(512.3), **well),
        CadenceResult(
            title="specialised fp32", utilisation=interval(0.61), missed=missed(0.042, 420), longest_queue=3,
            parts=(part("signs", 5.0, 0.0), part("people", 30.0, 0.05)), seconds=12.0, rounds=12, stable=False,
            why_unstable="the utilisation drifted by +7%",
        ),
        CadenceResult(
            title="one-vs-rest fp32", utilisation=interval(1.34),
            unmet="it needs 134% of the device's time; lower the rates", seconds=0.0, rounds=0, stable=True,
        ),
        ConcurrentResult(
            title="specialised fp32",
            alone=(IsolatedLatency(name="signs", p50_ms=8.0), IsolatedLatency(name="people", p50_ms=9.5)),
            contention=(
                Contention(workload="signs", concurrent_with=("people",), value=1.7, low=1.6, high=1.9),
                Contention(workload="people", concurrent_with=("signs",), value=1.25, low=1.2, high=1.3),
            ),
            **well,
        ),
    )  # fmt: skip


def printed(scenarios: tuple[Scenario, ...]) -> str:
    stream = io.StringIO()
    console = Console(file=stream, width=80, force_terminal=False)
    for one in render_scenarios(scenarios):
        console.print(one)
    return stream.getvalue()


def test_each_scenario_is_a_table_in_the_order_of_measuring(scenarios: tuple[Scenario, ...]) -> None:
    titles = [table.title.partition(":")[0] for table in scenario_tables(scenarios)]
    assert titles == ["multi-stream", "offline", "cadence", "concurrent"]
    assert all(len(row) == len(table.columns) for table in scenario_tables(scenarios) for row in table.rows)


def test_figures_stand_with_their_intervals_and_fit_80_columns(scenarios: tuple[Scenario, ...]) -> None:
    text = printed(scenarios)
    assert max(map(len, text.splitlines())) <= 80
    lines = [line.split() for line in text.splitlines()]
    assert ["combined", "fp32", "43.2", "41.9-44.1", "1200", "8"] in lines
    assert ["shared", "int8", "512", "497-523", "16", "2"] in lines
    assert ["specialised", "fp32", "61%", "4.2%", "(2.1%-5.2%)"] in lines
    assert ["people", "30", "11.2", "5.0%", "(2.5%-6.0%)", "31.4", "38.2"] in lines
    assert ["signs", "8.00", "people", "1.70", "1.60-1.90"] in lines


def test_what_cannot_be_met_and_what_is_unstable_is_said_with_the_reason(scenarios: tuple[Scenario, ...]) -> None:
    text = " ".join(printed(scenarios).split())
    assert "one-vs-rest fp32: CANNOT BE MET: it needs 134% of the device's time; lower the rates" in text
    assert "specialised fp32: UNSTABLE: the utilisation drifted by +7%" in text


def test_names_are_never_read_as_markup(scenarios: tuple[Scenario, ...]) -> None:
    hostile = scenarios[0].model_copy(update={"title": "[red]<script>alert(1)</script>\x1b[2J"})
    assert "[red]<script>" in printed((hostile,)) and "\x1b" not in printed((hostile,))


def test_the_page_has_them_escaped_or_says_nothing(results: Results, scenarios: tuple[Scenario, ...]) -> None:
    assert "Under load" not in render_html(results)
    hostile = scenarios[1].model_copy(update={"title": "<script>alert(1)</script>"})
    page = render_html(results.model_copy(update={"scenarios": (*scenarios, hostile)}))
    assert "Under load" in page and "CANNOT BE MET" in page and "1.60-1.90" in page
    assert "<script>alert(1)" not in page and "&lt;script&gt;alert(1)" in page


def test_they_are_read_back_as_they_were_written(scenarios: tuple[Scenario, ...]) -> None:
    profile = Profile(environment={}, deployments=(), comparisons=(), scenarios=scenarios)
    assert Profile.model_validate_json(profile.model_dump_json()) == profile
    older = '{"schema_version": 2, "environment": {}, "deployments": [], "comparisons": []}'
    assert Profile.model_validate_json(older).scenarios == ()
    with pytest.raises(ValidationError, match="server"):
        Profile.model_validate_json(profile.model_dump_json().replace('"offline"', '"server"'))
