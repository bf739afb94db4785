"""Reasons in the machine's states not to trust a measurement, each with the command that would help."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from edgetl.measure.machine import CARD, MachineState

# Fraction of its maximum that a clock may run at: governors and their readings are not exact.
_BELOW = 0.95
_CHANGED = 0.02
# Degrees below the trip point: a sensor is read once a round, which may miss the hottest moment.
_NEAR = 3.0
# A clock whose device is busy for less time than this may be low because nothing was asked of it.
_AT_WORK = 0.05
# In a second: a kernel's own housekeeping takes the core away a few times.
_PREEMPTIONS = 50.0


def disturbances(states: Sequence[MachineState]) -> tuple[str, ...]:
    """Return reasons not to trust a measurement, the worst first; none where the machine held still or tells nothing.

    Args:
        states: one a round, in order, taken while the machine was at work.
    """
    if not states:
        return ()
    modes = list(dict.fromkeys(state.power_mode for state in states if state.power_mode is not None))
    changed = "the power mode changed from {} to {}: set it (sudo nvpmodel -m N), then measure again"
    reasons = [*_slowed_down(states), *([changed.format(*modes)] if len(modes) > 1 else []), *_slow(states)]
    seconds = states[-1].seconds - states[0].seconds
    times = states[-1].preemptions - states[0].preemptions
    if seconds > 0 and times / seconds > _PREEMPTIONS:
        reasons.append(
            f"other programs took the core away {times / seconds:.0f} times a second: stop them, or keep to a free "
            "core (taskset -c 1 edgetl profile ...)"
        )
    return tuple(reasons)


def _slowed_down(states: Sequence[MachineState]) -> Iterator[str]:
    """Yield each limit that was in force, and the part that came nearest to the temperature at which one begins."""
    # Only a Jetson has a power mode, and only there can the fan be set.
    fan = " (sudo jetson_clocks --fan)" if states[0].power_mode is not None else ""
    for name, first in states[0].throttles.items():
        most = max(state.throttles.get(name, first) for state in states)
        # An alert is a state, not a counter: it may be on from the first round to the last.
        if most <= first and not (name.endswith("alert") and most > 0):
            continue
        if name.startswith("over-current"):
            yield (
                f"{name} came {most - first} times: the supply was too weak for the load; give a stronger one, or a "
                "lower power mode (sudo nvpmodel -m N)"
            )
        else:
            yield f"the machine was throttled ({name}): cool it, then measure again{fan}"
    known = [(one.trip - one.celsius, one) for state in states for one in state.temperatures if one.trip is not None]
    margin, one = min(known, key=lambda pair: pair[0], default=(_NEAR, None))
    if one is not None and margin < _NEAR:
        yield (
            f"{one.name} reached {one.celsius:.0f} °C, and at {one.trip:.0f} °C the machine slows down: cool it, then "
            f"measure again{fan}"
        )


def _slow(states: Sequence[MachineState]) -> Iterator[str]:
    """Yield each clock that moved, or stayed below its maximum, while what it drives was at work."""
    for name in dict.fromkeys(clock.name for state in states for clock in state.clocks):
        clocks = [clock for state in states for clock in state.clocks if clock.name == name]
        if any(clock.load is not None for clock in clocks):
            clocks = [clock for clock in clocks if (clock.load or 0.0) > _AT_WORK]
        if not clocks:
            continue
        speeds, most = [clock.mhz for clock in clocks], max(clock.most_mhz or 0.0 for clock in clocks)
        typical = float(np.median(speeds))
        if most and typical < _BELOW * most:
            yield f"the {name} ran at {typical:.0f} MHz, below its {most:.0f}: {_steady(name, states[0])}"
        elif max(speeds) - min(speeds) > _CHANGED * max(speeds):
            moved = f"moved between {min(speeds):.0f} and {max(speeds):.0f} MHz"
            yield f"the {name}'s clock {moved}: {_steady(name, states[0])}"


def _steady(clock: str, state: MachineState) -> str:
    """Return the command that keeps a clock at its maximum."""
    if clock == CARD:
        return "sudo nvidia-smi -lgc with the highest clock that it holds"
    if state.power_mode is not None or clock != "CPU":
        return "sudo jetson_clocks"
    if state.governor == "performance":
        return "cool the machine, or switch its boost clock off"
    return "sudo cpupower frequency-set -g performance"
