"""The figures of the HTML report, as plain plotly.js figures.

Colours are names of CSS variables (``--ink``): the page fills them in, so that one figure serves light and dark mode.
Every name is escaped, because plotly.js reads a subset of HTML in all text.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Any

from edgetl.artifacts.results import Estimate, Latency, Results
from edgetl.report.evidence import Candidate, candidates, most_accurate
from edgetl.report.wording import percent, printable, significant

Figure = dict[str, Any]

_SYMBOLS = {"fp32": "circle", "fp16": "square", "int8": "diamond"}
_COLOURED = ("combined", "specialised", "shared", "one-vs-rest")
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"

# Beyond this span a linear axis squeezes the fast ones into a corner.
_LOG_SPAN = 8.0


def colour(deployment: str) -> str:
    """The CSS variable of a deployment's colour."""
    return f"--{deployment}" if deployment in _COLOURED else "--other"


def symbol(precision: str) -> str:
    """The plotly.js marker of a precision."""
    return _SYMBOLS.get(precision, "star")


def accuracy_against_latency(results: Results) -> Figure | None:
    """Every candidate with both intervals, the budget's limits, the Pareto front, and the chosen one ringed."""
    run = candidates(results.deployments)
    if not run:
        return None
    floor, ceiling = _accuracy_floor(run, results.budget), results.budget.get("max_latency_ms")
    x_axis, x_end = _latency_axis(run, ceiling)
    y_axis = _accuracy_axis([candidate.accuracy.overall for candidate in run], "Accuracy, %", floor)
    shapes, notes = [], []
    if ceiling is not None and ceiling < x_end:
        shapes += _beyond("x", ceiling, x_end)
        # plotly.js takes an annotation's place on a log axis as its logarithm, a shape's as it is.
        at = math.log10(ceiling) if x_axis["type"] == "log" else ceiling
        notes.append(_note(f"limit {significant(ceiling)} ms", xref="x", yref="paper", x=at, y=1))
    if floor is not None and floor * 100 > y_axis["range"][0]:
        shapes += _beyond("y", floor * 100, y_axis["range"][0])
        notes.append(_note(f"limit {percent(floor)} %", xref="paper", yref="y", x=0, y=floor * 100))
    verdict = (results.verdict.deployment, results.verdict.precision)
    rings = [_ring(candidate) for candidate in run if (candidate.row.name, candidate.row.precision) == verdict]
    return {
        "data": [_front(run), *rings, *(_point(candidate) for candidate in run)],
        "layout": _layout(440, xaxis=x_axis, yaxis=y_axis, shapes=shapes, annotations=notes),
    }


def group_accuracy(results: Results, group: str) -> Figure:
    """Each candidate's accuracy in ``group``: filled where all labels compete, hollow where masked to the group's."""
    run = tuple(c for c in candidates(results.deployments) if group in c.accuracy.groups)
    everywhere = [e for c in run for e in (*c.accuracy.groups.values(), *c.accuracy.masked.values())]
    unmasked = [(c, c.accuracy.groups[group], row - 0.16) for row, c in enumerate(run)]
    masked = [(c, c.accuracy.masked[group], row + 0.16) for row, c in enumerate(run) if group in c.accuracy.masked]
    traces = [_dots(unmasked, "all labels compete", ""), _dots(masked, "masked to the group's labels", "-open")]
    y_axis = _axis("", [len(run) - 0.4, -0.6]) | {
        "tickvals": list(range(len(run))),
        "ticktext": [_text(candidate.title) for candidate in run],
        "showgrid": False,
        "automargin": True,
    }
    layout = _layout(90 + 44 * len(run), xaxis=_accuracy_axis(everywhere, "Accuracy, %", None), yaxis=y_axis)
    return {"data": traces, "layout": layout}


def _text(name: str) -> str:
    return escape(printable(name))


def _layout(height: int, **parts: Any) -> Figure:
    return {
        "height": height,
        "margin": {"l": 56, "r": 16, "t": 16, "b": 52},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "showlegend": False,
        "hovermode": "closest",
        "dragmode": False,
        "font": {"family": _FONT, "size": 13, "color": "--muted"},
        "hoverlabel": {"bgcolor": "--card", "bordercolor": "--line", "font": {"family": _FONT, "color": "--ink"}},
        **parts,
    }


def _axis(title: str, ends: Sequence[float]) -> Figure:
    return {
        "title": {"text": title, "standoff": 12},
        "range": list(ends),
        "type": "linear",
        "gridcolor": "--grid",
        "linecolor": "--line",
        "showline": True,
        "zeroline": False,
        "ticks": "",
        "fixedrange": True,
    }


def _latency_axis(run: Sequence[Candidate], ceiling: float | None) -> tuple[Figure, float]:
    """The axis and the latency where it ends."""
    title = "Milliseconds for one image (p50)"
    lowest, highest = min(c.latency.low for c in run), max(c.latency.high for c in run)
    if ceiling is not None and ceiling < 2.0 * highest:
        highest = max(highest, ceiling)
    if lowest > 0.0 and highest / lowest > _LOG_SPAN:
        ends = (math.log10(lowest / 1.25), math.log10(highest * 1.25))
        return _axis(title, ends) | {"type": "log", "dtick": "D2"}, highest * 1.25
    return _axis(title, (0.0, highest * 1.12)), highest * 1.12


def _accuracy_axis(estimates: Sequence[Estimate], title: str, floor: float | None) -> Figure:
    """Not from zero: positions, unlike the lengths of bars, may be compared anywhere."""
    lowest, highest = min(e.low for e in estimates), max(e.high for e in estimates)
    pad = 0.08 * max(highest - lowest, 0.01)
    if floor is not None and abs(floor - lowest) < 3.0 * (highest - lowest):
        lowest, highest = min(lowest, floor - pad), max(highest, floor + pad)
    return _axis(title, (max(lowest - pad, -0.01) * 100, min(highest + pad, 1.01) * 100))


def _point(candidate: Candidate) -> Figure:
    overall, latency, row = candidate.accuracy.overall, candidate.latency, candidate.row
    unstable = "" if latency.stable else "<br>latency UNSTABLE"
    text = (
        f"<b>{_text(candidate.title)}</b><br>{percent(overall.value)} % ({percent(overall.low)} to "
        f"{percent(overall.high)})<br>{significant(latency.p50)} ms ({significant(latency.low)} to "
        f"{significant(latency.high)}){unstable}"
    )
    paint = colour(row.name)
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [latency.p50],
        "y": [overall.value * 100],
        "error_x": _errors([latency], paint),
        "error_y": _errors([overall], paint),
        "marker": {
            "color": paint,
            "symbol": symbol(row.precision) + ("" if latency.stable else "-open"),
            "size": 13,
            "line": {"color": paint, "width": 2},
        },
        "hovertext": [text],
        "hoverinfo": "text",
    }


def _errors(bounded: Sequence[Estimate | Latency], paint: str) -> Figure:
    """Whiskers: shares in percent, latencies in ms."""
    ends = [
        (100 * (one.high - one.value), 100 * (one.value - one.low))
        if isinstance(one, Estimate)
        else (one.high - one.p50, one.p50 - one.low)
        for one in bounded
    ]
    return {
        "type": "data",
        "symmetric": False,
        "array": [above for above, _ in ends],
        "arrayminus": [below for _, below in ends],
        "color": paint,
        "thickness": 1.2,
        "width": 3,
    }


def _ring(chosen: Candidate) -> Figure:
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [chosen.latency.p50],
        "y": [chosen.share * 100],
        "marker": {"symbol": "circle-open", "size": 34, "color": "--ink", "line": {"width": 2, "color": "--ink"}},
        "hoverinfo": "skip",
    }


def _front(run: Sequence[Candidate]) -> Figure:
    """Those that nobody beats in both, by their point estimates."""
    front: list[Candidate] = []
    for candidate in sorted(run, key=lambda c: (c.latency.p50, -c.share)):
        if not front or candidate.share > front[-1].share:
            front.append(candidate)
    return {
        "type": "scatter",
        "mode": "lines",
        "x": [candidate.latency.p50 for candidate in front],
        "y": [candidate.share * 100 for candidate in front],
        "line": {"shape": "hv", "color": "--muted", "width": 1.5, "dash": "dot"},
        "hoverinfo": "skip",
    }


def _accuracy_floor(run: Sequence[Candidate], budget: dict[str, float]) -> float | None:
    """The lowest accuracy that the budget allows."""
    floors = [budget["min_accuracy"]] if "min_accuracy" in budget else []
    if "max_accuracy_drop" in budget:
        floors.append(most_accurate(run).share - budget["max_accuracy_drop"])
    return max(floors, default=None)


def _beyond(axis: str, limit: float, end: float) -> list[Figure]:
    """A line at a limit of the budget, and a shade over what is outside it."""
    across = "y" if axis == "x" else "x"
    whole = {f"{axis}ref": axis, f"{across}ref": "paper", f"{axis}0": limit, f"{across}0": 0, f"{across}1": 1}
    shade = {"type": "rect", "layer": "below", "fillcolor": "--beyond", "line": {"width": 0}, f"{axis}1": end}
    line = {"type": "line", "line": {"color": "--limit", "width": 1.5, "dash": "dash"}, f"{axis}1": limit}
    return [whole | shade, whole | line]


def _note(text: str, **place: Any) -> Figure:
    font = {"color": "--limit", "size": 12}
    return {
        "text": text,
        "font": font,
        "showarrow": False,
        "borderpad": 4,
        "xanchor": "left",
        "yanchor": "top",
        **place,
    }


def _dots(dots: Sequence[tuple[Candidate, Estimate, float]], kind: str, hollow: str) -> Figure:
    """Estimates with their intervals, each at its height."""
    paints = [colour(candidate.row.name) for candidate, _, _ in dots]
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [estimate.value * 100 for _, estimate, _ in dots],
        "y": [height for _, _, height in dots],
        "error_x": _errors([estimate for _, estimate, _ in dots], "--muted"),
        "marker": {
            "symbol": [symbol(candidate.row.precision) + hollow for candidate, _, _ in dots],
            "color": paints,
            "size": 10,
            "line": {"color": paints, "width": 2},
        },
        "hovertext": [
            f"<b>{_text(candidate.title)}</b>, {kind}<br>{percent(estimate.value)} % ({percent(estimate.low)} to "
            f"{percent(estimate.high)}), {estimate.n:,} images"
            for candidate, estimate, _ in dots
        ],
        "hoverinfo": "text",
    }
