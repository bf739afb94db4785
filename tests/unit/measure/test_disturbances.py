from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetl.measure.disturbances import disturbances
from edgetl.measure.machine import Clock, MachineState, Temperature, probe
from tests.unit.measure.machines import AGX_ORIN, ORIN_NX, THOR, XAVIER_NX, write

QUIET = MachineState(
    clocks=(Clock("GPU", 918, 918, 0.9), Clock("CPU", 1984, 1984)),
    temperatures=(Temperature("tj", 61, 99),),
    throttles={"gpu-throttle-alert": 0, "over-current event 3": 12},
    power_mode="0",
    governor="schedutil",
)


def said(*states: MachineState) -> str:
    return "\n".join(disturbances([replace(state, seconds=float(number)) for number, state in enumerate(states)]))


def test_a_machine_that_held_still_disturbs_nothing() -> None:
    assert said(QUIET, QUIET, QUIET) == ""
    assert disturbances([]) == ()


@pytest.mark.parametrize("files", [AGX_ORIN, THOR], ids=["AGX Orin", "Thor"])
def test_recorded_machines_at_their_clocks_disturb_nothing(files: dict[str, str], tmp_path: Path) -> None:
    read = probe(write(tmp_path, files))
    assert said(*(replace(read(), preemptions=0) for _ in range(3))) == ""


def test_a_recorded_machine_with_slow_clocks_is_told_how_to_fix_them(tmp_path: Path) -> None:
    read = probe(write(tmp_path, XAVIER_NX))
    text = said(*(replace(read(), preemptions=0) for _ in range(3)))
    assert "the GPU ran at 115 MHz, below its 1109: sudo jetson_clocks" in text
    assert "the CPU ran at 1190 MHz, below its 1907: sudo jetson_clocks" in text


def test_a_gpu_that_has_nothing_to_do_is_slow_by_right(tmp_path: Path) -> None:
    read = probe(write(tmp_path, ORIN_NX))
    assert said(*(replace(read(), preemptions=0) for _ in range(3))) == ""


def test_a_clock_that_moved() -> None:
    slower = replace(QUIET, clocks=(Clock("GPU", 880, 918, 0.9), Clock("CPU", 1984, 1984)))
    assert said(QUIET, QUIET, slower) == "the GPU's clock moved between 880 and 918 MHz: sudo jetson_clocks"


@pytest.mark.parametrize(
    ("governor", "advice"), [("powersave", "sudo cpupower frequency-set -g performance"), ("performance", "cool the")]
)
def test_what_helps_a_slow_processor_depends_on_its_governor(governor: str, advice: str) -> None:
    state = MachineState(clocks=(Clock("CPU", 2000, 4700),), governor=governor)
    assert advice in said(state, state)


def test_a_hot_machine() -> None:
    hot = replace(QUIET, temperatures=(Temperature("cpu", 60, 99), Temperature("tj", 97.5, 99)))
    assert "tj reached 98 °C, and at 99 °C the machine slows down" in said(QUIET, hot, QUIET)


def test_over_current_events_are_counted_from_the_first_round() -> None:
    more = replace(QUIET, throttles={"gpu-throttle-alert": 0, "over-current event 3": 15})
    assert "over-current event 3 came 3 times" in said(QUIET, more)
    assert said(more, more) == ""


def test_an_alert_that_stood_all_the_time_is_one() -> None:
    throttled = replace(QUIET, throttles={"gpu-throttle-alert": 1})
    assert "the machine was throttled (gpu-throttle-alert)" in said(throttled, throttled)


def test_a_power_mode_that_changed() -> None:
    assert "the power mode changed from 0 to 2" in said(QUIET, replace(QUIET, power_mode="2"))


def test_other_programs_on_the_core() -> None:
    text = said(QUIET, replace(QUIET, preemptions=400))
    assert "400 times a second" in text and "taskset" in text
    assert said(QUIET, replace(QUIET, preemptions=20)) == ""


@given(
    st.lists(
        st.builds(
            MachineState,
            seconds=st.floats(0, 1e6),
            clocks=st.lists(
                st.builds(
                    Clock, st.sampled_from(["GPU", "CPU"]), st.floats(0, 1e6), st.none() | st.floats(1, 1e6),
                    st.none() | st.floats(0, 1),
                ),
                max_size=3,
            ).map(tuple),
            temperatures=st.lists(
                st.builds(Temperature, st.just("tj"), st.floats(-273, 1e3), st.none() | st.floats(30, 200)), max_size=2
            ).map(tuple),
            throttles=st.dictionaries(st.sampled_from(["a-alert", "over-current event 1"]), st.integers(-1, 9)),
            power_mode=st.none() | st.just("0"),
            governor=st.none() | st.just("performance"),
            preemptions=st.integers(0, 10**6),
        ),
        max_size=4,
    )
)  # fmt: skip
def test_whatever_the_states_each_reason_is_a_line_that_says_what_helps(states: list[MachineState]) -> None:
    for reason in disturbances(states):
        assert "\n" not in reason
        assert re.search(r"sudo|cool|taskset|supply", reason)
