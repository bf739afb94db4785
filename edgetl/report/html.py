"""The report: one self-contained HTML file that opens without a network and says the verdict first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgetl.artifacts.results import Comparison, Results
from edgetl.errors import EdgetlError, MissingExtraError
from edgetl.report.accuracy_control_section import accuracy_control_section
from edgetl.report.cut_plots import freeze_depth, search
from edgetl.report.cut_sweep import has_cuts, ranking
from edgetl.report.deployment_names import is_truncated
from edgetl.report.detectors import precision_table, trained_heads, training_facts
from edgetl.report.drawing import PlotlyFigure, colour, symbol
from edgetl.report.energy_and_memory import energy_sentence
from edgetl.report.evidence import Interval, candidates
from edgetl.report.metric_words import MetricWords, terms
from edgetl.report.plots import accuracy_against_latency, frontier, group_accuracy
from edgetl.report.scenario_tables import scenario_tables
from edgetl.report.table import UNKNOWN, ResultRow, rows, unit_of_flops
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
_SHARES = {"max_accuracy_drop": points, "min_accuracy": percent}


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
    """The page, with plotly.js inside. All that comes from the results is escaped.

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
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False}
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    plotlyjs = _PLOTLY.read_text(encoding="utf-8")
    try:
        return template.render(**_measurements(results), **_sweep(results), plotlyjs=plotlyjs)
    except ValueError as error:
        raise EdgetlError(f"the report cannot be drawn: {error}; measure again or mend results.json") from error


def _measurements(results: Results) -> dict[str, Any]:
    """What the page shows of every study."""
    table, groups, run = rows(results), _groups(results), candidates(results.deployments)
    words = terms(results.metric)
    return {
        "results": results,
        "terms": words,
        "headline": headline(results.verdict),
        "chosen": next((row for row in table if row.chosen), None),
        "rows": table,
        "groups": groups,
        "energy": any(row.energy_mj != UNKNOWN for row in table),
        "flops": unit_of_flops(results) if any(row.flops != UNKNOWN for row in table) else None,
        "budget": list(_budget(results.budget, words)),
        "pairs": _pairs(results),
        "run": run,
        "names": {candidate.deployment: colour(candidate.deployment) for candidate in run},
        "precisions": {candidate.row.precision: symbol(candidate.row.precision) for candidate in run},
        "figures": _figures(results, groups),
        "cascade": cascade_note(results),
        "accuracy_control": accuracy_control_section(results),
        "steps": step_colours(results),
        "waterfall_said": waterfall_sentences(results),
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
    """What it shows of cuts and of tuning; empty where there were none."""
    return {
        "front": _front(results) if has_cuts(results) else [],
        "depth_names": {"combined": colour("combined"), "branched (at the top: shared)": colour("branched")},
        "truncated": any(is_truncated(cut) for row in results.deployments for cut in row.cuts.values()),
        "trees": {tree.deployment: colour(tree.deployment) for tree in results.trees},
        "ranking": ranking(results),
        "tuned": tuned_heads(results),
        "heads": trained_heads(results),
    }


def _groups(results: Results) -> list[str]:
    """Groups that any candidate was measured on, in order."""
    return list(dict.fromkeys(group for c in candidates(results.deployments) for group in c.accuracy.groups))


def _figures(results: Results, groups: list[str]) -> dict[str, PlotlyFigure]:
    """Figures by the id of their place in the page."""
    drawn = {
        "overview": accuracy_against_latency(results),
        "depth": freeze_depth(results) if results.trees else None,
        "search": search(results),
        "waterfall": waterfall_figure(results),
        **{f"group-{position}": group_accuracy(results, group) for position, group in enumerate(groups)},
    }
    return {place: figure for place, figure in drawn.items() if figure is not None}


def _front(results: Results) -> list[ResultRow]:
    """The rows of the Pareto front, the fastest first."""
    by_title = {(row.name, row.precision): row for row in rows(results)}
    return [by_title[printable(c.row.name), printable(c.row.precision)] for c in frontier(results)]


def _budget(budget: dict[str, float], words: MetricWords) -> Iterator[str]:
    for name, limit in budget.items():
        sentence = _LIMITS.get(name)
        figure = _SHARES.get(name, significant)(limit)
        yield sentence.format(name=words.name, limit=figure) if sentence else f"{printable(name)} {figure}"


def _pairs(results: Results) -> list[PairRow]:
    """One row for each pair, with both metrics, in the order of the comparisons."""
    merged: dict[tuple[str, str], dict[str, str | bool]] = {}
    for pair in results.comparisons:
        cells = merged.setdefault((pair.a, pair.b), {})
        cells |= _accuracy_cells(pair) if pair.metric == "accuracy" else _speed_cells(pair)
    return [PairRow(printable(a), printable(b), **cells) for (a, b), cells in merged.items()]  # type: ignore[arg-type]


def _accuracy_cells(pair: Comparison) -> dict[str, str | bool]:
    if pair.difference is None:
        return {}
    value, low, high = (signed(share) for share in (pair.difference, pair.low, pair.high))
    text = f"{value} points ({low} to {high})"
    return {"accuracy": text, "accuracy_proven": not pair.low <= 0.0 <= pair.high}


def _speed_cells(pair: Comparison) -> dict[str, str | bool]:
    if pair.why_unstable is not None:
        return {"speed": "UNSTABLE"}
    if pair.ratio is None or min(pair.ratio, pair.low) <= 0.0:
        return {}
    speedup = Interval(pair.ratio, pair.low, pair.high).inverted()
    ratio, low, high = times(speedup.value, speedup.low, speedup.high)
    return {"speed": f"{ratio} times as fast ({low} to {high})", "speed_proven": not speedup.includes(1.0)}
