"""Estimates in a table that nobody takes for measurements."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from edgetl.artifacts.device_estimates import Estimated
from edgetl.report.wording import printable, significant

_CAPTION = (
    "ESTIMATE: nothing was measured. Latency: ms for one image, batch 1, TensorRT; in nine cases of ten a network that "
    "the model had not seen lay within the interval (docs/measuring.md). MB: weights and activations, without the "
    "system and the runtime."
)


def estimate_table(estimates: Sequence[Estimated]) -> Table:
    """One row for each deployment, precision and device. Every cell is a `Text`: names are never read as markup."""
    unsure = any(row.unverified for row in estimates)
    caption = _CAPTION + (" *: figures of the device from memory, not read from their source." if unsure else "")
    if left_out := sorted({name for row in estimates for name in row.left_out}):
        caption += f" Not counted, because it depends on the image: {', '.join(left_out)} and what follows."
    table = Table(title="ESTIMATE", box=box.SIMPLE_HEAD, pad_edge=False, caption=Text(caption), caption_justify="left")
    for header in ("", "", "device"):
        table.add_column(header, overflow="fold")
    for header in ("ms", "from - to", "MB"):
        table.add_column(header, justify="right")
    for row in estimates:
        table.add_row(*map(Text, _cells(row)))
    return table


def _cells(row: Estimated) -> tuple[str, ...]:
    device = f"{row.device}@{row.mode}{'*' if row.unverified else ''}"
    interval = f"{significant(row.low)} - {significant(row.high)}"
    memory = significant(row.memory_mb) + ("" if row.fits else "\ndoes not fit")
    return printable(row.name), row.precision, device, significant(row.middle), interval, memory
