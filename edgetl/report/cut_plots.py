"""The figures of a study that swept the cut: all trees that were considered, and the effect of freeze depth."""

from __future__ import annotations

from collections.abc import Sequence

from edgetl.artifacts.results import Results, Tree
from edgetl.config import metric_named, metric_of_task
from edgetl.report.cut_sweep import depth_order
from edgetl.report.deployment_names import family_of, is_truncated, uniform, without_truncation
from edgetl.report.drawing import (
    PlotlyFigure,
    PlotPoint,
    accuracy_axis,
    axis,
    colour,
    cost_axis,
    front,
    front_line,
    layout,
    narrow,
    ring,
    symbol,
    text,
    whiskers,
)
from edgetl.report.evidence import Candidate, candidates
from edgetl.report.wording import flops, flops_unit, percent, significant

_TICK_WIDTH = 12

# Series at one cut are drawn beside each other, so that their whiskers do not hide each other.
_APART = 0.07

# Families of deployments that have a line: those with one model, and those that share a trunk up to the cut.
_LINES = ("combined", "branched")


def search(results: Results) -> PlotlyFigure | None:
    """Return a figure of every tree: validation accuracy against FLOPs, filled where it was measured.

    The front is a line, the chosen tree has a ring.
    """
    trees = results.trees
    if not trees:
        return None
    unit, size = flops_unit(max(tree.flops for tree in trees))
    places = {tree.name: (tree.flops / size, tree.val_accuracy * 100) for tree in trees}
    costs = [cost for cost, _ in places.values()]
    # Heads are trained and trees searched by the first metric of the task, whatever decides on the test images.
    searched = metric_of_task(metric_named(results.metric).task)
    fractions = [tree.val_accuracy for tree in trees]
    chosen = results.verdict.deployment
    kinds = dict.fromkeys((tree.deployment, tree.measured) for tree in sorted(trees, key=lambda tree: tree.measured))
    return {
        "data": [
            front_line(front(places.values())),
            *(_trees([tree for tree in trees if (tree.deployment, tree.measured) == kind], places) for kind in kinds),
            *([ring(*places[chosen])] if chosen in places else []),
        ],
        "layout": layout(
            440,
            xaxis=cost_axis(f"{unit} for one image", min(costs), max(costs))[0],
            yaxis=accuracy_axis(f"Validation {searched.words.name}, %", min(fractions), max(fractions)),
        ),
    }


def _trees(trees: Sequence[Tree], places: dict[str, PlotPoint]) -> PlotlyFigure:
    """Return the points of one deployment's trees that were measured, or of those that were not."""
    measured, paint = trees[0].measured, colour(trees[0].deployment)
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [places[tree.name][0] for tree in trees],
        "y": [places[tree.name][1] for tree in trees],
        "marker": {
            "color": paint,
            "symbol": "circle" if measured else "circle-open",
            "size": 11 if measured else 7,
            "line": {"color": paint, "width": 1.5},
        },
        "hovertext": [
            f"<b>{text(tree.name)}</b>{'' if measured else ', not measured'}<br>{percent(tree.val_accuracy)} % on "
            f"validation<br>{flops(tree.flops)}, {tree.parameters:,} parameters"
            for tree in trees
        ],
        "hoverinfo": "text",
    }


def freeze_depth(results: Results) -> PlotlyFigure | None:
    """Return a figure of test accuracy, latency and FLOPs by the cut, or None where there are fewer than two cuts.

    It has lines for `combined` and `branched` (at the top: `shared`), where all heads have the same cut; dotted, what
    was considered: validation accuracy and FLOPs at every cut.
    """
    considered = _considered(results.trees)
    series: dict[tuple[str, str, bool], dict[str, Candidate]] = {}
    for candidate in candidates(results.deployments):
        cut = uniform(candidate.row.cuts)
        if cut is not None and (family := family_of(candidate.deployment)) in _LINES:
            key = family, candidate.row.precision, is_truncated(cut)
            series.setdefault(key, {})[without_truncation(cut)] = candidate
    cuts = depth_order(
        results, sorted({cut for lines in (series, considered) for line in lines.values() for cut in line})
    )
    if len(cuts) < 2:
        return None
    positions = {cut: float(position) for position, cut in enumerate(cuts)}
    data = []
    for number, ((deployment, precision, truncated), line) in enumerate(series.items()):
        shift = _APART * (number - (len(series) - 1) / 2)
        members = [(positions[cut] + shift, line[cut]) for cut in cuts if cut in line]
        data += _lines(members, colour(deployment), symbol(precision), truncated)
    for (deployment, truncated), trees in considered.items():
        dotted = [(positions[cut], trees[cut]) for cut in cuts if cut in trees]
        data += _dotted(dotted, colour(deployment), truncated)
    run = [candidate for line in series.values() for candidate in line.values()]
    drawn = [tree for line in considered.values() for tree in line.values()]
    return {
        "data": data,
        "layout": _panels(metric_named(results.metric).words.title, cuts, run, drawn),
    }


def _considered(trees: Sequence[Tree]) -> dict[tuple[str, bool], dict[str, Tree]]:
    """Return the trees in which all heads have one cut, by deployment and whether they are truncated, by the cut."""
    found: dict[tuple[str, bool], dict[str, Tree]] = {}
    for tree in trees:
        cut = uniform(tree.cuts)
        if cut is not None and (family := family_of(tree.deployment)) in _LINES:
            key = family, is_truncated(cut)
            found.setdefault(key, {})[without_truncation(cut)] = tree
    return found


def _dotted(members: Sequence[tuple[float, Tree]], paint: str, truncated: bool) -> list[PlotlyFigure]:
    """Return validation accuracy in the upper panel, and MFLOPs in the lowest."""
    whole = {
        "type": "scatter",
        "mode": "lines+markers",
        "x": [x for x, _ in members],
        "line": {"color": paint, "width": 1, "dash": "dashdot" if truncated else "dot"},
        "marker": {"color": paint, "symbol": "line-ns-open", "size": 6},
        "hovertext": [
            f"<b>{text(tree.name)}</b><br>{percent(tree.val_accuracy)} % on validation<br>{flops(tree.flops)}"
            for _, tree in members
        ],
        "hoverinfo": "text",
    }
    return [
        whole | {"y": [tree.val_accuracy * 100 for _, tree in members]},
        whole | {"y": [tree.flops / 1e6 for _, tree in members], "yaxis": "y3"},
    ]


def _lines(members: Sequence[tuple[float, Candidate]], paint: str, mark: str, truncated: bool) -> list[PlotlyFigure]:
    """Return the lines of one deployment in one precision: accuracy in the upper panel, latency in the middle one."""
    whole = {
        "type": "scatter",
        "mode": "lines+markers",
        "x": [x for x, _ in members],
        "line": {"color": paint, "width": 1.5, "dash": "dash" if truncated else "solid"},
        "hovertext": [
            f"<b>{text(one.title)}</b><br>{percent(one.overall_accuracy)} %<br>{significant(one.latency.p50)} ms"
            + ("" if one.latency.stable else ", UNSTABLE")
            for _, one in members
        ],
        "hoverinfo": "text",
    }
    # A truncated network's symbol is hollow already, so that UNSTABLE cannot be shown by a hollow one.
    mark = f"{mark}-x-open" if truncated else mark
    marker = {"size": 11 if truncated else 9, "color": paint, "line": {"color": paint, "width": 1.5}}
    marks = [mark if candidate.latency.stable or truncated else f"{mark}-open" for _, candidate in members]
    accuracy = {
        "y": [candidate.overall_accuracy * 100 for _, candidate in members],
        "error_y": whiskers([candidate.accuracy.overall for _, candidate in members], paint),
        "marker": {**marker, "symbol": mark},
    }
    latency = {
        "y": [candidate.latency.p50 for _, candidate in members],
        "error_y": whiskers([candidate.latency for _, candidate in members], paint),
        "marker": {**marker, "symbol": marks},
        "yaxis": "y2",
    }
    return [whole | accuracy, whole | latency]


def _panels(accuracy: str, cuts: Sequence[str], run: Sequence[Candidate], considered: Sequence[Tree]) -> PlotlyFigure:
    lowest = min([one.accuracy.overall.low for one in run] + [tree.val_accuracy for tree in considered])
    best = max([one.accuracy.overall.high for one in run] + [tree.val_accuracy for tree in considered])
    slowest = max(candidate.latency.high for candidate in run)
    most = max((tree.flops / 1e6 for tree in considered), default=1.0)
    x_axis = axis("Cut: frozen and shared up to here", (-0.4, len(cuts) - 0.6)) | {
        "anchor": "y3",
        "tickvals": list(range(len(cuts))),
        "ticktext": [narrow(cut, _TICK_WIDTH) for cut in cuts],
        "automargin": True,
    }
    return layout(
        720,
        xaxis=x_axis,
        yaxis=accuracy_axis(f"{accuracy}, %", lowest, best) | {"domain": [0.58, 1.0]},
        yaxis2=axis("Milliseconds (p50)", (0.0, slowest * 1.12)) | {"domain": [0.28, 0.53]},
        yaxis3=axis("MFLOPs", (0.0, most * 1.12)) | {"domain": [0.0, 0.23]},
    )
