"""Tables for a terminal of where the time goes: an engine's layers, and the steps from an image file to its answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from edgetl.artifacts.measurements import EngineLayers, LayerTime, PartTime, Waterfall
from edgetl.artifacts.results import Profile
from edgetl.report.wording import count, percent, printable, significant

_TOP = 10
_BAR = 30
_NAME_WIDTH = 44


def where_time_goes(profile: Profile) -> Iterator[Table | Text]:
    """Yield layers and steps of all candidates that have them."""
    for row in profile.deployments:
        for layers in row.layers:
            yield from layer_tables(layers)
        if row.waterfall is not None:
            yield waterfall_table(row.name, row.waterfall)
            yield Text(waterfall_sentence(row.waterfall))


def layer_tables(layers: EngineLayers) -> Iterator[Table | Text]:
    """Yield trunk against heads, blocks, and the layers that take longest, each by the ONNX node that it came from."""
    # Profiling slows an engine down: both latencies are given, so that the difference can be seen.
    profiled = f"{significant(layers.profiled_ms)} ms with {layers.source}"
    plain = "" if layers.latency_ms is None else f", {significant(layers.latency_ms)} ms without it"
    yield Text(f"{printable(layers.engine)}: {significant(layers.sum_ms)} ms in layers of {profiled}{plain}")
    if layers.parts:
        yield _folded("trunk and heads", layers.parts)
    if layers.blocks:
        yield _folded("block", layers.blocks)
    longest = sorted(layers.layers, key=lambda layer: layer.ms, reverse=True)[:_TOP]
    named = [((one.node or one.layer) + (f" ({one.operator})" if one.operator else ""), one) for one in longest]
    yield _rows(f"the longest of {count(len(layers.layers), 'layer')}", named)


def _folded(title: str, parts: Sequence[PartTime]) -> Table:
    return _rows(title, [(f"{part.name} ({count(part.layers, 'layer')})", part) for part in parts])


def _rows(title: str, rows: Sequence[tuple[str, LayerTime | PartTime]]) -> Table:
    table = _table(title)
    for name, row in rows:
        table.add_row(
            Text(printable(name)), Text(significant(row.ms)), Text(percent(row.fraction)), _bar(0.0, row.fraction)
        )
    return table


def _table(title: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column(title, overflow="fold", max_width=_NAME_WIDTH)
    table.add_column("ms", justify="right", no_wrap=True)
    table.add_column("%", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    return table


def _bar(before: float, fraction: float) -> Text:
    # What takes any time at all is one character wide.
    begin, end = round(before * _BAR), round((before + fraction) * _BAR)
    return Text(" " * begin + "#" * max(end - begin, 1 if fraction > 0.0 else 0))


def waterfall_table(title: str, waterfall: Waterfall) -> Table:
    """Return a table of the steps; each step's bar begins where the one before it ends."""
    table, before = _table(f"{printable(title)}, from file to answer"), 0.0
    for step in waterfall.steps:
        row = (Text(step.name), Text(significant(step.ms)), Text(percent(step.fraction)), _bar(before, step.fraction))
        table.add_row(*row)
        before += step.fraction
    return table


def waterfall_sentence(waterfall: Waterfall) -> str:
    """Return the time of a whole pass, and what is not inference, where that is the larger part."""
    whole = (
        f"one image takes {significant(waterfall.total_ms)} ms from file to answer "
        f"({count(waterfall.images, 'image')}, {waterfall.samples:,} passes)"
    )
    if waterfall.not_inference <= 0.5:
        return whole
    return f"{whole}; {percent(waterfall.not_inference)} % of it is not inference"
