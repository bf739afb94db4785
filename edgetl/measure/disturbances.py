"""What of the machine's states speaks against a measurement, each with the command that would help."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from edgetl.measure.machine import CARD, Clock, MachineState

_BELOW = 0.95
"""A clock may be this share of its maximum: governors and their readings are not exact."""
_CHANGED = 0.02
_NEAR = 3.0
_AT_WORK = 0.05
_PREEMPTIONS = 50.0
"""In a second: a kernel's own housekeeping takes the core away a few times."""


def disturbances(states: Sequence[MachineState]) -> tuple[str, ...]:
    """Reasons, the worst first; none where the machine held still, or does not tell.

    Args:
        states: one a round, in order, taken while the machine was at work.
    """
    if not states:
        return ()
    return (*_throttled(states), *_hot(states), *_mode(states), *_slow(states), *_preempted(states))


def _throttled(states: Sequence[MachineState]) -> Iterator[str]:
    """A counter or a limit that rose, and an alert that stood all the time."""
    for name, first in states[0].throttles.items():
        most = max(state.throttles.get(name, first) for state in states)
        alert = name.endswith("alert") and most > 0
        if most <= first and not alert:
            continue
        if name.startswith("over-current"):
            yield (
                f"{name} came {most - first} times: the supply was too weak for the load; give a stronger one, or a "
                "lower power mode (sudo nvpmodel -m N)"
            )
        else:
            yield f"the machine was throttled ({name}): cool it, then measure again" + _fan(states[0])


def _fan(state: MachineState) -> str:
    return " (sudo jetson_clocks --fan)" if state.power_mode is not None else ""


def _hot(states: Sequence[MachineState]) -> Iterator[str]:
    """The part that came nearest to the temperature at which it is slowed down."""
    told = [(one.trip - one.celsius, one) for state in states for one in state.temperatures if one.trip is not None]
    margin, one = min(told, key=lambda pair: pair[0], default=(_NEAR, None))
    if one is not None and margin < _NEAR:
        yield (
            f"{one.name} reached {one.celsius:.0f} °C, and at {one.trip:.0f} °C the machine slows down: cool it, then "
            f"measure again{_fan(states[0])}"
        )


def _mode(states: Sequence[MachineState]) -> Iterator[str]:
    modes = list(dict.fromkeys(state.power_mode for state in states if state.power_mode is not None))
    if len(modes) > 1:
        yield f"the power mode changed from {modes[0]} to {modes[1]}: set it (sudo nvpmodel -m N), then measure again"


def _slow(states: Sequence[MachineState]) -> Iterator[str]:
    """Clocks that moved, or stood below their maximum, while what they drive was at work."""
    for name in dict.fromkeys(clock.name for state in states for clock in state.clocks):
        told = [clock for state in states for clock in state.clocks if clock.name == name]
        if any(clock.load is not None for clock in told):
            told = [clock for clock in told if (clock.load or 0.0) > _AT_WORK]
        if told and (fault := _fault(told)) is not None:
            yield f"{fault}: {_steady(name, states[0])}"


def _fault(told: list[Clock]) -> str | None:
    speeds = [clock.mhz for clock in told]
    typical, most = float(np.median(speeds)), max((clock.most_mhz or 0.0 for clock in told), default=0.0)
    name = told[0].name
    if most and typical < _BELOW * most:
        return f"the {name} ran at {typical:.0f} MHz, below its {most:.0f}"
    if max(speeds) - min(speeds) > _CHANGED * max(speeds):
        return f"the {name}'s clock moved between {min(speeds):.0f} and {max(speeds):.0f} MHz"
    return None


def _steady(clock: str, state: MachineState) -> str:
    """What keeps a clock at its maximum."""
    if clock == CARD:
        return "sudo nvidia-smi -lgc with the highest clock that it holds"
    if state.power_mode is not None or clock != "CPU":
        return "sudo jetson_clocks"
    if state.governor == "performance":
        return "cool the machine, or switch its boost clock off"
    return "sudo cpupower frequency-set -g performance"


def _preempted(states: Sequence[MachineState]) -> Iterator[str]:
    seconds = states[-1].seconds - states[0].seconds
    times = states[-1].preemptions - states[0].preemptions
    if seconds > 0 and times / seconds > _PREEMPTIONS:
        yield (
            f"other programs took the core away {times / seconds:.0f} times a second: stop them, or keep to a free "
            "core (taskset -c 1 edgetl profile ...)"
        )
