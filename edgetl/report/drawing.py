"""Parts of figures, as plotly.js takes them.

Colours are names of CSS variables (``--ink``): the page fills them in, so that one figure serves light and dark mode.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from edgetl.artifacts.measurements import AccuracyEstimate
from edgetl.artifacts.results import Latency
from edgetl.report.deployment_names import deployment_of, folded
from edgetl.report.wording import printable

PlotlyFigure = dict[str, Any]
PlotPoint = tuple[float, float]

_SYMBOLS = {"fp32": "circle", "fp16": "square", "int8": "diamond"}
# Those that the page has a colour for; a kind from elsewhere gets the one for others.
_COLOURED = ("combined", "specialised", "shared", "branched", "cascade", "one-vs-rest")
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"

# Beyond this ratio of the largest to the smallest, a linear axis squeezes the small ones into a corner.
_LOG_SPAN = 8.0


def colour(name: str) -> str:
    """Return the CSS variable of a deployment's colour, the same at all cuts."""
    return f"--{deployment_of(name)}" if deployment_of(name) in _COLOURED else "--other"


def symbol(precision: str) -> str:
    """Return the plotly.js marker of a precision."""
    return _SYMBOLS.get(precision, "star")


def text(name: str) -> str:
    """Return a name as plotly.js is to show it."""
    # plotly.js reads a subset of HTML in all text, and names come from files.
    return escape(printable(name))


def narrow(name: str, width: int) -> str:
    """Return a name in several lines, each so many characters wide where its parts allow it."""
    return "<br>".join(escape(line) for line in folded(printable(name), width))


def layout(height: int, **parts: Any) -> PlotlyFigure:
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


def axis(title: str, ends: Sequence[float]) -> PlotlyFigure:
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


def row_axis(labels: Sequence[str]) -> PlotlyFigure:
    """Return an axis of labelled rows, the first on top."""
    ticks = {"tickvals": list(range(len(labels))), "ticktext": list(labels), "showgrid": False, "automargin": True}
    # Higher numbers are further down: the ends are given from the bottom to the top.
    return axis("", (len(labels) - 0.4, -0.6)) | ticks


def cost_axis(title: str, lowest: float, highest: float) -> tuple[PlotlyFigure, float]:
    """Return an axis of what is to be small, and where it ends: from zero, or logarithmic where that is too wide."""
    if lowest > 0.0 and highest / lowest > _LOG_SPAN:
        ends = (math.log10(lowest / 1.25), math.log10(highest * 1.25))
        return axis(title, ends) | {"type": "log", "dtick": "D2"}, highest * 1.25
    return axis(title, (0.0, highest * 1.12)), highest * 1.12


def accuracy_axis(title: str, lowest: float, highest: float, floor: float | None = None) -> PlotlyFigure:
    """Return an axis in percent, for fractions."""
    # Not from zero: positions, unlike the lengths of bars, may be compared anywhere.
    pad = 0.08 * max(highest - lowest, 0.01)
    if floor is not None and abs(floor - lowest) < 3.0 * (highest - lowest):
        lowest, highest = min(lowest, floor - pad), max(highest, floor + pad)
    return axis(title, (max(lowest - pad, -0.01) * 100, min(highest + pad, 1.01) * 100))


def whiskers(bounded: Sequence[AccuracyEstimate | Latency], paint: str) -> PlotlyFigure:
    """Return error bars of intervals: accuracies in percent, latencies in ms."""
    ends = [
        (100 * (one.high - one.value), 100 * (one.value - one.low))
        if isinstance(one, AccuracyEstimate)
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


def front(points: Iterable[PlotPoint]) -> list[PlotPoint]:
    """Return the Pareto front of (cost, accuracy): those that nobody beats in both, the cheapest first."""
    best: list[PlotPoint] = []
    for point in sorted(points, key=lambda point: (point[0], -point[1])):
        if not best or point[1] > best[-1][1]:
            best.append(point)
    return best


def front_line(points: Sequence[PlotPoint]) -> PlotlyFigure:
    """Return the front as a dotted line."""
    # In steps: what is between two points costs as much as the next and is no better than the last.
    return {
        "type": "scatter",
        "mode": "lines",
        "x": [x for x, _ in points],
        "y": [y for _, y in points],
        "line": {"shape": "hv", "color": "--muted", "width": 1.5, "dash": "dot"},
        "hoverinfo": "skip",
    }


def ring(x: float, y: float) -> PlotlyFigure:
    """Return the mark around the chosen candidate."""
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [x],
        "y": [y],
        "marker": {"symbol": "circle-open", "size": 34, "color": "--ink", "line": {"width": 2, "color": "--ink"}},
        "hoverinfo": "skip",
    }
