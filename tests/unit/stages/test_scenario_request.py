from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetl.errors import EdgetlError
from edgetl.stages.scenario_request import ScenarioRequest, rates_of, read_rates, refuse_shared_scratch

GROUPS = {"signs": "signs", "people": "people"}


@given(st.text(min_size=1), st.floats(0.1, 1e9))
def test_a_rate_is_read_as_it_was_written(name: str, rate: float) -> None:
    assert read_rates([f"{name}={rate!r}"]) == ((name, rate),)


@given(st.text())
def test_whatever_is_written_is_a_rate_or_one_clear_line(text: str) -> None:
    try:
        ((name, rate),) = read_rates([text])
    except EdgetlError as error:
        assert str(error).startswith(f"--rate {text} is ")
    else:
        assert name and 0.1 <= rate < float("inf")


@pytest.mark.parametrize(
    "text", ["signs", "signs=", "=5", "signs=0", "signs=-5", "signs=nan", "signs=inf", "signs=5Hz"]
)
def test_what_is_no_rate_is_refused_with_what_to_write(text: str) -> None:
    with pytest.raises(EdgetlError, match=r"is not NAME=HZ with a rate above 0; write for example signs=5"):
        read_rates([text])


def test_a_rate_that_takes_minutes_to_measure_is_refused() -> None:
    with pytest.raises(EdgetlError, match=r"signs=0\.01 is slower than 0\.1 Hz"):
        read_rates(["signs=0.01"])


@pytest.mark.parametrize(
    ("rates", "fault"),
    [
        ((("sings", 5.0),), r"--rate sings=5 names no group \(did you mean signs\?\); there are signs, people"),
        ((("signs", 5.0),), r"cadence needs the rate of each group, and people has none; add --rate people=HZ"),
        ((("signs", 5.0), ("signs", 6.0)), r"--rate gives signs two rates; give it once"),
    ],
)
def test_rates_have_to_fit_the_groups(rates: tuple[tuple[str, float], ...], fault: str) -> None:
    with pytest.raises(EdgetlError, match=fault):
        rates_of(ScenarioRequest(rates=rates), GROUPS, "group")


def test_one_thing_may_have_several_names_but_one_rate() -> None:
    names = {"a": "nets/a.onnx", "nets/a.onnx": "nets/a.onnx"}
    assert rates_of(ScenarioRequest(rates=(("a", 5.0),)), names, "file") == {"nets/a.onnx": 5.0}
    with pytest.raises(EdgetlError, match=r"gives nets/a\.onnx two rates"):
        rates_of(ScenarioRequest(rates=(("a", 5.0), ("nets/a.onnx", 5.0))), names, "file")


def test_a_measurement_without_scenarios_depends_on_nothing_more() -> None:
    assert ScenarioRequest().settings() == {}
    assert ScenarioRequest(("cadence",), (("signs", 5.0),)).settings() == {
        "scenarios": {"scenarios": ["cadence"], "rates": {"signs": 5.0}, "query_size": 8, "batch": 1, "streams": 1}
    }


def test_engines_that_share_scratch_memory_are_not_measured_at_once() -> None:
    for order in (ScenarioRequest(("concurrent",)), ScenarioRequest(("offline",), streams=2)):
        refuse_shared_scratch(order, shared=False)
        with pytest.raises(EdgetlError, match="engines that share scratch memory never run at once"):
            refuse_shared_scratch(order, shared=True)
    refuse_shared_scratch(ScenarioRequest(("cadence", "offline")), shared=True)
