"""Energy of candidates, or why this machine cannot tell it."""

from __future__ import annotations

from collections.abc import Sequence

from edgetl.artifacts.energy import Energy
from edgetl.errors import EdgetlError
from edgetl.measure.energy import EnergyPlan, measure_energy
from edgetl.measure.power import find_meter
from edgetl.measure.rounds import Load
from edgetl.stages.stage import Watcher


def energies(names: Sequence[str], load: Load, seconds: float, seed: int, watcher: Watcher) -> dict[str, Energy]:
    """For each candidate the energy of a call, in about as many seconds as its latency was measured in."""
    try:
        meter = find_meter()
    except EdgetlError as error:
        return {name: Energy(reason=str(error)) for name in names}
    plan = EnergyPlan.within(seconds, len(names), seed)
    with watcher.progress("measuring energy", plan.rounds) as advance:
        return measure_energy(load(names, 0), meter, plan, lambda: advance(1))
