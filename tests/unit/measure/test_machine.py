from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgetl.measure.board import read_board
from edgetl.measure.machine import Clock, MachineState, Temperature, probe
from tests.unit.measure.machines import AGX_ORIN, MACHINES, ORIN_NANO, ORIN_NX, THOR, X86, XAVIER_NX, write


def clocks(state: MachineState) -> dict[str, Clock]:
    return {clock.name: clock for clock in state.clocks}


@pytest.mark.parametrize(
    ("files", "gpu", "cpu", "mode"),
    [
        (ORIN_NANO, Clock("GPU", 624.75, 624.75, 0.73), Clock("CPU", 1510.4, 1510.4), "0"),
        (ORIN_NX, Clock("GPU", 306, 918, 0), Clock("CPU", 1984, 1984), "2"),
        (AGX_ORIN, Clock("GPU", 1300.5, 1300.5, 0.99), Clock("CPU", 2201.6, 2201.6), "0"),
        (THOR, Clock("GPU", 1575, 1575), Clock("CPU", 2601, 2601), "0"),
        (XAVIER_NX, Clock("GPU", 114.75, 1109.25, 0.45), Clock("CPU", 1190.4, 1907.2), "8"),
        (X86, None, Clock("CPU", 3400, 4700), None),
    ],
    ids=["Orin Nano", "Orin NX", "AGX Orin", "Thor", "Xavier NX", "x86"],
)
def test_clocks_and_mode(
    files: dict[str, str], gpu: Clock | None, cpu: Clock, mode: str | None, tmp_path: Path
) -> None:
    state = probe(write(tmp_path, files))()
    assert clocks(state).get("GPU") == gpu
    assert clocks(state)["CPU"] == cpu
    assert state.power_mode == mode


def test_the_memorys_clock_is_told_by_devfreq_on_thor_and_to_root_on_orin(tmp_path: Path) -> None:
    thor, orin = write(tmp_path / "thor", THOR), write(tmp_path / "orin", AGX_ORIN)
    assert clocks(probe(thor)())["memory"] == Clock("memory", 4266, 4266)
    assert clocks(probe(orin)())["memory"] == Clock("memory", 3199, 3199)


def test_temperatures_stand_beside_the_point_where_the_machine_slows_down(tmp_path: Path) -> None:
    state = probe(write(tmp_path, ORIN_NANO))()
    assert set(state.temperatures) == {
        Temperature("cpu", 51.375, 99.0), Temperature("gpu", 48.5, 99.0), Temperature("tj", 51.375, 99.0),
    }  # fmt: skip


def test_throttling_is_counted_and_a_turning_fan_is_none(tmp_path: Path) -> None:
    throttles = probe(write(tmp_path, ORIN_NX))().throttles
    assert throttles["over-current event 3"] == 12
    assert throttles["gpu-throttle-alert"] == 0
    assert "pwm-fan" not in throttles
    assert probe(write(tmp_path / "x86", X86))().throttles["thermal throttling of cpu0"] == 7


def test_a_probe_reads_anew(tmp_path: Path) -> None:
    read = probe(write(tmp_path, ORIN_NX))
    assert clocks(read())["GPU"].mhz == 306
    (tmp_path / "sys/class/devfreq/17000000.gpu/cur_freq").write_text("918000000\n")
    assert clocks(read())["GPU"].mhz == 918


def test_a_machine_that_tells_nothing_has_a_state(tmp_path: Path) -> None:
    state = probe(tmp_path)()
    assert (state.clocks, state.temperatures, dict(state.throttles), state.power_mode) == ((), (), {}, None)
    assert state.seconds > 0


def test_this_machine_has_a_state() -> None:
    read = probe()
    first, second = read(), read()
    assert second.seconds >= first.seconds and second.preemptions >= first.preemptions


def _empty(path: Path) -> None:
    path.write_text("")


def _binary(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 64)


def _word(path: Path) -> None:
    path.write_text("32760 mA\n")


def _huge(path: Path) -> None:
    path.write_text("9" * 5000)


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def _secret(path: Path) -> None:
    path.chmod(0)


DAMAGES = (_empty, _binary, _word, _huge, _folder, _pipe, _loop, _secret, Path.unlink)


@pytest.mark.slow
@settings(max_examples=60)
@given(data=st.data())
def test_no_damage_to_a_machines_files_fails_a_measurement(data: st.DataObject) -> None:
    """Before the files are looked for, or while they are read."""
    files = MACHINES[data.draw(st.sampled_from(sorted(MACHINES)))]
    damaged = data.draw(st.lists(st.sampled_from(sorted(files)), max_size=12, unique=True))
    damages: list[Callable[[Path], object]] = [data.draw(st.sampled_from(DAMAGES)) for _ in damaged]
    before = data.draw(st.booleans())
    root = Path(tempfile.mkdtemp())
    try:
        write(root, files)
        read = None if before else probe(root)
        for name, damage in zip(damaged, damages, strict=True):
            damage(root / name)
        state = (read or probe(root))()
        read_board(root)
    finally:
        shutil.rmtree(root)
    assert all(clock.mhz >= 0 for clock in state.clocks)
    assert all(one.celsius >= -100 for one in state.temperatures)
