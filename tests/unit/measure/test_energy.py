from __future__ import annotations

import threading
import time
from itertools import count

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetl.measure.energy import EnergyPlan, PowerReading, Sampler, mean_watts, measure_energy
from edgetl.measure.power import Meter

QUICK = EnergyPlan(rounds=3, work=0.05, rest=0.03, settle=0.01, period=0.002)
WATTS = Meter("a meter", {"VDD_IN": lambda: 5.0}, ("VDD_IN",))
JOULES = Meter("a counter", {"package-0": lambda: 0.0}, ("package-0",), counts=True, wraps={"package-0": 100.0})


def samples(name: str, times: list[float], values: list[float]) -> list[PowerReading]:
    return [PowerReading(moment, moment, {name: value}) for moment, value in zip(times, values, strict=True)]


def test_power_is_integrated_by_trapezoids() -> None:
    found = mean_watts(samples("VDD_IN", [0.0, 1.0, 3.0], [2.0, 4.0, 8.0]), WATTS)
    assert found == {"VDD_IN": pytest.approx((3.0 + 12.0) / 3.0)}


def test_a_counter_that_began_anew_has_counted_on() -> None:
    assert mean_watts(samples("package-0", [0.0, 1.0, 2.0], [90.0, 97.0, 4.0]), JOULES) == {"package-0": 7.0}


@given(st.lists(st.floats(0, 50), min_size=2, max_size=20), st.integers(0, 99))
def test_a_counter_tells_the_same_wherever_it_starts(steps: list[float], start: int) -> None:
    counts = (start + np.cumsum(steps)) % 100.0
    found = mean_watts(samples("package-0", list(range(len(steps))), list(counts)), JOULES)
    assert found is not None
    assert found["package-0"] == pytest.approx(sum(steps[1:]) / (len(steps) - 1), abs=1e-6)


@pytest.mark.parametrize("times", [[], [1.0]])
def test_fewer_than_two_samples_tell_nothing(times: list[float]) -> None:
    assert mean_watts(samples("VDD_IN", times, [5.0] * len(times)), WATTS) is None


class Machine:
    """Takes 4 watts at rest, and more while it works, until it rests again."""

    def __init__(self) -> None:
        self.watts = 4.0

    def work(self, extra: float) -> None:
        self.watts = 4.0 + extra
        _sleep(0.001)

    def rest(self, seconds: float) -> None:
        self.watts = 4.0
        _sleep(seconds)


_sleep = time.sleep


def test_energy_is_what_a_call_takes_over_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine()
    monkeypatch.setattr("edgetl.measure.energy.time.sleep", machine.rest)
    meter = Meter("a meter", {"VDD_IN": lambda: machine.watts, "VDD_SOC": lambda: 1.0}, ("VDD_IN",))
    found = measure_energy({"hungry": lambda: machine.work(6.0), "modest": lambda: machine.work(2.0)}, meter, QUICK)
    for name, extra in (("hungry", 6.0), ("modest", 2.0)):
        energy = found[name]
        assert energy.reason is None and energy.rounds > 0 and energy.inferences > 0
        assert energy.idle_w == pytest.approx(4.0) and energy.active_w == pytest.approx(4.0 + extra)
        assert energy.mj is not None and energy.low is not None and energy.high is not None
        assert energy.low <= energy.mj <= energy.high
        assert energy.mj >= extra * 1e3 * 0.001, "a call takes a millisecond at least"
        assert {rail.name: rail.active_w - rail.idle_w for rail in energy.rails} == {
            "VDD_IN": pytest.approx(extra), "VDD_SOC": pytest.approx(0.0),
        }  # fmt: skip


def test_a_meter_that_falls_silent_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    silent = Meter("INA3221 power monitor", {"VDD_IN": lambda: None}, ("VDD_IN",))
    energy = measure_energy({"one": lambda: None}, silent, QUICK)["one"]
    assert energy.mj is None and energy.reason is not None and "stopped answering" in energy.reason


def test_no_energy_is_claimed_where_work_took_no_more_power() -> None:
    energy = measure_energy({"one": lambda: None}, WATTS, QUICK)["one"]
    assert energy.mj is None and energy.reason is not None and "takes more power at work" in energy.reason
    assert energy.idle_w == energy.active_w == 5.0


def test_the_sampler_ends_with_its_context() -> None:
    numbers = count()
    meter = Meter("a meter", {"VDD_IN": lambda: float(next(numbers))}, ("VDD_IN",))
    begin = time.perf_counter()
    with Sampler(meter, 0.001) as sampler:
        while next(numbers) < 5:
            time.sleep(0.001)
    assert sampler.between(begin, time.perf_counter()) is not None
    assert "edgetl-power" not in {thread.name for thread in threading.enumerate()}
