"""The figures of every report: accuracy (or a detector's mAP) against latency, and accuracy in each group."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from edgetl.artifacts.measurements import AccuracyEstimate
from edgetl.artifacts.results import Results
from edgetl.config import metric_named
from edgetl.report.cut_sweep import has_cuts
from edgetl.report.drawing import (
    PlotlyFigure,
    accuracy_axis,
    colour,
    cost_axis,
    front,
    front_line,
    layout,
    narrow,
    ring,
    row_axis,
    symbol,
    text,
    whiskers,
)
from edgetl.report.evidence import Candidate, candidates, most_accurate
from edgetl.report.wording import flops, percent, significant

# A label's line in characters and in pixels: a figure's height is set before plotly.js draws its text.
_LABEL_WIDTH = 24
_LINE_HEIGHT = 17


def accuracy_against_latency(results: Results) -> PlotlyFigure | None:
    """Return a figure of every candidate with its intervals, the limits, the front, and a ring around the chosen."""
    run = candidates(results.deployments)
    if not run:
        return None
    floor, ceiling = _accuracy_floor(run, results.budget), results.budget.get("max_latency_ms")
    lowest, highest = min(one.latency.low for one in run), max(one.latency.high for one in run)
    # A limit far beyond all points is not shown: it would press them together.
    if ceiling is not None and ceiling < 2.0 * highest:
        highest = max(highest, ceiling)
    x_axis, x_end = cost_axis("Milliseconds for one image (p50)", lowest, highest)
    y_axis = _accuracy_axis(results, [candidate.accuracy.overall for candidate in run], floor)
    shapes, notes = [], []
    if ceiling is not None and ceiling < x_end:
        shapes += _beyond("x", ceiling, x_end)
        # plotly.js takes an annotation's place on a log axis as its logarithm, a shape's as it is.
        at = math.log10(ceiling) if x_axis["type"] == "log" else ceiling
        notes.append(_note(f"limit {significant(ceiling)} ms", xref="x", yref="paper", x=at, y=1))
    if floor is not None and floor * 100 > y_axis["range"][0]:
        shapes += _beyond("y", floor * 100, y_axis["range"][0])
        notes.append(_note(f"limit {percent(floor)} %", xref="paper", yref="y", x=0, y=floor * 100))
    best, chosen = frontier(results), [candidate for candidate in run if _is_chosen(results, candidate)]
    line = front_line([_place(candidate) for candidate in best])
    points = [_point(candidate) for candidate in run]
    if has_cuts(results):
        bright = [*best, *(candidate for candidate in chosen if candidate not in best)]
        faint = [_point(candidate) | {"opacity": 0.4} for candidate in run if candidate not in bright]
        points = [*faint, *(_point(candidate) for candidate in bright), _numbers(best)]
    return {
        "data": [line, *(ring(*_place(candidate)) for candidate in chosen), *points],
        "layout": layout(440, xaxis=x_axis, yaxis=y_axis, shapes=shapes, annotations=notes),
    }


def frontier(results: Results) -> tuple[Candidate, ...]:
    """Return the Pareto front, the fastest first: those that nobody beats in both, by their point estimates."""
    run = candidates(results.deployments)
    places = front(_place(candidate) for candidate in run)
    return tuple(next(candidate for candidate in run if _place(candidate) == place) for place in places)


def group_accuracy(results: Results, group: str) -> PlotlyFigure:
    """Return a figure of accuracy in ``group``, with hollow points where it is masked to the group's own labels."""
    words = metric_named(results.metric).task_words
    apart, height = (0.16, 44) if words.masked else (0.0, 32)
    run = tuple(c for c in candidates(results.deployments) if group in c.accuracy.groups)
    if has_cuts(results):
        # A sweep has too many candidates to be read: only those that the verdict is about are drawn.
        best = frontier(results)
        run = tuple(c for c in run if c in best or c.frozen or _is_chosen(results, c))
    everywhere = [e for c in run for e in (*c.accuracy.groups.values(), *c.accuracy.masked.values())]
    unmasked = [(c, c.accuracy.groups[group], row - apart) for row, c in enumerate(run)]
    masked = [(c, c.accuracy.masked[group], row + apart) for row, c in enumerate(run) if group in c.accuracy.masked]
    traces = [_dots(unmasked, words.competing, "")]
    if words.masked:
        traces.append(_dots(masked, "masked to the group's labels", "-open"))
    labels = [narrow(candidate.title, _LABEL_WIDTH) for candidate in run]
    row_height = max(height, *(_LINE_HEIGHT * (label.count("<br>") + 1) for label in labels))
    axes = {"xaxis": _accuracy_axis(results, everywhere, None), "yaxis": row_axis(labels)}
    return {"data": traces, "layout": layout(90 + row_height * len(run), **axes)}


def _is_chosen(results: Results, candidate: Candidate) -> bool:
    return (candidate.row.name, candidate.row.precision) == (results.verdict.deployment, results.verdict.precision)


def _place(candidate: Candidate) -> tuple[float, float]:
    return candidate.latency.p50, candidate.overall_accuracy * 100


def _accuracy_axis(results: Results, estimates: Sequence[AccuracyEstimate], floor: float | None) -> PlotlyFigure:
    title = f"{metric_named(results.metric).words.title}, %"
    return accuracy_axis(title, min(e.low for e in estimates), max(e.high for e in estimates), floor)


def _point(candidate: Candidate) -> PlotlyFigure:
    overall, latency, row = candidate.accuracy.overall, candidate.latency, candidate.row
    unstable = "" if latency.stable else "<br>latency UNSTABLE"
    cost = "" if row.flops is None else f"<br>{flops(row.flops)}"
    hover = (
        f"<b>{text(candidate.title)}</b><br>{percent(overall.value)} % ({percent(overall.low)} to "
        f"{percent(overall.high)})<br>{significant(latency.p50)} ms ({significant(latency.low)} to "
        f"{significant(latency.high)}){unstable}{cost}"
    )
    paint = colour(row.name)
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [latency.p50],
        "y": [overall.value * 100],
        "error_x": whiskers([latency], paint),
        "error_y": whiskers([overall], paint),
        "marker": {
            "color": paint,
            "symbol": symbol(row.precision) + ("" if latency.stable else "-open"),
            "size": 13,
            "line": {"color": paint, "width": 2},
        },
        "hovertext": [hover],
        "hoverinfo": "text",
    }


def _numbers(best: Sequence[Candidate]) -> PlotlyFigure:
    """Return the rank of each candidate on the front as text beside its point."""
    # Above and to the left, where no other point can be: names would hide each other.
    return {
        "type": "scatter",
        "mode": "text",
        "x": [candidate.latency.p50 for candidate in best],
        "y": [candidate.overall_accuracy * 100 for candidate in best],
        "text": [f"<b>{number}</b>  <br> " for number in range(1, len(best) + 1)],
        "textposition": "top left",
        "textfont": {"color": "--ink", "size": 12},
        "hoverinfo": "skip",
    }


def _accuracy_floor(run: Sequence[Candidate], budget: dict[str, float]) -> float | None:
    """Return the lowest accuracy that the budget allows."""
    floors = [budget["min_accuracy"]] if "min_accuracy" in budget else []
    if "max_accuracy_drop" in budget:
        floors.append(most_accurate(run).overall_accuracy - budget["max_accuracy_drop"])
    return max(floors, default=None)


def _beyond(along: str, limit: float, end: float) -> list[PlotlyFigure]:
    """Return a line at a limit of the budget, and a shade over what is outside it."""
    across = "y" if along == "x" else "x"
    whole = {f"{along}ref": along, f"{across}ref": "paper", f"{along}0": limit, f"{across}0": 0, f"{across}1": 1}
    shade = {"type": "rect", "layer": "below", "fillcolor": "--beyond", "line": {"width": 0}, f"{along}1": end}
    line = {"type": "line", "line": {"color": "--limit", "width": 1.5, "dash": "dash"}, f"{along}1": limit}
    return [whole | shade, whole | line]


def _note(words: str, **place: Any) -> PlotlyFigure:
    look = {"showarrow": False, "borderpad": 4, "xanchor": "left", "yanchor": "top"}
    return {"text": words, "font": {"color": "--limit", "size": 12}, **look, **place}


def _dots(dots: Sequence[tuple[Candidate, AccuracyEstimate, float]], kind: str, hollow: str) -> PlotlyFigure:
    """Return estimates with their intervals, each at its height."""
    paints = [colour(candidate.row.name) for candidate, _, _ in dots]
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [estimate.value * 100 for _, estimate, _ in dots],
        "y": [height for _, _, height in dots],
        "error_x": whiskers([estimate for _, estimate, _ in dots], "--muted"),
        "marker": {
            "symbol": [symbol(candidate.row.precision) + hollow for candidate, _, _ in dots],
            "color": paints,
            "size": 10,
            "line": {"color": paints, "width": 2},
        },
        "hovertext": [
            f"<b>{text(candidate.title)}</b>, {kind}<br>{percent(estimate.value)} % ({percent(estimate.low)} to "
            f"{percent(estimate.high)}), {estimate.n:,} images"
            for candidate, estimate, _ in dots
        ],
        "hoverinfo": "text",
    }
