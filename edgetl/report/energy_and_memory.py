"""How energy and memory were measured, in a sentence each."""

from __future__ import annotations

from collections.abc import Iterable

from edgetl.artifacts.measurements import Energy, Memory
from edgetl.artifacts.results import DeploymentResult
from edgetl.report.wording import listed, printable, significant


def energy_sentence(rows: Iterable[DeploymentResult]) -> str | None:
    """Where the figures come from, or why there are none; None where nobody asked."""
    told = [row.energy for row in rows if row.energy is not None]
    measured = next((energy for energy in told if energy.mj is not None), None)
    if measured is not None:
        rails = listed([printable(rail) for rail in measured.total_of])
        return (
            f"Energy is that of one image over what the idle machine takes, by {measured.source} ({rails}), in rounds "
            "of its own after latency."
        )
    reason = next((energy.reason for energy in told if energy.reason is not None), None)
    return None if reason is None else f"Energy cannot be told: {printable(reason)}."


def energy_line(energy: Energy) -> str:
    """One candidate's energy on a terminal."""
    if energy.mj is None or energy.low is None or energy.high is None:
        return f"energy: not told ({printable(energy.reason or 'not measured')})"
    return (
        f"energy: {significant(energy.mj)} mJ for one inference over idle ({significant(energy.low)} to "
        f"{significant(energy.high)}), {significant(energy.active_w or 0.0)} W at work, "
        f"{significant(energy.idle_w or 0.0)} W at rest, by {energy.source} ({', '.join(energy.total_of)})"
    )


def memory_line(memory: Memory) -> str:
    """One candidate's memory on a terminal."""
    if memory.process_mb is None:
        return f"memory: not told ({printable(memory.reason or 'not measured')})"
    parts = [f"{significant(memory.process_mb)} MB in the process"]
    if memory.device_mb is not None:
        scratch = memory.device_scratch_mb
        inside = "" if scratch is None else f", {significant(scratch)} of it scratch memory"
        parts.append(f"{significant(memory.device_mb)} MB on the GPU{inside}")
    if memory.shared and memory.system_mb is not None:
        parts.append(f"{significant(memory.system_mb)} MB less in the machine, which shares its memory with the GPU")
    return f"memory: {'; '.join(parts)}"
