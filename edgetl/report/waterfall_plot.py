"""The figure of the steps from an image's file to its answer: a bar for each deployment, a part of it for each step."""

from __future__ import annotations

from collections.abc import Sequence

from edgetl.artifacts.measurements import Waterfall
from edgetl.artifacts.results import DeploymentResult, Results
from edgetl.report.drawing import PlotlyFigure, axis, layout, narrow, row_axis, text
from edgetl.report.wording import listed, percent, printable, significant

_PAINTS = {"decode": "--combined", "preprocess": "--shared", "inference": "--specialised", "post-process": "--other"}
_LABEL_WIDTH = 24
_ROW_HEIGHT, _LINE_HEIGHT = 36, 17
_MOST_BARS = 16


def waterfall_figure(results: Results) -> PlotlyFigure | None:
    """Return the figure: fractions of the median of a whole pass, in milliseconds; None where nothing was measured."""
    shown = _shown(results)
    if not shown:
        return None
    steps = [step.name for step in shown[0][1].steps]
    labels = [narrow(row.title, _LABEL_WIDTH) for row, _ in shown]
    heights = [max(_ROW_HEIGHT, _LINE_HEIGHT * (label.count("<br>") + 1)) for label in labels]
    longest = max(waterfall.total_ms for _, waterfall in shown)
    x_axis = axis("Milliseconds from file to answer", (0.0, 1.05 * longest))
    return {
        "data": [_step(shown, number, name) for number, name in enumerate(steps)],
        "layout": layout(90 + sum(heights), xaxis=x_axis, yaxis=row_axis(labels), barmode="stack"),
    }


def step_colours(results: Results) -> dict[str, str]:
    """Return the colour of each step, for a legend; empty where nothing was measured."""
    shown = _shown(results)
    return {step.name: _paint(step.name) for step in shown[0][1].steps} if shown else {}


def waterfall_sentences(results: Results) -> str | None:
    """Return which deployments spend more on other steps than on inference; None where none does."""
    heavy = [(row, way) for row, way in _shown(results) if way.not_inference > 0.5]
    if not heavy:
        return None
    most = max(way.not_inference for _, way in heavy)
    named = listed([printable(row.title) for row, _ in heavy[:4]]) + (" and others" if len(heavy) > 4 else "")
    most_is = f"the greater part of the time is not inference (up to {percent(most)} %)"
    return f"For {named}, {most_is}: a faster engine cannot save that."


def _shown(results: Results) -> list[tuple[DeploymentResult, Waterfall]]:
    return [(row, row.waterfall) for row in results.deployments if row.waterfall is not None][:_MOST_BARS]


def _paint(step: str) -> str:
    return _PAINTS.get(step, "--muted")


def _step(shown: Sequence[tuple[DeploymentResult, Waterfall]], number: int, name: str) -> PlotlyFigure:
    steps = [waterfall.steps[number] for _, waterfall in shown]
    return {
        "type": "bar",
        "orientation": "h",
        "x": [step.fraction * waterfall.total_ms for step, (_, waterfall) in zip(steps, shown, strict=True)],
        "y": list(range(len(shown))),
        "width": 0.6,
        "marker": {"color": _paint(name)},
        "hovertext": [
            f"<b>{text(row.title)}</b>, {text(name)}<br>{significant(step.ms)} ms (median), {percent(step.fraction)} %"
            for step, (row, _) in zip(steps, shown, strict=True)
        ],
        "hoverinfo": "text",
    }
