"""The report: one self-contained HTML file that opens without a network and begins with the verdict."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgetl.artifacts.results import Results
from edgetl.config import MetricWords, metric_named
from edgetl.errors import EdgetlError, MissingExtraError
from edgetl.report.accuracy_control_section import accuracy_control_section
from edgetl.report.cut_plots import freeze_depth, search
from edgetl.report.cut_sweep import has_cuts, ranking
from edgetl.report.deployment_names import is_truncated
from edgetl.report.detectors import precision_table, trained_heads, training_facts
from edgetl.report.drawing import PlotlyFigure, colour, symbol
from edgetl.report.energy_and_memory import energy_sentence
from edgetl.report.evidence import Interval, candidates
from edgetl.report.plots import accuracy_against_latency, frontier, group_accuracy
from edgetl.report.scenario_tables import scenario_tables
from edgetl.report.table import UNKNOWN, rows, unit_of_flops
from edgetl.report.text import headline
from edgetl.report.training_facts import cascade_note, tuned_heads
from edgetl.report.waterfall_plot import step_colours, waterfall_figure, waterfall_sentences
from edgetl.report.wording import percent, points, printable, signed, significant, times

_TEMPLATE = Path(__file__).with_name("template.html")
_PLOTLY = Path(__file__).with_name("plotly") / "plotly-basic.min.js"
_LIMITS = {
    "max_accuracy_drop": "{name} drop at most {limit} points",
    "min_accuracy": "{name} at least {limit} %",
    "max_latency_ms": "latency at most {limit} ms",
    "max_memory_mb": "memory at most {limit} MB",
    "max_energy_mj": "energy at most {limit} mJ",
}
# Limits that results.json holds as fractions.
_FRACTIONS = {"max_accuracy_drop": points, "min_accuracy": percent}


@dataclass(frozen=True)
class PairRow:
    """``a`` against ``b`` in words; ``*_proven`` where the interval excludes no difference."""

    a: str
    b: str
    accuracy: str = UNKNOWN
    accuracy_proven: bool = False
    speed: str = UNKNOWN
    speed_proven: bool = False


def render_html(results: Results) -> str:
    """Return the page, with plotly.js inside. Everything from the results is escaped.

    Raises:
        MissingExtraError: jinja2 is not installed.
        EdgetlError: a figure is not finite.
    """
    # jinja2 belongs to an extra: the rest of this room works without it.
    try:
        from jinja2 import Environment, StrictUndefined
    except ImportError as error:
        raise MissingExtraError("the HTML report", "report", error) from error
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    # Else Python writes NaN, which is no JSON.
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False}
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    plotlyjs = _PLOTLY.read_text(encoding="utf-8")
    try:
        return template.render(**_measurements(results), **_sweep(results), plotlyjs=plotlyjs)
    except ValueError as error:
        raise EdgetlError(f"the report cannot be drawn: {error}; measure again or correct results.json") from error


def _measurements(results: Results) -> dict[str, Any]:
    table, run, metric = rows(results), candidates(results.deployments), metric_named(results.metric)
    groups = list(dict.fromkeys(group for candidate in run for group in candidate.accuracy.groups))
    return {
        "results": results,
        "words": metric.words,
        "task_words": metric.task_words,
        "headline": headline(results.verdict),
        "chosen": next((row for row in table if row.chosen), None),
        "rows": table,
        "groups": groups,
        "energy": any(row.energy_mj != UNKNOWN for row in table),
        "flops": unit_of_flops(results) if any(row.flops != UNKNOWN for row in table) else None,
        "budget": list(_budget(results.budget, metric.words)),
        "pairs": _pairs(results),
        "run": run,
        "names": {candidate.deployment: colour(candidate.deployment) for candidate in run},
        "precisions": {candidate.row.precision: symbol(candidate.row.precision) for candidate in run},
        "figures": _figures(results, groups),
        "cascade": cascade_note(results),
        "accuracy_control": accuracy_control_section(results),
        "steps": step_colours(results),
        "waterfall_text": waterfall_sentences(results),
        "energy_sentence": energy_sentence(results.deployments),
        "precision": precision_table(results),
        "scenarios": scenario_tables(results.scenarios),
        "facts_by_heading": {
            "Data": results.data,
            "Training": training_facts(results.training),
            "Environment": results.environment,
        },
    }


def _sweep(results: Results) -> dict[str, Any]:
    """Return what the page shows of cuts and of tuning; empty where there were none."""
    by_title = {(row.name, row.precision): row for row in rows(results)}
    front = [by_title[printable(one.row.name), printable(one.row.precision)] for one in frontier(results)]
    return {
        "front": front if has_cuts(results) else [],
        "depth_names": {"combined": colour("combined"), "branched (at the top: shared)": colour("branched")},
        "truncated": any(is_truncated(cut) for row in results.deployments for cut in row.cuts.values()),
        "trees": {tree.deployment: colour(tree.deployment) for tree in results.trees},
        "ranking": ranking(results),
        "tuned": tuned_heads(results),
        "heads": trained_heads(results),
    }


def _figures(results: Results, groups: list[str]) -> dict[str, PlotlyFigure]:
    drawn = {
        "overview": accuracy_against_latency(results),
        "depth": freeze_depth(results) if results.trees else None,
        "search": search(results),
        "waterfall": waterfall_figure(results),
        **{f"group-{position}": group_accuracy(results, group) for position, group in enumerate(groups)},
    }
    return {place: figure for place, figure in drawn.items() if figure is not None}


def _budget(budget: dict[str, float], words: MetricWords) -> Iterator[str]:
    for name, limit in budget.items():
        sentence = _LIMITS.get(name)
        figure = _FRACTIONS.get(name, significant)(limit)
        yield sentence.format(name=words.name, limit=figure) if sentence else f"{printable(name)} {figure}"


def _pairs(results: Results) -> list[PairRow]:
    """Return one row for each pair, with both metrics, in the order of the comparisons."""
    merged: dict[tuple[str, str], dict[str, str | bool]] = {}
    for pair in results.comparisons:
        cells = merged.setdefault((pair.a, pair.b), {})
        if pair.metric == "accuracy":
            if pair.difference is not None:
                value, low, high = (signed(fraction) for fraction in (pair.difference, pair.low, pair.high))
                cells["accuracy"] = f"{value} points ({low} to {high})"
                cells["accuracy_proven"] = not pair.low <= 0.0 <= pair.high
        elif pair.why_unstable is not None:
            cells["speed"] = "UNSTABLE"
        # A ratio that reaches zero, in a file from elsewhere, has no inverse.
        elif pair.ratio is not None and min(pair.ratio, pair.low) > 0.0:
            speedup = Interval(pair.ratio, pair.low, pair.high).inverted()
            ratio, low, high = times(speedup.value, speedup.low, speedup.high)
            cells["speed"] = f"{ratio} times as fast ({low} to {high})"
            cells["speed_proven"] = not speedup.includes(1.0)
    return [PairRow(printable(a), printable(b), **cells) for (a, b), cells in merged.items()]  # type: ignore[arg-type]
