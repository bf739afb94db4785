from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgetl.errors import EdgetlError
from edgetl.measure import nvml
from edgetl.measure.power import find_meter
from tests.unit.measure.machines import AGX_ORIN, MACHINES, NANO, ORIN_NANO, ORIN_NX, THOR, X86, XAVIER_NX, write
from tests.unit.measure.test_machine import DAMAGES


@pytest.mark.parametrize(
    ("files", "total_of", "watts"),
    [
        (ORIN_NANO, ("VDD_IN",), 5.064 * 1.120),
        (ORIN_NX, ("VDD_IN",), 4.960 * 1.600),
        (AGX_ORIN, ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"), 4.968 * (0.952 + 0.320 + 0.760)),
        (THOR, ("VDD_GPU", "VDD_CPU_SOC_MSS", "VIN_SYS_5V0"), 12.040 * 1.600 + 5.088 * 1.740),
        (XAVIER_NX, ("VDD_IN",), 5.096 * 0.724),
        (NANO, ("POM_5V_IN",), 2.345),
    ],
    ids=["Orin Nano", "Orin NX", "AGX Orin", "Thor", "Xavier NX", "Nano"],
)
def test_the_rails_of_a_jetson_add_up_to_its_module(
    files: dict[str, str], total_of: tuple[str, ...], watts: float, tmp_path: Path
) -> None:
    meter = find_meter(write(tmp_path, files))
    assert meter.total_of == total_of and not meter.counts
    read = {name: read() for name, read in meter.rails.items()}
    assert sum(read[name] or 0.0 for name in total_of) == pytest.approx(watts)
    assert "NC" not in read and "sum of shunt voltages" not in read


def test_the_input_of_a_whole_thor_is_a_rail_beside_the_module(tmp_path: Path) -> None:
    assert find_meter(write(tmp_path, THOR)).rails["VIN"]() == pytest.approx(40.125)


def test_a_processor_counts_joules_and_says_where_it_begins_anew(tmp_path: Path) -> None:
    meter = find_meter(write(tmp_path, X86))
    assert (meter.total_of, meter.counts) == (("package-0",), True)
    assert meter.rails["package-0"]() == 1.0
    assert meter.wraps == {"package-0": pytest.approx(262143.32885), "core": pytest.approx(262143.32885)}


def test_counters_for_root_alone_are_told_with_what_opens_them(tmp_path: Path) -> None:
    root = write(tmp_path, X86)
    for path in root.glob("sys/class/powercap/*/energy_uj"):
        path.unlink()
        path.mkdir()
    with pytest.raises(EdgetlError, match=r"counters are for root alone \(sudo chmod a\+r"):
        find_meter(root)


def test_rails_of_no_known_module_are_not_added_up(tmp_path: Path) -> None:
    root = write(tmp_path, {
        "sys/bus/i2c/devices/1-0040/hwmon/hwmon1/in1_label": "VDD_NEW\n",
        "sys/bus/i2c/devices/1-0040/hwmon/hwmon1/in1_input": "5000\n",
        "sys/bus/i2c/devices/1-0040/hwmon/hwmon1/curr1_input": "100\n",
    })  # fmt: skip
    with pytest.raises(EdgetlError, match="power rails VDD_NEW are of no module that is known"):
        find_meter(root)


def test_a_machine_without_a_meter_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(EdgetlError, match=r"no INA3221 .* no energy counters"):
        find_meter(tmp_path)


@pytest.mark.slow
@settings(max_examples=60)
@given(data=st.data())
def test_no_damage_to_a_machines_files_fails_its_meter(data: st.DataObject) -> None:
    files = MACHINES[data.draw(st.sampled_from(sorted(MACHINES)))]
    damaged = data.draw(st.lists(st.sampled_from(sorted(files)), max_size=8, unique=True))
    root = Path(tempfile.mkdtemp())
    try:
        write(root, files)
        meter = None if data.draw(st.booleans()) else find_meter(root)
        for name in damaged:
            data.draw(st.sampled_from(DAMAGES))(root / name)
        try:
            meter = meter or find_meter(root)
        except EdgetlError as error:
            assert "\n" not in str(error)
            return
        values = [read() for read in meter.rails.values()]
        assert all(value is None or value >= 0 for value in values)
    finally:
        shutil.rmtree(root)


def test_without_a_driver_that_is_a_clear_line() -> None:
    with pytest.raises(EdgetlError, match=r"no libnone-such\.so is here"):
        nvml.Gpu("libnone-such.so")
