"""A machine with a meter: the recorded files of a Jetson in place of this one's."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgetl.measure.energy import EnergyPlan
from edgetl.measure.power import find_meter
from edgetl.stages import measuring
from edgetl.stages.stage import ProgressReporter
from tests.unit.measure.machines import AGX_ORIN, X86, write

QUICK = EnergyPlan(rounds=2, work=0.08, rest=0.04, settle=0.01, period=0.004)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EnergyPlan, "within", lambda *arguments: QUICK)


def test_the_rails_of_the_board_stand_in_the_result(
    quick: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listener: ProgressReporter
) -> None:
    root = write(tmp_path, AGX_ORIN)
    monkeypatch.setattr(measuring, "find_meter", lambda: find_meter(root))
    found = measuring.energies(["one"], lambda *_: {"one": lambda: None}, 1.0, 0, listener)["one"]
    assert found.total_of == ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0")
    assert {rail.name for rail in found.rails} == {*found.total_of, "VDDQ_VDD2_1V8AO"}
    assert found.idle_w == pytest.approx(4.968 * 2.032, abs=1e-3)
    assert found.mj is None and "takes more power at work" in (found.reason or ""), "recorded files stand still"


def test_a_counter_that_rises_while_there_is_work_gives_energy(
    quick: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listener: ProgressReporter
) -> None:
    """Each inference writes two millijoules into the counter's file, so that is what one takes."""
    root = write(tmp_path, X86)
    counter, spent = root / "sys/class/powercap/intel-rapl:0/energy_uj", [1_000_000]
    monkeypatch.setattr(measuring, "find_meter", lambda: find_meter(root))

    def inference() -> None:
        spent[0] += 2_000
        fresh = counter.with_name("fresh")
        fresh.write_text(f"{spent[0]}\n")
        fresh.replace(counter)

    found = measuring.energies(["one"], lambda *_: {"one": inference}, 1.0, 0, listener)["one"]
    assert found.source == "RAPL counters of the processor" and found.idle_w == 0.0
    assert found.mj is not None and 0.5 < found.mj < 8.0, "a busy machine samples at odd moments"
