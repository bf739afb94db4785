"""What every benchmark shares: ratios with their spread, and a result file that says where it was made."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from edgetl.engine.processor import processor
from edgetl.measure.environment import describe

MATERIAL = Path(__file__).parents[2] / "shared" / "material"
"""Real data and weights beside the project; benchmarks take other places as options."""


class Quiet:
    """A watcher of stages that says nothing."""

    def message(self, text: str) -> None:
        del text

    def progress(self, title: str, total: float) -> AbstractContextManager[Callable[[float], object]]:
        del title, total
        return nullcontext(bool)


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least and greatest."""
    ordered = sorted(values)
    return {"median": ordered[len(ordered) // 2], "least": ordered[0], "greatest": ordered[-1]}


def save(folder: Path, name: str, figures: dict[str, Any], threads: int) -> None:
    """Write ``folder/NAME.json`` and print it."""
    content = {"schema_version": 1, "benchmark": name, "environment": describe(processor(), threads), **figures}
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content, indent=1) + "\n"
    (folder / f"{name}.json").write_text(text, encoding="utf-8")
    print(text)
