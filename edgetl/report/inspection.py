"""What a file is and holds, in lines of text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from edgetl.artifacts.engine import EngineTensor
from edgetl.artifacts.inspection import Inspection
from edgetl.report.wording import printable

_LONGEST = 160


def inspection_lines(found: Inspection) -> Iterator[str]:
    """One line for each thing that is known; layers are counted by operator and precision."""
    yield f"{found.kind}: {printable(found.path)}"
    yield from (f"input: {_tensor(tensor)}" for tensor in found.inputs)
    yield from (f"output: {_tensor(tensor)}" for tensor in found.outputs)
    kinds = Counter((layer.operator, layer.precision) for layer in found.layers)
    for (operator, precision), count in kinds.most_common():
        yield f"layers: {count} x {printable(operator)} in {precision}"
    for title, values in (("figures", found.figures), ("notes", found.notes), ("lineage", found.lineage)):
        yield from (
            f"{title}: {printable(name)} {_shown(value)}" for name, value in values.items() if value is not None
        )


def _tensor(tensor: EngineTensor) -> str:
    return printable(f"{tensor.name} {tensor.type} {' x '.join(map(str, tensor.shape))}")


def _shown(value: Any) -> str:
    text = printable(f"{value:,}".replace(",", " ") if isinstance(value, int) else str(value))
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}… (all of it with --json)"
