"""Energy of candidates, or why this machine cannot tell it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from edgetl.artifacts.energy import Energy
from edgetl.errors import EdgetlError
from edgetl.measure.energy import EnergyPlan, measure_energy
from edgetl.measure.power import find_meter


def energies(calls: Mapping[str, Callable[[], object]], seconds: float, seed: int = 0) -> dict[str, Energy]:
    """For each candidate the energy of a call, in about as many seconds as its latency was measured in."""
    try:
        meter = find_meter()
    except EdgetlError as error:
        return {name: Energy(reason=str(error)) for name in calls}
    return measure_energy(calls, meter, EnergyPlan.within(seconds, len(calls), seed))
