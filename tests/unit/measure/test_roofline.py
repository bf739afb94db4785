"""The model of latency against figures worked out by hand, and laws that any such model has to keep."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetl.artifacts.measurements import KernelCost
from edgetl.errors import EdgetlError
from edgetl.measure.devices import DevicePeaks, Efficiency, find_device_peaks
from edgetl.measure.roofline import estimate, main_precision, prepared

TARGET = DevicePeaks(
    device="a device",
    mode="a mode",
    peaks={"fp32": 1e9, "fp16": 2e9},
    bandwidth=1e8,
    memory_mb=1000,
    efficiency=Efficiency(compute={"fp32": 0.5, "fp16": 0.25}, bandwidth=0.8, launch_us=100, spread=1.5),
)


def test_a_kernel_takes_the_longer_of_its_work_and_its_bytes_and_its_launch() -> None:
    waits = KernelCost(flops=1_000_000, bits=32, bytes=400_000)  # 2 ms of work, 5 ms of bytes
    works = KernelCost(flops=2_000_000, bits=16, bytes=80_000)  # 4 ms of work at a quarter of the peak, 1 ms of bytes
    moves = KernelCost(flops=0, bits=64, bytes=80_000)
    found = estimate([waits, works, moves], TARGET)
    assert found.middle == pytest.approx(5 + 4 + 1 + 3 * 0.1)
    assert (found.low, found.high) == pytest.approx((found.middle / 1.5, found.middle * 1.5))


def test_nothing_takes_no_time() -> None:
    assert estimate([], TARGET).high == 0.0


kernels = st.builds(
    KernelCost, flops=st.integers(0, 10**12), bits=st.sampled_from((8, 16, 32)), bytes=st.integers(0, 10**10)
)
networks = st.lists(kernels, min_size=1, max_size=5)
targets = st.sampled_from(("Xavier NX", "Orin Nano 8GB@15W", "AGX Orin 64GB", "Thor T5000")).map(find_device_peaks)
more = st.floats(1.0, 100.0)


@given(network=networks, target=targets)
def test_the_interval_is_ordered(network: list[KernelCost], target: DevicePeaks) -> None:
    found = estimate(network, target)
    assert 0 < found.low <= found.middle <= found.high


@given(network=networks, target=targets, factor=more)
def test_more_work_or_more_bytes_is_never_faster(network: list[KernelCost], target: DevicePeaks, factor: float) -> None:
    least = estimate(network, target).middle
    works = [replace(one, flops=int(one.flops * factor)) for one in network]
    moves = [replace(one, bytes=one.bytes * factor) for one in network]
    assert estimate(works, target).middle >= least
    assert estimate(moves, target).middle >= least


@given(network=networks, target=targets, factor=more)
def test_a_faster_clock_or_memory_is_never_slower(
    network: list[KernelCost], target: DevicePeaks, factor: float
) -> None:
    most = estimate(network, target).middle
    faster = {precision: peak * factor for precision, peak in target.peaks.items()}
    assert estimate(network, target.model_copy(update={"peaks": faster})).middle <= most
    assert estimate(network, target.model_copy(update={"bandwidth": target.bandwidth * factor})).middle <= most


@given(network=networks, target=targets, layer=kernels)
def test_one_more_layer_is_always_slower(network: list[KernelCost], target: DevicePeaks, layer: KernelCost) -> None:
    assert estimate([*network, layer], target).middle > estimate(network, target).middle


@given(network=networks)
def test_a_narrower_precision_moves_no_more_and_widens_nothing(network: list[KernelCost]) -> None:
    halves = prepared(network, "fp16")
    assert all(half.bits == min(one.bits, 16) for one, half in zip(network, halves, strict=True))
    assert all(half.bytes <= one.bytes for one, half in zip(network, halves, strict=True))


def test_a_network_is_called_after_the_precision_of_most_of_its_work() -> None:
    mixed = [KernelCost(10, 8, 1), KernelCost(9, 32, 100)]
    assert main_precision(mixed) == "int8"
    assert main_precision([]) == "fp32"


def test_what_a_device_cannot_compute_is_refused() -> None:
    with pytest.raises(EdgetlError, match="Nano cannot run int8; it runs fp32, fp16"):
        estimate([KernelCost(10, 8, 10)], find_device_peaks("Nano"))
    with pytest.raises(EdgetlError, match="arithmetic on 64 bits"):
        estimate([KernelCost(10, 64, 10)], TARGET)
