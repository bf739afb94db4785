from __future__ import annotations

import json

import pytest
from rich.console import Console

from edgetl.artifacts.results import Comparison, DeploymentResult, DeviceTimes, Latency, Percentiles, Profile
from edgetl.errors import NotMetError
from edgetl.report.profile_lines import check_gate, profile_lines, profiles_json
from edgetl.report.terminal import loaded_table


def latency(p50: float = 2.0, why: str | None = None, device: DeviceTimes | None = None) -> Latency:
    figures = {"p50": p50, "p90": p50 + 1, "p99": p50 + 2, "mean": p50, "low": p50 - 0.1, "high": p50 + 0.1}
    return Latency(**figures, samples=100, rounds=50, stable=why is None, why_unstable=why, device=device)


def profile(low: float = 1.02, high: float = 1.04, why: str | None = None, device: str = "a Jetson") -> Profile:
    rows = tuple(
        DeploymentResult(
            name=name, precision="as in the file", runtime="onnxruntime", latency_ms=one, throughput_ips=500.0
        )
        for name, one in (("new.onnx", latency(why=why)), ("old.onnx", latency(1.9)))
    )
    pair = Comparison(a="new.onnx", b="old.onnx", metric="latency", ratio=(low + high) / 2, low=low, high=high)
    return Profile(environment={"device": device}, deployments=rows, comparisons=(pair,))


def test_each_candidate_and_each_pair_has_a_line() -> None:
    assert list(profile_lines(profile())) == [
        "new.onnx: p50 2.000 ms (1.900 to 2.100), p90 3.000, p99 4.000 ms, 500.0 images/s",
        "old.onnx: p50 1.900 ms (1.800 to 2.000), p90 2.900, p99 3.900 ms, 500.0 images/s",
        "new.onnx takes 1.030 times as long as old.onnx (1.020 to 1.040)",
    ]


def test_profiles_of_several_devices_are_one_table_with_candidates_together() -> None:
    elsewhere = profile(device="another\x1b[31m")
    table = loaded_table({"nano.json": profile(), "orin.json": elsewhere})
    with (console := Console(width=160)).capture() as capture:
        console.print(table)
    lines = [line.split() for line in capture.get().splitlines() if ".onnx" in line]
    assert [line[:2] for line in lines] == [
        ["new.onnx", "nano.json"],
        ["new.onnx", "orin.json"],
        ["old.onnx", "nano.json"],
        ["old.onnx", "orin.json"],
    ]
    assert "\x1b" not in capture.get()
    assert len(json.loads(profiles_json([profile(), elsewhere]))) == 2


def test_a_long_path_breaks_between_directories_and_reasons_are_whole() -> None:
    deep, why = "/tmp/some/rather/deeply/nested/place", "it needs an operator that this runtime does not have"
    found = profile(device="a processor with a name of many words")
    rows = tuple(row.model_copy(update={"name": f"{deep}/{row.name}"}) for row in found.deployments)
    rows += (rows[0].model_copy(update={"name": "odd.onnx", "latency_ms": None, "unsupported": why}),)
    table = loaded_table({f"{deep}/profile.json": found.model_copy(update={"deployments": rows})})
    with (console := Console(width=100)).capture() as capture:
        console.print(table)
    words = capture.get().split()
    assert {"new.onnx", "old.onnx", "odd.onnx", "onnxruntime"} <= set(words)
    assert "profile.json" in capture.get()
    assert set(why.split()) <= set(words)


def test_a_device_tells_the_parts_as_trtexec_does() -> None:
    part = Percentiles(p50=1.5, p90=1.6, p99=1.7, mean=1.5)
    times = DeviceTimes(h2d=part, compute=part, d2h=part, latency=part, enqueue=part)
    row = profile().deployments[0].model_copy(update={"latency_ms": latency(device=times)})
    lines = list(profile_lines(profile().model_copy(update={"deployments": (row,), "comparisons": ()})))
    assert lines[1] == (
        "  GPU compute 1.500 ms, H2D 1.500, D2H 1.500, latency 1.500 ms by CUDA events; enqueue 1.500 ms"
    )


def test_the_gate_fails_what_is_proven_slower() -> None:
    with pytest.raises(NotMetError, match=r"1\.080 times as long as old.onnx .*: slower by more than 5.0%"):
        check_gate(profile(1.06, 1.10), 0.05, False, print)


def test_the_gate_passes_what_is_proven_fast_enough(capsys: pytest.CaptureFixture[str]) -> None:
    check_gate(profile(1.02, 1.05), 0.05, True, print)
    check_gate(profile(1.06, 1.10), None, True, print)
    assert capsys.readouterr().out == ""


def test_what_cannot_be_told_passes_with_a_word_and_fails_a_strict_gate(capsys: pytest.CaptureFixture[str]) -> None:
    check_gate(profile(1.04, 1.06), 0.05, False, print)
    assert "undecided whether new.onnx is slower by more than 5.0%" in capsys.readouterr().out
    with pytest.raises(NotMetError, match="measure longer with --seconds"):
        check_gate(profile(1.04, 1.06), 0.05, True, print)


def test_only_a_strict_gate_fails_what_is_unstable() -> None:
    shaky = profile(why="it drifted")
    check_gate(shaky, None, False, print)
    with pytest.raises(NotMetError, match=r"UNSTABLE: new\.onnx"):
        check_gate(shaky, None, True, print)
