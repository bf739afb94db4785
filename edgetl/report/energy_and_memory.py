"""Sentences and lines on energy and memory."""

from __future__ import annotations

from collections.abc import Iterable

from edgetl.artifacts.measurements import Energy, Memory
from edgetl.artifacts.results import DeploymentResult
from edgetl.report.wording import listed, printable, significant


def energy_sentence(rows: Iterable[DeploymentResult]) -> str | None:
    """Return where the figures come from, or why there are none; None where energy was not asked for."""
    known = [row.energy for row in rows if row.energy is not None]
    measured = next((energy for energy in known if energy.mj is not None), None)
    if measured is not None:
        rails = listed([printable(rail) for rail in measured.total_of])
        return (
            f"Energy is that of one image beyond what the idle machine takes, by {measured.source} ({rails}), measured "
            "in rounds of its own after latency."
        )
    reason = next((energy.reason for energy in known if energy.reason is not None), None)
    return None if reason is None else f"Energy is unknown: {printable(reason)}."


def energy_line(energy: Energy) -> str:
    """Return one candidate's energy as a line for a terminal."""
    if energy.mj is None or energy.low is None or energy.high is None:
        return f"energy: unknown ({printable(energy.reason or 'not measured')})"
    return (
        f"energy: {significant(energy.mj)} mJ for one inference over idle ({significant(energy.low)} to "
        f"{significant(energy.high)}), {significant(energy.active_w or 0.0)} W at work, "
        f"{significant(energy.idle_w or 0.0)} W at rest, by {energy.source} ({', '.join(energy.total_of)})"
    )


def memory_line(memory: Memory) -> str:
    """Return one candidate's memory as a line for a terminal."""
    if memory.process_mb is None:
        return f"memory: unknown ({printable(memory.reason or 'not measured')})"
    parts = [f"{significant(memory.process_mb)} MB in the process"]
    if memory.device_mb is not None:
        scratch = memory.device_scratch_mb
        inside = "" if scratch is None else f", {significant(scratch)} of it scratch memory"
        parts.append(f"{significant(memory.device_mb)} MB on the GPU{inside}")
    if memory.shared and memory.system_mb is not None:
        parts.append(f"{significant(memory.system_mb)} MB less in the machine, which shares its memory with the GPU")
    return f"memory: {'; '.join(parts)}"
