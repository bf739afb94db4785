"""The table of devices against what NVIDIA's headlines say of them, and its names."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

import pytest
from pydantic import ValidationError

from edgetl.errors import EdgetlError
from edgetl.measure.devices import Catalogue, catalogue, efficiencies, find_device_peaks

NAMES = [f"{device.name}@{mode.name}" for device in catalogue().devices for mode in device.modes]


def test_every_figure_has_a_source_that_says_where_it_is_from() -> None:
    found = catalogue()
    used = {one.source for one in found.architectures.values()}
    for device in found.devices:
        used |= {device.source, *(mode.source for mode in device.modes)}
    assert used == found.sources.keys()
    assert all(len(source.text) > 20 for source in found.sources.values())


def test_a_figure_without_a_source_is_refused() -> None:
    content = json.loads((resources.files("edgetl.measure") / "devices.json").read_text())
    content["devices"][0]["modes"][0]["source"] = "hearsay"
    with pytest.raises(ValidationError, match="no source 'hearsay'"):
        Catalogue.model_validate(content)


# What NVIDIA calls AI performance is sparse INT8 on Orin, of the GPU alone where there is no DLA.
@pytest.mark.parametrize(
    ("name", "precision", "tops"),
    [
        ("Nano", "fp16", 0.472),
        ("Orin Nano 4GB", "int8", 34 / 2),
        ("Orin Nano 8GB", "int8", 67 / 2),
        ("AGX Orin 64GB", "int8", 170 / 2),
        ("AGX Orin 32GB", "int8", 108 / 2),
        ("AGX Xavier", "fp16", 11),
        ("AGX Xavier", "int8", 22),
        ("Thor T5000", "fp16", 258.5),
        ("Thor T4000", "fp16", 150),
    ],
)
def test_peaks_are_those_that_nvidia_names(name: str, precision: str, tops: float) -> None:
    peaks = {str(key): value for key, value in find_device_peaks(name).peaks.items()}
    assert peaks[precision] / 1e12 == pytest.approx(tops, rel=0.03)


@pytest.mark.parametrize("name", NAMES)
def test_every_device_and_mode_can_be_named(name: str) -> None:
    found = find_device_peaks(name)
    assert found.name == name
    assert found.efficiency.compute.keys() <= found.peaks.keys()


@pytest.mark.parametrize("device", catalogue().devices, ids=lambda device: device.name)
def test_the_first_mode_is_the_fastest(device: object) -> None:
    assert isinstance(device, type(catalogue().devices[0]))
    rates = [mode.gpu_mhz * mode.sms for mode in device.modes]
    assert rates[0] == max(rates)


def test_blanks_hyphens_case_and_jetson_do_not_matter() -> None:
    wanted = find_device_peaks("AGX Orin 64GB@30W")
    assert find_device_peaks("jetson agx-orin 64gb@30w") == find_device_peaks("AGX_ORIN_64GB @ 30w") == wanted
    assert find_device_peaks("Orin Nano 8GB").mode == "MAXN_SUPER"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("Orin Nano", "did you mean Orin Nano 4GB or Orin Nano 8GB"),
        ("Xaver NX", "did you mean Xavier NX"),
        ("TX2", "there are Nano, Xavier NX"),
        ("", "there are Nano"),
        ("Nano@3W", "no power mode '3W' here; it has MAXN, 5W"),
    ],
)
def test_an_unknown_device_is_told_what_there_is(name: str, told: str) -> None:
    with pytest.raises(EdgetlError) as caught:
        find_device_peaks(name)
    assert told in str(caught.value)


def test_what_is_used_is_what_the_benchmark_fitted() -> None:
    results = Path(__file__).parents[3] / "benchmarks" / "results" / "estimate.json"
    if not results.is_file():
        pytest.skip("benchmarks are not part of this copy")
    fitted = json.loads(results.read_text())["jetsons"]
    for name, used in efficiencies().items():
        told = fitted[name]["efficiency"]
        assert used.compute == pytest.approx(told["compute"], rel=1e-3)
        assert [used.bandwidth, used.launch_us, used.spread] == pytest.approx(
            [told["bandwidth"], told["launch_us"], told["spread"]], rel=1e-3
        )
