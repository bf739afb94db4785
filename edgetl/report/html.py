"""The report: one self-contained HTML file that opens without a network and says the verdict first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgetl.artifacts.results import Comparison, Results
from edgetl.errors import EdgetlError, MissingExtraError
from edgetl.report.evidence import Interval, candidates
from edgetl.report.plots import Figure, accuracy_against_latency, colour, group_accuracy, symbol
from edgetl.report.table import UNKNOWN, rows
from edgetl.report.text import headline
from edgetl.report.wording import percent, points, printable, significant, times

_TEMPLATE = Path(__file__).with_name("template.html")
_LIMITS = {
    "max_accuracy_drop": "accuracy drop at most {} points",
    "min_accuracy": "accuracy at least {} %",
    "max_latency_ms": "latency at most {} ms",
    "max_memory_mb": "memory at most {} MB",
    "max_energy_mj": "energy at most {} mJ",
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
        MissingExtraError: jinja2 or plotly is not installed.
        EdgetlError: a figure is not finite.
    """
    # jinja2 and plotly belong to an extra: the rest of this room works without them.
    try:
        from jinja2 import Environment, StrictUndefined
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise MissingExtraError("the HTML report", "report", error) from error
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False}
    table, groups = rows(results), _groups(results)
    run = candidates(results.deployments)
    try:
        return environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
            results=results,
            headline=headline(results.verdict),
            chosen=next((row for row in table if row.chosen), None),
            rows=table,
            groups=groups,
            energy=any(row.energy_mj != UNKNOWN for row in table),
            budget=list(_budget(results.budget)),
            pairs=_pairs(results),
            run=run,
            names={candidate.row.name: colour(candidate.row.name) for candidate in run},
            precisions={candidate.row.precision: symbol(candidate.row.precision) for candidate in run},
            figures=_figures(results, groups),
            plotlyjs=get_plotlyjs(),
        )
    except ValueError as error:
        raise EdgetlError(f"the report cannot be drawn: {error}; measure again or mend results.json") from error


def _groups(results: Results) -> list[str]:
    """Groups that any candidate was measured on, in order."""
    return list(dict.fromkeys(group for c in candidates(results.deployments) for group in c.accuracy.groups))


def _figures(results: Results, groups: list[str]) -> dict[str, Figure]:
    """Figures by the id of their place in the page."""
    overview = accuracy_against_latency(results)
    drawn = {f"group-{position}": group_accuracy(results, group) for position, group in enumerate(groups)}
    return drawn if overview is None else {"overview": overview, **drawn}


def _budget(budget: dict[str, float]) -> Iterator[str]:
    for name, limit in budget.items():
        sentence = _LIMITS.get(name)
        figure = _SHARES.get(name, significant)(limit)
        yield sentence.format(figure) if sentence else f"{printable(name)} {figure}"


def _pairs(results: Results) -> list[PairRow]:
    """One row for each pair, with both metrics, in the order of the comparisons."""
    unstable = {c.title for c in candidates(results.deployments) if not c.latency.stable}
    merged: dict[tuple[str, str], dict[str, str | bool]] = {}
    for pair in results.comparisons:
        cells = merged.setdefault((pair.a, pair.b), {})
        cells |= _accuracy_cells(pair) if pair.metric == "accuracy" else _speed_cells(pair, unstable)
    return [PairRow(printable(a), printable(b), **cells) for (a, b), cells in merged.items()]  # type: ignore[arg-type]


def _accuracy_cells(pair: Comparison) -> dict[str, str | bool]:
    if pair.difference is None:
        return {}
    value, low, high = (_signed(share) for share in (pair.difference, pair.low, pair.high))
    text = f"{value} points ({low} to {high})"
    return {"accuracy": text, "accuracy_proven": not pair.low <= 0.0 <= pair.high}


def _signed(share: float) -> str:
    text = points(share)
    return text if text.startswith("-") else f"+{text}"


def _speed_cells(pair: Comparison, unstable: set[str]) -> dict[str, str | bool]:
    if {pair.a, pair.b} & unstable:
        return {"speed": "UNSTABLE"}
    if pair.ratio is None or min(pair.ratio, pair.low) <= 0.0:
        return {}
    speedup = Interval(pair.ratio, pair.low, pair.high).inverted()
    ratio, low, high = times(speedup.value, speedup.low, speedup.high)
    return {"speed": f"{ratio} times as fast ({low} to {high})", "speed_proven": not speedup.includes(1.0)}
